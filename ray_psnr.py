"""PSNR of random rays of views: in seconds, an estimate of what whole pictures show in minutes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from metrics import psnr_of_mse
from rays import Rays, cameras_of, image_rays
from render import Renderer
from scene import Scene


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
        chosen = chosen.to(device)
        rays = replace(rays, origins=rays.origins[chosen], directions=rays.directions[chosen])
        drawn.append(DrawnRays(rays, truth, mask))
    return drawn


def psnr_of_rays(
    renderer: Renderer, drawn: list[DrawnRays], progress: Callable[[int], None] = lambda n: None
) -> dict[str, float]:
    """psnr and, where there are masks, psnr_masked: the mean of the views' PSNRs, as in a paper's table; psnr_pooled,
    that of the mean squared error. A view of which no ray is in the mask has no part in psnr_masked."""
    errors, masked = [], []
    for rays, truth, mask in drawn:
        rgb = renderer.image(rays, 1, len(rays), progress).rgb[0]
        error = (rgb - truth).square().mean(-1).cpu().double()
        errors.append(float(error.mean()))
        if mask is not None and mask.any():
            masked.append(float(error[mask].mean()))
    result = {"psnr": mean_psnr(errors), "psnr_pooled": psnr_of_mse(sum(errors) / len(errors))}
    return result | ({"psnr_masked": mean_psnr(masked)} if masked else {})


def mean_psnr(errors: list[float]) -> float:
    return sum(map(psnr_of_mse, errors)) / len(errors)
