"""COLMAP models, sparse/0 or sparse, of cameras, images and points3D in bin or txt -> Capture.

A reader of our own: pycolmap reads them in three lines, but brings 135 MB.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infonerf.scene.capture import Capture, View, existing
from infonerf.scene.checks import LARGEST
from infonerf.scene.distortion import MODELS, Lens
from infonerf.scene.photographs import ENDINGS
from infonerf.system.errors import InputError

MODEL_IDS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
             "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE")  # fmt: skip
COUNTS = {name: len(values) for name, values in MODELS.items()} | {"FOV": 5, "THIN_PRISM_FISHEYE": 12}
PARTS = ("cameras", "images", "points3D")
PLACES = ("sparse/0", "sparse", "colmap/sparse/0")
UNSEEN = -1  # the point of a place in an image that became none
LONGEST_NAME = 4096


class Registered(NamedTuple):
    """An image of a model. pose: 3 4, OpenGL. pixels: n 2. points: n, ids."""

    name: str
    camera: int
    pose: np.ndarray
    pixels: np.ndarray
    points: np.ndarray


class Points(NamedTuple):
    """ids, places (n 3) and reprojection errors of sparse points."""

    ids: np.ndarray
    places: np.ndarray
    errors: np.ndarray


def model_folder(folder: Path) -> Path | None:
    """Where the COLMAP model of a capture is."""
    return next((folder / place for place in PLACES if ending_of(folder / place)), None)


def ending_of(model: Path) -> str | None:
    """bin or txt, of which the model has both cameras and images."""
    return next((ending for ending in ("bin", "txt")
                 if all((model / f"{part}.{ending}").is_file() for part in ("cameras", "images"))), None)  # fmt: skip


def read_colmap(folder: Path) -> Capture:
    """The capture of a COLMAP model, whose photographs are in images/. Raises InputError where a file cannot be used.

    Photographs that are not registered have no camera and are left out; so are images that have no file."""
    model = model_folder(folder)
    if model is None:
        raise InputError(f"{folder}: found no COLMAP model, expected cameras and images, .bin or .txt, in sparse/0")
    ending = ending_of(model)
    cameras_of, images_of, points_of = READERS[ending]
    cameras_file, images_file, points_file = (model / f"{part}.{ending}" for part in PARTS)
    cameras, images = cameras_of(cameras_file), images_of(images_file)
    points = points_of(points_file) if points_file.is_file() else Points(*map(np.zeros, (0, (0, 3), 0)))
    order = np.argsort(points.ids, kind="stable")
    views = []
    for image in images:
        if image.camera not in cameras:
            raise InputError(f"{images_file}: found camera {image.camera} for {image.name}, expected one of those in "
                             f"{cameras_file.name}")
        pixels, seen = tracked(image, points.ids, order)
        views.append(View(
            name=image.name,
            image=inside(images_file, folder / "images", image.name),
            pose=image.pose,
            lens=lens_of(cameras_file, image.camera, *cameras[image.camera]),
            pixels=pixels,
            points=seen,
        ))  # fmt: skip
    views, notes = existing(images_file, views)
    unregistered = others_in(folder / "images", views)
    if unregistered:
        notes.append(f"{len(unregistered)} photographs of images/ have no camera in {model.relative_to(folder)} and "
                     f"are left out: {', '.join(unregistered[:5])}{' ...' if len(unregistered) > 5 else ''}")
    if model.name == "0" and ending_of(model.parent / "1"):
        notes.append(f"{model.relative_to(folder)} is read; there are other models beside it")
    return Capture(images_file, tuple(views), points.places, points.errors, notes=tuple(notes))


def inside(source: Path, images: Path, name: str) -> Path:
    """The path of an image. Raises InputError where its name leads out of the folder."""
    parts = Path(name.replace("\\", "/")).parts
    if not parts or Path(name).anchor or ".." in parts or "\0" in name:
        raise InputError(f"{source}: found an image of name {name!r}, expected a path within images/")
    return images.joinpath(*parts)


def others_in(images: Path, views: list[View]) -> list[str]:
    """The photographs of the folder that are no view's."""
    used = {view.image for view in views}
    found = (path for path in images.rglob("*") if path.suffix.lower() in ENDINGS and path.name[0] != ".")
    return sorted(str(path.relative_to(images)) for path in found if path not in used)


