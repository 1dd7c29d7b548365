"""Captures in transforms.json, as nerfstudio, instant-ngp, add-ons of Blender, Polycam and Record3D (by nerfstudio's
converter) write it -> Capture.

Poses are as they are: `applied_transform` tells how nerfstudio's came from COLMAP's, and the points of `ply_file_path`
are in the world of the poses.
"""

import json
import math
import os
from pathlib import Path, PureWindowsPath

import numpy as np

from infonerf.scene.capture import Capture, View, existing
from infonerf.scene.checks import LARGEST, matrix_fault
from infonerf.scene.distortion import COEFFICIENTS, MODELS, Lens
from infonerf.scene.photographs import ENDINGS, image_size
from infonerf.system.errors import InputError

ONE, OF_SPLITS = "transforms.json", {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
LARGEST_JSON, LARGEST_PLY = 200 * 2**20, 2**31  # bytes
PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
             "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
             "float32": "f4", "float64": "f8"}  # fmt: skip


def read_transforms(folder: Path, allow_outside: bool) -> Capture:
    """The capture of transforms.json, or of transforms_train.json and its like. Raises InputError where a file cannot
    be used."""
    single = (folder / ONE).is_file()
    files = {"train": ONE} if single else {
        split: name for split, name in OF_SPLITS.items() if (folder / name).is_file()}
    if "train" not in files:
        raise InputError(f"{folder}: found no {ONE} nor {OF_SPLITS['train']}, expected one of them")
    contents = {split: read_json(folder / name) for split, name in files.items()}
    frames = {split: read_frames(folder / files[split], content, allow_outside) for split, content in contents.items()}
    path, content = folder / files["train"], contents["train"]
    splits = {split: {view.name for view in views} for split, views in frames.items()}
    if single:
        splits = listed_splits(path, content, splits["train"])
    views, notes = existing(path, [view for views in frames.values() for view in views])
    points = np.zeros((0, 3))
    if content.get("ply_file_path") is not None:
        ply = file_in(path, content["ply_file_path"], "ply_file_path", allow_outside)
        if os.path.isfile(ply):
            points = read_ply(ply)
        else:
            notes.append(f"{ply}: no such file, so the capture has no points")
    return Capture(path, tuple(views), points, splits=splits, notes=tuple(notes))


def read_frames(path: Path, content: dict, allow_outside: bool) -> list[View]:
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: found {shown(frames)} as frames, expected a list of at least one")
    return [read_frame(path, content, frame, number, allow_outside) for number, frame in enumerate(frames)]


def read_json(path: Path) -> dict:
    """The object in a JSON file, in any of the encodings of JSON, with or without a byte order mark."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"{path.stat().st_size} bytes")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {shown(content)}, expected an object with frames")
    return content


def read_frame(path: Path, content: dict, frame: object, number: int, allow_outside: bool) -> View:
    """A frame, whose own values go before those of the file."""
    if not isinstance(frame, dict):
        raise InputError(f"{path}: found {shown(frame)} as frame {number}, expected an object with file_path and "
                         "transform_matrix")
    if "file_path" not in frame:
        raise InputError(f"{path}: no file_path in frame {number}, expected the path of an image")
    image = with_ending(file_in(path, frame["file_path"], "file_path", allow_outside))
    name, facts = plain(frame["file_path"]), content | frame

    def beside(key: str) -> Path | None:
        return None if frame.get(key) is None else file_in(path, frame[key], key, allow_outside)

    return View(
        name=name,
        image=image,
        pose=read_pose(path, frame.get("transform_matrix"), name),
        lens=read_lens(path, facts, name, image),
        mask=beside("mask_path"),
        depth=beside("depth_file_path"),
        depth_scale=read_number(path, facts, "depth_unit_scale_factor", name, 0.001, least=1e-12),
    )


def plain(file_path: str) -> str:
    """A path with / between folders, without "." among them."""
    return str(PureWindowsPath(file_path).as_posix())


def file_in(path: Path, value: object, key: str, allow_outside: bool) -> Path:
    """The path that a key of the file `path` names. Raises InputError where it is none, or leads out of its folder."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InputError(f"{path}: found {shown(value)} as {key}, expected the path of a file")
    if not allow_outside and (PureWindowsPath(value).anchor or ".." in PureWindowsPath(value).parts):
        raise InputError(f"{path}: {key} {value!r} leads out of the capture's folder, expected a path within it "
                         "(--allow_outside takes it as it is)")
    return path.parent / plain(value)


