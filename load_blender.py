"""Blender (NeRF synthetic) scenes: transforms_{train,val,test}.json and image files -> Scene."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from infonerf.config import DataConfig
from infonerf.scene.camera_checks import scale_note
from infonerf.scene.cameras import Cameras
from infonerf.scene.checks import matrix_fault, require_folder, rotation_fault, unscaled
from infonerf.scene.photographs import (
    ENDINGS,
    ImageFiles,
    copies_note,
    half_intrinsics,
    nearest,
    read_depth,
    unusable_note,
)
from infonerf.scene.poses import CIRCLE_RADIUS, circle
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import choose_views, unseen_pool
from infonerf.scene.transforms import read_json
from infonerf.system.errors import InputError

NEAR, FAR = 2.0, 6.0
BOUNDS = np.array([[-1.5] * 3, [1.5] * 3])  # of the objects of NeRF synthetic
SPLITS = ("train", "val", "test")
BOTH_CASES = (*ENDINGS, *map(str.upper, ENDINGS))
ANGLES, SIZES, CENTRE = ("camera_angle_x", "camera_angle_y"), ("fl_x", "fl_y", "w", "h"), ("cx", "cy")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")


def load_blender(data: DataConfig) -> Scene:
    """Load a scene of the NeRF synthetic data set, or of its layout (docs/method.md, Data).

    `train_scene` are indices into the train frames; every `testskip`-th val and test frame is kept
    (0 = all). `allow_outside`: a file_path may lead out of the folder. Raises InputError where a file or
    option cannot be used.
    """
    if data.test_scene:
        raise InputError("--test_scene: not for Blender scenes, whose test views come from transforms_test.json")
    if data.maskdir:
        raise InputError("--maskdir: not for Blender scenes")
    folder = require_folder(data.datadir, "datadir")
    splits = [read_split(folder, split, data) for split in SPLITS]
    frames = [frame for split in splits for frame in split]
    n_train, n_val, _ = map(len, splits)
    train = choose_views(n_train, data.train_scene, data.fewshot, data.fewshot_seed, data.fewshot_choice)
    val, test = tuple(range(n_train, n_train + n_val)), tuple(range(n_train + n_val, len(frames)))
    photographed = tuple(view for view in test if os.path.isfile(frames[view].image))
    validation = val if any(os.path.isfile(frames[view].image) for view in val) else ()
    require_images(frames[:n_train], train)
    files = ImageFiles([frame.image for frame in frames], train[0], views=train[1:], others=photographed + validation,
                       half=data.half_res, white=data.white_bkgd, drop_alpha=data.drop_alpha)  # fmt: skip
    height, width = full_size = files.full_size
    depth_note = unusable_note([frames[view].depth for view in photographed if frames[view].depth_scale], full_size)
    intrinsics, lens_notes = intrinsics_of(frames, height, width, data.image_scale)
    if data.half_res:
        intrinsics, height, width = half_intrinsics(intrinsics, height, width)

    def true_depth(view: int) -> np.ndarray | None:
        frame = frames[view]
        if frame.depth_scale is None:
            return None
        depth = read_depth(frame.depth, full_size, frame.depth_scale)
        return nearest(depth, height, width, 0.5) if data.half_res else depth  # the middle of what `half_size` averages

    poses, pose_notes = poses_of(frames)
    as_released = like_nerf_synthetic(poses[:n_train])
    notes = [*files.notes, *depth_note, *lens_notes, *pose_notes,
             *copies_note([frame.image for frame in frames], poses, train, photographed)]
    if not as_released:
        notes.append("WARNING: the training cameras do not look at the origin from about 4 away, as in NeRF synthetic: "
                     "what they see may lie outside of its bounds, -1.5 to 1.5, so the bounds are all that they see "
                     "between near and far, and the video's path goes through them")
    return Scene(
        name=folder.resolve().name,
        view_names=tuple(frame.name for frame in frames),
        cameras=Cameras.of_arrays(poses, intrinsics, [(height, width)] * len(frames), NEAR, FAR, data.pixel_center),
        split=Split(
            train=train,
            val=val,
            test=photographed,
            unseen=unseen_pool(len(frames), train, test, data.unseen_poses),
            unmeasured=tuple(view for view in test if view not in photographed),
        ),
        photographs=Photographs(
            image=files.image,
            alpha=files.alpha if files.has_alpha else None,
            depth=true_depth if any(frame.depth_scale for frame in frames) else None,
        ),
        white_background=data.white_bkgd,
        bounds=BOUNDS if as_released else None,
        path=circle() if as_released else None,
        notes=tuple(notes),
    )


class Frame(NamedTuple):
    """One view of a split."""

    name: str
    image: Path
    depth: Path
    depth_scale: float | None  # z-depth of one step of the depth image's values; None: there is no depth image
    source: Path  # the JSON file
    lens: dict[str, float]  # what it, or else its file, says of ANGLES, SIZES and CENTRE
    pose: np.ndarray  # 3 4

    @property
    def own_size(self) -> tuple[float, float] | None:
        """Width and height of the images whose pixels its lens counts in, where it says so."""
        in_pixels = {"fl_x", "fl_y", "cx", "cy"} & set(self.lens)
        return (self.lens["w"], self.lens["h"]) if in_pixels and {"w", "h"} <= set(self.lens) else None


def read_split(folder: Path, split: str, data: DataConfig) -> list[Frame]:
    """The frames of a split that are kept; of train at least one."""
    path = folder / f"transforms_{split}.json"
    if not path.is_file():
        if split == "train":
            raise InputError(f"{path}: no such file; a Blender scene has one, and others of val and test")
        return []
    content = read_json(path)
    try:
        frames = content["frames"][:: max(data.testskip, 1)] if split != "train" else content["frames"]
        frames = [(frame["file_path"], np.array(frame["transform_matrix"], float), frame) for frame in frames]
        scale = content.get("depth_scale")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: {reason}; expected camera_angle_x and frames of file_path and transform_matrix"
        ) from error
    if not frames and split == "train":
        raise InputError(f"{path}: found no frames, expected at least one")
    if "depth_scale" in content and not (isinstance(scale, int | float) and 0 < scale <= FAR):
        raise InputError(f"{path}: depth_scale is {scale!r}, expected a number above 0, at most {FAR:g} (far)")
    found = []
    for file_path, matrix, entry in frames:
        check_frame(path, file_path, matrix, data.allow_outside)
        file_path = file_path.replace("\\", "/")
        image, stem = image_file(folder, file_path), without_ending(file_path)
        depth, lens = folder / f"{stem}_depth.png", lens_of(path, content | entry)
        found.append(Frame(view_name(split, stem), image, depth, scale, path, lens, matrix[:3]))
    return found


def check_frame(path: Path, file_path: object, matrix: np.ndarray, allow_outside: bool) -> None:
    """Raise InputError unless a frame of the file `path` can be used."""
    if not isinstance(file_path, str):
        raise InputError(f"{path}: found {file_path!r} as file_path, expected the path of an image")
    if not allow_outside and is_outside(file_path):
        raise InputError(f"{path}: file_path {file_path!r} leads out of the scene's folder, expected a path within "
                         "it (--allow_outside takes it as it is)")
    fault = matrix_fault(matrix)
    if not fault and len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        row = " ".join(f"{x:.3g}" for x in matrix[3])
        fault = f"of last row {row} instead of 0 0 0 1 (transposed?)"
    if fault:
        expected = "a finite 4 x 4 matrix that is a camera's pose"
        raise InputError(f"{path}: transform_matrix of {file_path} is {fault}, expected {expected}")


def is_outside(file_path: str) -> bool:
    """Whether a path, of this system or of Windows, is absolute or goes up; where links lead is the user's affair."""
    path = PureWindowsPath(file_path)
    return bool(path.anchor) or ".." in path.parts


