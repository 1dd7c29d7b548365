"""Camera paths: keyframes, the smooth path through them, and files in nerfstudio's camera-path format.

Poses are n 3 4, camera to world, OpenGL axes; fovs n, vertical, in degrees. Files hold poses of the files' world: those
of the photographs' poses before a scene is normalised (Scene.world).
"""

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from infonerf.scene.cameras import Cameras
from infonerf.scene.checks import matrix_fault
from infonerf.scene.poses import WIDEST_TURN, common_point, look_along, pose_between, rotation_of
from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file

MOST_FRAMES, LARGEST = 10_000, 8192


@dataclass(frozen=True, eq=False)
class CameraPath:
    """keyframes, keyframe_fovs: where it leads through. poses, fovs: of its pictures. size: their height and width.
    cycle: whether it is closed. tension: 0 a Catmull-Rom spline, 1 straight lines (nerfstudio's smoothness_value)."""

    keyframes: np.ndarray
    keyframe_fovs: np.ndarray
    poses: np.ndarray
    fovs: np.ndarray
    size: tuple[int, int]
    fps: float = 30.0
    seconds: float = 4.0
    cycle: bool = True
    tension: float = 0.0


def path_through(
    keyframes: np.ndarray, fovs: np.ndarray, size: tuple[int, int], fps: float, seconds: float, cycle: bool,
    tension: float,
) -> CameraPath:
    """The smooth path through keyframes, of fps * seconds pictures, an equal time from each keyframe to the next."""
    n = min(max(round(fps * seconds), 1), MOST_FRAMES)
    poses, along = smooth(keyframes, fovs, n, cycle, tension)
    return CameraPath(keyframes, fovs, poses, along, size, fps, seconds, cycle, tension)


def smooth(keyframes: np.ndarray, fovs: np.ndarray, n: int, cycle: bool, tension: float):
    """Poses n 3 4 and fovs n on a cardinal spline through keyframes; an open one ends at the last of them.

    Where the next keyframe is turned far the path leads around what they look at."""
    keyframes, fovs = with_turns(keyframes, fovs, cycle)
    v = len(keyframes)
    t = np.arange(n) * v / n if cycle else np.linspace(0, v - 1, n) if n > 1 else np.zeros(n)
    positions, back, up = (cardinal(keyframes[:, :, column], t, cycle, tension) for column in (3, 2, 1))
    return look_along(positions, -back, up), cardinal(fovs[:, None], t, cycle, tension)[:, 0]


def with_turns(poses: np.ndarray, fovs: np.ndarray, cycle: bool) -> tuple[np.ndarray, np.ndarray]:
    """The keyframes, with one half-way wherever the next is turned by more than WIDEST_TURN."""
    point, found = common_point(poses) if len(poses) > 1 else None, []
    for k, (pose, fov) in enumerate(zip(poses, fovs, strict=True)):
        found.append((pose, fov))
        following = (k + 1) % len(poses)
        if following or cycle:
            turn = np.linalg.norm(cv2.Rodrigues(rotation_of(pose).T @ rotation_of(poses[following]))[0])
            if turn > np.radians(WIDEST_TURN):
                found.append((pose_between(pose, poses[following], 0.5, point), (fov + fovs[following]) / 2))
    return np.stack([pose for pose, _ in found]), np.array([fov for _, fov in found], float)


def cardinal(values: np.ndarray, t: np.ndarray, cycle: bool, tension: float) -> np.ndarray:
    """A spline through values (v d) at t (n), where value k is at t = k; of an open one the ends go straight on."""
    v = len(values)
    if not cycle:
        first, last = (2 * values[0] - values[min(1, v - 1)]), (2 * values[-1] - values[max(v - 2, 0)])
        values = np.concatenate([first[None], values, last[None]])
    index = np.floor(t).astype(int) if cycle else np.minimum(np.floor(t).astype(int), max(v - 2, 0))
    f = (t - index)[:, None]
    corners = [(index + offset) % v if cycle else np.minimum(index + offset + 1, v + 1) for offset in (-1, 0, 1, 2)]
    p0, p1, p2, p3 = (values[corner] for corner in corners)
    leaving, arriving = (1 - tension) * (p2 - p0) / 2, (1 - tension) * (p3 - p1) / 2
    a, b = 2 * f**3 - 3 * f**2, f**3 - f**2
    return (a + 1) * p1 - a * p2 + (b - f**2 + f) * leaving + b * arriving


def cameras_of(path: CameraPath, like: Cameras) -> Cameras:
    """A camera for each picture of a path, with the depths and the coordinates of the scene's cameras."""
    height, width = path.size
    focal = height / 2 / np.tan(np.radians(path.fovs) / 2)
    centre = np.full_like(focal, width / 2), np.full_like(focal, height / 2)
    fxfycxcy = np.stack([focal, focal, *centre], axis=-1)
    return Cameras.of_arrays(path.poses, fxfycxcy, [path.size] * len(focal), like.near, like.far, 0.5, like.ndc)


# Worlds.


def moved(path: CameraPath, similarity: np.ndarray | None) -> CameraPath:
    """The path in another world, whose points are similarity (4 4) times its own."""
    if similarity is None:
        return path
    return replace(path, keyframes=moved_poses(path.keyframes, similarity), poses=moved_poses(path.poses, similarity))


