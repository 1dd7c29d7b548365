"""PSNR of random rays of views: in seconds, an estimate of what whole pictures show in minutes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from infonerf.evaluation.metrics import mse, psnr_of_mse
from infonerf.rendering.pictures import Renderer
from infonerf.scene.scene import Scene
from infonerf.training.sampler import Rays, cameras_of, image_rays

ENOUGH = 50  # rays, for the two numbers a channel that correct its colours


class DrawnRays(NamedTuple):
    """Random rays of one view, the colours of their pixels (n 3), and on the CPU which its mask has (n), if any."""

    rays: Rays
    truth: Tensor
    mask: Tensor | None


def draw_rays(
    scene: Scene, views: Sequence[int], n_rays: int, pixel_center: float, device: torch.device
) -> list[DrawnRays]:
    """`n_rays` in all, equally many of each view and at least one. The same at every call, whatever the device."""
    generator, drawn = torch.Generator().manual_seed(0), []
    for view in views:
        rays = image_rays(cameras_of(scene, [view], pixel_center, device), scene.height, scene.width)
        chosen = torch.randint(len(rays), (max(n_rays // len(views), 1),), generator=generator)
        truth = torch.from_numpy(scene.image(view)).flatten(0, 1)[chosen].to(device)
        mask = torch.from_numpy(scene.mask(view)).flatten()[chosen] if scene.mask else None
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
        rgb = renderer.image(rays, 1, len(rays), progress).rgb[0].cpu().double()
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