def with_ending(path: Path) -> Path:
    """An image's path, whose ending may have been left out."""
    if path.suffix.lower() in ENDINGS:
        return path
    found = (path.with_name(path.name + ending) for ending in (*ENDINGS, *map(str.upper, ENDINGS)))
    return next((candidate for candidate in found if os.path.isfile(candidate)), path)


def read_pose(path: Path, value: object, name: str) -> np.ndarray:
    """3 4."""
    expected = "expected a finite 4 x 4 matrix that is a camera's pose, its last row 0 0 0 1"
    try:
        matrix = np.array(value, float)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: found {shown(value)} as transform_matrix of {name}, {expected}") from None
    fault = matrix_fault(matrix)
    if not fault and len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        fault = f"of last row {' '.join(f'{x:g}' for x in matrix[3])}"
    if fault:
        raise InputError(f"{path}: transform_matrix of {name} is {fault}, {expected}")
    return matrix[:3]


def read_number(path: Path, facts: dict, key: str, name: str, default: float | None, least: float = -LARGEST) -> float:
    """A finite number; `default` where the key is not there, which None stands for no default."""
    value = facts.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= LARGEST:
        limit = f" from {least:g}" if least > -LARGEST else ""
        raise InputError(f"{path}: found {shown(value)} as {key} of {name}, expected a number{limit}")
    return float(value)


def read_lens(path: Path, facts: dict, name: str, image: Path) -> Lens:
    """Of the size in w and h, else of the image's file."""
    model = facts.get("camera_model")
    if model is None:
        model = "OPENCV_FISHEYE" if facts.get("is_fisheye") is True else "FULL_OPENCV"
    model = model.upper() if isinstance(model, str) else model
    if not isinstance(model, str) or model not in MODELS:
        raise InputError(f"{path}: found {shown(model)} as camera_model of {name}, expected one of {', '.join(MODELS)}")

    def number(key: str, default: float | None = None, least: float = -LARGEST) -> float:
        return read_number(path, facts, key, name, default, least)

    if "w" in facts or "h" in facts:
        width, height = number("w", least=1), number("h", least=1)
        if width % 1 or height % 1:
            raise InputError(f"{path}: found {width:g} x {height:g} as size of {name}, expected whole pixels")
    else:
        height, width = image_size(image) if os.path.isfile(image) else (1, 1)  # of a view that is left out
    if "fl_x" in facts or "camera_angle_x" in facts:
        fx = read_focal(path, facts, "x", width, name)
        fy = read_focal(path, facts, "y", height, name) if "fl_y" in facts or (
            "fl_x" not in facts and "camera_angle_y" in facts) else fx
    elif "fl_y" in facts or "camera_angle_y" in facts:
        fx = fy = read_focal(path, facts, "y", height, name)
    else:
        raise InputError(f"{path}: no fl_x nor camera_angle_x for {name}, expected its focal length")
    of_model = set(MODELS[model])
    values = {key: number(key, 0.0) for key in COEFFICIENTS}
    for key, value in values.items():
        if value and key not in of_model:
            raise InputError(f"{path}: found {key} {value:g} for {name}, expected 0, as its camera_model {model} does "
                             "not have it")
    lens = Lens(int(width), int(height), fx, fy, number("cx", width / 2), number("cy", height / 2),
                model.endswith("FISHEYE"), tuple(values.values()))
    if fault := lens.fault():
        raise InputError(f"{path}: the camera of {name} is {fault}, expected another one")
    return lens


