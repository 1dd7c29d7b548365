"""What whole pictures would show, estimated in less time: PSNR by random rays, in seconds, and PSNR and SSIM by random
tiles, in minutes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from infonerf.evaluation.metrics import WINDOW, mse, psnr, psnr_of_mse, ssim
from infonerf.rendering.renderer import Renderer
from infonerf.scene.cameras import Rays
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError

ENOUGH = 50  # rays, for the two numbers a channel that correct its colours
SIDE = 12  # SSIM windows of a tile, at most: with the pixels around their centres, 22 x 22 are rendered
EDGE = WINDOW // 2


# Random rays.


class DrawnRays(NamedTuple):
    """Random rays of one view, the colours of their pixels (n 3), and on the CPU which its mask has (n), if any."""

    rays: Rays
    truth: Tensor
    mask: Tensor | None


def draw_rays(scene: Scene, views: Sequence[int], n_rays: int, device: torch.device) -> list[DrawnRays]:
    """`n_rays` in all, equally many of each view and at least one. The same at every call, whatever the device."""
    generator, drawn = torch.Generator().manual_seed(0), []
    for view in views:
        rays = scene.cameras.at([view]).to(device).image_rays()
        chosen = torch.randint(len(rays), (max(n_rays // len(views), 1),), generator=generator)
        truth = torch.from_numpy(scene.photographs.image(view)).flatten(0, 1)[chosen].to(device)
        mask = torch.from_numpy(scene.photographs.mask(view)).flatten()[chosen] if scene.photographs.mask else None
        drawn.append(DrawnRays(rays.at(chosen.to(device)), truth, mask))
    return drawn


def psnr_of_rays(
    renderer: Renderer, drawn: list[DrawnRays], progress: Callable[[int], None] = lambda n: None,
    colour_correct: bool = False,
) -> dict[str, float]:
    """psnr and, where there are masks, psnr_masked: the mean of the views' PSNRs, as in a paper's table; psnr_pooled,
    that of the mean squared error. A view of which no ray is in the mask has no part in psnr_masked.

    colour_correct: also psnr_corrected and psnr_corrected_masked, of colours corrected view by view, of the views with
    at least ENOUGH rays.
    """
    errors = defaultdict(list)
    for rays, pixels, mask in drawn:
        rgb = renderer.last_pass(rays, progress).rgb.cpu().double()
        truth = pixels.cpu().double()
        parts = {"": slice(None)} | ({"_masked": mask} if mask is not None and mask.any() else {})
        for suffix, part in parts.items():
            errors[f"psnr{suffix}"].append(mse(rgb[part], truth[part]))
            if colour_correct and len(truth[part]) >= ENOUGH:
                corrected = colour_corrected(rgb[part], truth[part])
                errors[f"psnr_corrected{suffix}"].append(mse(corrected, truth[part]))
    pooled = psnr_of_mse(sum(errors["psnr"]) / len(drawn))
    return {name: mean_psnr(of_views) for name, of_views in errors.items()} | {"psnr_pooled": pooled}


def colour_corrected(rgb: Tensor, truth: Tensor) -> Tensor:
    """n 3 -> n 3: each channel times the gain and plus the offset with which it comes nearest to the truth (least
    squares), within 0..1. A photograph of another exposure can so be compared with a rendering."""
    centred = rgb - rgb.mean(0)
    gain = (centred * truth).sum(0) / centred.square().sum(0).clamp(min=1e-12)
    return (truth.mean(0) + gain * centred).clamp(0, 1)


def mean_psnr(errors: list[float]) -> float:
    return sum(map(psnr_of_mse, errors)) / len(errors)


# Random tiles.


def draw_tiles(scene: Scene, views: Sequence[int], n_tiles: int) -> list[np.ndarray]:
    """For each view a mask, h w bool: the centres of the SSIM windows of its tiles. `n_tiles` in all, equally many of
    each view and at least one, spread over it: one of each stretch of tiles, row by row. The same at every call."""
    rng, drawn = np.random.default_rng(0), []
    for view in views:
        height, width = scene.size(view)
        if min(height, width) < WINDOW:
            raise InputError(f"--tiles: view {scene.view_names[view]} of {scene.name} has {width} x {height} pixels, "
                             f"expected {WINDOW} x {WINDOW} at least")
        tiles = [(rows, cols) for rows in spans(height) for cols in spans(width)]
        each = min(max(n_tiles // len(views), 1), len(tiles))
        centres = np.zeros((height, width), bool)
        for stretch in np.array_split(np.arange(len(tiles)), each):
            centres[tiles[rng.choice(stretch)]] = True
        drawn.append(centres)
    return drawn


def spans(size: int) -> list[slice]:
    """The centres of all windows along one side of a picture, in parts of at most SIDE."""
    parts = np.array_split(np.arange(EDGE, size - EDGE), -(-(size - 2 * EDGE) // SIDE))
    return [slice(part[0], part[-1] + 1) for part in parts]


def rendered_pixels(centres: np.ndarray) -> np.ndarray:
    """h w bool: all pixels of the windows with these centres."""
    return cv2.dilate(centres.astype(np.uint8), np.ones((WINDOW, WINDOW), np.uint8)) > 0


def measure_tiles(
    renderer: Renderer, scene: Scene, view: int, centres: np.ndarray, progress: Callable[[int], None] = lambda n: None
) -> dict[str, float]:
    """Render one view's tiles and measure them: mse, psnr, ssim and, where the scene has masks, psnr_masked and
    ssim_masked, which are NaN where no tile meets the mask. Of all tiles they are those of the whole picture.

    A pixel at the picture's edge, where no window has its centre, counts to the tile beside it."""
    photographs, device = scene.photographs, renderer.networks.device
    pixels = rendered_pixels(centres)
    indices = torch.from_numpy(np.flatnonzero(pixels)).to(device)
    rays = scene.cameras.at([view]).to(device).image_rays().at(indices)
    rgb, truth = np.zeros((*scene.size(view), 3)), photographs.image(view)
    rgb[pixels] = renderer.last_pass(rays, progress).rgb.cpu().numpy()
    own = np.pad(centres[EDGE:-EDGE, EDGE:-EDGE], EDGE, mode="edge")
    result = {"mse": mse(rgb, truth, own), "psnr": psnr(rgb, truth, own), "ssim": ssim(rgb, truth, centres)}
    if photographs.mask:
        mask = photographs.mask(view)
        result |= {"psnr_masked": psnr(rgb, truth, own & mask), "ssim_masked": ssim(rgb, truth, centres & mask)}
    return result
