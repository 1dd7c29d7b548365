"""DTU scans in the layout of IDR and pixelNeRF: image/, cameras.npz, masks -> Scene."""

import re
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from infonerf.config import DataConfig
from infonerf.scene.cameras import Cameras
from infonerf.scene.checks import intrinsics_fault, matrix_fault, require_folder
from infonerf.scene.photographs import ImageFiles, half_intrinsics, half_size, read_pixels
from infonerf.scene.poses import through_cameras
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import check_views, choose_views, unseen_pool
from infonerf.system.errors import InputError

NEAR, FAR = 0.1, 5.0
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])  # world and camera axes, OpenCV <-> OpenGL
ENDINGS = (".png", ".jpg", ".jpeg")
LARGEST_MATRIX = 100_000  # bytes


def load_dtu(data: DataConfig) -> Scene:
    """Load a scan of the DTU MVS data set (docs/method.md, Data).

    `train_scene` and `test_scene` number the images in order; without `test_scene` (or with -1) all
    images that are not trained on are test views. `dtu_intrinsics` `shared` is the released focal,
    the mean over views of (fx + fy)/2 about the image's centre; `per_view` keeps each camera's own.
    Raises InputError where a file or option cannot be used.
    """
    folder = require_folder(data.datadir, "datadir")
    paths = numbered_images(require_folder(folder / "image", "datadir"))
    n_views = len(paths)
    poses, intrinsics = read_cameras(folder / "cameras.npz", paths)
    intrinsics = intrinsics / data.image_scale
    train, test = split_views(n_views, data)

    files = ImageFiles(paths, train[0], views=train[1:], others=test, half=data.half_res, white=data.white_bkgd,
                       drop_alpha=data.drop_alpha)  # fmt: skip
    height, width = files.full_size
    if data.dtu_intrinsics == "shared":
        focal = intrinsics[:, :2].mean()
        intrinsics = np.tile([focal, focal, 0.5 * width, 0.5 * height], (n_views, 1))
    if data.half_res:
        intrinsics, height, width = half_intrinsics(intrinsics, height, width)

    return Scene(
        name=folder.resolve().name,
        view_names=tuple(path.stem for path in paths),
        cameras=Cameras.of_arrays(poses, intrinsics, [(height, width)] * n_views, NEAR, FAR, data.pixel_center),
        split=Split(train=train, val=test, test=test, unseen=unseen_pool(n_views, train, test, data.unseen_poses)),
        photographs=Photographs(
            image=files.image,
            alpha=files.alpha if files.has_alpha else None,
            mask=mask_reader(data.maskdir, paths, files.full_size, data.half_res) if data.maskdir else None,
        ),
        white_background=data.white_bkgd,
        path=through_cameras(poses[list(train)]),
        notes=files.notes,
    )


