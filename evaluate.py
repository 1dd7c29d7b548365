"""Render views of a scene with trained networks, write them as images, measure them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import torch
from tqdm import tqdm

from logs import say
from metrics import psnr
from rays import cameras_of, image_rays
from run_nerf_helpers import Image, Networks, Sampling, render_image
from scene import Scene


def render_views(
    networks: Networks, scene: Scene, views: Sequence[int], folder: Path, *, sampling: Sampling,
    chunk: int, netchunk: int, pixel_center: float, device: torch.device, factor: int = 0,
) -> dict[str, dict[str, float]]:
    """Render views to `folder` as NAME.png and NAME_depth.png; returns view name -> its metrics.

    factor: render at 1/factor of the size, and compare with the photograph reduced likewise.
    """
    factor = max(factor, 1)
    height, width = scene.height // factor, scene.width // factor
    results = {}
    with tqdm(total=len(views) * height * width, unit="ray", unit_scale=True, desc="rendering", leave=False) as bar:
        for view in views:
            cameras = cameras_of(scene, [view], pixel_center, device)
            scale = torch.tensor([width / scene.width, height / scene.height] * 2, device=device)
            cameras = cameras._replace(intrinsics=cameras.intrinsics * scale)
            rays = image_rays(cameras, height, width)
            rendered = render_image(networks, rays, height, width, sampling, chunk, netchunk, bar.update)
            name = scene.view_names[view]
            write_images(folder / name.replace("/", "_"), rendered, scene.near, scene.far)
            results[name] = measure(rendered, scene, view, factor)
            say(f"{name}: " + "  ".join(f"{key} {value:.2f}" for key, value in results[name].items()))
    return results


def measure(rendered: Image, scene: Scene, view: int, factor: int) -> dict[str, float]:
    """PSNR in dB against the photograph, and within the object's mask where the scene has masks."""
    rgb = rendered.rgb.cpu().numpy()
    truth = reduced(scene.image(view), factor)
    result = {"psnr": psnr(rgb, truth)}
    if scene.mask:
        result["psnr_masked"] = psnr(rgb, truth, reduced(scene.mask(view).astype(np.float32), factor) >= 0.5)
    return result


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink by averaging areas."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    return cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def write_images(stem: Path, rendered: Image, near: float, far: float) -> None:
    """STEM.png, 8-bit RGB; STEM_depth.png, 16-bit, 0..65535 for near..far of the scene."""
    rgb = (rendered.rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    depth = ((rendered.depth - near) / (far - near)).clamp(0, 1).double().cpu().numpy()
    iio.imwrite(f"{stem}.png", rgb)
    iio.imwrite(f"{stem}_depth.png", np.round(depth * 65535).astype(np.uint16))


def mean_of(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean over views of each metric; views without a value (an empty mask) are left out."""
    names = next(iter(results.values()), {})
    return {name: float(np.nanmean([metrics[name] for metrics in results.values()])) for name in names}
