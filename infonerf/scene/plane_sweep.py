"""The plane that each pixel of a photograph lies on, from other photographs of the same thing: multi-view stereo.

A plane sweep at half size finds for every pixel the plane (inverse depth and slant) on which another photograph,
warped by the plane's homography, looks most like this one; then pixels try the planes of their neighbours and small
changes of their own, at half and at the whole size (PatchMatch: Bleyer, Rhemann, Rother, BMVC 2011). "Looks like" is
the zero-mean normalised cross-correlation (ZNCC) of grey windows, which changes of exposure leave as it is; of several
sources the best one counts, as a place may be hidden in others.

Axes: h w pixels, k pixels of a window. Places in images are in pixels, the outer corner of the first one being 0 0.
A plane is its inverse depth at a pixel and how that changes per column and per row: inverse depth is linear in the
image of a plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PLANES = 128  # of the sweep, for each slant
SLANTS = ((0, 0), (0.7, 0), (-0.7, 0), (0, 0.7), (0, -0.7))  # x and y of a plane's normal over its z
SWEEP_WINDOW = 7  # pixels a side, at half size
REACH, STRIDE = 5, 2  # of the refinement's window: 11 pixels a side, every second of them
HALF_ROUNDS, ROUNDS = 3, 2  # of the refinement, at half size and at the whole size
SLOPE = 0.3  # of a random change, in inverse depths per width of the image
SAME_COLOUR = 0.1  # standard deviation of what a window takes for one surface, in grey levels 0..1
LEAST_VARIANCE = 1e-4  # of a window that says anything


class Planes(NamedTuple):
    """A plane for each pixel, h w each: inverse depth at the pixel, and its change per column and row."""

    inverse: Tensor
    per_col: Tensor
    per_row: Tensor

    def where(self, better: Tensor, others: "Planes") -> "Planes":
        return Planes(*(torch.where(better, *pair) for pair in zip(others, self, strict=True)))


@dataclass(frozen=True)
class View:
    """A photograph (grey, h w) and its camera in COLMAP's axes: k 3 3; rotation 3 3, translation 3, world to camera."""

    grey: Tensor
    k: Tensor
    rotation: Tensor
    translation: Tensor

    def to(self, device: torch.device | str) -> "View":
        return View(*(part.to(device) for part in (self.grey, self.k, self.rotation, self.translation)))

    def halved(self) -> "View":
        height, width = (size // 2 * 2 for size in self.grey.shape)
        grey = functional.avg_pool2d(self.grey[None, None, :height, :width], 2)[0, 0]
        return View(grey, self.k * self.k.new_tensor([[0.5], [0.5], [1]]), self.rotation, self.translation)

    def rays(self) -> Tensor:
        """h w 3: points at depth 1 through the pixels' centres."""
        cols, rows = centres(self.grey)
        return torch.stack([cols, rows, torch.ones_like(rows)], dim=-1) @ torch.linalg.inv(self.k).t()


def centres(image: Tensor) -> tuple[Tensor, Tensor]:
    """h w each: the columns and rows of the pixels' centres."""
    height, width = image.shape
    rows, cols = (torch.arange(size, device=image.device) + 0.5 for size in (height, width))
    return cols.expand(height, width), rows[:, None].expand(height, width)


@dataclass(frozen=True)
class Pair:
    """How a view's pixels on planes look in a source: the source's pixel, homogeneous, is start (h w 3, of the pixel)
    + shift (3) x inverse depth. per_col, per_row: 3, how start changes from pixel to pixel."""

    source: View
    start: Tensor
    shift: Tensor
    per_col: Tensor
    per_row: Tensor

    @classmethod
    def of(cls, view: View, source: View) -> "Pair":
        rotation = source.rotation @ view.rotation.t()
        translation = source.translation - rotation @ view.translation
        by_pixel = source.k @ rotation @ torch.linalg.inv(view.k)
        start = view.rays() @ (source.k @ rotation).t()
        return cls(source, start, source.k @ translation, by_pixel[:, 0], by_pixel[:, 1])

    def sampled(self, inverse: Tensor, d_col: float = 0, d_row: float = 0) -> Tensor:
        """h w: the source's grey levels where the pixels d_col, d_row away lie at these inverse depths (h w); NaN where
        that is outside of it or behind its camera."""
        start = self.start + (d_col * self.per_col + d_row * self.per_row)
        x, y, z = (start + inverse[..., None] * self.shift).unbind(-1)
        return sample(self.source.grey, x / z, y / z).masked_fill(z <= 0, torch.nan)


def sample(image: Tensor, cols: Tensor, rows: Tensor) -> Tensor:
    """An image (h w) at places in pixels (its outer corner is 0 0), bilinearly; NaN outside."""
    height, width = image.shape
    places = torch.stack([cols * (2 / width) - 1, rows * (2 / height) - 1], dim=-1)
    found = functional.grid_sample(image[None, None], places[None].nan_to_num(2, 2, 2), padding_mode="border",
                                   align_corners=False)[0, 0]  # fmt: skip
    return found.masked_fill(~(places.abs() < 1).all(-1), torch.nan)


# The sweep.


def box(image: Tensor, size: int = SWEEP_WINDOW) -> Tensor:
    """h w: means of windows; at the edge, of what lies within the image."""
    return functional.avg_pool2d(image[None, None], size, 1, size // 2, count_include_pad=False)[0, 0]


def sweep(view: View, pairs: Sequence[Pair], nearest: float, farthest: float) -> Planes:
    """For each pixel the plane of the best correlation; inverse depths from `farthest` to `nearest`."""
    rays, grey = view.rays(), view.grey
    mean, variance = box(grey), (box(grey.square()) - box(grey).square()).clamp_min(LEAST_VARIANCE)
    best = torch.full_like(grey, -torch.inf)
    planes = Planes(*(torch.zeros_like(grey) for _ in range(3)))
    for slant_x, slant_y in SLANTS:
        linear = 1 + slant_x * rays[..., 0] + slant_y * rays[..., 1]  # a plane's inverse depth, but for its scale
        per_col, per_row = slant_x / view.k[0, 0], slant_y / view.k[1, 1]
        for scale in torch.linspace(float(farthest), float(nearest), PLANES).tolist():
            inverse = scale * linear
            for pair in pairs:
                other = pair.sampled(inverse)
                inside, other = other.isfinite(), other.nan_to_num()
                other_mean = box(other)
                covariance = box(grey * other) - mean * other_mean
                other_variance = (box(other.square()) - other_mean.square()).clamp_min(LEAST_VARIANCE)
                score = covariance / (variance * other_variance).sqrt()
                possible = inside & (inverse <= nearest) & (inverse >= farthest)
                better = possible & (score > best)
                best = torch.where(better, score, best)
                new = Planes(inverse, *(torch.full_like(grey, float(scale * slope)) for slope in (per_col, per_row)))
                planes = planes.where(better, new)
    return planes


# The refinement.


@dataclass(frozen=True)
class Window:
    """The pixels around each pixel that its plane is judged by. offsets: k pairs of columns and rows. grey, weights:
    k h w, the weights adding up to 1; greater where the colour is that of the pixel itself."""

    offsets: Sequence[tuple[int, int]]
    grey: Tensor
    weights: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, grey: Tensor, reach: int = REACH, stride: int = STRIDE) -> "Window":
        steps = range(-reach, reach + 1, stride)
        offsets = [(col, row) for row in steps for col in steps]
        edge = functional.pad(grey[None, None], [reach] * 4, mode="replicate")[0, 0]
        height, width = grey.shape
        around = torch.stack([
            edge[reach + row : reach + row + height, reach + col : reach + col + width] for col, row in offsets
        ])  # fmt: skip
        distances = grey.new_tensor([(col**2 + row**2) / (2 * (reach / 2) ** 2) for col, row in offsets])
        weights = torch.exp(-((around - grey) / SAME_COLOUR).square() / 2 - distances[:, None, None])
        weights = weights / weights.sum(0)
        mean = (weights * around).sum(0)
        return cls(offsets, around, weights, mean, (weights * around.square()).sum(0) - mean.square())

    def correlation(self, pair: Pair, planes: Planes) -> Tensor:
        """h w: ZNCC with the source, -1 where the window leaves it, or shows nothing."""
        mean, square, product = (torch.zeros_like(planes.inverse) for _ in range(3))
        for (col, row), grey, weight in zip(self.offsets, self.grey, self.weights, strict=True):
            inverse = planes.inverse + col * planes.per_col + row * planes.per_row
            other = pair.sampled(inverse, col, row)
            weighted = weight * other
            mean, square, product = mean + weighted, square + weighted * other, product + weighted * grey
        variance = square - mean.square()
        score = (product - mean * self.mean) / (variance * self.variance).clamp_min(LEAST_VARIANCE**2).sqrt()
        shown = (self.variance > LEAST_VARIANCE) & (variance > LEAST_VARIANCE)
        return torch.where(shown & score.isfinite(), score.clamp(-1, 1), -1)


def best_correlation(window: Window, pairs: Sequence[Pair], planes: Planes) -> Tensor:
    return torch.stack([window.correlation(pair, planes) for pair in pairs]).amax(0)


def moved(planes: Planes, col: int, row: int) -> Planes:
    """Each pixel's plane is that of the pixel `col` `row` away, extended to it."""
    parts = [torch.roll(part, (-row, -col), dims=(0, 1)) for part in planes]
    return Planes(parts[0] - col * parts[1] - row * parts[2], *parts[1:])


def refined(planes: Planes, window: Window, pairs: Sequence[Pair], nearest: float, farthest: float,
            generator: torch.Generator, rounds: int) -> tuple[Planes, Tensor]:
    """Better planes, and their correlation."""
    step, score = (nearest - farthest) / PLANES, best_correlation(window, pairs, planes)

    def attempt(new: Planes) -> None:
        nonlocal planes, score
        inside = (new.inverse >= farthest) & (new.inverse <= nearest)
        found = torch.where(inside, best_correlation(window, pairs, new), -1)
        planes, score = planes.where(found > score, new), torch.maximum(found, score)

    def changed(scale: float) -> Planes:
        draws = torch.randn(3, *planes.inverse.shape, generator=generator).to(planes.inverse)
        slope = SLOPE * planes.inverse / planes.inverse.shape[1]
        return Planes(*(part + scale * size * draw for part, size, draw in
                        zip(planes, (step, slope, slope), draws, strict=True)))  # fmt: skip

    for turn in range(rounds):
        far = (7, 5, 3, 2)[turn % 4]
        for col, row in ((1, 0), (-1, 0), (0, 1), (0, -1), (far, 0), (-far, 0), (0, far), (0, -far)):
            attempt(moved(planes, col, row))
        for scale in (1.0, 0.3, 0.1):
            attempt(changed(scale / (1 + turn / 2)))
    return planes, score


def planes_of(view: View, sources: Sequence[View], nearest: float, farthest: float) -> tuple[Planes, Tensor]:
    """The plane of each pixel of a view, of inverse depths from `farthest` to `nearest` (0: infinity), and how well it
    suits the best of the sources, h w: ZNCC, -1 where none shows it. The same call gives the same planes."""
    half, generator = view.halved(), torch.Generator().manual_seed(0)
    pairs = [Pair.of(half, source.halved()) for source in sources]
    planes = sweep(half, pairs, nearest, farthest)
    planes, _ = refined(planes, Window.of(half.grey), pairs, nearest, farthest, generator, HALF_ROUNDS)
    planes, pairs = doubled(planes, view.grey.shape), [Pair.of(view, source) for source in sources]
    return refined(planes, Window.of(view.grey), pairs, nearest, farthest, generator, ROUNDS)


def doubled(planes: Planes, size: Sequence[int]) -> Planes:
    """Planes of an image of half the size -> of this size."""
    whole = [functional.interpolate(part[None, None], size=tuple(size), mode="nearest")[0, 0] for part in planes]
    return Planes(whole[0], whole[1] / 2, whole[2] / 2)
