"""Poses between and around the training cameras, and that they are the pool."""

import numpy as np
import pytest

from infonerf.scene.made_poses import KINDS, WIDER, make_poses
from infonerf.scene.poses import common_point, pose_between
from infonerf.scene.scene import with_made_poses
from run_nerf import main
from support.runs import LOSSES, options
from support.scenes import look_at_origin, memory_scene, refused, write_dtu

POINT = np.array([0.3, -0.2, 0.5])


def around_the_point(*angles, radius=4.0):
    """Poses that look at POINT from azimuths and elevations in degrees."""
    poses = np.stack([look_at_origin(*pair, radius=radius + 0.2 * i)[:3] for i, pair in enumerate(angles)])
    poses[:, :, 3] += POINT
    return poses


CAMERAS = around_the_point((0, 10), (50, 30), (100, 20), (170, 45))
PARALLEL = np.stack([np.concatenate([np.eye(3), [[x], [0.1 * x], [0.0]]], axis=1) for x in (-1.0, 0.0, 2.0)])


def check_rotations(poses):
    for pose in poses:
        np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:, :3]) > 0


def test_the_point_that_cameras_look_at():
    np.testing.assert_allclose(common_point(CAMERAS), POINT, atol=1e-9)
    shaken = CAMERAS + 0.05 * np.random.default_rng(0).normal(size=CAMERAS.shape)
    found, axes = common_point(shaken), -shaken[:, :, 2] / np.linalg.norm(shaken[:, :, 2], axis=-1, keepdims=True)

    def squared_distances(point):
        return sum(np.linalg.norm(np.cross(axis, point - pose[:, 3])) ** 2 for axis, pose in
                   zip(axes, shaken, strict=True))  # fmt: skip

    assert not np.allclose(found, POINT, atol=1e-3)
    for step in 1e-3 * np.concatenate([np.eye(3), -np.eye(3)]):
        assert squared_distances(found) < squared_distances(found + step)
    outwards = CAMERAS.copy()
    outwards[:, :, [0, 2]] *= -1  # turned about the upward axis
    assert common_point(outwards) is None
    assert common_point(PARALLEL) is None


def test_the_point_between_cameras_that_face_each_other():
    """Half-way between the two sides, however many cameras there are on each."""
    for cameras in ([(0, 0), (180, 0)], [(20, 30), (200, -30)], [(0, 89), (180, -89)]):
        poses = np.stack([look_at_origin(*angles)[:3] for angles in cameras])
        poses[:, :, 3] += POINT
        np.testing.assert_allclose(common_point(poses), POINT, atol=1e-9)
        made = make_poses("spread", poses)
        check_rotations(made)
        offsets = made[:, :, 3] - POINT
        np.testing.assert_allclose(offsets / 4, made[:, :, 2], atol=1e-9)
        between = make_poses("interpolate", poses)
        np.testing.assert_allclose(np.linalg.norm(between[:, :, 3] - POINT, axis=-1), 4)
    one, other = (look_at_origin(azimuth, 0)[:3] for azimuth in (0, 180))
    beside = other + np.array([[0, 0, 0, 0], [0, 0, 0, 0.03], [0, 0, 0, 0]])
    np.testing.assert_allclose(common_point(np.stack([one, other, beside])), [0, 0.01, 0], atol=1e-9)
    assert common_point(np.stack([one * [-1, 1, -1, 1], other * [-1, 1, -1, 1]])) is None  # back to back
    rolled = np.stack([one, other * [-1, -1, 1, 1]])  # one upside down: there is no common up
    check_rotations(make_poses("spread", rolled))


