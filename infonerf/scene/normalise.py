"""A capture's own world -> one that networks are used to, and back; near, far and bounds of what it shows.

A world is 4 4, a similarity that takes points of the files' world to the scene's; numpy.linalg.inv of it goes back.
Axes: v views, n points. Poses are v 3 4, camera to world, OpenGL axes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infonerf.scene.poses import common_point, normalised
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file

CONTENT = 1.5  # half the side of the box that holds the points, as NeRF synthetic's objects have it
DISTANCE = 4.0  # of the cameras, on average, from what they look at where there are no points, likewise
SHARE = (0.1, 99.9)  # percentiles of depths and coordinates: the others are taken for mismatched
MARGIN = 0.1  # of near and far
WIDER = 0.25  # of the sides of the bounds: plain surfaces around have no points
NEAREST, FARTHEST = 0.3, 2.0  # near and far without points, in distances to what the cameras look at
FILE = "world.json"


class Extent(NamedTuple):
    """near, far: z-depths. bounds: 2 3, or None."""

    near: float
    far: float
    bounds: np.ndarray | None


def moved_points(world: np.ndarray, points: np.ndarray) -> np.ndarray:
    """n 3: points in the world that `world` (4 4) leads to."""
    return points @ world[:3, :3].T + world[:3, 3]


def moved_poses(world: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """v 3 4: poses in the world that `world` (4 4, a similarity) leads to; their rotations are not scaled."""
    rotation = world[:3, :3] / scale_of(world)
    return np.concatenate([rotation @ poses[:, :, :3], moved_points(world, poses[:, :, 3])[:, :, None]], axis=2)


def scale_of(world: np.ndarray) -> float:
    """By which lengths, and depths, grow."""
    return float(np.cbrt(np.linalg.det(world[:3, :3])))


def looked_at(poses: np.ndarray, depths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A point (3), and how far along its optical axis each camera is from it (v): where the axes go at the `depths` of
    what is seen (v, NaN where nothing is); without these, the point that is nearest to all axes.

    Cameras of parallel axes that see nothing known are taken to look at a point ten times as far away as they are
    from each other.
    """
    centres, forward = poses[:, :, 3], normalised(-poses[:, :, 2])
    if depths is not None:
        return np.nanmedian(centres + depths[:, None] * forward, axis=0), depths
    point = common_point(poses) if len(poses) > 1 else None
    if point is None:
        spread = np.linalg.norm(centres - centres.mean(0), axis=1).max()
        point = centres.mean(0) + 10 * (spread or 0.1) * forward.mean(0)
    distances = ((point - centres) * forward).sum(1)
    return point, np.maximum(distances, 1e-3 * max(distances.max(), 1e-9))


def similarity(poses: np.ndarray, points: np.ndarray, depths: np.ndarray | None) -> np.ndarray:
    """4 4: to a world whose origin is what the cameras look at, whose z axis is their mean upwards, and in which the
    points (n 3, may be none) fit in a cube of sides 2 CONTENT about it, or else the cameras are at DISTANCE on average.
    """
    centre, distances = looked_at(poses, depths)
    rotation = turned_up(poses[:, :, 1].mean(0))
    if len(points):
        low, high = np.percentile((points - centre) @ rotation.T, SHARE, axis=0)
        scale = CONTENT / np.maximum(-low, high).max()
    else:
        scale = DISTANCE / distances.mean()
    world = np.eye(4)
    world[:3, :3] = scale * rotation
    world[:3, 3] = -scale * rotation @ centre
    return world


def turned_up(up: np.ndarray) -> np.ndarray:
    """3 3: the smallest rotation that takes the direction `up` to z; none where it has no direction."""
    length = np.linalg.norm(up)
    if length < 1e-3:
        return np.eye(3)
    x, y, z = up / length
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0.0, 0.0, -x], [0.0, 0.0, -y], [x, y, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)


def extent(poses: np.ndarray, points: np.ndarray, seen_depths: Sequence[np.ndarray] | None) -> Extent:
    """What rays should span, from the points (n 3) and the z-depths at which each view sees them; without (None), from
    the distances of the cameras to what they look at."""
    if seen_depths is None:
        _, distances = looked_at(poses, None)
        return Extent(NEAREST * distances.min(), FARTHEST * distances.max(), None)
    near = min(np.percentile(depths, SHARE[0]) for depths in seen_depths if len(depths))
    far = max(np.percentile(depths, SHARE[1]) for depths in seen_depths if len(depths))
    bounds = np.percentile(points, SHARE, axis=0)
    margin = WIDER * (bounds[1] - bounds[0]).clip(1e-6)
    return Extent(float(near * (1 - MARGIN)), float(far * (1 + MARGIN)), bounds + np.stack([-margin, margin]))


# Kept with a run.


def world_record(scene: Scene) -> dict:
    """What `write_world` writes of a scene."""
    names, split = scene.view_names, scene.split
    return {
        "world": None if scene.world is None else scene.world.tolist(),
        "near": float(scene.near),
        "far": float(scene.far),
        "bounds": None if scene.bounds is None else np.asarray(scene.bounds).tolist(),
        "views": {kind: [names[view] for view in getattr(split, kind)] for kind in ("train", "val", "test")},
    }


def write_world(scene: Scene, folder: Path) -> None:
    """Write world.json to a run's folder: world (4 4, from the files' world to the scene's; null: the same), near, far,
    bounds, and the names of the views."""
    content = (json.dumps(world_record(scene), indent=1) + "\n").encode()
    path = folder / FILE
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as file:
            file.write(content)


def read_world(folder: Path) -> np.ndarray | None:
    """The world (4 4) of the run in a folder; None where it is the files' own, or where the run has no world.json."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["world"]
        world = None if content is None else np.array(content, float)
        if world is None or (world.shape == (4, 4) and np.isfinite(world).all()):
            return world
        raise ValueError("found no 4 x 4 matrix")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected the world of a run") from error


def require_same_world(scene: Scene, folder: Path) -> None:
    """Raise InputError where the run in a folder was trained in another world than the scene's."""
    if not (folder / FILE).is_file():
        return
    one, other = (np.eye(4) if world is None else world for world in (read_world(folder), scene.world))
    if not np.allclose(one, other, rtol=1e-6, atol=1e-9):
        raise InputError(f"{folder / FILE}: found the world of other cameras or points than --datadir has now, or of "
                         "another --normalize, expected the same, the only one that the networks know (--no_reload "
                         "starts afresh)")