def moved_poses(poses: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    turn = rotation_of(similarity[:3])
    centres = poses[:, :, 3] @ similarity[:3, :3].T + similarity[:3, 3]
    return np.concatenate([turn @ poses[:, :, :3], centres[..., None]], axis=-1)


def to_files_world(path: CameraPath, world: np.ndarray | None) -> CameraPath:
    """From a scene's world, given Scene.world."""
    return moved(path, None if world is None else np.linalg.inv(world))


# Files.


def as_json(path: CameraPath) -> str:
    height, width = path.size
    keyframes = [{"matrix": matrix, "fov": fov, "aspect": width / height}
                 for matrix, fov in entries(path.keyframes, path.keyframe_fovs)]  # fmt: skip
    frames = [{"camera_to_world": matrix, "fov": fov, "aspect": width / height}
              for matrix, fov in entries(path.poses, path.fovs)]  # fmt: skip
    content = {
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": path.fps,
        "seconds": path.seconds,
        "is_cycle": path.cycle,
        "smoothness_value": path.tension,
        "keyframes": keyframes,
        "camera_path": frames,
    }
    return json.dumps(content, indent=1)


def entries(poses: np.ndarray, fovs: Sequence[float]) -> list[tuple[list[float], float]]:
    """Each pose as 16 numbers, row by row, and its field of view."""
    last = [0.0, 0.0, 0.0, 1.0]
    return [(pose.reshape(-1).tolist() + last, float(fov)) for pose, fov in zip(poses, fovs, strict=True)]


def write_path(file: Path, path: CameraPath) -> None:
    with atomic_file(file) as stream:
        stream.write(as_json(path).encode())


def read_path(file: str | Path) -> CameraPath:
    """A path of a file. Raises InputError where it is none."""
    try:
        if Path(file).exists() and not Path(file).is_file():
            raise OSError(errno.EINVAL, "no file")  # a pipe would be waited for
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise InputError(f"{file}: cannot be read as a camera path ({reason}), expected a JSON file") from error
    return parse_path(text, str(file))


def parse_path(text: str, name: str) -> CameraPath:
    """A path of a file's text. name: what errors call it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: no JSON ({error}), expected a camera path") from error
    if not isinstance(content, dict):
        raise InputError(f"{name}: found no entries by name, expected a camera path as nerfstudio writes it")
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise InputError(f"{name}: camera_type {kind!r} is not supported, expected 'perspective'")
    size = tuple(int(number(content, key, name, 1, LARGEST)) for key in ("render_height", "render_width"))
    fps = number(content, "fps", name, 0.1, 1000, 30.0)
    keyframes, keyframe_fovs = cameras_in(content, "keyframes", "matrix", name)
    poses, fovs = cameras_in(content, "camera_path", "camera_to_world", name)
    cycle, tension = bool(content.get("is_cycle", False)), number(content, "smoothness_value", name, 0, 1, 0.0)
    default = len(poses) / fps if len(poses) else 4.0
    seconds = number(content, "seconds", name, 0, MOST_FRAMES, default) or default
    if not len(poses):
        if not len(keyframes):
            raise InputError(f"{name}: found neither camera_path nor keyframes, expected some of one of them")
        return path_through(keyframes, keyframe_fovs, size, fps, seconds, cycle, tension)
    return CameraPath(keyframes, keyframe_fovs, poses, fovs, size, fps, seconds, cycle, tension)


def number(content: dict, key: str, name: str, least: float, most: float, default: float | None = None) -> float:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError(f"{name}: {key} is {value!r}, expected a number from {least:g} to {most:g}")
    return float(value)


def cameras_in(content: dict, key: str, matrix: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Poses and fovs of a list of cameras in a file."""
    cameras = content.get(key) or []
    if not isinstance(cameras, list) or len(cameras) > MOST_FRAMES:
        raise InputError(f"{name}: {key} is no list of at most {MOST_FRAMES} cameras, expected one")
    poses, fovs = np.empty((len(cameras), 3, 4)), np.empty(len(cameras))
    for k, camera in enumerate(cameras):
        where = f"{name}: {key} {k}"
        if not isinstance(camera, dict):
            raise InputError(f"{where} is no camera, expected {matrix} and fov")
        poses[k], fovs[k] = pose_in(camera.get(matrix), f"{where}: {matrix}"), fov_in(camera, where)
    return poses, fovs


def fov_in(camera: dict, where: str) -> float:
    """Of older files a keyframe has a list of properties beside its matrix."""
    if isinstance(camera.get("properties"), str):
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            camera = camera | {"fov": dict(json.loads(camera["properties"]))["FOV"]}
    return number(camera, "fov", where, 0.1, 179)


def pose_in(value, where: str) -> np.ndarray:
    """3 4, of 16 numbers row by row, or column by column, as text, in keyframes of older files."""
    try:
        array = np.array(json.loads(value) if isinstance(value, str) else value, float).reshape(4, 4)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is not 16 numbers, expected a camera-to-world matrix of 4 x 4") from error
    if np.allclose(array[:, 3], [0, 0, 0, 1]) and not np.allclose(array[3], [0, 0, 0, 1]):
        array = array.T
    if not np.allclose(array[3], [0, 0, 0, 1]):
        raise InputError(f"{where} has a last row of {array[3].tolist()}, expected 0 0 0 1")
    if fault := matrix_fault(array[:3]):
        raise InputError(f"{where} is {fault}, expected a camera's pose")
    return array[:3]