def test_poses_between_cameras_that_look_at_a_point():
    poses = make_poses("interpolate", CAMERAS)
    assert poses.shape == (100, 3, 4)
    check_rotations(poses)
    offsets = POINT - poses[:, :, 3]
    distances = np.linalg.norm(offsets, axis=-1)
    np.testing.assert_allclose(offsets / distances[:, None], -poses[:, :, 2], atol=1e-9)
    assert 4.0 <= distances.min() < 4.2 < distances.max() <= 4.6
    for t in (0.0, 0.25, 1.0):
        pose = pose_between(CAMERAS[0], CAMERAS[3], t, POINT)
        assert np.linalg.norm(pose[:, 3] - POINT) == pytest.approx(4.0 + t * 0.6)
        turned = [np.trace(pose[:, :3].T @ camera[:, :3]) for camera in (CAMERAS[0], CAMERAS[3])]
        angles = np.arccos(np.clip((np.array(turned) - 1) / 2, -1, 1))
        np.testing.assert_allclose(angles, np.array([t, 1 - t]) * angles.sum(), atol=1e-6)
    np.testing.assert_allclose(pose_between(CAMERAS[0], CAMERAS[3], 1.0, POINT), CAMERAS[3], atol=1e-9)


def test_poses_between_parallel_cameras():
    for pose in make_poses("interpolate", PARALLEL):
        np.testing.assert_allclose(pose[:, :3], np.eye(3), atol=1e-12)
        assert -1 <= pose[0, 3] <= 2
        assert pose[1, 3] == pytest.approx(0.1 * pose[0, 3])


def test_poses_spread_around_the_point():
    poses = make_poses("spread", CAMERAS)
    assert poses.shape == (100, 3, 4)
    check_rotations(poses)
    offsets = poses[:, :, 3] - POINT
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=-1), 4.3)
    np.testing.assert_allclose(offsets / 4.3, poses[:, :, 2], atol=1e-9)
    cameras = CAMERAS[:, :, 3] - POINT
    cameras /= np.linalg.norm(cameras, axis=-1, keepdims=True)
    axis = cameras.mean(0) / np.linalg.norm(cameras.mean(0))
    largest = np.degrees(np.arccos(cameras @ axis)).max() + WIDER
    angles = np.degrees(np.arccos(offsets @ axis / 4.3))
    assert 0.9 * largest < angles.max() <= largest
    area = (1 - np.cos(np.radians(angles))) / (1 - np.cos(np.radians(largest)))  # uniform where uniform on the cap
    assert abs(area.mean() - 0.5) < 0.1
    assert (poses[:, 2, 1] > 0).mean() > 0.9  # upright


@pytest.mark.parametrize("kind", KINDS)
def test_made_poses_are_the_pool(tmp_path, capsys, kind):
    """Always the same ones; cameras with the first training view's intrinsics; other data need not be there."""
    np.testing.assert_array_equal(make_poses(kind, CAMERAS), make_poses(kind, CAMERAS))
    scene = with_made_poses(memory_scene(train=(1, 0), pixel_center=0.5), kind)
    assert (scene.split.unseen, scene.made_poses.shape) == ((), (100, 3, 4))
    cameras = scene.unseen_cameras()
    np.testing.assert_allclose(cameras.poses, scene.made_poses, atol=1e-6)
    np.testing.assert_allclose(cameras.intrinsics, np.tile(scene.cameras.intrinsics[1], (100, 1)), rtol=1e-6)
    assert cameras.sizes == (scene.size(1),) * 100
    assert (cameras.near, cameras.far, cameras.pixel_center) == (2.0, 6.0, 0.5)
    with refused(f"--unseen_poses {kind}: found 1 training view, expected at least 2"):
        make_poses(kind, CAMERAS[:1])
    scan = write_dtu(tmp_path / "scan")
    command = options(scan, tmp_path, "--train_scene", "0", "2", "3", *LOSSES, "--unseen_poses", kind, kind="dtu")
    assert main([*command, "--N_iters", "2"]) == 0
    assert "100 poses; made from those of the training cameras; no view has them" in capsys.readouterr().out


def test_parallel_cameras_have_nothing_to_spread_around():
    with refused("--unseen_poses spread: the training cameras do not look at a point"):
        make_poses("spread", PARALLEL)
