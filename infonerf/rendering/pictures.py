"""Pictures from a Renderer: a view's image files, thumbnails, and the video of a path."""

import errno
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import torch
from imageio_ffmpeg import count_frames_and_secs

from infonerf.rendering.renderer import Image, Renderer
from infonerf.scene.cameras import Cameras
from infonerf.scene.poses import through_cameras
from infonerf.scene.scene import Scene
from infonerf.system.files import atomic_file, whole_file
from infonerf.system.interrupt import Interrupt
from infonerf.system.logs import progress_bar, say

FPS, GIF_FPS, GIF_SIZE, THUMBNAIL = 30, 15, 200, 100
LEAST_OPACITY = 0.1  # of a ray whose entropy is shown; one that meets nothing has none to speak of


def thumbnails(renderer: Renderer, scene: Scene) -> dict[str, np.ndarray]:
    """The first validation (or test, or training) view in at most THUMBNAIL pixels across, h w 3 uint8: rgb, depth and
    acc."""
    view = (scene.split.val or scene.split.test or scene.split.train)[0]
    factor = -(-max(scene.size(view)) // THUMBNAIL)
    image = renderer.image(scene.cameras.at([view]).to(renderer.networks.device).scaled(factor))
    acc = eight_bit(image.acc)[..., None].repeat(3, axis=-1)
    depth = depth_colours(unit_depth(image, scene.near, scene.far))
    return {"rgb": eight_bit(image.rgb), "depth": depth, "acc": acc}


# Views, shared out among the ranks.


def images(
    renderer: Renderer, cameras: Cameras, interrupt: Interrupt, progress: Callable[[int], None]
) -> Iterator[Image]:
    """What each camera sees, in their order: of several ranks each renders one at a time, and all have all images."""
    size = interrupt.ranks.size
    for first in range(0, len(cameras), size):
        turn = [cameras.at([i]) for i in range(first, min(first + size, len(cameras)))]
        yield from one_each(renderer, turn, interrupt, progress)


def one_each(
    renderer: Renderer, cameras: list[Cameras], interrupt: Interrupt, progress: Callable[[int], None]
) -> list[Image]:
    """What each of at most as many cameras as there are ranks sees. `progress` hears of the first rank's rays as if
    they were those of all."""
    ranks, sizes = interrupt.ranks, [camera.sizes[0] for camera in cameras]
    own = torch.empty(0, 5, device=renderer.networks.device)
    with interrupt.cut_short():
        if ranks.rank < len(cameras):
            image = renderer.image(cameras[ranks.rank], lambda n: progress(n * len(cameras)))
            if ranks.size == 1:
                return [image]
            own = torch.cat([image.rgb, image.depth[..., None], image.acc[..., None]], dim=-1).flatten(0, 1)
    counts = [height * width for height, width in sizes] + [0] * (ranks.size - len(cameras))
    parts = ranks.gather_rows(own, counts).split(counts)
    flat = [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=False)]
    return [Image(part[..., :3], part[..., 3], part[..., 4]) for part in flat]


# Image files.


def write_images(folder: Path, name: str, rendered: Image, near: float, far: float) -> None:
    """NAME.png, 8-bit RGB; NAME_depth.png, 16-bit, 0..65535 for near..far; NAME_depth_color.png, the same in
    colours, bright is near."""
    depth = unit_depth(rendered, near, far)
    write_image(folder / f"{name}_depth.png", np.round(depth * 65535).astype(np.uint16))
    write_image(folder / f"{name}_depth_color.png", depth_colours(depth))
    write_image(folder / f"{name}.png", eight_bit(rendered.rgb))


def write_image(path: Path, pixels: np.ndarray, **how) -> None:
    """A file of the kind that its ending says, whole or not at all. (On a full disk imageio has several errors.)"""
    content = iio.imwrite("<bytes>", pixels, extension=path.suffix, **how)
    with atomic_file(path) as file:
        file.write(content)


def unit_depth(image: Image, near: float, far: float) -> np.ndarray:
    """h w, the z-depth as 0..1 for near..far; what is not opaque counts as far."""
    depth = image.depth + (1 - image.acc) * far
    return ((depth - near) / (far - near)).clamp(0, 1).cpu().double().numpy()