def split_views(n_views: int, data: DataConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Training and test views."""
    chosen_test = None if not data.test_scene or data.test_scene == [-1] else data.test_scene
    if chosen_test:
        check_views(chosen_test, n_views, "test_scene")
    if not data.train_scene and not data.fewshot and chosen_test:
        train = tuple(view for view in range(n_views) if view not in chosen_test)
    else:
        train = choose_views(n_views, data.train_scene, data.fewshot, data.fewshot_seed)
    test = tuple(chosen_test or (view for view in range(n_views) if view not in train))
    both = sorted(set(train) & set(test))
    if both:
        raise InputError(f"--test_scene: view {both[0]} is also a training view, expected other views")
    if not train or not test:
        raise InputError(
            f"--train_scene: {len(train)} training and {len(test)} test views of {n_views}, expected some of each; "
            "name the training views with train_scene or fewshot"
        )
    return train, test


def numbered_images(folder: Path) -> list[Path]:
    """The images of a folder, sorted by the last number in their names."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    if not paths:
        raise InputError(f"{folder}: found no image, expected files such as 000000.png")
    paths.sort(key=image_number)
    for one, other in pairwise(paths):
        if image_number(one) == image_number(other):
            raise InputError(f"{other}: found the number of {one.name} again, expected one image of each number")
    return paths


def image_number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    if not digits:
        raise InputError(f"{path}: found no number in the name, expected one such as 000000{path.suffix}")
    return int(digits[-1])


def read_cameras(path: Path, images: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Poses (v 3 4) and intrinsics (v 4) from world_mat_i and, where present, scale_mat_i, for the i-th image."""
    n_views = len(images)
    if not path.is_file():
        raise InputError(f"{path}: no such file; a DTU scan has its cameras there")
    try:
        matrices = read_matrices(path)
    except Exception as error:  # numpy, zipfile and zlib have their own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if "allow_pickle" in reason:  # numpy's advice is to execute what is in the file
            reason = "found pickled objects, which may be programs and are never loaded; expected arrays of numbers"
        raise InputError(f"{path}: not a readable npz archive of matrices ({reason})") from error
    if f"world_mat_{n_views}" in matrices and [image_number(image) for image in images] != list(range(n_views)):
        raise InputError(f"{path}: more cameras than the {n_views} images, whose numbers are not 0..{n_views - 1}: "
                         "expected an image for each camera")
    poses, intrinsics = [], []
    for view in range(n_views):
        world = camera_matrix(path, matrices, f"world_mat_{view}", n_views)
        name = f"scale_mat_{view}"
        scale = camera_matrix(path, matrices, name, n_views) if name in matrices else np.eye(4)
        pose, fxfycxcy = decompose(world, scale)
        fault = matrix_fault(pose) or intrinsics_fault(fxfycxcy)
        if fault:
            raise InputError(f"{path}: world_mat_{view} and {name} give a camera that is {fault}, expected another one")
        poses.append(pose)
        intrinsics.append(fxfycxcy)
    return np.stack(poses), np.stack(intrinsics)


def read_matrices(path: Path) -> dict[str, np.ndarray]:
    """The world and scale matrices of an npz archive by name, as float64. What else it has is not read."""
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("found a single array")
        matrices = {}
        for name in archive.files:
            if re.fullmatch(r"(world|scale)_mat_\d+", name):
                if archive.zip.getinfo(f"{name}.npy").file_size > LARGEST_MATRIX:
                    raise ValueError(f"{name} is too large for a matrix")
                matrices[name] = archive[name]
                if matrices[name].dtype.kind not in "iuf":
                    raise ValueError(f"{name} is of type {matrices[name].dtype}, expected numbers")
        return {name: matrix.astype(float) for name, matrix in matrices.items()}


def camera_matrix(path: Path, matrices: dict[str, np.ndarray], name: str, n_views: int) -> np.ndarray:
    if name not in matrices:
        raise InputError(f"{path}: no {name}, expected one for each of the {n_views} images")
    fault = matrix_fault(matrices[name])
    if fault:
        raise InputError(f"{path}: {name} is {fault}, expected a finite, invertible 4 x 4 matrix")
    return matrices[name]


def decompose(world: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One camera's pose (3 4, OpenGL) and fx fy cx cy from its projection K [R|t]."""
    world = world[:3] * np.sign(np.linalg.det(world[:3, :3]))  # known up to scale; this sign makes fx and fy positive
    intrinsic, rotation, centre = cv2.decomposeProjectionMatrix(world)[:3]
    intrinsic = intrinsic / intrinsic[2, 2]
    centre = (centre[:3] / centre[3])[:, 0]
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    fxfycxcy = np.array([intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]])
    with np.errstate(all="ignore"):  # where the diagonal holds a 0, the pose is not finite
        pose[:3, 3] = (centre - scale[:3, 3]) / np.diag(scale)[:3]
        return (FLIP_YZ @ pose @ FLIP_YZ)[:3], fxfycxcy


def mask_reader(maskdir: str, image_paths: list[Path], full_size: tuple[int, int], half_res: bool):
    """view -> h w bool, from the mask whose number is the image's."""
    by_number = {image_number(path): path for path in numbered_images(require_folder(maskdir, "maskdir"))}
    for path in image_paths:
        if image_number(path) not in by_number:
            number = image_number(path)
            raise InputError(f"--maskdir {maskdir}: found no mask numbered {number}, expected one for {path}")

    def read_mask(view: int) -> np.ndarray:
        pixels = read_pixels(by_number[image_number(image_paths[view])], full_size)[..., :3]
        return (half_size(pixels) if half_res else pixels).mean(-1) >= 0.5

    return read_mask
