"""Captures -> Scene: views, sizes, the world, known depths, kinds of folders; and a run of one."""

import json
import math
import shutil
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run_nerf
from infonerf.config import DataConfig
from infonerf.scene import capture, normalise
from infonerf.scene.cameras import Pixels
from infonerf.scene.capture import depths_of_files, fit_to_files, view_names
from infonerf.scene.kinds import found_kind
from infonerf.scene.photographs import read_pixels
from infonerf.system.errors import InputError
from load_capture import load_capture, read_capture
from run_nerf_helpers import load_scene, open_run
from support.captures import (
    change,
    lens,
    names,
    poses,
    sparse_points,
    write_colmap,
    write_images,
    write_ply,
    write_transforms,
)
from support.runs import options
from support.scenes import names as split_names
from support.scenes import random_pixels, refused, write_blender, write_dtu


@pytest.fixture
def transforms(tmp_path):
    return write_transforms(tmp_path / "capture", model="OPENCV")


@pytest.fixture
def colmap(tmp_path):
    return write_colmap(tmp_path / "capture", model="OPENCV")


def load(folder, **given):
    return load_capture(DataConfig(datadir=str(folder), pixel_center=0.5, **given))


def numbers(scene):
    return scene.split.train, scene.split.val, scene.split.test


# The cameras.


@pytest.mark.parametrize("write", [write_transforms, write_colmap])
@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
def test_cameras_see_points_where_the_photographs_show_them(tmp_path, write, model):
    """Through lens, undistortion, reduction and the world: a ray through the place of a point meets it."""
    scene = load(write(tmp_path / "capture", model=model), longest_side=10)
    points = normalise.moved_points(scene.world, sparse_points())
    back = normalise.moved_poses(np.linalg.inv(scene.world), scene.poses)
    np.testing.assert_allclose(back, poses(), rtol=0, atol=1e-9)
    assert max(max(size) for size in scene.cameras.sizes) == 10
    for view, pose in enumerate(scene.poses):
        fx, fy, cx, cy = scene.cameras.intrinsics[view].numpy()
        x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).T
        cols, rows = cx - fx * x / z, cy + fy * y / z
        rays = scene.cameras.rays(Pixels(torch.full((len(cols),), view), torch.tensor(rows - 0.5),
                                         torch.tensor(cols - 0.5)))  # fmt: skip
        met = rays.origins + rays.directions * torch.tensor(-z)[:, None]
        np.testing.assert_allclose(met.numpy(), points, rtol=0, atol=1e-9)


def test_the_files_own_world(transforms):
    scene = load(transforms, normalize=False)
    assert scene.world is None
    np.testing.assert_allclose(scene.poses, poses(), rtol=0, atol=1e-9)
    scaled = load(transforms)
    scale = normalise.scale_of(scaled.world)
    assert (scaled.near, scaled.far) == pytest.approx((scale * scene.near, scale * scene.far))


def test_photographs_that_are_trained_on_and_tested_on(transforms):
    shutil.copyfile(transforms / "images/001.png", transforms / "images/000.png")
    [note] = [note for note in load(transforms).notes if "WARNING" in note]
    assert note.startswith(f"WARNING: {transforms}/images/000.png is a copy of a photograph that is trained on, for 1")


def test_the_world_does_not_depend_on_the_split(transforms):
    one, other = load(transforms), load(transforms, train_scene=[1, 4], test_scene=[2])
    assert (one.world == other.world).all() and (one.near, one.far) == (other.near, other.far)


