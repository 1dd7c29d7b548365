"""Poses made to regularise at, for a scene that has few poses but those of its photographs.

Poses are v 3 4, camera to world, OpenGL axes (x right, y up, looking along -z).
"""

import numpy as np

from infonerf.scene.poses import common_point, look_along, normalised, pose_between
from infonerf.system.errors import InputError

KINDS = ("interpolate", "spread")
N_POSES, SEED = 100, 0
WIDER = 15.0  # degrees by which `spread` goes beyond the training cameras


def make_poses(kind: str, poses: np.ndarray) -> np.ndarray:
    """N_POSES 3 4, the same ones for the same poses of training cameras (v 3 4); InputError where there can be none."""
    if len(poses) < 2:
        raise InputError(f"--unseen_poses {kind}: found {len(poses)} training view, expected at least 2")
    rng, point = np.random.default_rng(SEED), common_point(poses)
    if kind == "interpolate":
        return interpolate(poses, point, N_POSES, rng)
    if point is None:
        raise InputError("--unseen_poses spread: the training cameras do not look at a point that they have in "
                         "common, expected them to; interpolate does without")
    return spread(poses, point, N_POSES, rng)


def interpolate(poses: np.ndarray, point: np.ndarray | None, n: int, rng: np.random.Generator) -> np.ndarray:
    """n 3 4: each between two cameras drawn at random."""
    pairs = (poses[rng.choice(len(poses), 2, replace=False)] for _ in range(n))
    return np.stack([pose_between(one, other, rng.uniform(), point) for one, other in pairs])


def spread(poses: np.ndarray, point: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n 3 4 that look at `point` from the cameras' mean distance, uniform on the smallest cap about their mean
    direction that holds all of them, made WIDER."""
    offsets = poses[:, :, 3] - point
    directions = normalised(offsets)
    axis = normalised(directions.mean(0) + 1e-9)  # where the mean is 0, any axis will do
    angle = min(np.arccos(np.clip(directions @ axis, -1, 1)).max() + np.radians(WIDER), np.pi)
    along = rng.uniform(np.cos(angle), 1, n)[:, None]
    around = rng.normal(size=(n, 3))
    around = normalised(around - (around @ axis)[:, None] * axis)
    outwards = along * axis + np.sqrt(1 - along**2) * around
    positions = point + np.linalg.norm(offsets, axis=-1).mean() * outwards
    up = poses[:, :, 1].mean(0)
    up = up if np.linalg.norm(up) > 1e-6 else poses[0, :, 1]  # opposite ones leave none
    return look_along(positions, -outwards, np.tile(up, (n, 1)))
