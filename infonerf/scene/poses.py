"""Camera poses of a video: a circle around an object, or a smooth loop through given cameras.

Poses are 3 4, camera to world, OpenGL axes (x right, y up, looking along -z).
"""

from typing import NamedTuple

import cv2
import numpy as np

CIRCLE_POSES, CIRCLE_ELEVATION, CIRCLE_RADIUS = 40, -30.0, 4.0
LEAST_ANGLE = 4.0  # degrees, about: below it optical axes are too parallel to cross at a point
WIDEST_TURN = 125.0  # degrees from one camera of a path to the next; beyond it a spline's axes may vanish


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


class Meeting(NamedTuple):
    """The point nearest to the optical axes of cameras. depths: v, its z-depths. miss: how far from the axes it is, of
    its mean distance."""

    point: np.ndarray
    depths: np.ndarray
    miss: float

    def within(self, miss: float) -> bool:
        """Whether all cameras look at it."""
        return bool((self.depths > 0).all()) and self.miss < miss


def meeting_of(poses: np.ndarray) -> Meeting | None:
    """What cameras (v 3 4) look at, in the least squares sense. None where their axes are nearly parallel."""
    centres, forward = poses[:, :, 3], normalised(-poses[:, :, 2])
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # distance from an axis is |across (point - centre)|
    if np.linalg.eigvalsh(across.mean(0))[0] < (np.radians(LEAST_ANGLE) / 2) ** 2:
        return None
    point = np.linalg.solve(across.sum(0), np.einsum("vij,vj->i", across, centres))
    offsets = point - centres
    missed = np.linalg.norm(np.einsum("vij,vj->vi", across, offsets), axis=1)
    mean = np.linalg.norm(offsets, axis=1).mean()
    return Meeting(point, (offsets * forward).sum(1), float(np.sqrt((missed**2).mean()) / max(mean, 1e-300)))


def common_point(poses: np.ndarray) -> np.ndarray | None:
    """The point that cameras (v 3 4) look at: where their axes meet; for cameras that face each other along a line,
    half-way between them. None where it is not in front of every camera, or where the axes are nearly parallel."""
    meeting = meeting_of(poses)
    if meeting is not None:
        return meeting.point if (meeting.depths > 0).all() else None
    centres, forward = poses[:, :, 3], normalised(-poses[:, :, 2])
    line = np.linalg.eigh(np.einsum("vi,vj->ij", forward, forward))[1][:, -1]
    ahead = forward @ line > 0
    if ahead.all() or not ahead.any():
        return None
    along = (centres[ahead] @ line).mean() / 2 + (centres[~ahead] @ line).mean() / 2
    point = centres.mean(0) + (along - centres.mean(0) @ line) * line
    return point if (((point - centres) * forward).sum(-1) > 0).all() else None


def pose_between(one: np.ndarray, other: np.ndarray, t: float, point: np.ndarray | None) -> np.ndarray:
    """3 4: the fraction `t` of the way from one pose to another, its rotation by spherical interpolation.

    Where the cameras look at a point, the pose turns about that point: what is blended linearly is where the point
    lies in the cameras' own axes. So it looks at the point as they do, at the blended distance. Else the centres are.
    """
    first, last = rotation_of(one), rotation_of(other)
    rotation = first @ cv2.Rodrigues(t * cv2.Rodrigues(first.T @ last)[0])[0]
    if point is None:
        centre = (1 - t) * one[:, 3] + t * other[:, 3]
    else:
        inside = (1 - t) * first.T @ (one[:, 3] - point) + t * last.T @ (other[:, 3] - point)
        centre = point + rotation @ inside
    return np.concatenate([rotation, centre[:, None]], axis=1)


def rotation_of(pose: np.ndarray) -> np.ndarray:
    """3 3: the rotation nearest to that of a pose."""
    u, _, v = np.linalg.svd(pose[:, :3])
    return u @ v


def through_cameras(poses: np.ndarray, n: int = 60) -> np.ndarray:
    """n 3 4: a closed, smooth path through the cameras (v 3 4), which need not be in order.

    Positions, viewing directions and up vectors follow periodic Catmull-Rom splines; a single camera stands still.
    Between cameras that look from nearly opposite sides the path leads around what they look at.
    """
    poses = with_turns(poses[tour(poses[:, :, 3])], common_point(poses))
    t = np.arange(n) * len(poses) / n
    positions, back, up = (spline(poses[:, :, column], t) for column in (3, 2, 1))
    return look_along(positions, -back, up)


def with_turns(poses: np.ndarray, point: np.ndarray | None) -> np.ndarray:
    """A closed tour of cameras (v 3 4), with a pose half-way wherever the next one is turned by more than WIDEST_TURN.
    `point` is what all of them look at, if anything."""
    found = []
    for one, other in zip(poses, np.roll(poses, -1, axis=0), strict=True):
        turn = np.linalg.norm(cv2.Rodrigues(rotation_of(one).T @ rotation_of(other))[0])
        found += [one] if turn <= np.radians(WIDEST_TURN) else [one, pose_between(one, other, 0.5, point)]
    return np.stack(found)


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
