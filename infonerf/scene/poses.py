"""Camera poses of a video: a circle around an object, or a smooth loop through given cameras.

Poses are 3 4, camera to world, OpenGL axes (x right, y up, looking along -z).
"""

import numpy as np

CIRCLE_POSES, CIRCLE_ELEVATION, CIRCLE_RADIUS = 40, -30.0, 4.0


def circle(n: int = CIRCLE_POSES, elevation: float = CIRCLE_ELEVATION, radius: float = CIRCLE_RADIUS) -> np.ndarray:
    """n 3 4: NeRF synthetic's render path (docs/method.md, Data). Azimuths go once round from -180
    degrees; `elevation` is the released code's angle, negative above the ground (z up)."""
    azimuths = np.radians(np.linspace(-180, 180, n + 1)[:-1])
    e = -np.radians(elevation)
    positions = np.stack([np.sin(azimuths) * np.cos(e), np.cos(azimuths) * np.cos(e), np.full(n, np.sin(e))], axis=-1)
    return look_along(radius * positions, forward=-positions, up=np.tile([0.0, 0.0, 1.0], (n, 1)))


def look_along(positions: np.ndarray, forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Poses (n 3 4) of cameras at `positions` that look along `forward` with `up` upwards, each n 3."""
    back = normalised(-forward)
    right = normalised(np.cross(up, back))
    return np.stack([right, np.cross(back, right), back, positions], axis=-1)


def normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def through_cameras(poses: np.ndarray, n: int = 60) -> np.ndarray:
    """n 3 4: a closed, smooth path through the cameras (v 3 4), which need not be in order.

    Positions, viewing directions and up vectors follow periodic Catmull-Rom splines; a single camera stands still.
    """
    poses = poses[tour(poses[:, :, 3])]
    t = np.arange(n) * len(poses) / n
    positions, back, up = (spline(poses[:, :, column], t) for column in (3, 2, 1))
    return look_along(positions, -back, up)


def tour(points: np.ndarray) -> list[int]:
    """An order of the points (v 3) that makes a short closed tour: by angle in the plane in which they spread most."""
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T if len(axes) > 1 else np.pad(centred @ axes.T, ((0, 0), (0, 1)))
    return list(np.argsort(np.arctan2(plane[:, 1], plane[:, 0]), kind="stable"))


def spline(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A periodic Catmull-Rom spline through values (v 3), evaluated at t (n), where value k is at t = k."""
    index, f = np.floor(t).astype(int), (t % 1)[:, None]
    p0, p1, p2, p3 = (values[(index + offset) % len(values)] for offset in (-1, 0, 1, 2))
    quadratic, cubic = 2 * p0 - 5 * p1 + 4 * p2 - p3, -p0 + 3 * p1 - 3 * p2 + p3
    return p1 + 0.5 * f * (p2 - p0 + f * (quadratic + f * cubic))
