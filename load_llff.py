"""LLFF scenes: images/, images_8/ and the like, and poses_bounds.npy -> Scene."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from infonerf.config import DataConfig
from infonerf.scene.arrays import read_array
from infonerf.scene.cameras import NDC, Cameras, Pixels
from infonerf.scene.checks import LARGEST, matrix_fault, require_folder
from infonerf.scene.normalise import moved_poses, scale_of
from infonerf.scene.photographs import ImageFiles, copies_note, image_files
from infonerf.scene.poses import common_point, look_along, normalised
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import check_views, choose_views, unseen_pool
from infonerf.system.errors import InputError

CLOSEST = 1 / 0.75  # z-depth of the least bound in the scene's world: the released bd_factor
PATH_POSES, PATH_TURNS = 120, 2
EXPECTED = "expected n x 17 numbers: pose, height, width, focal and 2 depths of each view"


def load_llff(data: DataConfig) -> Scene:
    """Load a scene of LLFF (docs/method.md, Data).

    `train_scene` and `test_scene` number the images in the order of their names. Without `test_scene` every
    `llffhold`-th is a test view; with -1 all are that are not trained on. Rays are in NDC without `no_ndc`. Raises
    InputError where a file or option cannot be used.
    """
    if data.maskdir:
        raise InputError("--maskdir: not for LLFF scenes")
    if data.spherify and not data.no_ndc:
        raise InputError("--spherify: found no --no_ndc, expected it: NDC is of cameras that look one way")
    folder = require_folder(data.datadir, "datadir")
    file = folder / "poses_bounds.npy"
    poses, hwf, bounds = read_poses(file)
    n_views = len(poses)
    paths, reduction = find_images(folder, data.factor, n_views)
    world = recentring(poses, bounds)
    if data.spherify:
        world = spherical(moved_poses(world, poses), file) @ world
    poses, bounds = moved_poses(world, poses), bounds * scale_of(world)
    train, test = split_views(poses, data)

    files = ImageFiles(paths, train[0], views=train[1:], others=test, half=False, white=data.white_bkgd,
                       drop_alpha=data.drop_alpha)  # fmt: skip
    height, width = (max(round(side / reduction) // (2 if data.half_res else 1), 1) for side in files.full_size)
    intrinsics = intrinsics_of(hwf, height, width)
    check_shape(paths[train[0]], files.full_size, hwf, file)
    near, far, ndc = 0.9 * bounds.min(), bounds.max(), None
    if not data.no_ndc:
        near, far, ndc = 0.0, 1.0, NDC(*(2 * intrinsics[0, :2] / (width, height)).tolist())
    scene = Scene(
        name=folder.resolve().name,
        view_names=tuple(path.stem for path in paths),
        cameras=Cameras.of_arrays(poses, intrinsics, [(height, width)] * n_views, near, far, data.pixel_center, ndc),
        split=Split(train=train, val=test, test=test, unseen=unseen_pool(n_views, train, test, data.unseen_poses)),
        photographs=Photographs(
            image=reduced(files.image, height, width),
            alpha=reduced(files.alpha, height, width) if files.has_alpha else None,
        ),
        white_background=data.white_bkgd,
        path=circle_around(poses) if data.spherify else spiral(poses, bounds),
        world=world,
        notes=(*files.notes, *copies_note(paths, poses, train, test)),
    )
    if ndc:
        check_forward(scene)
    return scene


# Files.


def read_poses(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (v 3 4, OpenGL, in the file's world), height, width and focal length of their images (v 3), and the least
    and greatest depth of what each view sees (v 2)."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; an LLFF scene has its cameras there")
    try:
        array = read_array(path)
    except Exception as error:  # numpy has its own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable array of numbers ({reason}), {EXPECTED}") from error
    if array.ndim != 2 or not len(array) or array.shape[1] != 17:
        raise InputError(f"{path}: found an array of shape {array.shape}, {EXPECTED}")
    down, right, back, centre, hwf = np.moveaxis(array[:, :15].reshape(-1, 3, 5), -1, 0)
    poses, bounds = np.stack([right, -down, back, centre], axis=-1), array[:, 15:]
    for view, row in enumerate(array):
        fault = "not finite" if not np.isfinite(row).all() else matrix_fault(poses[view])
        if not fault and not (hwf[view].min() > 1 / LARGEST and hwf[view].max() < LARGEST):
            fault = f"of height, width and focal {hwf[view].tolist()}"
        if not fault and not 1 / LARGEST < bounds[view, 0] < bounds[view, 1] < LARGEST:
            fault = f"of depths {bounds[view].tolist()}"
        if fault:
            raise InputError(f"{path}: the camera of view {view} (from 0) is {fault}, expected a finite pose, height, "
                             "width and focal above 0, and depths 0 < near < far")
    return poses, hwf, bounds


class FoundImages(NamedTuple):
    """One image file a view, and what their size is to be divided by."""

    paths: list[Path]
    reduction: int


def find_images(folder: Path, factor: int, n_views: int) -> FoundImages:
    """Those of images_FACTOR, where it holds one for each view; else of images, to be reduced."""
    wanted = [folder / "images"] if factor == 1 else [folder / f"images_{factor}", folder / "images"]
    found = {path.name: image_files(path) for path in wanted if path.is_dir()}
    for name, paths in found.items():
        if len(paths) == n_views:
            return FoundImages(paths, 1 if name == wanted[0].name else factor)
    for name, paths in found.items():
        raise InputError(f"{folder / name}: found {len(paths)} images, expected {n_views}, as many as "
                         f"{folder / 'poses_bounds.npy'} has cameras")
    others = sorted(path.name for path in folder.glob("images*") if path.is_dir())
    found = f"found {' '.join(others)}" if others else "found neither"
    raise InputError(f"--factor {factor}: {found} in {folder}, expected {' or '.join(path.name for path in wanted)}")


def reduced(read: Callable[[int], np.ndarray], height: int, width: int) -> Callable[[int], np.ndarray]:
    """A reader of a view's pixels at this size, by averaging areas."""

    def read_reduced(view: int) -> np.ndarray:
        pixels = read(view)
        if pixels.shape[:2] == (height, width):
            return pixels
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    return read_reduced


