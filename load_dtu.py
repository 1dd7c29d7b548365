"""DTU scans in the layouts of IDR, NeuS and pixelNeRF: image/, cameras.npz, masks -> Scene."""

import re
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from infonerf.config import DataConfig
from infonerf.scene.arrays import read_arrays
from infonerf.scene.cameras import Cameras
from infonerf.scene.checks import intrinsics_fault, matrix_fault, require_folder
from infonerf.scene.photographs import ImageFiles, copies_note, half_intrinsics, image_files, image_size, read_pixels
from infonerf.scene.poses import through_cameras
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import check_views, choose_views, unseen_pool
from infonerf.system.errors import InputError

NEAR, FAR = 0.1, 5.0
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])  # world and camera axes, OpenCV <-> OpenGL
IMAGE_FOLDERS = ("image", "images")
CAMERA_FILES = ("cameras.npz", "cameras_sphere.npz", "cameras_large.npz")
RECTIFIED = re.compile(r"rect_(\d+)_(\d|max)(?!\d)")  # DTU's own names: the view, from 1, and the light condition
LIGHT = "3"  # that of the field's photographs
LARGEST_MATRIX = 100_000  # bytes
EVEN, LARGEST_SKEW = 1e-3, 0.01  # how exact a similarity and a camera's pixels must be
OFF_MIDDLE = 0.15  # of half an image: as far a principal point may be, and still show that it is of this image


def load_dtu(data: DataConfig) -> Scene:
    """Load a scan of the DTU MVS data set (docs/method.md, Data).

    `train_scene` and `test_scene` number the images in order; without `test_scene` (or with -1) all
    images that are not trained on are test views. `dtu_intrinsics` `shared` is the released focal,
    the mean over views of (fx + fy)/2 about the image's centre; `per_view` keeps each camera's own.
    Raises InputError where a file or option cannot be used.
    """
    folder = require_folder(data.datadir, "datadir")
    images, image_notes = first_of(folder, IMAGE_FOLDERS)
    camera_file, camera_notes = first_of(folder, CAMERA_FILES)
    if not images.is_dir():
        raise InputError(f"--datadir {images}: found no such folder, nor images, expected the pictures of a DTU scan")
    paths, light_notes = numbered_images(images)
    n_views = len(paths)
    poses, intrinsics = read_cameras(camera_file, paths)
    intrinsics = intrinsics / data.image_scale
    train, test = split_views(n_views, data)

    files = ImageFiles(paths, train[0], views=train[1:], others=test, half=data.half_res, white=data.white_bkgd,
                       drop_alpha=data.drop_alpha)  # fmt: skip
    height, width = files.full_size
    check_principal_points(camera_file, paths, intrinsics, files.full_size, data.image_scale)
    if data.dtu_intrinsics == "shared":
        focal = intrinsics[:, :2].mean()
        intrinsics = np.tile([focal, focal, 0.5 * width, 0.5 * height], (n_views, 1))
    if data.half_res:
        intrinsics, height, width = half_intrinsics(intrinsics, height, width)
    mask, mask_notes = None, ()
    if data.maskdir:
        masks = masks_of(data.maskdir, paths, files.full_size)
        mask_notes = check_masks([masks[view] for view in test], (height, width))

        def mask(view: int) -> np.ndarray:
            return read_mask(masks[view], (height, width))

    return Scene(
        name=folder.resolve().name,
        view_names=tuple(path.stem for path in paths),
        cameras=Cameras.of_arrays(poses, intrinsics, [(height, width)] * n_views, NEAR, FAR, data.pixel_center),
        split=Split(train=train, val=test, test=test, unseen=unseen_pool(n_views, train, test, data.unseen_poses)),
        photographs=Photographs(image=files.image, alpha=files.alpha if files.has_alpha else None, mask=mask),
        white_background=data.white_bkgd,
        path=through_cameras(poses[list(train)]),
        notes=(*image_notes, *light_notes, *camera_notes, *files.notes, *mask_notes,
               *copies_note(paths, poses, train, test)),
    )