def tracked(image: Registered, ids: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points are seen in an image (n 2), and which ones (n, places among `ids`, which `order` sorts)."""
    if not len(ids):
        return np.zeros((0, 2)), np.zeros(0, int)
    place = order[np.searchsorted(ids, image.points, sorter=order).clip(max=len(ids) - 1)]
    there = (ids[place] == image.points) & np.isfinite(image.pixels).all(1)
    return image.pixels[there], place[there]


def lens_of(source: Path, number: int, model: str, width: int, height: int, values: tuple[float, ...]) -> Lens:
    if model not in MODELS:
        raise InputError(f"{source}: found model {model} of camera {number}, expected one of {', '.join(MODELS)} "
                         "(colmap image_undistorter makes it one)")
    lens = Lens.of_model(model, width, height, values)
    if fault := lens.fault():
        raise InputError(f"{source}: camera {number} is {fault}, expected another one")
    return lens


def pose_of(source: Path, name: str, quaternion: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """3 4, OpenGL, of the world-to-camera rotation (w x y z) and translation of COLMAP."""
    size = np.hypot.reduce(quaternion)
    if not (1e-6 < size < LARGEST and (np.abs(translation) < LARGEST).all()):
        found = " ".join(f"{x:g}" for x in (*quaternion, *translation))
        raise InputError(f"{source}: found the pose {found} of {name}, expected a quaternion and a translation")
    w, x, y, z = quaternion / size
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    centre = -rotation.T @ translation
    return np.concatenate([rotation.T * [1, -1, -1], centre[:, None]], axis=1)


def checked(source: Path, ids: np.ndarray, places: np.ndarray, errors: np.ndarray) -> Points:
    """Without those that are not finite."""
    good = (np.abs(places) < LARGEST).all(1)
    return Points(ids[good], places[good], errors[good])


# Binary files.


class Reader:
    """A file that is read value by value. Raises InputError where it ends too early, before memory is taken."""

    def __init__(self, path: Path):
        try:
            self.path, self.content, self.at = path, path.read_bytes(), 0
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}), expected a part of a COLMAP model") from error

    def advance(self, size: int) -> int:
        if size > len(self.content) - self.at:
            raise InputError(f"{self.path}: ends after {len(self.content)} bytes, expected at least {self.at + size}")
        self.at += size
        return self.at - size

    def values(self, form: str) -> tuple:
        return struct.unpack_from(f"<{form}", self.content, self.advance(struct.calcsize(f"<{form}")))

    def array(self, form: np.dtype, count: int) -> np.ndarray:
        return np.frombuffer(self.content, form, count, self.advance(count * form.itemsize))

    def text(self) -> str:
        end = self.content.find(b"\0", self.at, self.at + LONGEST_NAME)
        if end < 0:
            raise InputError(f"{self.path}: found no end of the name at byte {self.at}, expected one")
        text = self.content[self.at: end].decode("utf-8", "surrogateescape")
        self.advance(end + 1 - self.at)
        return text

    def records(self, least: int) -> range:
        """The numbers of records, of at least so many bytes each, that the file begins with."""
        count, = self.values("Q")
        if count * least > len(self.content) - self.at:
            raise InputError(f"{self.path}: found {count} as the number of its records, more than its "
                             f"{len(self.content)} bytes can hold")
        return range(count)


def cameras_bin(path: Path) -> dict[int, tuple]:
    """id -> model, width, height, parameters."""
    file, cameras = Reader(path), {}
    for _ in file.records(24):
        number, model, width, height = file.values("IiQQ")
        if not 0 <= model < len(MODEL_IDS):
            raise InputError(f"{path}: found model {model} of camera {number}, expected 0..{len(MODEL_IDS) - 1}")
        name = MODEL_IDS[model]
        cameras[number] = name, width, height, file.values(f"{COUNTS[name]}d")
    return cameras


PLACE = np.dtype([("place", "<f8", 2), ("point", "<i8")])


def images_bin(path: Path) -> list[Registered]:
    file, images = Reader(path), []
    for _ in file.records(73):
        _, *pose, camera = file.values("I7dI")
        name, (count,) = file.text(), file.values("Q")
        seen = file.array(PLACE, count)
        seen = seen[seen["point"] != UNSEEN]
        images.append(Registered(name, camera, pose_of(path, name, np.array(pose[:4]), np.array(pose[4:])),
                                 seen["place"], seen["point"]))  # fmt: skip
    return images


def points_bin(path: Path) -> Points:
    file, ids, rows = Reader(path), [], []
    for _ in file.records(51):
        number, x, y, z, _, _, _, error, track = file.values("Q3d3BdQ")
        file.advance(8 * track)
        ids.append(number)
        rows.append((x, y, z, error))
    rows = np.array(rows, float).reshape(-1, 4)
    return checked(path, np.array(ids, np.uint64).astype(np.int64), rows[:, :3], rows[:, 3])


# Text files.


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The number and text of each line that is no comment."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a part of a COLMAP model") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#"):
            yield number, line.strip()


def unusable(path: Path, number: int, line: str, expected: str) -> InputError:
    return InputError(f"{path}: found {line[:80]!r} in line {number}, expected {expected}")


def cameras_txt(path: Path) -> dict[int, tuple]:
    """id -> model, width, height, parameters."""
    cameras = {}
    for number, line in lines_of(path):
        words = line.split()
        if not words:
            continue
        try:
            camera, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            values = tuple(map(float, words[4:]))
            if len(values) != COUNTS.get(model, len(values)):
                raise ValueError
        except (ValueError, IndexError):
            raise unusable(path, number, line, "CAMERA_ID MODEL WIDTH HEIGHT and the model's parameters") from None
        cameras[camera] = model, width, height, values
    return cameras


def images_txt(path: Path) -> list[Registered]:
    """Of two lines each, the second one of which may be empty."""
    images, lines = [], lines_of(path)
    for number, line in lines:
        if not line:
            continue
        words = line.split(maxsplit=9)
        number_seen, seen = next(lines, (number, ""))
        try:
            pose, camera, name = np.array(words[1:8], float), int(words[8]), words[9]
        except (ValueError, IndexError):
            raise unusable(path, number, line, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from None
        try:
            places = np.array(seen.split(), float).reshape(-1, 3)
            points = np.array(seen.split()[2::3], np.int64)
        except (ValueError, OverflowError):
            raise unusable(path, number_seen, seen, "X Y POINT3D_ID of each place in the image above") from None
        there = points != UNSEEN
        pose = pose_of(path, name, pose[:4], pose[4:])
        images.append(Registered(name, camera, pose, places[there, :2], points[there]))
    return images


def points_txt(path: Path) -> Points:
    ids, rows = [], []
    for number, line in lines_of(path):
        words = line.split(maxsplit=8)
        if not words:
            continue
        try:
            ids.append(int(words[0]))
            rows.append([float(words[i]) for i in (1, 2, 3, 7)])
        except (ValueError, IndexError):
            raise unusable(path, number, line, "POINT3D_ID X Y Z R G B ERROR and its track") from None
    try:
        ids = np.array(ids, np.int64)
    except OverflowError:
        raise InputError(f"{path}: found an id beyond 64 bits, expected ids of points") from None
    rows = np.array(rows, float).reshape(-1, 4)
    return checked(path, ids, rows[:, :3], rows[:, 3])


READERS = {"bin": (cameras_bin, images_bin, points_bin), "txt": (cameras_txt, images_txt, points_txt)}