def test_sizes_and_intrinsics(transforms):
    whole = load(transforms, longest_side=0)
    height, width = whole.size(0)
    assert 0.8 * 20 < width <= 20 and 0.8 * 16 < height <= 16
    small = load(transforms, longest_side=8)
    h, w = small.size(0)
    assert (w, h) == (8, round(height * 8 / width))
    np.testing.assert_allclose(small.cameras.intrinsics[0], whole.cameras.intrinsics[0] * torch.tensor(
        [w / width, h / height] * 2, dtype=torch.float64), rtol=1e-12)  # fmt: skip
    half = load(transforms, longest_side=8, half_res=True)
    assert half.size(0) == (h // 2, w // 2)
    for scene in (whole, small, half):
        assert scene.photographs.image(0).shape == (*scene.size(0), 3)
    with refused("--half_res: the images are 1 x 1, expected at least 2 x 2"):
        load(transforms, longest_side=1, half_res=True)


def test_photographs_of_pinhole_cameras_are_as_they_are(tmp_path):
    scene = load(write_transforms(tmp_path), longest_side=0)
    for view, name in enumerate(names()):
        assert (scene.photographs.image(view) == read_pixels(tmp_path / "images" / name)).all()
    assert scene.photographs.alpha is None
    half = load(tmp_path, longest_side=10).photographs.image(2)
    whole = read_pixels(tmp_path / "images/002.png")
    np.testing.assert_allclose(half, whole.reshape(8, 2, 10, 2, 3).mean((1, 3)), atol=1e-6)


def test_portrait_and_landscape_and_smaller_files(tmp_path):
    folder = write_transforms(tmp_path)
    write_images(folder / "images", ["000.png"], 16, 20)
    write_images(folder / "images", ["001.png"], 10, 8)

    def edit(content):
        content["frames"][0] |= {"w": 16, "h": 20, "cx": 8.3, "cy": 9.6}

    change(folder, edit)
    scene = load(folder, longest_side=0, train_scene=[0, 1, 2])
    assert scene.cameras.sizes == ((20, 16), (8, 10), *[(16, 20)] * 4)
    assert scene.cameras.intrinsics[1].tolist() == [7, 7.5, 4.8, 4.15]
    assert any("1 photographs have another size than their cameras (such as images/001.png" in n for n in scene.notes)
    assert [scene.photographs.image(view).shape for view in (0, 1, 2)] == [(20, 16, 3), (8, 10, 3), (16, 20, 3)]


def test_refuses_photographs_of_another_shape(tmp_path):
    folder = write_transforms(tmp_path)
    write_images(folder / "images", ["003.png"], 16, 20)
    with refused(r"images/003\.png: the image is 16 x 20, expected the shape of 20 x 16.*was turned"):
        load(folder)
    write_images(folder / "images", ["003.png"], 20, 9)
    with refused(r"images/003\.png: the image is 20 x 9, expected the shape of 20 x 16, as its camera has it\Z"):
        load(folder)
    (folder / "images/003.png").write_bytes(b"no image")
    with refused(r"images/003\.png: cannot be read as an image"):
        load(folder)


def test_a_file_that_changes_later_is_refused(tmp_path):
    scene = load(write_transforms(tmp_path))
    write_images(tmp_path / "images", names(), 22, 16)
    with refused(r"images/000\.png: the image is 22 x 16, expected 20 x 16"):
        scene.photographs.image(0)


def test_alpha(tmp_path):
    folder = write_transforms(tmp_path)
    write_images(folder / "images", names(), channels=4)
    scene = load(folder, longest_side=0, white_bkgd=True)
    pixels = read_pixels(folder / "images/001.png")
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    np.testing.assert_allclose(scene.photographs.image(1), rgb * alpha + 1 - alpha, atol=1e-6)
    np.testing.assert_allclose(scene.photographs.alpha(1), alpha[..., 0], atol=1e-6)
    write_images(folder / "images", ["001.png"])
    assert (load(folder, longest_side=0, train_scene=[0]).photographs.alpha(1) == 1).all()


def test_a_hidden_colour_does_not_bleed(tmp_path):
    folder, pixels = write_transforms(tmp_path), np.zeros((16, 20, 4), np.uint8)
    pixels[:, ::2] = [255, 0, 0, 255]
    pixels[:, 1::2] = [0, 255, 0, 0]
    iio.imwrite(folder / "images/001.png", pixels)
    write_images(folder / "images", ["000.png"], channels=4)
    image = load(folder, longest_side=10, white_bkgd=True, train_scene=[0]).photographs.image(1)
    np.testing.assert_allclose(image, np.broadcast_to([1, 0.5, 0.5], (8, 10, 3)), atol=1e-6)


@pytest.mark.parametrize("white", [1, 255])
def test_masks(tmp_path, white):
    folder, mask = write_transforms(tmp_path), np.zeros((16, 20), np.uint8)
    mask[:, 10:] = white
    iio.imwrite(folder / "m.png", mask)
    assert load(folder).photographs.mask is None
    change(folder, lambda c: [frame.update(mask_path="m.png") for frame in c["frames"][1:]])
    scene = load(folder)
    assert scene.photographs.mask is None and any("5 of 6 views have a mask" in note for note in scene.notes)
    change(folder, lambda c: c["frames"][0].update(mask_path="m.png"))
    assert (load(folder, longest_side=10).photographs.mask(2) == (np.arange(10) >= 5)).all()
    with refused("--maskdir: not for captures"):
        load(folder, maskdir="m")


# The split.


@pytest.mark.parametrize(("n", "given", "train", "test"), [
    (6, {}, (1, 2, 3, 4, 5), (0,)),
    (5, {}, (1, 2, 3, 4), (0,)),
    (4, {}, (0, 1, 2, 3), ()),
    (1, {}, (0,), ()),
    (6, {"testskip": 0}, (0, 1, 2, 3, 4, 5), ()),
    (6, {"testskip": 3}, (1, 2, 4, 5), (0, 3)),
    (6, {"train_scene": [4, 2]}, (4, 2), (0,)),
    (6, {"train_scene": [4, 0]}, (4, 0), (1, 2, 3, 5)),
    (4, {"train_scene": [3, 1]}, (3, 1), (0, 2)),
    (6, {"train_scene": [4], "test_scene": [-1]}, (4,), (0, 1, 2, 3, 5)),
    (6, {"test_scene": [3, 1]}, (0, 2, 4, 5), (3, 1)),  # whoever names them holds nothing else out
    (6, {"test_scene": [0, 1, 2], "fewshot": 3}, (5, 4, 3), (0, 1, 2)),
    (6, {"train_scene": [0], "test_scene": [1]}, (0,), (1,)),
])  # fmt: skip
def test_split(tmp_path, n, given, train, test):
    scene = load(write_transforms(tmp_path, n), **given)
    assert (scene.split.train, scene.split.test) == (train, test)
    assert scene.path.shape == (60, 3, 4) and np.isfinite(scene.path).all()


def test_what_is_held_out_is_said(tmp_path):
    assert "held out for testing: 0 (images/000.png) 5 (images/005.png)" in load(
        write_transforms(tmp_path / "6"), testskip=5).notes  # fmt: skip
    assert "no photograph is held out for testing" in load(write_transforms(tmp_path / "4", 4)).notes


def test_fewshot_is_drawn_from_those_not_held_out(transforms):
    for seed in range(5):
        scene = load(transforms, fewshot=3, fewshot_seed=seed)
        assert len(scene.split.train) == 3 and 0 not in scene.split.train and scene.split.test == (0,)
    with refused("--fewshot 6: there are 5 views to draw from"):
        load(transforms, fewshot=6)


@pytest.mark.parametrize(("given", "message"), [
    ({"train_scene": [6]}, r"--train_scene: found view 6, expected 0\.\.5"),
    ({"test_scene": [6]}, r"--test_scene: found view 6, expected 0\.\.5"),
    ({"train_scene": [1, 1]}, "view 1 is named twice"),
    ({"train_scene": [1], "test_scene": [1]}, "--test_scene: view 1 is also a training view"),
    ({"test_scene": [0, 1, 2, 3, 4, 5]}, "--test_scene: found all 6 photographs named"),
    ({"testskip": 1}, r"found no photograph to train on of 6 \(testskip 1\)"),
])  # fmt: skip
def test_refuses_a_split(transforms, given, message):
    with refused(message):
        load(transforms, **given)


def test_numbers_are_of_the_names_in_order(colmap):
    """COLMAP's file has them the other way round."""
    scene = load(colmap)
    assert scene.view_names == tuple(name[:-4] for name in names())
    np.testing.assert_allclose(normalise.moved_poses(np.linalg.inv(scene.world), scene.poses), poses(), atol=1e-9)


def test_lists_of_the_file(transforms):
    listed = [f"images/{name}" for name in names()]
    change(transforms, lambda c: c.update(train_filenames=listed[:3], val_filenames=listed[3:5],
                                          test_filenames=listed[5:]))  # fmt: skip
    scene = load(transforms)
    assert numbers(scene) == ((0, 1, 2), (3, 4), (5,))
    assert split_names(scene, "val") == ["003", "004"]
    change(transforms, lambda c: [c.pop("test_filenames"), c.pop("val_filenames")])
    assert numbers(load(transforms))[2] == ()


@pytest.mark.parametrize(("listed", "expected"), [
    (["a/1.png", "a/2.png"], ("1", "2")),
    (["a/b/1.png", "a/2.png"], ("b/1", "2")),
    (["a/1.jpg", "a/1.png"], ("1.jpg", "1.png")),
    (["1.v2.png"], ("1.v2",)),
    (["a/1", "a/2.png"], ("1", "2")),
])  # fmt: skip
def test_view_names(listed, expected):
    assert view_names(listed) == expected


# Points and depths.


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
@pytest.mark.parametrize("given", [{}, {"longest_side": 10}, {"normalize": False, "half_res": True}], ids=str)
def test_known_depths_are_those_of_the_points(tmp_path, model, given):
    scene = load(write_colmap(tmp_path / "capture", model=model), train_scene=[4, 1], **given)
    world = np.eye(4) if scene.world is None else scene.world
    points, known = normalise.moved_points(world, sparse_points()), scene.known_depths
    assert set(known.views) == {4, 1} and len(known) > 40
    assert known.weights.mean() == pytest.approx(1) and (known.weights > 0).all()
    for view in (4, 1):
        of_view, pose = known.views == view, scene.poses[view]
        fx, fy, cx, cy = scene.cameras.intrinsics[view].numpy()
        z = -known.depths[of_view]
        x, y = -(known.cols[of_view] - cx) / fx * z, (known.rows[of_view] - cy) / fy * z
        places = np.stack([x, y, z], axis=1) @ pose[:, :3].T + pose[:, 3]
        distances = np.linalg.norm(places[:, None] - points, axis=-1)
        assert distances.min(1).max() < 1e-8
        errors = 0.2 + 0.01 * distances.argmin(1)
        mean = (0.2 + 0.01 * np.arange(60))[np.arange(60) % 3 > 0].mean()
        np.testing.assert_allclose(np.log(known.weights[of_view]) + (errors / mean) ** 2, np.log(known.weights[0]) + (
            (0.2 + 0.01 * nearest(scene, known, points)) / mean) ** 2, atol=1e-6)  # fmt: skip


def test_smaller_photographs_than_the_model_is_of(tmp_path):
    """Places in the images go with their size, as the intrinsics do."""
    whole = load(write_colmap(tmp_path / "capture", model="OPENCV"), longest_side=10)
    write_images(tmp_path / "capture/images", names(), 40, 32)
    twice = load(tmp_path / "capture", longest_side=10)
    scaled = whole.known_depths.cols / whole.size(0)[1], twice.known_depths.cols / twice.size(0)[1]
    np.testing.assert_allclose(*scaled, atol=0.05)
    np.testing.assert_allclose(whole.known_depths.depths, twice.known_depths.depths, rtol=1e-9)


def test_a_scaled_rotation_scales_no_depth(tmp_path):
    folder = write_transforms(tmp_path, ply_file_path="p.ply")
    write_ply(folder / "p.ply", sparse_points())
    before = load(folder)

    def scale(content):
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= 0.1
            frame["transform_matrix"] = matrix.tolist()

    change(folder, scale)
    after = load(folder)
    np.testing.assert_allclose([after.near, after.far], [before.near, before.far], rtol=1e-9)
    np.testing.assert_allclose(after.world, before.world, atol=1e-9)


def test_image_scale(tmp_path):
    folder = write_transforms(tmp_path)
    before = load(folder, longest_side=0).cameras.intrinsics
    change(folder, lambda c: c.update({key: 4 * c[key] for key in ("fl_x", "fl_y", "cx", "cy")}))
    after = load(folder, longest_side=0, image_scale=4.0).cameras.intrinsics
    np.testing.assert_allclose(after, before, rtol=1e-12)


def nearest(scene, known, points):
    """The number of the first known depth's point."""
    pose, z = scene.poses[known.views[0]], -known.depths[0]
    fx, fy, cx, cy = scene.cameras.intrinsics[known.views[0]].numpy()
    place = pose[:, :3] @ [-(known.cols[0] - cx) / fx * z, (known.rows[0] - cy) / fy * z, z] + pose[:, 3]
    return np.linalg.norm(points - place, axis=1).argmin()


def test_points_give_near_far_and_bounds(tmp_path):
    folder = write_colmap(tmp_path / "colmap")
    assert load(folder).bounds is None  # what has no points may be around
    write_images(folder / "images", names(), channels=4)
    scene = load(folder)
    points = normalise.moved_points(scene.world, sparse_points()[np.arange(60) % 3 > 0])
    depths = np.stack([-(points - pose[:, 3]) @ pose[:, 2] for pose in scene.poses])
    assert (scene.near, scene.far) == pytest.approx((0.9 * depths.min(), 1.1 * depths.max()), rel=0.02)
    assert ((points > scene.bounds[0]) & (points < scene.bounds[1])).all()
    assert np.abs(scene.bounds).max() < 2 * normalise.CONTENT
    folder = write_transforms(tmp_path / "transforms", ply_file_path="p.ply")
    write_ply(folder / "p.ply", sparse_points(), "binary_little_endian")
    write_images(folder / "images", names(), channels=4)
    scene = load(folder)
    assert scene.known_depths is None and scene.bounds is not None
    points = normalise.moved_points(scene.world, sparse_points())
    assert ((points > scene.bounds[0]) & (points < scene.bounds[1])).all()
    assert not any("are guesses" in note for note in scene.notes)
    (folder / "p.ply").unlink()
    scene = load(folder)
    assert scene.bounds is None and any("are guesses" in note for note in scene.notes)
    assert scene.near < 2 * normalise.DISTANCE / 3 and scene.far > 1.5 * normalise.DISTANCE


def test_depth_files(tmp_path):
    """A depth image of another size than the photograph."""
    folder = write_transforms(tmp_path, depth_unit_scale_factor=0.5)
    depth = np.zeros((8, 10), np.uint16)
    depth[3, 4], depth[0, 9] = 5, 7
    iio.imwrite(folder / "d.png", depth)
    change(folder, lambda c: c["frames"][1].update(depth_file_path="d.png"))
    found = fit_to_files(read_capture(folder, False))
    known = depths_of_files(found, [lens()] * 6, (1, 2), 3.0)
    assert (known.views.tolist(), known.cols.tolist(), known.rows.tolist()) == ([1, 1], [19.0, 9.0], [1.0, 7.0])
    assert (known.depths.tolist(), known.weights.tolist()) == ([10.5, 7.5], [1.0, 1.0])
    assert depths_of_files(found, [lens()] * 6, (0, 2), 3.0) is None


# Kinds of folders.


def without_angle(folder):
    for split in ("train", "val", "test"):
        change(folder, lambda c: [c.pop("camera_angle_x"), c.update(fl_x=12.0)], f"transforms_{split}.json")
    return folder


@pytest.mark.parametrize(("write", "expected"), [
    (write_blender, ("blender", "transforms_train.json")),
    (lambda folder: without_angle(write_blender(folder)), ("capture", "transforms_train.json")),
    (write_dtu, ("dtu", "cameras.npz")),
    (write_transforms, ("capture", "transforms.json")),
    (write_colmap, ("capture", "sparse/0")),
    (lambda folder: write_colmap(folder, place="sparse", ending="txt"), ("capture", "sparse")),
])  # fmt: skip
def test_auto_finds_the_kind(tmp_path, write, expected):
    folder = write(tmp_path / "scene")
    assert found_kind(str(folder)) == expected
    scene = load_scene(DataConfig(datadir=str(folder), train_scene=[0]))
    assert scene.split.train


@pytest.mark.parametrize("name", ["cameras_sphere.npz", "cameras_large.npz", "poses_bounds.npy", "transforms.json"])
def test_auto_looks_at_names(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    kind = {"npz": "dtu", "npy": "llff", "json": "capture"}[name.split(".")[1]]
    assert found_kind(str(tmp_path)) == (kind, name)


def test_auto_finds_nothing(tmp_path):
    with refused("found no scene .--dataset_type auto., expected transforms_train.json, cameras.npz, .* in sparse/0"):
        found_kind(str(tmp_path))
    with refused("--datadir .*: found no such folder"):
        found_kind(str(tmp_path / "none"))
    with refused("found no transforms.json, transforms_train.json nor COLMAP model in sparse/0"):
        load(tmp_path)
    (tmp_path / "transforms_train.json").write_bytes(b"{")
    assert found_kind(str(tmp_path))[0] == "blender"  # whose loader says what is wrong


# A run.


def test_a_run(colmap, tmp_path, capsys):
    given = options(colmap, tmp_path, "--N_iters", "2", "--i_testset", "2", "--i_video", "2", "--pixel_center", "0.5",
                    kind="auto")  # fmt: skip
    assert run_nerf.main(given) == 0
    said = capsys.readouterr().out
    assert "dataset:  capture (found sparse/0)" in said and "capture (capture), " in said
    run = tmp_path / "logs/run"
    assert (run / "testset_000002/000.png").is_file()
    scene = load(colmap)
    assert (normalise.read_world(run) == scene.world).all()
    content = json.loads((run / "world.json").read_text())
    assert content["views"]["test"] == ["000"] and content["near"] == scene.near
    assert run_nerf.main([*given, "--N_iters", "3"]) == 0
    assert open_run(run).step == 3
    shutil.rmtree(colmap)
    write_transforms(colmap)
    change(colmap, lambda c: c["frames"][0]["transform_matrix"][0].__setitem__(3, 9.0))
    with refused(r"world\.json: found the world of other cameras"):
        open_run(run)
    assert run_nerf.main([*given, "--N_iters", "4"]) == 2
    assert run_nerf.main([*given, "--N_iters", "1", "--no_reload", "--dataset_type", "capture"]) == 0


def test_a_run_of_fewer_than_five_photographs(tmp_path, capsys):
    folder = write_transforms(tmp_path / "capture", 3)
    assert run_nerf.main(options(folder, tmp_path, "--N_iters", "1", kind="auto")) == 0
    assert "3 to train on (000 001 002), 0 to test on" in capsys.readouterr().out


# Anything.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.sampled_from([1e300, 10**400, "", "images/000.png", "x"]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.sampled_from(["frames", "w", "x"]), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("w", "h", "fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k6", "p1", "camera_model", "camera_angle_x",
        "is_fisheye", "frames", "train_filenames", "test_filenames", "ply_file_path",
        "depth_unit_scale_factor", "applied_transform",
        "file_path", "transform_matrix", "mask_path", "depth_file_path")  # fmt: skip
USUAL = st.floats(-2, 2) | st.floats(-1e4, 1e4) | st.sampled_from(["OPENCV", "OPENCV_FISHEYE", "RADIAL"])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    folder = write_transforms(tmp_path_factory.mktemp("fixed"), 5, "OPENCV")
    return folder, (folder / "transforms.json").read_text()


@settings(derandomize=True, deadline=None, database=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), JSON | USUAL, max_size=4), st.integers(0, 5),
       st.lists(st.sampled_from(KEYS), max_size=2))  # fmt: skip