def without_ending(file_path: str) -> str:
    return file_path.rpartition(".")[0] if file_path.endswith(BOTH_CASES) else file_path


def image_file(folder: Path, file_path: str) -> Path:
    """The image that a file_path with or without an ending means; where there is none, what it most likely means."""
    as_it_is = [folder / file_path] if file_path.endswith(BOTH_CASES) else []
    candidates = [*as_it_is, *(folder / f"{file_path}{ending}" for ending in BOTH_CASES)]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def require_images(frames: Sequence[Frame], train: Sequence[int]) -> None:
    """Raise InputError unless the images of those of the train frames that are trained on are there."""
    for view in train:
        if not os.path.isfile(frames[view].image):
            there = [other for other, frame in enumerate(frames) if os.path.isfile(frame.image)]
            some = " ".join(map(str, there[:10])) + (" ..." if len(there) > 10 else "")
            advice = f" (--train_scene {some} are there)" if there else ""
            raise InputError(f"{frames[view].image}: the image is missing, expected every image that is trained on"
                             f"{advice}")


def view_name(split: str, file_path: str) -> str:
    """"./train/r_0" -> "train/r_0"; the split comes first even where the files lie elsewhere."""
    path = PurePosixPath(file_path)
    return str(path if path.parts[:1] == (split,) else split / path)


# Poses.


def poses_of(frames: Sequence[Frame]) -> tuple[np.ndarray, list[str]]:
    """v 3 4, with axes of length 1, and a note where they had others."""
    poses = np.stack([frame.pose for frame in frames])
    if fault := rotation_fault(poses):
        frame = frames[fault[0]]
        raise InputError(f"{frame.source}: transform_matrix of {frame.name} is {fault[1]}, expected a camera's pose")
    poses, scaled = unscaled(poses)
    return poses, [scale_note(int(scaled.sum()), frames[scaled.argmax()].name)] if scaled.any() else []


