"""Video paths."""

import numpy as np
import pytest

from infonerf.scene.poses import circle, spline, through_cameras, tour
from support.scenes import poses_around


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


def test_spline_is_smooth_and_interpolates():
    values = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(spline(values, np.arange(5.0)), values)
    h = 1e-6
    for k in range(5):  # one tangent from both sides
        left, at, right = spline(values, np.array([k - h + 5, k, k + h]) % 5)
        np.testing.assert_allclose((at - left) / h, (right - at) / h, atol=1e-4)
