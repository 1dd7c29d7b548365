"""Blender (NeRF synthetic) scenes: transforms_{train,val,test}.json and PNG files -> Scene."""

import json
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from camera_path import circle
from errors import InputError
from scene import (
    Scene,
    alpha_of,
    choose_views,
    half_intrinsics,
    half_size,
    matrix_fault,
    nearest,
    on_background,
    opaque_note,
    read_depth,
    read_pixels,
    require_files,
    require_folder,
    unseen_pool,
)

NEAR, FAR = 2.0, 6.0
BOUNDS = np.array([[-1.5] * 3, [1.5] * 3])  # of the objects of NeRF synthetic
SPLITS = ("train", "val", "test")


def load_blender(
    datadir: str,
    *,
    half_res: bool = False,
    testskip: int = 8,
    white_bkgd: bool = False,
    train_scene: list[int] | None = None,
    fewshot: int = 0,
    fewshot_seed: int = 0,
    unseen_poses: str = "no_test",
    allow_outside: bool = False,
) -> Scene:
    """Load a scene of the NeRF synthetic data set (method specification, section 9).

    `train_scene` are indices into the train frames; every `testskip`-th val and test frame is kept
    (0 = all). `allow_outside`: a file_path may lead out of the folder. Raises InputError where a file or
    option cannot be used.
    """
    folder = require_folder(datadir, "datadir")
    splits = {name: read_split(folder, name, testskip, allow_outside) for name in SPLITS}
    names, paths, depth_paths, poses, split_of = [], [], [], [], {}
    depth_scales = [scale for _, frames, scale in splits.values() for _ in frames]
    for split, (_, frames, _) in splits.items():
        split_of[split] = range(len(names), len(names) + len(frames))
        names += [view_name(split, file_path) for file_path, _ in frames]
        paths += [folder / f"{file_path}.png" for file_path, _ in frames]
        depth_paths += [folder / f"{file_path}_depth.png" for file_path, _ in frames]
        poses += [pose for _, pose in frames]

    train = choose_views(len(split_of["train"]), train_scene, fewshot, fewshot_seed)
    test = tuple(split_of["test"])
    require_files(paths[view] for view in train + test)
    require_files(depth_paths[view] for view in test if depth_scales[view])
    first = read_pixels(paths[train[0]])
    height, width = full_size = first.shape[:2]
    intrinsics = np.concatenate(
        [intrinsics_of(angle, height, width, len(frames)) for angle, frames, _ in splits.values()]
    )
    if half_res:
        intrinsics, height, width = half_intrinsics(intrinsics, height, width)

    @lru_cache(maxsize=1)  # a view's colour and its alpha are asked for one after the other
    def pixels_of(view: int) -> np.ndarray:
        pixels = read_pixels(paths[view], full_size)
        return half_size(pixels) if half_res else pixels

    def read_image(view: int) -> np.ndarray:
        return on_background(pixels_of(view), white_bkgd)

    def read_alpha(view: int) -> np.ndarray:
        return alpha_of(paths[view], pixels_of(view))

    def true_depth(view: int) -> np.ndarray | None:
        if depth_scales[view] is None:
            return None
        depth = read_depth(depth_paths[view], full_size, depth_scales[view])
        return nearest(depth, height, width, 0.5) if half_res else depth  # the middle of what `half_size` averages

    return Scene(
        name=folder.resolve().name,
        view_names=tuple(names),
        poses=np.stack(poses),
        intrinsics=intrinsics,
        height=height,
        width=width,
        near=NEAR,
        far=FAR,
        white_background=white_bkgd,
        train=train,
        val=tuple(split_of["val"]),
        test=test,
        unseen=unseen_pool(len(names), train, test, unseen_poses),
        image=read_image,
        alpha=read_alpha if first.shape[-1] == 4 else None,
        bounds=BOUNDS,
        depth=true_depth if any(depth_scales) else None,
        path=circle(),
        notes=opaque_note(paths[train[0]], first, white_bkgd),
    )


def read_split(
    folder: Path, split: str, testskip: int, allow_outside: bool
) -> tuple[float, list[tuple[str, np.ndarray]], float | None]:
    """camera_angle_x, the (file_path, pose 3 4) of each frame that is kept, and depth_scale, the z-depth of one
    step of FILE_PATH_depth.png, or None where the split has no such images."""
    path = folder / f"transforms_{split}.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Blender scene has one for each of train, val and test")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    try:
        angle = content["camera_angle_x"]
        frames = content["frames"][:: max(testskip, 1)] if split != "train" else content["frames"]
        frames = [(frame["file_path"], np.array(frame["transform_matrix"], float)) for frame in frames]
        scale = content.get("depth_scale")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: {reason}; expected camera_angle_x and frames of file_path and transform_matrix"
        ) from error
    if not frames:
        raise InputError(f"{path}: found no frames, expected at least one")
    if not isinstance(angle, int | float) or not 1e-6 < angle < np.pi:
        raise InputError(f"{path}: camera_angle_x is {angle!r}, expected radians between 1e-6 and pi")
    if "depth_scale" in content and not (isinstance(scale, int | float) and 0 < scale <= FAR):
        raise InputError(f"{path}: depth_scale is {scale!r}, expected a number above 0, at most {FAR:g} (far)")
    for file_path, matrix in frames:
        if not isinstance(file_path, str):
            raise InputError(f"{path}: found {file_path!r} as file_path, expected the path of an image without .png")
        if not allow_outside and is_outside(file_path):
            raise InputError(f"{path}: file_path {file_path!r} leads out of the scene's folder, expected a path within "
                             "it (--allow_outside takes it as it is)")
        fault = matrix_fault(matrix)
        if fault:
            expected = "a finite 4 x 4 matrix that is a camera's pose"
            raise InputError(f"{path}: transform_matrix of {file_path} is {fault}, expected {expected}")
    return angle, [(file_path, matrix[:3]) for file_path, matrix in frames], scale


def is_outside(file_path: str) -> bool:
    """Whether a path is absolute or goes up; where links lead is the user's affair."""
    path = Path(file_path)
    return bool(path.anchor) or ".." in path.parts


def view_name(split: str, file_path: str) -> str:
    """"./train/r_0" -> "train/r_0"; the split comes first even where the files lie elsewhere."""
    path = PurePosixPath(file_path)
    return str(path if path.parts[:1] == (split,) else split / path)


def intrinsics_of(camera_angle_x: float, height: int, width: int, n_views: int) -> np.ndarray:
    """(v 4) fx fy cx cy from the horizontal field of view in radians."""
    focal = 0.5 * width / np.tan(0.5 * camera_angle_x)
    return np.tile([focal, focal, 0.5 * width, 0.5 * height], (n_views, 1))
