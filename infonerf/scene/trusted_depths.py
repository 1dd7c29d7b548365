"""Which depths that were found in photographs to trust, and what lies between them.

A depth is trusted where the photographs correlate, where another view's depth says the same, and where its own
neighbours do. Gaps within a plane, plain walls between windows, are filled where a plane fits all that is trusted
around them. Axes: h w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from infonerf.scene.plane_sweep import View, centres, sample

CORRELATION = 0.6  # least, of a depth that is trusted
AGREEMENT = 0.01  # greatest difference of two views' depths, relative
PIXELS_APART = 1.0  # greatest distance of a pixel from itself, by way of another view
REACH = 3  # pixels: of the neighbours that must agree
ALIKE = 0.02  # greatest difference of their inverse depths, relative
FEWEST = 6  # of them
SIGMA = 4.0  # pixels: of the weights with which a plane is fitted to what is around
LEAST_AROUND = 0.15  # share of these weights that is trusted, for a gap to be filled
RESIDUAL = 0.006  # of the fit, root mean square, relative
OUTLIER = 0.012  # what is farther from the fit is left out of the next one
FITS = 3
FILLED = 0.5  # how far a filled depth is trusted


class DepthMap(NamedTuple):
    """Of one view, h w: z-depth, and how far to trust it: ZNCC, or FILLED, or 0 for not at all."""

    depth: Tensor
    confidence: Tensor


def trusted(views: Sequence[View], depths: Sequence[Tensor], scores: Sequence[Tensor],
            others: Sequence[Sequence[int]]) -> list[DepthMap]:
    """Of each view its depth, what is trusted of it and what is filled. others: of each view those that it is compared
    with."""
    maps = []
    for view, depth, score, its_others in zip(views, depths, scores, others, strict=True):
        agreed = agreement(view, depth, [(views[i], depths[i]) for i in its_others])
        agreed = supported(1 / depth, agreed & (score > CORRELATION))
        maps.append(filled(DepthMap(depth, torch.where(agreed, score, 0))))
    return maps


def agreement(view: View, depth: Tensor, others: Sequence[tuple[View, Tensor]]) -> Tensor:
    """h w bool: where the depth map of one of the others says the same of the same place."""
    points, (cols, rows) = depth[..., None] * view.rays(), centres(depth)
    agreed = torch.zeros_like(depth, dtype=torch.bool)
    for other, its_depth in others:
        rotation = other.rotation @ view.rotation.t()
        translation = other.translation - rotation @ view.translation
        there = points @ rotation.t() + translation
        x, y, z = (there @ other.k.t()).unbind(-1)
        found = 1 / sample(1 / its_depth, x / z, y / z)
        alike = ((found - z).abs() < AGREEMENT * z) & (z > 0)
        back = (found / z)[..., None] * there - translation
        x, y, z = (back @ rotation @ view.k.t()).unbind(-1)
        agreed |= alike & (torch.hypot(x / z - cols, y / z - rows) <= PIXELS_APART)
    return agreed


def supported(inverse: Tensor, among: Tensor) -> Tensor:
    """h w bool: those `among` the pixels around which at least FEWEST others have the same inverse depth."""
    height, width = inverse.shape
    around = functional.pad(torch.where(among, inverse, torch.inf)[None, None], [REACH] * 4, value=torch.inf)[0, 0]
    count = torch.zeros_like(inverse)
    for row in range(2 * REACH + 1):
        for col in range(2 * REACH + 1):
            count += (around[row : row + height, col : col + width] - inverse).abs() < ALIKE * inverse
    return among & (count > FEWEST)  # itself is one of them


def filled(found: DepthMap) -> DepthMap:
    """With the depths of a plane in the gaps that it fits."""
    known = found.confidence > 0
    inverse, used = torch.where(known, 1 / found.depth, 0).double(), known
    for _ in range(FITS):
        fit, fits = fitted_planes(inverse, used)
        used = known & ((inverse / fit - 1).abs() < OUTLIER)
    gap = fits & ~known
    return DepthMap(torch.where(gap, 1 / fit, found.depth).float(), torch.where(gap, FILLED, found.confidence))


def fitted_planes(inverse: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse depth of the plane, linear in the image, that fits the used pixels around each pixel, and where it
    fits, h w each: with enough of them, and not to one side. float64."""
    cols, rows = (axis.double() for axis in centres(inverse))
    weight = used.double()
    share = blurred(weight)

    def mean(values: Tensor) -> Tensor:
        return blurred(weight * values) / share.clamp_min(1e-9)

    x, y, w = mean(cols), mean(rows), mean(inverse)
    xx, xy, yy = mean(cols**2) - x**2 + 0.5, mean(cols * rows) - x * y, mean(rows**2) - y**2 + 0.5
    wx, wy = mean(inverse * cols) - w * x, mean(inverse * rows) - w * y
    ww, determinant = mean(inverse**2) - w**2, xx * yy - xy**2
    per_col, per_row = (wx * yy - wy * xy) / determinant, (wy * xx - wx * xy) / determinant
    fit = w + per_col * (cols - x) + per_row * (rows - y)
    residual = (ww - per_col * wx - per_row * wy).clamp_min(0).sqrt()
    one_sided = torch.hypot(x - cols, y - rows) > SIGMA
    return fit.clamp_min(1e-9), (share > LEAST_AROUND) & (residual < RESIDUAL * w) & (fit > 0) & ~one_sided


def blurred(values: Tensor) -> Tensor:
    """Means with Gaussian weights; 0 beyond the edge."""
    reach = int(3 * SIGMA)
    steps = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-(steps**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    along = functional.conv2d(values[None, None], kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(along, kernel.view(1, 1, 1, -1), padding=(0, reach))[0, 0]
