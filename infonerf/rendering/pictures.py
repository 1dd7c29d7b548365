"""Pictures from trained networks: a view, its image files, and the video of a path."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import torch

import run_nerf_helpers as build
from infonerf.fields.nerf import Image, Networks, Query, Sampling, render_image
from infonerf.scene.scene import Scene
from infonerf.system.errors import out_of_memory
from infonerf.system.logs import progress_bar, say
from infonerf.training.sampler import Cameras, Rays, cameras_of, image_rays

FPS, GIF_FPS, GIF_SIZE, THUMBNAIL = 30, 15, 200, 100


@dataclass
class Renderer:
    """Trained networks and how to render with them. chunk: rays at a time, halved where the memory does not suffice.
    factor: render at 1/factor of the size."""

    networks: Networks
    sampling: Sampling
    chunk: int
    query: Query
    pixel_center: float
    device: torch.device
    factor: int = 1

    def view(self, scene: Scene, view: int, progress: Callable[[int], None] = lambda n: None) -> Image:
        """Render one view of a scene; `progress` hears how many rays were done."""
        return self.render(cameras_of(scene, [view], self.pixel_center, self.device), scene, progress)

    def render(self, camera: Cameras, scene: Scene, progress: Callable[[int], None]) -> Image:
        """Render what one camera sees of a scene, whose full-size images it is made for."""
        height, width = self.size(scene)
        scale = torch.tensor([width / scene.width, height / scene.height] * 2, device=self.device)
        camera = camera._replace(intrinsics=camera.intrinsics * scale)
        return self.image(image_rays(camera, height, width), height, width, progress)

    def image(self, rays: Rays, height: int, width: int, progress: Callable[[int], None]) -> Image:
        """Render height*width rays."""
        while True:
            try:
                return render_image(self.networks, rays, height, width, self.sampling, self.chunk, self.query, progress)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.chunk == 1:
                    raise
            self.chunk = max(min(self.chunk, len(rays)) // 2, 1)
            say(f"out of memory: rendering {self.chunk} rays at a time from now on (chunk)")

    def size(self, scene: Scene) -> tuple[int, int]:
        """Height and width of what is rendered."""
        return max(scene.height // self.factor, 1), max(scene.width // self.factor, 1)


def make_renderer(args: argparse.Namespace, networks: Networks, scene: Scene) -> Renderer:
    device = next(networks.coarse.parameters()).device
    occupancy = build.build_occupancy(args, scene, device)
    if occupancy:
        occupancy.fill(networks)
    return Renderer(
        networks=networks,
        sampling=build.build_sampling(args),
        chunk=args.chunk,
        query=build.build_query(args, device, occupancy),
        pixel_center=args.pixel_center,
        device=device,
        factor=max(args.render_factor, 1),
    )


def thumbnails(args: argparse.Namespace, networks: Networks, scene: Scene) -> dict[str, np.ndarray]:
    """The first validation (or test) view in at most THUMBNAIL pixels across, h w 3 uint8: rgb, depth and acc."""
    factor = -(-max(scene.height, scene.width) // THUMBNAIL)
    renderer = replace(make_renderer(args, networks, scene), factor=factor)
    image = renderer.view(scene, (scene.val or scene.test)[0])
    acc = eight_bit(image.acc)[..., None].repeat(3, axis=-1)
    return {"rgb": eight_bit(image.rgb), "depth": depth_colours(unit_depth(image, scene)), "acc": acc}


# Image files.


def write_images(folder: Path, name: str, rendered: Image, scene: Scene) -> None:
    """NAME.png, 8-bit RGB; NAME_depth.png, 16-bit, 0..65535 for the scene's near..far;
    NAME_depth_color.png, the same in colours, bright is near."""
    depth = unit_depth(rendered, scene)
    iio.imwrite(folder / f"{name}_depth.png", np.round(depth * 65535).astype(np.uint16))
    iio.imwrite(folder / f"{name}_depth_color.png", depth_colours(depth))
    iio.imwrite(folder / f"{name}.png", eight_bit(rendered.rgb))


def unit_depth(image: Image, scene: Scene) -> np.ndarray:
    """h w, the z-depth as 0..1 for the scene's near..far; what is not opaque counts as far."""
    depth = image.depth + (1 - image.acc) * scene.far
    return ((depth - scene.near) / (scene.far - scene.near)).clamp(0, 1).cpu().double().numpy()


def eight_bit(rgb: torch.Tensor) -> np.ndarray:
    """0..1 -> 0..255, uint8."""
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """h w in 0..1 -> h w 3 uint8; 0, which is near, is bright. A perceptually uniform map."""
    return cv2.applyColorMap(np.round((1 - depth) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


# Videos: rgb.mp4, depth.mp4, and a small looping GIF of each.


def render_path(renderer: Renderer, scene: Scene, folder: Path) -> None:
    """Render the scene's video path to `folder`. Frames come from the first training view's intrinsics."""
    height, width = renderer.size(scene)
    frames = {"rgb": [], "depth": []}
    n_rays = len(scene.path) * height * width
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, desc="video", leave=False) as bar:
        for pose in scene.path:
            image = renderer.render(path_camera(scene, pose, renderer), scene, bar.update)
            frames["rgb"].append(eight_bit(image.rgb))
            frames["depth"].append(depth_colours(unit_depth(image, scene)))
    for name, images in frames.items():
        write_mp4(folder / f"{name}.mp4", np.stack(images))
        write_gif(folder / f"{name}.gif", images)
    say(f"{len(scene.path)} frames in {folder}: rgb.mp4, depth.mp4, rgb.gif, depth.gif")


def path_camera(scene: Scene, pose: np.ndarray, renderer: Renderer) -> Cameras:
    """A camera of the path with the first training view's intrinsics."""
    intrinsics = scene.intrinsics[scene.train[0]]
    poses, intrinsics = (
        torch.as_tensor(array[None], dtype=torch.float32).to(renderer.device) for array in (pose, intrinsics)
    )
    return Cameras(poses, intrinsics, scene.near, scene.far, renderer.pixel_center)


def write_mp4(path: Path, frames: np.ndarray) -> None:
    """n h w 3, uint8; an odd height or width loses its last line, as the codec wants even ones."""
    even = frames[:, : max(frames.shape[1] // 2 * 2, 2), : max(frames.shape[2] // 2 * 2, 2)]
    iio.imwrite(path, even, plugin="FFMPEG", fps=FPS, quality=8, macro_block_size=2)


def write_gif(path: Path, frames: list[np.ndarray]) -> None:
    """A looping GIF of at most GIF_SIZE pixels across."""
    height, width = frames[0].shape[:2]
    scale = min(1.0, GIF_SIZE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    iio.imwrite(path, np.stack(small), duration=1000 / GIF_FPS, loop=0)