def first_of(folder: Path, names: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The first of `names` that a folder holds, else the first one; and a note on the others."""
    found = [name for name in names if (folder / name).exists()]
    if not found:
        return folder / names[0], ()
    others = " and ".join(found[1:])
    return folder / found[0], (f"{folder / found[0]} is read, {others} not",) if others else ()


def split_views(n_views: int, data: DataConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Training and test views."""
    chosen_test = None if not data.test_scene or data.test_scene == [-1] else data.test_scene
    if chosen_test:
        check_views(chosen_test, n_views, "test_scene")
    if not data.train_scene and not data.fewshot and chosen_test:
        train = tuple(view for view in range(n_views) if view not in chosen_test)
    else:
        train = choose_views(n_views, data.train_scene, data.fewshot, data.fewshot_seed, data.fewshot_choice)
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


def numbered_images(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The images of a folder in order of their numbers; of several light conditions one, and a note on that."""
    paths = image_files(folder)
    if not paths:
        raise InputError(f"{folder}: found no image, expected files such as 000000.png")
    paths.sort(key=lambda path: (image_number(path), path.name))
    lights = {path: match[2] for path in paths if (match := RECTIFIED.match(path.stem))}
    notes = ()
    if len(set(lights.values())) > 1:
        kept = [path for path in paths if lights.get(path, LIGHT) == LIGHT]
        dark = {image_number(path) for path in paths} - {image_number(path) for path in kept}
        if dark:
            raise InputError(f"{folder}: found several light conditions, but of view {min(dark) + 1} no {LIGHT}, "
                             f"expected rect_{min(dark) + 1:03d}_{LIGHT}_r5000.png")
        paths, notes = kept, (f"{folder}: of the light conditions {', '.join(sorted(set(lights.values())))} only "
                              f"{LIGHT} is read",)  # fmt: skip
    for one, other in pairwise(paths):
        if image_number(one) == image_number(other):
            raise InputError(f"{other}: found the number of {one.name} again, expected one image of each number")
    return paths, notes


def image_number(path: Path) -> int:
    """The last number in a name, in DTU's own names the view's, from 0."""
    if match := RECTIFIED.match(path.stem):
        return int(match[1]) - 1
    digits = re.findall(r"\d+", path.stem)
    if not digits:
        raise InputError(f"{path}: found no number in the name, expected one such as 000000{path.suffix}")
    return int(digits[-1])


def read_cameras(path: Path, images: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Poses (v 3 4) and intrinsics (v 4) from world_mat_i and, where present, scale_mat_i, for the i-th image."""
    n_views = len(images)
    if not path.is_file():
        others = " or ".join(CAMERA_FILES[1:])
        raise InputError(f"{path}: no such file; a DTU scan has its cameras there, or in {others}")
    try:
        matrices = read_arrays(path, re.compile(r"(world|scale)_mat_\d+").fullmatch, LARGEST_MATRIX)
    except Exception as error:  # numpy, zipfile and zlib have their own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable npz archive of matrices ({reason})") from error
    if f"world_mat_{n_views}" in matrices and [image_number(image) for image in images] != list(range(n_views)):
        raise InputError(f"{path}: more cameras than the {n_views} images, whose numbers are not 0..{n_views - 1}: "
                         "expected an image for each camera")
    worlds = [camera_matrix(path, matrices, f"world_mat_{view}", n_views) for view in range(n_views)]
    scale = scene_scale(path, matrices, n_views)
    poses, intrinsics = [], []
    for view, world in enumerate(worlds):
        try:
            pose, fxfycxcy = decompose(world, scale)
            fault = matrix_fault(pose) or intrinsics_fault(fxfycxcy)
        except ValueError as error:
            fault = str(error)
        if fault:
            raise InputError(f"{path}: world_mat_{view} gives a camera that is {fault}, expected another one")
        poses.append(pose)
        intrinsics.append(fxfycxcy)
    return np.stack(poses), np.stack(intrinsics)


def camera_matrix(path: Path, matrices: dict[str, np.ndarray], name: str, n_views: int) -> np.ndarray:
    if name not in matrices:
        raise InputError(f"{path}: no {name}, expected one for each of the {n_views} images")
    matrix = matrices[name]
    fault = matrix_fault(matrix)
    if fault:
        raise InputError(f"{path}: {name} is {fault}, expected a finite, invertible 4 x 4 matrix")
    if len(matrix) == 4 and np.abs(matrix[3, :3]).max() > 1e-6 * np.abs(matrix[3]).max():
        raise InputError(f"{path}: the last row of {name} is {matrix[3].tolist()}, expected 0 0 0 1 (transposed?)")
    return matrix


def scene_scale(path: Path, matrices: dict[str, np.ndarray], n_views: int) -> np.ndarray:
    """3 4: the similarity from the scene's world to the file's, which every scale_mat is; the identity without any."""
    has = [f"scale_mat_{view}" in matrices for view in range(n_views)]
    if not any(has):
        return np.eye(4)[:3]
    if not all(has):
        raise InputError(f"{path}: found scale_mat_{has.index(True)}, but no scale_mat_{has.index(False)}, expected "
                         f"all {n_views} or none: else the cameras are of two worlds")
    scales = [camera_matrix(path, matrices, f"scale_mat_{view}", n_views) for view in range(n_views)]
    for view, scale in enumerate(scales):
        if scale.shape != scales[0].shape or np.abs(scale - scales[0]).max() > EVEN * np.abs(scales[0]).max():
            raise InputError(f"{path}: scale_mat_{view} differs from scale_mat_0, expected the same for every view: "
                             "else the cameras are of several worlds")
    scale = scales[0]
    if len(scale) == 4 and not scale[3, 3] > 0:
        raise InputError(f"{path}: the last row of scale_mat_0 is {scale[3].tolist()}, expected 0 0 0 1")
    scale = scale[:3] / scale[3, 3] if len(scale) == 4 else scale
    lengths = np.linalg.norm(scale[:, :3], axis=0)
    turn = scale[:, :3] / lengths
    if np.ptp(lengths) > EVEN * lengths.max() or np.abs(turn.T @ turn - np.eye(3)).max() > EVEN:
        raise InputError(f"{path}: scale_mat_0 scales unevenly or shears, expected a number times a rotation")
    if np.linalg.det(turn) < 0:
        raise InputError(f"{path}: scale_mat_0 mirrors the scene, expected a number times a rotation")
    return scale


def decompose(world: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One camera's pose (3 4, OpenGL) and fx fy cx cy from its projection K [R|t] and the scene's similarity. Raises
    ValueError where there is no such camera."""
    world = world[:3] * np.sign(np.linalg.det(world[:3, :3]))  # known up to scale; this sign makes fx and fy positive
    world = np.ldexp(world, -round(np.log2(np.linalg.norm(world[2, :3]))))  # OpenCV asserts absolute bounds
    try:
        intrinsic, rotation, centre = cv2.decomposeProjectionMatrix(world)[:3]
    except cv2.error as error:  # its assertions
        raise ValueError("none that OpenCV can decompose") from error
    intrinsic = intrinsic / intrinsic[2, 2]
    if abs(intrinsic[0, 1]) > LARGEST_SKEW * intrinsic[0, 0]:
        raise ValueError(f"skewed: K is {intrinsic.round(3).tolist()}")
    centre = (centre[:3] / centre[3])[:, 0]
    lengths = np.linalg.norm(scale[:3, :3], axis=0)
    turn = scale[:3, :3] / lengths
    pose = np.eye(4)
    pose[:3, :3] = turn.T @ rotation.T
    pose[:3, 3] = turn.T @ (centre - scale[:3, 3]) / lengths
    fxfycxcy = np.array([intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]])
    return (FLIP_YZ @ pose @ FLIP_YZ)[:3], fxfycxcy


def check_principal_points(path: Path, images: list[Path], intrinsics: np.ndarray, size: tuple[int, int],
                           image_scale: float) -> None:
    """Raise InputError where cameras (v 4) are not those of images of `size` (h w): with principal points outside, or
    in the middle of images so many times as large."""
    height, width = size
    factors = np.array([size_factor(*point) for point in 2 * intrinsics[:, 2:] / [width, height]])
    if (factors == 1).all():
        return
    view = int((factors != 1).argmax())
    (cx, cy), factor = intrinsics[view, 2:], factors[view]
    found = f"{path}: the principal point of {images[view].name} is {cx:.4g} {cy:.4g} in an image of {width} x {height}"
    if np.isnan(factor):
        raise InputError(f"{found}, expected one inside")
    if (np.abs(factors / factor - 1) < 0.1).all():
        factor = np.median(factors)
        raise InputError(f"{found}: the cameras are of images about {factor:.3g} times as large, expected "
                         f"--image_scale {image_scale * factor:.3g} (the width of those images / {width})")
    raise InputError(f"{found}: its camera is of an image about {factor:.3g} times as large, others are not; expected "
                     "all cameras to be of the images as they are")


def size_factor(x: float, y: float) -> float:
    """How many times as large as its image a camera's image is, if its principal point, where 1 1 is the middle of the
    image, is about its middle. 1 where another factor is not evident; NaN for a point outside that shows none."""
    middle = (x + y) / 2
    if abs(middle - 1) > OFF_MIDDLE and abs(x - y) < 0.1 * middle:
        usual = 2.0 ** np.round(np.log2(middle))
        return usual if abs(middle / usual - 1) < 0.1 else middle
    return 1.0 if 0 <= x <= 2 and 0 <= y <= 2 else np.nan


def masks_of(maskdir: str, images: list[Path], size: tuple[int, int]) -> list[Path]:
    """The masks of the images, those whose numbers are theirs, in `maskdir` or a folder `mask` in it. Raises
    InputError where one is missing, or is not of the images' `size` (h w) or larger in the same proportions."""
    folder = require_folder(maskdir, "maskdir")
    if not image_files(folder) and (folder / "mask").is_dir():
        folder = folder / "mask"
    by_number = {image_number(path): path for path in numbered_images(folder)[0]}
    for path in images:
        if image_number(path) not in by_number:
            number = image_number(path)
            raise InputError(f"--maskdir {maskdir}: found no mask numbered {number}, expected one for {path}")
    masks, (height, width) = [by_number[image_number(path)] for path in images], size
    for path in masks:
        h, w = image_size(path)
        if h < height or w < width or abs(w * height - h * width) > 0.005 * h * width:
            raise InputError(f"{path}: the mask is {w} x {h}, expected {width} x {height} as the first training image, "
                             "or larger in the same proportions")
    return masks


def check_masks(paths: list[Path], size: tuple[int, int]) -> tuple[str, ...]:
    """Notes on which masks are empty or full. Raises InputError where all are."""
    shares = [read_mask(path, size).mean() for path in paths]
    notes = []
    for share, word in (0, "empty"), (1, "full"):
        found = [path for path, other in zip(paths, shares, strict=True) if other == share]
        if len(found) == len(paths):
            raise InputError(f"{found[0]}: the mask is {word}, as every test view's is, expected the object's")
        if found:
            notes.append(f"{found[0].parent}: the masks of these test views are {word}: "
                         + ", ".join(path.name for path in found))  # fmt: skip
    return tuple(notes)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask at `size` (h w), bool: its alpha, unless that is the same everywhere, else its brightness. One without
    bright pixels (of 0 and 1, say) is scaled; a larger one is averaged. True from a half on."""
    pixels = read_pixels(path)
    in_alpha = pixels.shape[-1] == 4 and np.ptp(pixels[..., 3]) > 0
    values = pixels[..., 3] if in_alpha else pixels[..., :3].mean(-1)
    if 0 < values.max() < 0.5:
        values = values / values.max()
    if values.shape != size:
        values = cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)
    return values > 0.5 - 1e-6