def intrinsics_of(hwf: np.ndarray, height: int, width: int) -> np.ndarray:
    """fx fy cx cy (v 4) of images of this size from height, width and focal length (v 3) of those of another."""
    heights, widths, focals = hwf.T
    centre = np.tile([0.5 * width, 0.5 * height], (len(hwf), 1))
    return np.column_stack([focals * width / widths, focals * height / heights, centre])


def check_shape(image: Path, size: tuple[int, int], hwf: np.ndarray, poses: Path) -> None:
    """Raise InputError where the images are not the cameras' images reduced, but for rounding."""
    (height, width), (h, w) = size, hwf[:, :2].T
    if (np.abs(width * h - height * w) > w + h).any():
        view = int(np.argmax(np.abs(width * h - height * w) - w - h))
        raise InputError(f"{image}: the image is {width} x {height}, expected the shape of the {w[view]:g} x "
                         f"{h[view]:g} that {poses} says")


# Views.


def split_views(poses: np.ndarray, data: DataConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Training and test views."""
    n_views, named = len(poses), data.test_scene
    if named == [-1]:
        test = ()
    elif named:
        check_views(named, n_views, "test_scene")
        test = tuple(named)
    elif data.llffhold:
        test = tuple(range(0, n_views, data.llffhold))
    else:  # as released: the one nearest to the mean
        centres = poses[:, :, 3]
        test = (int(np.argmin(np.square(centres - centres.mean(0)).sum(-1))),)
    candidates = range(n_views) if data.train_scene else [view for view in range(n_views) if view not in test]
    if not candidates:
        option = f"--test_scene {' '.join(map(str, named))}" if named else f"--llffhold {data.llffhold}"
        raise InputError(f"{option}: all {n_views} views are test views, expected some to train on")
    chosen = choose_views(len(candidates), data.train_scene, data.fewshot, data.fewshot_seed, data.fewshot_choice)
    train = tuple(candidates[i] for i in chosen)
    if both := sorted(set(train) & set(test)):
        raise InputError(f"--train_scene: view {both[0]} is also a test view (test_scene, llffhold), expected others")
    test = test or tuple(view for view in range(n_views) if view not in train)
    if not test:
        raise InputError(f"--test_scene -1: all {n_views} views are trained on, expected some that are not: name the "
                         "training views with train_scene or fewshot")
    return train, test


def check_forward(scene: Scene) -> None:
    """Raise InputError unless every ray of every view looks along -z, where NDC is."""
    cameras = scene.cameras
    for view, (height, width) in enumerate(cameras.sizes):
        rows, cols = torch.tensor([0, 0, height, height]), torch.tensor([0, width, 0, width])
        directions = cameras.world_rays(Pixels(torch.full((4,), view), rows, cols)).directions
        if (directions[:, 2] > -0.1 * directions.norm(dim=-1)).any():
            raise InputError(f"scene {scene.name}: view {scene.view_names[view]} looks away from the cameras' mean "
                             "direction, expected cameras that look one way for NDC, or --no_ndc (with --spherify "
                             "where they stand all around)")


# The world: similarities (4 4) from that of the files, and paths in it.


def to_frame(pose: np.ndarray, scale: float) -> np.ndarray:
    """4 4: the world as the camera of a pose (3 4) sees it, times `scale`."""
    turn = pose[:, :3].T
    return np.block([[scale * turn, -scale * (turn @ pose[:, 3:])], [np.zeros((1, 3)), np.ones((1, 1))]])


def mean_pose(poses: np.ndarray) -> np.ndarray:
    """3 4: at the mean of the centres, looking along the mean of the directions, up along the mean of the ups."""
    total = poses.sum(0) + 1e-12 * poses[0]  # of directions that cancel out, the first one's is left
    _, up, back, _ = np.moveaxis(total, -1, 0)
    centre = poses[:, :, 3].mean(0)
    return look_along(centre[None], -back[None], up[None])[0]


def recentring(poses: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The mean pose becomes the identity, and the least depth CLOSEST."""
    return to_frame(mean_pose(poses), CLOSEST / bounds.min())


def spherical(poses: np.ndarray, file: Path) -> np.ndarray:
    """The point that the cameras look at becomes the origin, the mean of their centres lies above it on the z axis, and
    the root mean square of their distances becomes 1."""
    point = common_point(poses)
    if point is None:
        raise InputError(f"--spherify: the cameras of {file} do not look at a point that they have in common, expected "
                         "them to")
    offsets = poses[:, :, 3] - point
    up = normalised(offsets.mean(0))
    x = normalised(np.cross([0.1, 0.2, 0.3], up))  # any direction across; this is the released one
    frame = np.stack([x, np.cross(up, x), up, point], axis=-1)
    return to_frame(frame, 1 / np.sqrt(np.square(offsets).sum(-1).mean()))


def circle_around(poses: np.ndarray) -> np.ndarray:
    """PATH_POSES 3 4 on the unit sphere, at the mean height of the cameras' centres, that look at the origin."""
    height = poses[:, 2, 3].mean()
    angles, radius = 2 * np.pi * np.arange(PATH_POSES) / PATH_POSES, np.sqrt(max(1 - height**2, 0))
    positions = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full_like(angles, height)], axis=-1)
    return look_along(positions, -positions, np.tile([0.0, 0.0, 1.0], (PATH_POSES, 1)))


def spiral(poses: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """PATH_POSES 3 4: PATH_TURNS turns about the mean pose, as wide as 90 % of the cameras are away from it, all
    looking at a point ahead whose disparity is a mean of the scene's."""
    centre, n = mean_pose(poses), PATH_POSES
    focus = 1 / (0.25 / (0.9 * bounds.min()) + 0.75 / (5 * bounds.max()))
    radii = np.percentile(np.abs(poses[:, :, 3]), 90, axis=0)
    angles = 2 * np.pi * PATH_TURNS * np.arange(n) / n
    offsets = radii * np.stack([np.cos(angles), -np.sin(angles), -np.sin(0.5 * angles)], axis=-1)
    positions = offsets @ centre[:, :3].T + centre[:, 3]
    target = centre[:, 3] - focus * centre[:, 2]
    return look_along(positions, target - positions, np.tile(poses[:, :, 1].sum(0), (n, 1)))
