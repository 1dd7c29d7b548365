"""PSNR and SSIM of random tiles of views: in minutes, an estimate of what whole pictures show in hours."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from infonerf.evaluation.metrics import WINDOW, mse, psnr, ssim
from infonerf.rendering.pictures import Renderer
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError
from infonerf.training.sampler import cameras_of, image_rays

SIDE = 12  # SSIM windows of a tile, at most: with the pixels around their centres, 22 x 22 are rendered
EDGE = WINDOW // 2


def draw_tiles(scene: Scene, views: Sequence[int], n_tiles: int) -> list[np.ndarray]:
    """For each view a mask, h w bool: the centres of the SSIM windows of its tiles. `n_tiles` in all, equally many of
    each view and at least one, spread over it: one of each run of tiles, row by row. The same at every call."""
    height, width = scene.height, scene.width
    if min(height, width) < WINDOW:
        raise InputError(f"--tiles: views of {scene.name} have {width} x {height} pixels, expected {WINDOW} x {WINDOW} "
                         "at least")
    rng, tiles = np.random.default_rng(0), [(rows, cols) for rows in spans(height) for cols in spans(width)]
    drawn = []
    each = min(max(n_tiles // len(views), 1), len(tiles))
    for _ in views:
        centres = np.zeros((height, width), bool)
        for run in np.array_split(np.arange(len(tiles)), each):
            centres[tiles[rng.choice(run)]] = True
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
    rays = image_rays(cameras_of(scene, [view], renderer.pixel_center, renderer.device), scene.height, scene.width)
    pixels = rendered_pixels(centres)
    rays = rays.at(torch.from_numpy(np.flatnonzero(pixels)).to(renderer.device))
    rgb, truth = np.zeros((scene.height, scene.width, 3)), scene.image(view)
    rgb[pixels] = renderer.image(rays, 1, len(rays), progress).rgb[0].cpu().numpy()
    own = np.pad(centres[EDGE:-EDGE, EDGE:-EDGE], EDGE, mode="edge")
    result = {"mse": mse(rgb, truth, own), "psnr": psnr(rgb, truth, own), "ssim": ssim(rgb, truth, centres)}
    if scene.mask:
        mask = scene.mask(view)
        result |= {"psnr_masked": psnr(rgb, truth, own & mask), "ssim_masked": ssim(rgb, truth, centres & mask)}
    return result
