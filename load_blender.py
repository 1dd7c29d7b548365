"""Blender (NeRF synthetic) scenes: transforms_{train,val,test}.json and PNG files -> Scene."""

import json
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from infonerf.config import DataConfig
from infonerf.scene.cameras import Cameras
from infonerf.scene.checks import matrix_fault, require_files, require_folder
from infonerf.scene.photographs import ImageFiles, half_intrinsics, nearest, read_depth
from infonerf.scene.poses import circle
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import choose_views, unseen_pool
from infonerf.system.errors import InputError

NEAR, FAR = 2.0, 6.0
BOUNDS = np.array([[-1.5] * 3, [1.5] * 3])  # of the objects of NeRF synthetic
SPLITS = ("train", "val", "test")


def load_blender(data: DataConfig) -> Scene:
    """Load a scene of the NeRF synthetic data set (docs/method.md, Data).

    `train_scene` are indices into the train frames; every `testskip`-th val and test frame is kept
    (0 = all). `allow_outside`: a file_path may lead out of the folder. Raises InputError where a file or
    option cannot be used.
    """
    if data.test_scene:
        raise InputError("--test_scene: not for Blender scenes, whose test views come from transforms_test.json")
    if data.maskdir:
        raise InputError("--maskdir: not for Blender scenes")
    folder = require_folder(data.datadir, "datadir")
    splits = [read_split(folder, split, data.testskip, data.allow_outside) for split in SPLITS]
    frames = [frame for split in splits for frame in split]
    n_train, n_val, n_test = map(len, splits)
    train = choose_views(n_train, data.train_scene, data.fewshot, data.fewshot_seed, data.fewshot_choice)
    test = tuple(range(n_train + n_val, n_train + n_val + n_test))
    require_files(frames[view].image for view in train + test)
    require_files(frames[view].depth for view in test if frames[view].depth_scale)
    files = ImageFiles([frame.image for frame in frames], train[0], half=data.half_res, white=data.white_bkgd)
    height, width = full_size = files.full_size
    intrinsics = np.stack([intrinsics_of(frame.camera_angle_x, height, width) for frame in frames])
    if data.half_res:
        intrinsics, height, width = half_intrinsics(intrinsics, height, width)

    def true_depth(view: int) -> np.ndarray | None:
        frame = frames[view]
        if frame.depth_scale is None:
            return None
        depth = read_depth(frame.depth, full_size, frame.depth_scale)
        return nearest(depth, height, width, 0.5) if data.half_res else depth  # the middle of what `half_size` averages

    poses = np.stack([frame.pose for frame in frames])
    return Scene(
        name=folder.resolve().name,
        view_names=tuple(frame.name for frame in frames),
        cameras=Cameras.of_arrays(poses, intrinsics, [(height, width)] * len(frames), NEAR, FAR, data.pixel_center),
        split=Split(
            train=train,
            val=tuple(range(n_train, n_train + n_val)),
            test=test,
            unseen=unseen_pool(len(frames), train, test, data.unseen_poses),
        ),
        photographs=Photographs(
            image=files.image,
            alpha=files.alpha if files.has_alpha else None,
            depth=true_depth if any(frame.depth_scale for frame in frames) else None,
        ),
        white_background=data.white_bkgd,
        bounds=BOUNDS,
        path=circle(),
        notes=files.notes,
    )


class Frame(NamedTuple):
    """One view of a split."""

    name: str
    image: Path
    depth: Path
    depth_scale: float | None  # z-depth of one step of the depth image's values; None: there is no depth image
    camera_angle_x: float  # horizontal field of view, radians
    pose: np.ndarray  # 3 4


def read_split(folder: Path, split: str, testskip: int, allow_outside: bool) -> list[Frame]:
    """The frames of a split that are kept, at least one."""
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
        check_frame(path, file_path, matrix, allow_outside)
    return [
        Frame(view_name(split, file_path), folder / f"{file_path}.png", folder / f"{file_path}_depth.png", scale, angle,
              matrix[:3])
        for file_path, matrix in frames
    ]  # fmt: skip


def check_frame(path: Path, file_path: object, matrix: np.ndarray, allow_outside: bool) -> None:
    """Raise InputError unless a frame of the file `path` can be used."""
    if not isinstance(file_path, str):
        raise InputError(f"{path}: found {file_path!r} as file_path, expected the path of an image without .png")
    if not allow_outside and is_outside(file_path):
        raise InputError(f"{path}: file_path {file_path!r} leads out of the scene's folder, expected a path within "
                         "it (--allow_outside takes it as it is)")
    fault = matrix_fault(matrix)
    if fault:
        expected = "a finite 4 x 4 matrix that is a camera's pose"
        raise InputError(f"{path}: transform_matrix of {file_path} is {fault}, expected {expected}")


def is_outside(file_path: str) -> bool:
    """Whether a path is absolute or goes up; where links lead is the user's affair."""
    path = Path(file_path)
    return bool(path.anchor) or ".." in path.parts


def view_name(split: str, file_path: str) -> str:
    """"./train/r_0" -> "train/r_0"; the split comes first even where the files lie elsewhere."""
    path = PurePosixPath(file_path)
    return str(path if path.parts[:1] == (split,) else split / path)


def intrinsics_of(camera_angle_x: float, height: int, width: int) -> np.ndarray:
    """fx fy cx cy from the horizontal field of view in radians."""
    focal = 0.5 * width / np.tan(0.5 * camera_angle_x)
    return np.array([focal, focal, 0.5 * width, 0.5 * height])
