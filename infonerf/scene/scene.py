"""The Scene: what every loader returns and everything else takes, whatever the data set.

Axes: v views, h w pixels. Cameras are OpenGL: x right, y up, the camera looks along -z.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infonerf.system.errors import InputError

LONGEST_NAME = 200  # bytes; file systems hold 255, and results add to it
LARGEST = 1e12  # of a camera's numbers; rays are computed in float32, whose range ends with its square


@dataclass(frozen=True)
class Scene:
    """Posed photographs of one scene. Images are decoded only when `image` is called, which raises
    InputError where the file cannot be used; so are masks, and true depths, None for a view that has none.

    Views are numbered 0..v-1 over all splits; `train`, `val`, `test` and `unseen` hold such numbers.
    """

    name: str
    view_names: tuple[str, ...]  # v, unique, e.g. "train/r_0"; results are named after them
    poses: np.ndarray  # v 3 4, camera to world
    intrinsics: np.ndarray  # v 4: fx fy cx cy, in pixels
    height: int
    width: int
    near: float  # z-depth
    far: float
    white_background: bool
    train: tuple[int, ...]  # views whose pixels are trained on
    val: tuple[int, ...]
    test: tuple[int, ...]
    unseen: tuple[int, ...]  # the unseen pool: views whose poses, never pixels, regularise
    image: Callable[[int], np.ndarray]  # decodes a view: h w 3 float32 in 0..1, background applied
    bounds: np.ndarray | None = None  # 2 3: the corners of a box around what there is to see, where it is known
    alpha: Callable[[int], np.ndarray] | None = None  # decodes a view's alpha: h w float32 in 0..1; None: unknown
    mask: Callable[[int], np.ndarray] | None = None  # decodes a view's mask: h w bool, True on the object
    depth: Callable[[int], np.ndarray | None] | None = None  # decodes a view's z-depth: h w float32, 0 = no surface
    made_poses: np.ndarray | None = None  # n 3 4: poses of no view, made to be the unseen pool in place of `unseen`
    path: np.ndarray | None = None  # n 3 4, the poses of its video
    notes: tuple[str, ...] = ()  # what a user should be told about this scene

    def __post_init__(self):
        n = len(self.view_names)
        if self.poses.shape != (n, 3, 4) or self.intrinsics.shape != (n, 4):
            raise ValueError(
                f"{n} views, but poses {self.poses.shape} and intrinsics {self.intrinsics.shape}"
            )
        files = [name.replace("/", "_") for name in self.view_names]  # what results are called
        if len(set(files)) != n:
            twice = next(name for name, file in zip(self.view_names, files, strict=True) if files.count(file) > 1)
            raise InputError(f"scene {self.name}: view {twice} is listed twice, expected every view once (_ is as /)")
        for name, file in zip(self.view_names, files, strict=True):
            if len(file.encode(errors="replace")) > LONGEST_NAME:
                raise InputError(f"scene {self.name}: view {name}: expected a name of at most {LONGEST_NAME} bytes")
        for name, pose, fxfycxcy in zip(self.view_names, self.poses, self.intrinsics, strict=True):
            if fault := matrix_fault(pose):
                raise InputError(f"scene {self.name}: the pose of view {name} is {fault}, expected a camera's")
            if fault := intrinsics_fault(fxfycxcy):
                raise InputError(f"scene {self.name}: the intrinsics of view {name} are {fault}")
        if not 0 <= self.near < self.far:
            raise InputError(f"scene {self.name}: near {self.near}, far {self.far}: expected 0 <= near < far")


def bounds_of(scene: Scene) -> np.ndarray:
    """2 3: the scene's bounds; where it has none, the box around all that its training cameras see from near to far."""
    if scene.bounds is not None:
        return scene.bounds
    views = list(scene.train)
    fx, fy, cx, cy = scene.intrinsics[views].T
    corners = [
        np.stack([(col - cx) / fx * z, -(row - cy) / fy * z, -z + 0 * fx], axis=-1)
        for col in (0, scene.width) for row in (0, scene.height) for z in (scene.near, scene.far)
    ]  # 8 of v 3, in the cameras' own axes
    rotations, origins = scene.poses[views][:, :, :3], scene.poses[views][:, :, 3]
    points = np.concatenate([np.einsum("vij,vj->vi", rotations, corner) + origins for corner in corners])
    return np.stack([points.min(0), points.max(0)])


def choose_views(n_views: int, train_scene: list[int] | None, fewshot: int, fewshot_seed: int) -> tuple[int, ...]:
    """The few-shot choice: `train_scene` as given, else `fewshot` of the views drawn by
    `numpy.random.RandomState(fewshot_seed)`, else all of them (method specification, section 9).

    With seed 0 and 100 views, 4 shots are 26 86 2 55, the paper's.
    """
    if not train_scene:
        if not 0 <= fewshot <= n_views:
            raise InputError(f"--fewshot {fewshot}: there are {n_views} views to draw from, expected 0..{n_views}")
        if fewshot:
            drawn = np.random.RandomState(fewshot_seed).choice(n_views, fewshot, replace=False)
            return tuple(int(view) for view in drawn)
        return tuple(range(n_views))
    check_views(train_scene, n_views, "train_scene")
    if fewshot and fewshot != len(train_scene):
        raise InputError(
            f"--fewshot {fewshot} contradicts --train_scene, which names {len(train_scene)} views: "
            f"expected fewshot = {len(train_scene)}, or 0"
        )
    return tuple(train_scene)


def check_views(views: list[int], n_views: int, option: str) -> None:
    """Raise InputError unless all `views` are different and in 0..n_views-1."""
    for view in views:
        if not 0 <= view < n_views:
            raise InputError(f"--{option}: found view {view}, expected 0..{n_views - 1}")
        if views.count(view) > 1:
            raise InputError(f"--{option}: view {view} is named twice, expected every view once")


def unseen_pool(
    n_views: int, train: tuple[int, ...], test: tuple[int, ...], unseen_poses: str
) -> tuple[int, ...]:
    """The views whose poses may be regularised.

    `all` is the released pool: every pose of the data set. `no_test` leaves the test poses out,
    unless nothing but the training poses would be left.
    """
    everything = tuple(range(n_views))
    pool = tuple(view for view in everything if view not in set(test))
    return everything if unseen_poses == "all" or set(pool) <= set(train) else pool


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
