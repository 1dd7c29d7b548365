"""Video paths."""

import cv2
import numpy as np
import pytest

from infonerf.scene.poses import circle, spline, through_cameras, tour
from support.scenes import look_at_origin, poses_around


def released_pose(azimuth, elevation, radius):
    """The released construction: translate along z, tilt, turn, and swap the axes."""
    a, e = np.radians([azimuth, elevation])
    move = np.eye(4)
    move[2, 3] = radius
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(e), -np.sin(e)], [np.sin(e), np.cos(e)]]
    turn = np.eye(4)
    turn[0, [0, 2]], turn[2, [0, 2]] = [np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]
    swap = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return (swap @ turn @ tilt @ move)[:3]


def check_rotations(poses):
    rotations = poses[:, :, :3]
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)


def test_circle_is_the_released_path():
    poses = circle()
    assert poses.shape == (40, 3, 4)
    expected = [released_pose(azimuth, -30.0, 4.0) for azimuth in np.linspace(-180, 180, 41)[:-1]]
    np.testing.assert_allclose(poses, expected, atol=1e-12)
    check_rotations(poses)


def test_path_passes_the_cameras_in_a_short_tour_and_closes():
    cameras = np.stack([pose[:3] for pose in poses_around(6)])
    shuffled = cameras[[3, 0, 5, 1, 4, 2]]
    path = through_cameras(shuffled, n=60)
    check_rotations(path)
    for camera in cameras:
        distance = np.linalg.norm(path[:, :, 3] - camera[:, 3], axis=-1)
        nearest = path[distance.argmin()]
        assert distance.min() < 1e-9
        np.testing.assert_allclose(nearest[:, 2], camera[:, 2], atol=1e-9)  # it looks the same way
    steps = np.linalg.norm(np.diff(path[:, :, 3], axis=0, append=path[:1, :, 3]), axis=-1)
    assert steps.max() < 3 * steps.mean()  # no jump, the end joins the start
    order = tour(shuffled[:, :, 3])
    around = [int([3, 0, 5, 1, 4, 2][i]) for i in order]
    turned = around[around.index(0) :] + around[: around.index(0)]
    assert turned in ([0, 1, 2, 3, 4, 5], [0, 5, 4, 3, 2, 1])


@pytest.mark.parametrize("n_cameras", [1, 2, 3])
def test_few_cameras(n_cameras):
    cameras = np.stack([pose[:3] for pose in poses_around(3)])[:n_cameras]
    path = through_cameras(cameras, n=12)
    assert np.isfinite(path).all()
    check_rotations(path)


OPPOSITE = {
    "two": [(0, 0), (180, 0)],
    "two, raised": [(0, 40), (180, 40)],
    "two, one above": [(30, 25), (210, -25)],
    "above and below": [(0, 89.9), (0, -89.9)],
    "nearly": [(0, 10), (179.5, -10)],
    "three": [(90, 0), (0, 0), (180, 0)],
    "three, far apart": [(0, 10), (180, -10), (15, 0)],
    "a circle in pairs": [(0, 0), (180, 0), (90, 0), (270, 0)],
    "two close pairs": [(0, 5), (180, 5), (9, 5), (189, 5)],
}


@pytest.mark.parametrize("cameras", OPPOSITE.values(), ids=OPPOSITE)
def test_a_path_between_opposite_cameras_leads_around_the_object(cameras):
    point = np.array([0.5, -1.0, 2.0])
    poses = np.stack([look_at_origin(*angles, radius=3.0)[:3] for angles in cameras])
    poses[:, :, 3] += point
    path = through_cameras(poses)
    check_rotations(path)
    offsets = path[:, :, 3] - point
    distances = np.linalg.norm(offsets, axis=-1)
    assert distances.min() > 0.7 * 3
    assert distances.max() < 1.2 * 3
    assert ((path[:, :, 2] * offsets).sum(-1) > 0.99 * distances).all()  # it looks at the object
    for pose in poses:
        assert np.linalg.norm(path - pose, axis=1).max(-1).min() < 0.5
    steps = np.linalg.norm(np.diff(path[:, :, 3], axis=0, append=path[:1, :, 3]), axis=-1)
    assert steps.max() < 3 * steps.mean()


def test_paths_have_no_gap_whatever_the_cameras():
    """Back to back, side by side, one upside down, at one place: no axis of a pose vanishes."""
    quarter = [cv2.Rodrigues(np.pi / 2 * k * axis)[0] for axis in np.eye(3) for k in range(4)]
    rng = np.random.default_rng(0)
    for i in range(300):
        turns = rng.choice(len(quarter), rng.integers(1, 6))
        poses = np.stack([np.c_[quarter[0] @ quarter[k], (i % 2) * rng.normal(size=3)] for k in turns])
        check_rotations(through_cameras(poses, n=24))


def test_other_paths_are_plain_splines():
    """As they were before paths led around anything: three cameras on a circle, 120 degrees apart, do not need it."""
    poses = np.stack([pose[:3] for pose in poses_around(3)])
    ordered = poses[tour(poses[:, :, 3])]
    path = through_cameras(poses, n=30)
    np.testing.assert_array_equal(path[:, :, 3], spline(ordered[:, :, 3], np.arange(30) * 3 / 30))


def test_spline_is_smooth_and_interpolates():
    values = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(spline(values, np.arange(5.0)), values)
    h = 1e-6
    for k in range(5):  # one tangent from both sides
        left, at, right = spline(values, np.array([k - h + 5, k, k + h]) % 5)
        np.testing.assert_allclose((at - left) / h, (right - at) / h, atol=1e-4)
