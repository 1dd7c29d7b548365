"""Poses made to regularise at, for a scene that has few poses but those of its photographs.

Poses are v 3 4, camera to world, OpenGL axes (x right, y up, looking along -z).
"""

import cv2
import numpy as np

from infonerf.scene.poses import look_along, normalised
from infonerf.system.errors import InputError

KINDS = ("interpolate", "spread")
N_POSES, SEED = 100, 0
WIDER = 15.0  # degrees by which `spread` goes beyond the training cameras
LEAST_ANGLE = 4.0  # degrees, about: below it optical axes are too parallel to have a point in common


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


def common_point(poses: np.ndarray) -> np.ndarray | None:
    """The point nearest to all optical axes in the least squares sense; None where it is not in front of every
    camera, or where the axes are nearly parallel."""
    centres, forward = poses[:, :, 3], normalised(-poses[:, :, 2])
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # distance from an axis is |across (point - centre)|
    if np.linalg.eigvalsh(across.mean(0))[0] < (np.radians(LEAST_ANGLE) / 2) ** 2:
        return None
    point = np.linalg.solve(across.sum(0), np.einsum("vij,vj->i", across, centres))
    return point if (((point - centres) * forward).sum(-1) > 0).all() else None


def interpolate(poses: np.ndarray, point: np.ndarray | None, n: int, rng: np.random.Generator) -> np.ndarray:
    """n 3 4: each between two cameras drawn at random."""
    pairs = (poses[rng.choice(len(poses), 2, replace=False)] for _ in range(n))
    return np.stack([pose_between(one, other, rng.uniform(), point) for one, other in pairs])


def pose_between(one: np.ndarray, other: np.ndarray, t: float, point: np.ndarray | None) -> np.ndarray:
    """3 4: the fraction `t` of the way from one pose to another, its rotation by spherical interpolation.

    Where the cameras look at a point, the pose turns about that point: what is blended linearly is where the point
    lies in the cameras' own axes. So it looks at the point as they do, at the blended distance. Else the centres are.
    """
    first, last = rotation_of(one), rotation_of(other)
    rotation = first @ cv2.Rodrigues(t * cv2.Rodrigues(first.T @ last)[0])[0]
    if point is None:
        centre = (1 - t) * one[:, 3] + t * other[:, 3]
    else:
        inside = (1 - t) * first.T @ (one[:, 3] - point) + t * last.T @ (other[:, 3] - point)
        centre = point + rotation @ inside
    return np.concatenate([rotation, centre[:, None]], axis=1)


def rotation_of(pose: np.ndarray) -> np.ndarray:
    """3 3: the rotation nearest to that of a pose."""
    u, _, v = np.linalg.svd(pose[:, :3])
    return u @ v


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
    return look_along(positions, -outwards, np.tile(poses[:, :, 1].mean(0), (n, 1)))
