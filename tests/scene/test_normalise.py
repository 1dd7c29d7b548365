"""A capture's world, and the way back."""

import json
from dataclasses import replace

import numpy as np
import pytest

from infonerf.scene import normalise
from infonerf.scene.poses import look_along
from support.captures import SHIFT, poses, sparse_points
from support.scenes import look_at_origin, memory_scene, refused


def turned(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def a_world(seed: int, scale: float) -> np.ndarray:
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = scale * turned(seed), [1.0, -2.0, 7.0]
    return world


@pytest.mark.parametrize(("seed", "scale"), [(0, 0.01), (1, 1.0), (2, 300.0)])
def test_a_world_is_undone(seed, scale):
    world, there, points = a_world(seed, scale), poses(), sparse_points()
    back = np.linalg.inv(world)
    assert normalise.scale_of(world) == pytest.approx(scale, rel=1e-12)
    moved = normalise.moved_poses(world, there)
    np.testing.assert_allclose(normalise.moved_poses(back, moved), there, rtol=0, atol=1e-9)
    np.testing.assert_allclose(normalise.moved_points(back, normalise.moved_points(world, points)), points, atol=1e-9)
    rotations = moved[:, :, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (6, 1, 1)), atol=1e-12)


def in_camera(pose, points):
    return (points - pose[:, 3]) @ pose[:, :3]


def test_a_world_changes_no_picture():
    """In a camera's axes everything only grows."""
    world, points = a_world(3, 2.5), sparse_points()
    moved = normalise.moved_points(world, points)
    for before, after in zip(poses(), normalise.moved_poses(world, poses()), strict=True):
        np.testing.assert_allclose(in_camera(after, moved), 2.5 * in_camera(before, points), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_points", [True, False])
def test_the_world_is_the_same_wherever_the_files_have_theirs(seed, with_points):
    """But for the azimuth: origin, distances, and upwards."""
    around, points = poses(), sparse_points()
    depths = np.full(6, 2.5) if with_points else None
    points = points if with_points else points[:0]
    world = normalise.similarity(around, points, depths)
    moved = normalise.moved_poses(world, around)
    up = moved[:, :, 1].mean(0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-9)
    if not with_points:
        np.testing.assert_allclose(normalise.moved_points(world, SHIFT[None]), [[0, 0, 0]], atol=1e-9)
        assert np.linalg.norm(moved[:, :, 3], axis=1) == pytest.approx(normalise.DISTANCE)
    else:
        inside = np.abs(normalise.moved_points(world, points)) <= normalise.CONTENT
        assert inside.all(1).mean() > 0.9
        assert np.abs(normalise.moved_points(world, points)).max() == pytest.approx(normalise.CONTENT, rel=0.05)
    other = a_world(seed, 0.3)
    again = normalise.similarity(normalise.moved_poses(other, around), normalise.moved_points(other, points),
                                 None if depths is None else 0.3 * depths)  # fmt: skip
    both = normalise.moved_poses(again, normalise.moved_poses(other, around))
    if not with_points:  # with points, the cube's sides depend on the azimuth
        np.testing.assert_allclose(both[:, 2], moved[:, 2], atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(both[:, :, 3], axis=1), np.linalg.norm(moved[:, :, 3], axis=1))


def test_up_may_be_anywhere():
    for up in ([0, 0, 1], [0, 0, -1], [1, 0, 0], [0.3, -2, 0.1], [1e-9, 0, -1]):
        rotation = normalise.turned_up(np.array(up, float))
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_allclose(rotation @ up / np.linalg.norm(up), [0, 0, 1], atol=1e-8)
    assert (normalise.turned_up(np.zeros(3)) == np.eye(3)).all()


def parallel(n: int = 4) -> np.ndarray:
    places = np.stack([np.arange(n) * 0.1, np.zeros(n), np.zeros(n)], axis=1)
    return look_along(places, np.tile([0.0, 0.0, -1.0], (n, 1)), np.tile([0.0, 1.0, 0.0], (n, 1)))


@pytest.mark.parametrize(
    "cameras", [parallel(), parallel(1), parallel(4) * [1, 1, 1, 0], np.stack([look_at_origin(0, 0)[:3]] * 3)]
)
def test_cameras_that_look_at_no_point_have_a_world(cameras):
    world = normalise.similarity(cameras, np.zeros((0, 3)), None)
    assert np.isfinite(world).all() and normalise.scale_of(world) > 0
    near, far, bounds = normalise.extent(normalise.moved_poses(world, cameras), np.zeros((0, 3)), None)
    assert 0 < near < far < np.inf and bounds is None


def test_cameras_that_look_away_from_each_other_have_a_world():
    away = np.stack([look_at_origin(a, 10.0)[:3] for a in (0, 90, 180, 270)])
    away[:, :, :3] *= [-1, 1, -1]
    world = normalise.similarity(away, np.zeros((0, 3)), None)
    assert np.isfinite(world).all() and normalise.scale_of(world) > 0


def test_near_far_and_bounds_are_of_the_points():
    rng = np.random.default_rng(0)
    depths = [np.append(rng.uniform(2, 3, 5000), 50), np.append(rng.uniform(2.5, 4, 5000), 0.01)]
    points = np.append(rng.uniform(-1, 1, (5000, 3)), [[90.0, 0, 0]], axis=0)
    near, far, bounds = normalise.extent(poses(), points, depths)
    assert near == pytest.approx(2 * 0.9, rel=0.01)
    assert far == pytest.approx(4 * 1.1, rel=0.01)
    np.testing.assert_allclose(bounds, [[-1.5] * 3, [1.5] * 3], atol=0.02)


def test_the_world_is_kept_with_a_run(tmp_path):
    scene = replace(memory_scene(), world=a_world(1, 0.3), bounds=np.array([[-1.0] * 3, [1.0] * 3]))
    normalise.write_world(scene, tmp_path)
    before = (tmp_path / "world.json").stat().st_mtime_ns
    normalise.write_world(scene, tmp_path)
    assert (tmp_path / "world.json").stat().st_mtime_ns == before
    assert (normalise.read_world(tmp_path) == scene.world).all()
    content = json.loads((tmp_path / "world.json").read_text())
    assert (content["near"], content["far"], content["bounds"]) == (2.0, 6.0, [[-1.0] * 3, [1.0] * 3])
    assert content["views"] == {"train": ["v_0", "v_1"], "val": ["v_5"], "test": ["v_5"]}
    normalise.require_same_world(scene, tmp_path)
    normalise.require_same_world(scene, tmp_path / "elsewhere")
    for other in (a_world(1, 0.31), None):
        with refused(r"world\.json: found the world of other cameras"):
            normalise.require_same_world(replace(scene, world=other), tmp_path)
    normalise.write_world(replace(scene, world=None), tmp_path)
    assert normalise.read_world(tmp_path) is None
    assert normalise.read_world(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"world": 3}', b'{"world": [[1]]}', b"\xff",
                                     b"[" * 9999, b'{"world": [[' + b"9" * 400 + b"]]}",
                                     b'{"world": [[1,0,0,0],[0,1,0,0],[0,0,NaN,0],[0,0,0,1]]}'])  # fmt: skip
def test_a_damaged_world_is_refused(tmp_path, content):
    (tmp_path / "world.json").write_bytes(content)
    with refused(r"world\.json: cannot be read"):
        normalise.read_world(tmp_path)
