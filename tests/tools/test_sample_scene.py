"""The committed sample scene: its files, its cameras, its depth, and the script that made it."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.config import DataConfig
from infonerf.scene.cameras import Pixels
from infonerf.scene.photographs import nearest
from load_blender import load_blender
from tools.sample_scene import make as sample

FOLDER = Path(__file__).parents[2] / "data" / "sample"
SIZE = 100


@pytest.fixture(scope="module")
def scene():
    return load_blender(DataConfig(datadir=str(FOLDER), testskip=1, white_bkgd=True, pixel_center=0.5))


@pytest.fixture(scope="module")
def field():
    return sample.Field()


def depth_of(view_name: str) -> np.ndarray:
    """z-depth (h w), 0 where there is no surface."""
    scale = json.loads((FOLDER / "transforms_test.json").read_text())["depth_scale"]
    image = iio.imread(FOLDER / f"{view_name}_depth.png")
    assert image.dtype == np.uint16 and image.shape == (SIZE, SIZE)
    return image * scale


def alpha_of(view_name: str) -> np.ndarray:
    return iio.imread(FOLDER / f"{view_name}.png")[..., 3]


def test_the_loader_finds_all_views(scene):
    assert [len(views) for views in (scene.split.train, scene.split.val, scene.split.test)] == [100, 13, 25]
    assert set(scene.cameras.sizes) == {(SIZE, SIZE)}
    for view in (scene.split.train[0], scene.split.val[0], scene.split.test[-1]):
        image = scene.photographs.image(view)
        assert image.shape == (SIZE, SIZE, 3) and (image[0] == 1).all() and image.min() < 0.25


def test_the_loader_reads_true_depth(scene):
    assert scene.photographs.depth(scene.split.train[0]) is None and scene.photographs.depth(scene.split.val[0]) is None
    for view in scene.split.test:
        np.testing.assert_allclose(scene.photographs.depth(view), depth_of(scene.view_names[view]), rtol=1e-6)
    first = scene.photographs.depth(scene.split.test[0])
    assert first.dtype == np.float32 and first[0, 0] == 0
    assert first[50, 50] == pytest.approx(3.1927977, rel=1e-6)  # the PNG says 26155 there: 26155 * 8 / 65535
    assert first[40, 60] == pytest.approx(3.8637064, rel=1e-6)  # 31651


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 2_000_000


def test_cameras_look_at_the_origin_from_the_upper_hemisphere(scene):
    rotations, positions = scene.poses[:, :, :3], scene.poses[:, :, 3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (138, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_allclose(positions, sample.RADIUS * rotations[:, :, 2])  # the camera's z points back
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 4.0311)
    assert (positions[:, 2] > 0).all()
    assert (np.abs(rotations[:, 2, 0]) < 1e-12).all() and (rotations[:, 2, 1] > 0).all()  # upright


def test_training_cameras_are_on_all_sides(scene):
    """Each eighth of the horizon, near it and high above it; and four sides for the usual four shots."""
    x, y, z = scene.poses[list(scene.split.train), :, 3].T
    eighth = np.floor(np.arctan2(y, x) / (np.pi / 4)).astype(int) % 8
    assert len({(a, high) for a, high in zip(eighth, z > 2, strict=True)}) == 16
    azimuth = np.sort(np.degrees(np.arctan2(y, x))[[26, 86, 2, 55]])
    assert np.diff([*azimuth, azimuth[0] + 360]).min() > 45


def test_no_view_cuts_the_object_off(scene):
    for name in scene.view_names:
        alpha = alpha_of(name)
        assert not any(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])), name
        assert (alpha > 0).mean() > 0.2, name


def test_depth_is_where_the_object_is(scene):
    for view in scene.split.test:
        depth, alpha = depth_of(scene.view_names[view]), alpha_of(scene.view_names[view])
        assert (depth[alpha == 0] == 0).all() and (depth[alpha == 255] > 0).mean() > 0.999  # but for slits
        assert depth[depth > 0].min() > 2 and depth.max() < 6


@pytest.mark.parametrize("factor", [5, 4])
def test_true_depth_of_a_smaller_image_is_what_its_rays_hit(scene, field, factor):
    """As the script finds it for a camera of so few pixels; but for edges where the middle of a pixel, of an even
    factor, lies between four."""
    view, size = scene.split.test[3], SIZE // factor
    cols, rows = sample.all_pixels(size)
    expected = sample.depth(field, scene.poses[view], size, cols, rows).reshape(size, size)
    error = np.abs(nearest(scene.photographs.depth(view), size, size, 0.5) - expected)
    assert np.quantile(error, 0.99) < 1e-3 if factor == 5 else np.median(error[expected > 0]) < 0.02


@pytest.mark.parametrize("step", [1, 3, -2])
@pytest.mark.parametrize("start", [0, 7, 16])
def test_depth_of_one_view_is_that_of_another(scene, start, step):
    """A point that one test view sees is, for another, on its surface, or hidden behind it: its depth there
    is not smaller than those of the four pixels around it, and mostly between them."""
    first, second = scene.split.test[start], scene.split.test[(start + step) % 25]
    depth = depth_of(scene.view_names[first])
    rows, cols = np.nonzero(depth)
    pixels = Pixels(*(torch.from_numpy(index) for index in (np.zeros_like(rows), rows, cols)))
    rays = scene.cameras.at([first]).rays(pixels)
    points = rays.origins.numpy() + depth[rows, cols, None] * rays.directions.numpy()

    pose, (fx, fy, cx, cy) = scene.poses[second], scene.cameras.intrinsics[second].tolist()
    x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).T
    col, row = (np.floor(c - 0.5).astype(int) for c in (cx + fx * x / -z, cy - fy * y / -z))
    there = depth_of(scene.view_names[second])
    around = np.stack([there[row + i, col + j] for i in (0, 1) for j in (0, 1)])
    around[around == 0] = np.inf
    visible = -z > around.min(0) - 0.005
    agree = visible & (-z < around.max(0) + 0.005)
    assert visible.mean() > 0.985
    assert agree.mean() > 0.75


def test_the_script_makes_the_committed_files(scene, field):
    pose = scene.poses[scene.split.test[3]]
    cols, rows = sample.all_pixels(SIZE)
    expected = iio.imread(FOLDER / "test" / "r_3.png").astype(int)
    difference = np.abs(sample.render(field, pose, SIZE, cols, rows).reshape(SIZE, SIZE, 4) - expected)
    assert difference.mean() < 0.1 and np.quantile(difference, 0.995) <= 2
    depth = sample.depth(field, pose, SIZE, cols, rows).reshape(SIZE, SIZE)
    assert np.quantile(np.abs(depth - depth_of("test/r_3")), 0.995) < 1e-3


def test_poses_are_those_of_the_script(scene):
    poses = [pose[:3] for split, n in sample.VIEWS.items() for pose in sample.poses_of(split, n)]
    np.testing.assert_allclose(scene.poses, poses, atol=1e-12)


def test_the_field_is_the_nearest_part(field):
    """Exact near a surface, never too far anywhere (rays would jump over thin parts)."""
    unit = np.random.default_rng(0).random((3, 20000))
    points = (sample.LOWER[:, None] + (sample.UPPER - sample.LOWER)[:, None] * unit).astype(np.float32)
    distances = np.stack([shape(*points) for shape, _ in sample.PARTS])
    assert distances.dtype == np.float32
    found, part = field(points, parts=True)
    np.testing.assert_array_equal(found, distances.min(0))
    np.testing.assert_array_equal(distances[part, np.arange(20000)], distances.min(0))
    fast = field(points)
    assert (fast <= found).all() and (fast > 0)[found > 3 * field.reach].all()
    np.testing.assert_array_equal(fast[found < field.reach], found[found < field.reach])


def test_distances_change_no_faster_than_the_point_moves():
    """So that a step of that length never enters a shape."""
    random = np.random.default_rng(0)
    start = sample.LOWER[:, None] + (sample.UPPER - sample.LOWER)[:, None] * random.random((3, 20000))
    step = random.normal(0, 0.05, start.shape)
    for shape, _ in sample.PARTS:
        change = np.abs(shape(*(start + step)) - shape(*start)) / np.linalg.norm(step, axis=0)
        assert change.max() < 1.001, shape.__name__


def test_transparent_colour_is_straight(field):
    """An edge pixel keeps the colour of its covered part; an empty one is 0."""
    image = iio.imread(FOLDER / "test" / "r_0.png")
    assert (image[image[..., 3] == 0] == 0).all()
    edge = (image[..., 3] > 0) & (image[..., 3] < 128)
    assert edge.sum() > 50 and image[edge][:, :3].max(1).mean() > 60


def test_a_scene_of_another_size(tmp_path, capsys):
    assert sample.main(["--output", str(tmp_path / "small"), "--size", "12", "--views", "2", "1", "1"]) == 0
    scene = load_blender(DataConfig(datadir=str(tmp_path / "small"), testskip=1, white_bkgd=True))
    assert len(scene.view_names) == 4 and scene.photographs.image(0).shape == (12, 12, 3)
    assert sample.main(["--output", str(tmp_path / "none"), "--size", "0"]) == 2
    assert "--size: found '0', expected an integer >= 1" in capsys.readouterr().err and not (tmp_path / "none").exists()
