"""Whether what a data set's files say can be a scene: cameras, names, files, folders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infonerf.system.errors import InputError

LONGEST_VIEW_NAME = 200  # bytes; file systems hold 255, and results add to it
LARGEST = 1e12  # of a camera's numbers; rays are computed in float32, whose range ends with its square
SHEAR = 0.01  # of the cosine between two axes of a camera
SCALE = 1e-3  # of an axis's length: files have numbers of few digits


def check_view_names(scene: str, names: Sequence[str]) -> None:
    """Raise InputError unless results can be named after the views, in which _ is as /."""
    files = [name.replace("/", "_") for name in names]
    for name, file in zip(names, files, strict=True):
        if files.count(file) > 1:
            raise InputError(f"scene {scene}: view {name} is listed twice, expected every view once (_ is as /)")
        if len(file.encode(errors="replace")) > LONGEST_VIEW_NAME:
            raise InputError(f"scene {scene}: view {name}: expected a name of at most {LONGEST_VIEW_NAME} bytes")


def matrix_fault(matrix: np.ndarray) -> str | None:
    """What keeps a 4 x 4 (or 3 x 4) matrix from being a camera's, None where it may be one."""
    if matrix.shape not in ((4, 4), (3, 4)):
        return f"of shape {matrix.shape}"
    if not np.isfinite(matrix).all():
        return "not finite"
    if np.abs(matrix).max() > LARGEST:
        return f"of numbers up to {np.abs(matrix).max():.3g}"
    sizes = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return "singular" if sizes[-1] <= max(1e-7 * sizes[0], 1 / LARGEST) else None


def rotation_fault(poses: np.ndarray) -> tuple[int, str] | None:
    """The first of poses (v 3 4) whose axes, of whatever length, are not a camera's: its number, and what they are."""
    axes = unscaled(poses)[0][:, :, :3]
    mirrored = np.linalg.det(axes) < 0
    sheared = np.abs(np.swapaxes(axes, 1, 2) @ axes - np.eye(3)).max((1, 2), initial=0) > SHEAR
    for view in np.flatnonzero(mirrored | sheared):
        return int(view), "mirrored (its determinant is negative)" if mirrored[view] else "sheared"
    return None


def unscaled(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses (v 3 4) with axes of length 1, and which ones (v bool) had others; those that had not stay as they are."""
    lengths = np.linalg.norm(poses[:, :, :3], axis=1)
    scaled = (np.abs(lengths - 1) > SCALE).any(1)
    axes = poses[:, :, :3] / np.where(scaled[:, None], lengths, 1)[:, None]
    return np.concatenate([axes, poses[:, :, 3:]], axis=2), scaled


def have_pose_of(poses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """v bool: which of poses (v 3 4) are also among others (n 3 4)."""
    nearest = np.abs(poses[:, None] - others[None]).max((2, 3)).min(1, initial=np.inf)
    return nearest <= 1e-6 * max(1, np.abs(poses).max(initial=0))


def intrinsics_fault(fxfycxcy: np.ndarray) -> str | None:
    """What keeps fx fy cx cy from being a camera's, None where they may be."""
    focal = fxfycxcy[:2]
    if not (np.abs(fxfycxcy) < LARGEST).all() or not (focal > 1 / LARGEST).all():
        return f"{fxfycxcy.tolist()}, expected finite fx fy cx cy, the focal lengths above 0"
    return None


def require_folder(path: str | Path, option: str) -> Path:
    """The path of an existing folder, or an InputError that names the option."""
    if not path:
        raise InputError(f"--{option}: not given, expected the folder of the scene")
    if not os.path.isdir(path):
        raise InputError(f"--{option} {path}: found no such folder, expected the scene's files there")
    return Path(path)