def like_nerf_synthetic(poses: np.ndarray) -> bool:
    """Whether cameras (v 3 4) look at the origin from 4 away, a tenth of that more or less."""
    centres, back = poses[:, :, 3], poses[:, :, 2]
    along = (centres * back).sum(1)  # the origin's z-depth
    missed = np.linalg.norm(centres - along[:, None] * back, axis=1)
    return abs(along.mean() / CIRCLE_RADIUS - 1) <= 0.1 and missed.mean() <= 0.1 * CIRCLE_RADIUS


# Intrinsics.


def lens_of(path: Path, entry: dict[str, Any]) -> dict[str, float]:
    """What a frame, or else its file, says of ANGLES, SIZES and CENTRE. Raises InputError where that cannot be used, or
    the camera is not a pinhole."""
    lens = {name: entry[name] for name in (*ANGLES, *SIZES, *CENTRE) if name in entry}
    for name, value in lens.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
        if name in ANGLES and not (number and 1e-6 < value < np.pi):
            raise InputError(f"{path}: {name} is {value!r}, expected radians between 1e-6 and pi")
        if not number or (name in SIZES and value <= 0):
            raise InputError(f"{path}: {name} is {value!r}, expected a number{' above 0' if name in SIZES else ''}")
    if not {"camera_angle_x", "camera_angle_y", "fl_x", "fl_y"} & set(lens):
        raise InputError(f"{path}: no 'camera_angle_x'; expected it, or fl_x, a focal length in pixels")
    model = str(entry.get("camera_model") or "PINHOLE").upper()
    bent = [f"{name} {entry[name]}" for name in DISTORTION if entry.get(name)]
    if model not in PINHOLES or entry.get("is_fisheye"):
        bent = [f"camera_model {model}" if model not in PINHOLES else "is_fisheye"]
    if bent:
        raise InputError(f"{path}: found {', '.join(bent)}, expected photographs without distortion; "
                         "--dataset_type capture undistorts them")
    return lens


def intrinsics_of(
    frames: Sequence[Frame], height: int, width: int, image_scale: float
) -> tuple[np.ndarray, list[str]]:
    """fx fy cx cy of each frame (v 4) in pixels of the images, and notes.

    What is in pixels is of images of w x h, where that is said, else image_scale times as large as ours.
    """
    sizes, notes = {frame.own_size: frame for frame in frames if image_scale == 1}, []
    for size, frame in sizes.items():
        if size in (None, (width, height)):
            continue
        w, h = size
        if max(abs(h * width / w - height), abs(w * height / h - width)) > 1:
            raise InputError(f"{frame.source}: w and h are {w:g} and {h:g}, expected the shape of the images, which "
                             f"are {width} x {height}")
        notes.append(f"the cameras are of images of {w:g} x {h:g}: scaled to {width} x {height}")
    return np.stack([intrinsics_of_frame(frame, height, width, image_scale) for frame in frames]), notes


def intrinsics_of_frame(frame: Frame, height: int, width: int, image_scale: float) -> np.ndarray:
    lens = frame.lens
    across, down = 1 / image_scale, 1 / image_scale
    if image_scale == 1 and frame.own_size:
        across, down = width / frame.own_size[0], height / frame.own_size[1]
    fx = lens["fl_x"] * across if "fl_x" in lens else None
    fy = lens["fl_y"] * down if "fl_y" in lens else None
    if "camera_angle_x" in lens:
        by_angle = 0.5 * width / np.tan(0.5 * lens["camera_angle_x"])
        fx = by_angle if fx is None else fx
        factor = fx / by_angle
        if any(abs(factor / known - 1) < 0.02 for known in (2, 4, 8, 1 / 2, 1 / 4, 1 / 8)):
            raise InputError(f"{frame.source}: fl_x {lens['fl_x']:g} does not go with camera_angle_x "
                             f"{lens['camera_angle_x']:.4g} and images of {width} x {height}, expected the cameras of "
                             f"these images (or --image_scale {factor:.3g})")
    if fy is None and "camera_angle_y" in lens:
        fy = 0.5 * height / np.tan(0.5 * lens["camera_angle_y"])
    if fy is None:  # square pixels, in the images that it counts in
        fy = lens["fl_x"] * down if "fl_x" in lens else fx
    fx = fy if fx is None else fx
    cx = lens["cx"] * across if "cx" in lens else 0.5 * width
    cy = lens["cy"] * down if "cy" in lens else 0.5 * height
    return np.array([fx, fy, cx, cy], float)