def eight_bit(rgb: torch.Tensor) -> np.ndarray:
    """0..1 -> 0..255, uint8."""
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """h w in 0..1 -> h w 3 uint8; 0, which is near, is bright. A perceptually uniform map."""
    return cv2.applyColorMap(np.round((1 - depth) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


# The entropy of rays.


@torch.no_grad()
def entropy_picture(
    renderer: Renderer, camera: Cameras, entropy: Callable[[torch.Tensor], torch.Tensor],
    progress: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """What fraction of the greatest entropy, that of light stopped alike by all samples, the rays of a picture have:
    h w in 0..1, 0 where they meet nothing. camera: one. entropy: alphas r s -> bits r."""
    parts = []
    for chunk in camera.to(renderer.networks.device).image_rays().split(renderer.chunk):
        seen = renderer.rays(chunk, colour=False).fine
        bits = torch.where(seen.acc > LEAST_OPACITY, entropy(seen.alpha), 0)
        parts.append(bits / max(math.log2(seen.alpha.shape[-1]), 1))
        progress(len(chunk))
    return torch.cat(parts).clamp(0, 1).unflatten(0, camera.sizes[0]).cpu().numpy()


def entropy_colours(fraction: np.ndarray) -> np.ndarray:
    """h w in 0..1 -> h w 3 uint8; 1 is bright. A perceptually uniform map."""
    return cv2.applyColorMap(np.round(fraction * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


# Videos: rgb.mp4, depth.mp4, and a small looping GIF of each.

VIDEOS = ("rgb.mp4", "depth.mp4", "rgb.gif", "depth.gif")


def videos_are_there(folder: Path) -> bool:
    return all((folder / name).is_file() for name in VIDEOS)


def video_cameras(scene: Scene) -> Cameras:
    """Of the scene's video: along its path, or one through its training cameras, as large as the first of these."""
    path = through_cameras(scene.poses[list(scene.split.train)]) if scene.path is None else scene.path
    return scene.cameras_at(path)


def render_path(
    renderer: Renderer, scene: Scene, cameras: Cameras, folder: Path, factor: int = 1,
    interrupt: Interrupt | None = None, fps: float = FPS, prefix: str = "",
) -> None:
    """Render what each of `cameras` sees, at 1/factor of its size, to videos in `folder`, whose names begin with
    `prefix`."""
    interrupt = interrupt or Interrupt()
    cameras = cameras.to(renderer.networks.device).scaled(factor)
    frames = {"rgb": [], "depth": []}
    n_rays = sum(height * width for height, width in cameras.sizes)
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, desc="video", leave=False) as bar:
        for image in images(renderer, cameras, interrupt, bar.update):
            frames["rgb"].append(eight_bit(image.rgb))
            frames["depth"].append(depth_colours(unit_depth(image, scene.near, scene.far)))
    interrupt.ranks.of_first(lambda: write_videos(folder, frames, fps, prefix))
    names = ", ".join(f"{prefix}{name}" for name in VIDEOS)
    say(f"{len(cameras)} frames in {folder}: {names}")


def write_videos(folder: Path, frames: dict[str, list[np.ndarray]], fps: float = FPS, prefix: str = "") -> None:
    for name, pictures in frames.items():
        write_mp4(folder / f"{prefix}{name}.mp4", np.stack(pictures), fps)
        write_gif(folder / f"{prefix}{name}.gif", pictures)


def write_mp4(path: Path, frames: np.ndarray, fps: float = FPS) -> None:
    """n h w 3, uint8; an odd height or width loses its last line, as the codec wants even ones. Raises OSError where
    the file does not get all frames, which ffmpeg itself only prints."""
    even = frames[:, : max(frames.shape[1] // 2 * 2, 2), : max(frames.shape[2] // 2 * 2, 2)]
    with whole_file(path) as temporary:
        iio.imwrite(temporary, even, plugin="FFMPEG", extension=path.suffix, fps=fps, quality=8, macro_block_size=2,
                    output_params=["-f", "mp4"], ffmpeg_log_level="quiet")  # fmt: skip
        if n_frames(temporary) != len(even):
            raise OSError(errno.EIO, "ffmpeg could not write all frames (is the disk full?)", str(path))


def n_frames(path: Path) -> int:
    """Of a video; 0 where the file holds none."""
    try:
        return count_frames_and_secs(str(path))[0]
    except RuntimeError:
        return 0


def write_gif(path: Path, frames: list[np.ndarray]) -> None:
    """A looping GIF of at most GIF_SIZE pixels across."""
    height, width = frames[0].shape[:2]
    scale = min(1.0, GIF_SIZE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    write_image(path, np.stack(small), duration=1000 / GIF_FPS, loop=0)
