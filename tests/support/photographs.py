"""Photographs of a corner of a room with textured walls, from known cameras."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 240, 180, 200.0
WALLS = [((0, 0, 0), (1, 0, 0), (0, 1, 0)), ((0, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 0, 0), (0, 0, 1), (1, 0, 0))]
# corner and two sides, each 3 long; the cameras are inside


def poses(n: int) -> np.ndarray:
    """n 3 4, camera to world (x right, y down, z forward): on an arc before the corner, which all of them look at."""
    found = []
    for angle in np.radians(np.linspace(30, 60, n)):
        centre = 4 * np.array([np.cos(angle), np.sin(angle), 0.8 + 0.2 * np.sin(7 * angle)])
        forward = np.array([0.7, 0.7, 0.7]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        found.append(np.stack([right, np.cross(forward, right), forward, centre], axis=1))
    return np.stack(found)


def texture(seed: int) -> np.ndarray:
    """Noise of several scales, 512 512 3."""
    noise = np.random.default_rng(seed)
    layers = [cv2.resize(noise.uniform(-1, 1, (size, size, 3)), (512, 512), interpolation=cv2.INTER_CUBIC)
              for size in (8, 24, 64, 160)]  # fmt: skip
    return np.clip(127 + 60 * sum(layers), 0, 255).astype(np.uint8)


def picture(pose: np.ndarray) -> np.ndarray:
    """h w 3: the three walls as a pinhole camera sees them; they hide nothing of one another."""
    k = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    rotation = pose[:, :3].T
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for seed, (corner, first, second) in enumerate(WALLS):
        sides = 3 / 512 * np.stack([np.array(first), np.array(second)], axis=1)
        homography = k @ rotation @ np.concatenate([sides, (np.array(corner) - pose[:, 3])[:, None]], axis=1)
        cv2.warpPerspective(texture(seed), homography, (WIDTH, HEIGHT), image, cv2.INTER_LINEAR,
                            cv2.BORDER_TRANSPARENT)  # fmt: skip
    return image


def write_photographs(folder: Path, n: int, **options) -> np.ndarray:
    """Write n photographs to a new folder, a.png to ...; their poses, as `poses` gives them."""
    folder.mkdir()
    cameras = poses(n)
    for name, pose in zip("abcdefghijklmnopqrstuvwxyz", cameras, strict=False):
        Image.fromarray(picture(pose)).save(folder / f"{name}.png", **options)
    return cameras