def test_any_json_gives_a_scene_or_an_input_error(fixed, facts, where, gone):
    folder, text = fixed
    content = json.loads(text)
    target = content if where == 5 else content["frames"][where]
    target.update(facts)
    for key in gone:
        target.pop(key, None)
    (folder / "transforms.json").write_text(json.dumps(content))
    try:
        scene = load(folder)
        scene.photographs.image(scene.split.train[0])
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert scene.cameras.poses.isfinite().all() and 0 < scene.near < scene.far < math.inf


def test_pixel_center_is_named(transforms):
    assert not any("pixel_center" in note for note in load(transforms).notes)
    scene = load_capture(replace(DataConfig(datadir=str(transforms)), pixel_center=0.0))
    assert any("pixel_center 0" in note for note in scene.notes)


def test_a_lens_that_folds_is_refused(transforms):
    change(transforms, lambda c: c.update(k1=-30.0))
    with refused("transforms.json: the camera of images/000.png has a distortion that folds"):
        load(transforms)


def test_random_pixels_are_decoded_once(transforms, monkeypatch):
    scene, calls = load(transforms), []
    monkeypatch.setattr(capture, "read_pixels", lambda *args: calls.append(args) or random_pixels(
        0, 3, 16, 20).astype(np.float32) / 255)  # fmt: skip
    for _ in range(3):
        scene.photographs.image(2)
        scene.photographs.image(3)
    assert len(calls) == 2
