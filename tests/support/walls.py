"""Photographs of a slanted wall of known depth, for multi-view stereo."""

import math

import numpy as np
import torch

from infonerf.scene.cameras import Cameras
from infonerf.scene.plane_sweep import View
from infonerf.scene.scene import Photographs, Scene, Split

WIDTH, HEIGHT, FOCAL = 96, 72, 100.0
NORMAL, DISTANCE = np.array([0.45, 0.1, 1.0]), 3.0  # the wall's points X have NORMAL . X = DISTANCE
ANGLES = (0, 25, -25)  # degrees, of the cameras


def texture(points: np.ndarray, plain: bool) -> np.ndarray:
    """Grey levels of points of the wall, ... 3: smooth noise of known waves; where plain, a square without."""
    generator, value = np.random.default_rng(0), np.full(points.shape[:-1], 0.5)
    for _ in range(40):
        wave, phase = generator.normal(0, 14, 2), generator.uniform(0, 2 * math.pi)
        value += 0.06 * np.sin(points[..., :2] @ wave + phase)
    hidden = plain & (np.abs(points[..., 0] - 0.3) < 0.15) & (np.abs(points[..., 1]) < 0.15)
    return np.where(hidden, 0.5, np.clip(value, 0, 1))


def camera(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """World to camera (x right, y down, z ahead), turned about a vertical axis through the wall's middle."""
    a, middle = math.radians(angle), np.array([0, 0, DISTANCE])
    rotation = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    return rotation, middle - rotation @ middle


def photograph(angle: float, plain: bool = False) -> tuple[View, np.ndarray]:
    """What a camera sees of the wall, and its depth, h w."""
    rotation, translation = camera(angle)
    cols, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = np.stack([(cols - WIDTH / 2) / FOCAL, (rows - HEIGHT / 2) / FOCAL, np.ones_like(cols)], axis=-1)
    centre, ahead = -rotation.T @ translation, rays @ rotation
    depth = (DISTANCE - NORMAL @ centre) / (ahead @ NORMAL)
    grey = texture(centre + depth[..., None] * ahead, plain)
    k = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    parts = (torch.from_numpy(part).float() for part in (rotation, translation))
    return View(torch.from_numpy(grey).float(), k, *parts), depth


def wall_scene() -> tuple[Scene, list[np.ndarray]]:
    """The photographs as a scene, and their depths."""
    found = [photograph(angle) for angle in ANGLES]
    images = [view.grey[..., None].expand(-1, -1, 3).numpy() for view, _ in found]
    poses = []
    for angle in ANGLES:
        rotation, translation = camera(angle)
        poses.append(np.column_stack([rotation.T * [1, -1, -1], -rotation.T @ translation]))
    n = len(ANGLES)
    return Scene(
        name="wall",
        view_names=tuple(f"v_{view}" for view in range(n)),
        cameras=Cameras.of_arrays(np.stack(poses), np.tile([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], (n, 1)),
                                  [(HEIGHT, WIDTH)] * n, 1.8, 6.0, 0.5),
        split=Split(train=tuple(range(n)), val=(), test=(), unseen=()),
        photographs=Photographs(lambda view: images[view]),
        white_background=False,
    ), [depth for _, depth in found]  # fmt: skip
