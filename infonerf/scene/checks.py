"""Whether what a data set's files say can be a scene: cameras, names, files, folders."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from infonerf.system.errors import InputError

LONGEST_VIEW_NAME = 200  # bytes; file systems hold 255, and results add to it
LARGEST = 1e12  # of a camera's numbers; rays are computed in float32, whose range ends with its square


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


def require_files(paths: Iterable[Path]) -> None:
    """Raise InputError for the first of `paths` that is not a file."""
    for path in paths:
        if not os.path.isfile(path):
            raise InputError(f"{path}: the image is missing, expected every image that the scene's files name")
