"""What a picture looks like: its colours, depth, opacity, entropy, or its error against a photograph, in 8 bits.

Axes: h w pixels.
"""

import cv2
import numpy as np

from infonerf.rendering.pictures import LEAST_OPACITY, depth_colours
from infonerf.scene.cameras import Cameras
from infonerf.viewer.frames import PIXEL_CENTER, Picture, Wish

COLOUR, DEPTH, OPACITY, ENTROPY, ERROR = LOOKS = ("colour", "depth", "opacity", "entropy", "error")
MOST_ERROR = 0.3  # mean difference of the channels, 0..1, of the brightest colour
OUTSIDE = 60  # grey level where a photograph ends
SAME_PLACE, SAME_TURN = 0.01, 0.01  # of the distance to the world's middle, radians: a camera is stood in


def coloured(look: str, picture: Picture, near: float, far: float, n_samples: int,
             truth: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    """h w 3 uint8. near, far: what is bright and what is dark as depth. n_samples: of a ray, whose entropy is at most
    their logarithm. truth: h w 3 in 0..1, NaN where it ends; without it there is no error, but colour instead."""
    if look == DEPTH:
        depth = picture.depth + (1 - picture.acc) * far
        return depth_colours(np.clip((depth - near) / (far - near), 0, 1))
    if look == OPACITY:
        return eight_bit(picture.acc)[..., None].repeat(3, axis=-1)
    if look == ENTROPY:
        return mapped(np.where(picture.acc > LEAST_OPACITY, picture.entropy / np.log2(n_samples), 0))
    if look == ERROR and truth is not None:
        error = np.abs(picture.rgb - truth).mean(-1)
        shown = mapped(np.nan_to_num(error) / MOST_ERROR)
        shown[np.isnan(error)] = OUTSIDE
        return shown
    return eight_bit(picture.rgb)


def eight_bit(values: np.ndarray) -> np.ndarray:
    """0..1 -> 0..255; what is no number is 0."""
    return np.round(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def mapped(values: np.ndarray) -> np.ndarray:
    """h w in 0..1 -> h w 3, dark to bright."""
    return cv2.applyColorMap(eight_bit(values), cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()


def hiding_depth(picture: Picture, nowhere: float) -> np.ndarray:
    """h w, behind which what is drawn into the picture is hidden; `nowhere` where less than half is opaque."""
    return np.where(picture.acc > 0.5, picture.depth / np.maximum(picture.acc, 0.5), nowhere)


def view_stood_in(pose: np.ndarray, poses: np.ndarray, reach: float) -> int | None:
    """The view (of poses v 3 4) in whose camera a pose (3 4) stands, if any; reach: a length of the scene."""
    away = np.linalg.norm(poses[:, :, 3] - pose[:, 3], axis=-1) / reach
    cosines = (np.einsum("vij,ij->v", poses[:, :, :3], pose[:, :3]) - 1) / 2
    turned = np.arccos(np.clip(cosines, -1, 1))
    near = np.flatnonzero((away < SAME_PLACE) & (turned < SAME_TURN))
    return int(near[np.argmin(away[near] + turned[near])]) if len(near) else None


def seen_photograph(image: np.ndarray, camera: Cameras, wish: Wish, size: tuple[int, int]) -> np.ndarray:
    """A photograph (h w 3 in 0..1) of the first of `camera`, as the wish's eye sees it, which stands there: height and
    width are those of a picture; NaN where the photograph ends."""
    height, width = size
    fx, fy, cx, cy = camera.intrinsics[0].tolist()
    focal = wish.size[0] / 2 / np.tan(wish.fov / 2)
    x = (np.arange(width) + PIXEL_CENTER - width / 2) / (focal * width / wish.size[1])
    y = (np.arange(height) + PIXEL_CENTER - height / 2) / (focal * height / wish.size[0])
    cols, rows = x * fx + cx - camera.pixel_center, y * fy + cy - camera.pixel_center
    fewer = max(1.0, fx / (focal * width / wish.size[1]))  # photograph's pixels to a picture's
    small = image if fewer < 1.5 else cv2.resize(image, None, fx=1 / fewer, fy=1 / fewer, interpolation=cv2.INTER_AREA)
    across, down = (small.shape[axis] / image.shape[axis] for axis in (1, 0))
    cols, rows = ((at + 0.5) * scale - 0.5 for at, scale in ((cols, across), (rows, down)))
    found = cv2.remap(small.astype(np.float32), *np.meshgrid(cols.astype(np.float32), rows.astype(np.float32)),
                      cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    within = [(at > -0.51) & (at < n - 0.49) for at, n in ((rows, small.shape[0]), (cols, small.shape[1]))]
    return np.where((within[0][:, None] & within[1])[..., None], found, np.nan)