def read_focal(path: Path, facts: dict, axis: str, size: float, name: str) -> float:
    """In pixels, of fl_AXIS, else camera_angle_AXIS, the field of view in radians over the `size` in pixels."""
    if f"fl_{axis}" in facts:
        return read_number(path, facts, f"fl_{axis}", name, None, least=1e-6)
    angle = read_number(path, facts, f"camera_angle_{axis}", name, None, least=1e-6)
    if angle >= math.pi:
        raise InputError(f"{path}: found camera_angle_{axis} {angle:g} for {name}, expected radians below pi")
    return 0.5 * size / math.tan(0.5 * angle)


def listed_splits(path: Path, content: dict, names: set[str]) -> dict[str, set[str]] | None:
    """The names in train_filenames and its like, where the file has such lists."""
    splits = {}
    for split in OF_SPLITS:
        listed = content.get(f"{split}_filenames")
        if listed is None:
            continue
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise InputError(f"{path}: found {shown(listed)} as {split}_filenames, expected a list of file_paths")
        splits[split] = {plain(name) for name in listed}
        if strange := sorted(splits[split] - names):
            raise InputError(f"{path}: found {shown(strange[0])} in {split}_filenames, expected file_paths of frames")
    return splits if "train" in splits else None


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Points.


def read_ply(path: Path) -> np.ndarray:
    """n 3: the places of the points of a PLY file, ascii or binary little endian, which may have other properties.
    They have no tracks: which view sees which point is not known."""
    try:
        if path.stat().st_size > LARGEST_PLY:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        content = path.read_bytes()
        head, mark, body = content[:100_000].partition(b"end_header")
        lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
        if lines[:1] != [["ply"]] or not mark:
            raise ValueError("it has no header of a PLY file")
        body = content[len(head) + len(mark):].removeprefix(b"\r")[1:]
        kind, count, fields = ply_header(lines)
        if kind == "ascii":
            return ply_ascii(body, count, [name for name, _ in fields])
        data = np.dtype([(name, f"<{PLY_TYPES[form]}") for name, form in fields])
        if count * data.itemsize > len(body):
            raise ValueError(f"it ends before its {count} vertices do")
        vertices = np.frombuffer(body, data, count)
        with np.errstate(invalid="ignore"):  # of signalling NaN
            points = np.stack([vertices[axis].astype(float) for axis in "xyz"], axis=1)
    except (OSError, ValueError, OverflowError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as points ({error}), expected a PLY file, ascii or "
                         "binary_little_endian, whose first element is vertex with x y z") from error
    return points[(np.abs(points) < LARGEST).all(1)]


def ply_header(lines: list[list[str]]) -> tuple[str, int, list[tuple[str, str]]]:
    """Format, number of vertices, and the name and type of each of their properties."""
    kind = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), None)
    if kind not in ("ascii", "binary_little_endian"):
        raise ValueError(f"its format is {kind}")
    elements = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not vertex")
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] + 1: last] if line[:1] == ["property"]]
    if any(len(line) != 3 for line in properties):
        raise ValueError("a vertex has a list")
    fields = [(line[2], line[1]) for line in properties]
    if {"x", "y", "z"} - {name for name, _ in fields}:
        raise ValueError("a vertex has no x y z")
    count = int(lines[elements[0]][2])
    if count < 0:
        raise ValueError(f"it has {count} vertices")
    return kind, count, fields


def ply_ascii(body: bytes, count: int, names: list[str]) -> np.ndarray:
    values = [line.split() for line in body.split(b"\n", count)[:count]]
    if len(values) < count or any(len(line) < len(names) for line in values):
        raise ValueError(f"it ends before its {count} vertices do")
    columns = [names.index(axis) for axis in "xyz"]
    points = np.array([[float(line[column]) for column in columns] for line in values]).reshape(-1, 3)
    return points[(np.abs(points) < LARGEST).all(1)]
