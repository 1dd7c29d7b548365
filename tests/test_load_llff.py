"""LLFF scenes from files: what is loaded, the world it is put into, its paths, and which input is refused."""

import io
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.config import DataConfig
from load_llff import load_llff
from run_nerf_helpers import create_networks, create_renderer
from support.draws import seeded
from support.scenes import (
    HEIGHT,
    WIDTH,
    forward_poses,
    halved,
    llff_cameras,
    look_at_origin,
    poses_bounds,
    random_pixels,
    refused,
    spoil,
    write_llff,
)


@pytest.fixture
def llff(tmp_path):
    """9 views, of which 0 and 8 are every 8th."""
    return write_llff(tmp_path / "fern")


def load(folder, **options):
    return load_llff(DataConfig(datadir=str(folder), dataset_type="llff", **options))


def rewrite(folder, change):
    """Change poses_bounds.npy."""
    array = np.load(folder / "poses_bounds.npy")
    np.save(folder / "poses_bounds.npy", change(array))


def around(folder, n=10):
    """Cameras all around a point, in a world that is moved and scaled."""
    poses = np.stack([look_at_origin(36.0 * i, 20.0 + 2 * (i % 3), radius=3 + 0.1 * i)[:3] for i in range(n)])
    poses[:, :, 3] = 2 * poses[:, :, 3] + [10, -4, 2]
    write_llff(folder, n)
    np.save(folder / "poses_bounds.npy", poses_bounds(poses, [64, 80, 90.0], np.tile([2.0, 12.0], (n, 1))))
    return folder, poses


def centres_in(scene, poses):
    """Where the scene's world has the centres of poses of the file's."""
    return poses[:, :, 3] @ scene.world[:3, :3].T + scene.world[:3, 3]


def test_scene(llff):
    scene = load(llff)
    assert scene.name == "fern"
    assert scene.view_names[:2] == ("image000", "image001")
    assert scene.split.test == scene.split.val == (0, 8)
    assert scene.split.train == (1, 2, 3, 4, 5, 6, 7)
    assert (scene.near, scene.far, scene.white_background) == (0, 1, False)
    assert set(scene.cameras.sizes) == {(HEIGHT, WIDTH)}
    np.testing.assert_allclose(scene.cameras.intrinsics, [[12, 12, WIDTH / 2, HEIGHT / 2]] * 9, rtol=1e-12)
    assert scene.cameras.ndc == pytest.approx((24 / WIDTH, 24 / HEIGHT))
    for view in range(9):
        np.testing.assert_allclose(scene.photographs.image(view), random_pixels(view, 3) / 255, atol=1e-7)


@pytest.mark.parametrize("no_ndc", [False, True])
def test_the_world_is_the_files_but_for_a_similarity(llff, no_ndc):
    scene, (poses, bounds) = load(llff, no_ndc=no_ndc), llff_cameras(9)
    rotation, scale = scene.world[:3, :3], np.cbrt(np.linalg.det(scene.world[:3, :3]))
    assert scale == pytest.approx(1 / (0.75 * bounds.min()), rel=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, scale**2 * np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(scene.world[3], [0, 0, 0, 1])
    np.testing.assert_allclose(scene.poses[:, :, 3], centres_in(scene, poses), atol=1e-12)
    np.testing.assert_allclose(scene.poses[:, :, :3], rotation @ poses[:, :, :3] / scale, atol=1e-12)
    np.testing.assert_allclose(scene.poses[:, :, 3].mean(0), 0, atol=1e-12)
    mean = scene.poses.mean(0)
    np.testing.assert_allclose(mean[:, 2] / np.linalg.norm(mean[:, 2]), [0, 0, 1], atol=1e-12)
    assert abs(mean[0, 1]) < 1e-12  # no roll
    assert mean[1, 1] > 0
    expected = (0.9 * bounds.min() * scale, bounds.max() * scale) if no_ndc else (0, 1)
    assert (scene.near, scene.far) == pytest.approx(expected, rel=1e-12)
    assert (scene.cameras.ndc is None) == no_ndc


def test_cameras_come_back_from_a_round_trip(tmp_path):
    """Of a file whose mean pose is the identity (as of cameras that come with their mirror images), and whose least
    depth is that of the scene, nothing is changed."""
    poses = forward_poses(8)
    poses[:, 2, 3] -= poses[:, 2, 3].mean()
    for mirror in (np.diag([-1.0, 1, 1]), np.diag([1.0, -1, 1])):
        mirrored = np.concatenate([mirror @ poses[:, :, :3] @ mirror, mirror @ poses[:, :, 3:]], axis=-1)
        poses = np.concatenate([poses, mirrored])
    folder = write_llff(tmp_path / "scene", 32)
    bounds = np.tile([1 / 0.75, 9.0], (32, 1))
    np.save(folder / "poses_bounds.npy", poses_bounds(poses, [64, 80, 96.0], bounds))
    scene = load(folder)
    np.testing.assert_allclose(scene.poses, poses, atol=1e-9)
    np.testing.assert_allclose(scene.world, np.eye(4), atol=1e-9)


@pytest.mark.parametrize(
    ("options", "train", "test"),
    [
        ({"fewshot": 3, "fewshot_choice": "even"}, (1, 4, 7), (0, 8)),
        ({"fewshot": 2, "fewshot_choice": "even"}, (1, 7), (0, 8)),
        ({"fewshot": 3}, (7, 3, 2), (0, 8)),  # RandomState(0) draws 6 2 1 of the seven others
        ({"train_scene": [5, 2]}, (5, 2), (0, 8)),
        ({"llffhold": 4}, (1, 2, 3, 5, 6, 7), (0, 4, 8)),
        ({"test_scene": [3, 1]}, (0, 2, 4, 5, 6, 7, 8), (3, 1)),
        ({"test_scene": [3], "train_scene": [8, 0]}, (8, 0), (3,)),
        ({"test_scene": [-1], "train_scene": [8, 0]}, (8, 0), (1, 2, 3, 4, 5, 6, 7)),
        ({"test_scene": [-1], "fewshot": 3, "fewshot_choice": "even"}, (0, 4, 8), (1, 2, 3, 5, 6, 7)),
    ],
    ids=str,
)
def test_views(llff, options, train, test):
    split = load(llff, **options).split
    assert (split.train, split.test) == (train, test)


def test_without_hold_the_view_nearest_to_the_middle_is_tested(llff):
    poses, _ = llff_cameras(9)
    distances = np.linalg.norm(poses[:, :, 3] - poses[:, :, 3].mean(0), axis=-1)
    assert load(llff, llffhold=0).split.test == (np.argmin(distances),)


# Images and their size.


def test_images_are_taken_in_the_order_of_their_names(llff):
    images = llff / "images_8"
    (images / "image000.png").rename(images / "z.png")
    (images / ".hidden.png").write_bytes(b"")
    (images / "notes.txt").write_text("")
    scene = load(llff)
    assert scene.view_names[-1] == "z"
    np.testing.assert_allclose(scene.photographs.image(8), random_pixels(0, 3) / 255, atol=1e-7)


@pytest.mark.parametrize("others", [None, 5])
def test_without_a_folder_of_the_size_images_are_reduced(tmp_path, others):
    """Also where the folder does not hold one for each view; the focal length goes with the size."""
    folder = write_llff(tmp_path / "scene", factor=1)
    if others:
        shutil.copytree(folder / "images", folder / "images_2")
        for i in range(others):
            (folder / f"images_2/image{i:03d}.png").unlink()
    scene = load(folder, factor=2)
    assert set(scene.cameras.sizes) == {(HEIGHT // 2, WIDTH // 2)}
    np.testing.assert_allclose(scene.cameras.intrinsics, [[6, 6, WIDTH / 4, HEIGHT / 4]] * 9, rtol=1e-12)
    np.testing.assert_allclose(scene.photographs.image(3), halved(random_pixels(3, 3) / 255), atol=1e-6)
    whole = load(folder, factor=1)
    assert set(whole.cameras.sizes) == {(HEIGHT, WIDTH)}
    assert whole.cameras.ndc == pytest.approx(scene.cameras.ndc)
    third = load(folder, factor=3)
    assert set(third.cameras.sizes) == {(3, 3)}
    np.testing.assert_allclose(third.cameras.intrinsics, [[12 * 3 / 10, 12 * 3 / 8, 1.5, 1.5]] * 9, rtol=1e-12)


def test_the_size_of_the_files_counts_not_the_folders_name(tmp_path):
    folder = write_llff(tmp_path / "scene", factor=8)
    (folder / "images_8").rename(folder / "images_4")
    np.testing.assert_allclose(load(folder, factor=4).cameras.intrinsics[:, 0], 12, rtol=1e-12)


def test_half_res(llff):
    scene, whole = load(llff, half_res=True), load(llff)
    assert set(scene.cameras.sizes) == {(HEIGHT // 2, WIDTH // 2)}
    np.testing.assert_allclose(scene.cameras.intrinsics, whole.cameras.intrinsics / 2)
    assert scene.cameras.ndc == whole.cameras.ndc
    np.testing.assert_allclose(scene.photographs.image(1), halved(random_pixels(1, 3) / 255), atol=1e-6)


def test_transparent_images(llff):
    for i in range(9):
        iio.imwrite(llff / f"images_8/image{i:03d}.png", random_pixels(i, 4))
    scene, pixels = load(llff, white_bkgd=True, half_res=True), random_pixels(2, 4) / 255
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    np.testing.assert_allclose(scene.photographs.image(2), halved(rgb * alpha + 1 - alpha), atol=1e-6)
    np.testing.assert_allclose(scene.photographs.alpha(2), halved(alpha)[..., 0], atol=1e-6)


# 360 degrees.


def test_spherify(tmp_path):
    folder, poses = around(tmp_path / "scene")
    scene = load(folder, spherify=True, no_ndc=True)
    np.testing.assert_allclose(scene.poses[:, :, 3], centres_in(scene, poses), atol=1e-9)
    np.testing.assert_allclose(scene.world @ [10, -4, 2, 1], [0, 0, 0, 1], atol=1e-9)  # what the cameras look at
    centres = scene.poses[:, :, 3]
    assert np.square(centres).sum(-1).mean() == pytest.approx(1)
    np.testing.assert_allclose(centres.mean(0)[:2], 0, atol=1e-9)
    assert centres.mean(0)[2] > 0.2
    scale = np.cbrt(np.linalg.det(scene.world[:3, :3]))
    assert (scene.near, scene.far) == pytest.approx((1.8 * scale, 12 * scale))
    np.testing.assert_allclose(scene.path[:, 2, 3], centres.mean(0)[2])
    np.testing.assert_allclose(np.linalg.norm(scene.path[:, :, 3], axis=-1), 1)
    np.testing.assert_allclose(scene.path[:, :, 2], scene.path[:, :, 3], atol=1e-12)  # looks at the origin
    assert (scene.path[:, 2, 1] > 0).all()
    assert scene.path.shape == (120, 3, 4)


def test_cameras_whose_directions_cancel_out(tmp_path):
    folder, poses = around(tmp_path / "scene", 8)
    poses = np.stack([look_at_origin(45.0 * i, 0.0)[:3] for i in range(8)])
    np.save(folder / "poses_bounds.npy", poses_bounds(poses, [64, 80, 90.0], np.tile([2.0, 12.0], (8, 1))))
    assert np.isfinite(load(folder, no_ndc=True).poses).all()


# The spiral.


@pytest.mark.parametrize("no_ndc", [False, True])
def test_spiral(llff, no_ndc):
    scene = load(llff, no_ndc=no_ndc)
    path, (_, bounds) = scene.path, llff_cameras(9)
    assert path.shape == (120, 3, 4)
    np.testing.assert_allclose(np.einsum("nji,njk->nik", path[:, :, :3], path[:, :, :3]), [np.eye(3)] * 120, atol=1e-12)
    radii = np.percentile(np.abs(scene.poses[:, :, 3]), 90, axis=0)
    for i in (0, 15, 30, 77):  # 60 poses a turn; it sways along z once in two
        angle = 2 * np.pi * i / 60
        expected = radii * [np.cos(angle), -np.sin(angle), -np.sin(angle / 2)]
        np.testing.assert_allclose(path[i, :, 3], expected, atol=1e-12)
    near, far = 0.9 / 0.75, 5 * bounds.max() / (0.75 * bounds.min())
    focus = 1 / (0.25 / near + 0.75 / far)
    towards = np.array([0, 0, -focus]) - path[:, :, 3]
    np.testing.assert_allclose(-path[:, :, 2], towards / np.linalg.norm(towards, axis=-1, keepdims=True), atol=1e-12)


# What is refused.


def pickled(array):
    target = io.BytesIO()
    np.save(target, np.array([{"a": 1}, "x"], dtype=object), allow_pickle=True)
    return target.getvalue()


def archived(array):
    target = io.BytesIO()
    np.savez(target, a=array)
    return target.getvalue()


def saved(change):
    def content(array):
        target = io.BytesIO()
        np.save(target, change(array))
        return target.getvalue()

    return content


def at(row, column, value):
    def change(array):
        array = array.copy()
        array[row, column] = value
        return array

    return saved(change)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda a: b"", "not a readable array of numbers"),
        (lambda a: b"not an array", "not a readable array of numbers"),
        (pickled, "pickled objects, which may be programs and are never loaded"),
        (archived, r"found an archive\), expected n x 17 numbers"),
        (lambda a: saved(lambda a: a)(a)[:-100], "not a readable array of numbers"),
        (saved(lambda a: a[:, :16]), r"found an array of shape \(9, 16\), expected n x 17"),
        (saved(lambda a: a[:0]), r"found an array of shape \(0, 17\)"),
        (saved(lambda a: a.reshape(-1)), r"found an array of shape \(153,\)"),
        (saved(lambda a: a.astype(complex)), r"type complex128, expected numbers\), expected n x 17 numbers"),
        (saved(lambda a: a.astype(str)), "type <U.*, expected n x 17 numbers"),
        (at(4, 3, np.nan), r"the camera of view 4 \(from 0\) is not finite, expected a finite pose"),
        (at(4, 16, np.inf), r"the camera of view 4 \(from 0\) is not finite"),
        (at(2, [0, 5, 10], 0), r"view 2 \(from 0\) is singular"),
        (at(2, 3, 1e300), r"view 2 \(from 0\) is of numbers up to 1e\+300"),
        (at(2, 14, 0), r"view 2 \(from 0\) is of height, width and focal \[64.0, 80.0, 0.0\], expected"),
        (at(2, 4, -64), r"view 2 \(from 0\) is of height, width and focal \[-64.0, 80.0, 96.0\], expected"),
        (at(3, 15, -1), r"view 3 \(from 0\) is of depths \[-1.0, 77.0\], expected .* 0 < near < far"),
        (at(3, 15, 99), r"view 3 \(from 0\) is of depths \[99.0, 77.0\], expected .* 0 < near < far"),
        (saved(lambda a: a[:7]), r"images_8: found 9 images, expected 7, as many as .*poses_bounds.npy has cameras"),
        (saved(lambda a: a[:, [*range(4), 9, *range(5, 9), 4, *range(10, 17)]]),
         r"image001.png: the image is 10 x 8, expected the shape of the 64 x 80 that .*poses_bounds.npy says"),
    ],
)  # fmt: skip
def test_damaged_poses(llff, content, message):
    path = llff / "poses_bounds.npy"
    path.write_bytes(content(np.load(path)))
    with refused(message):
        load(llff)


def test_no_poses(llff):
    (llff / "poses_bounds.npy").unlink()
    with refused("poses_bounds.npy: no such file; an LLFF scene has its cameras there"):
        load(llff)
    (llff / "poses_bounds.npy").mkdir()
    with refused("poses_bounds.npy: no such file"):
        load(llff)


def test_a_damaged_image_is_told_when_it_is_read(llff):
    spoil(llff / "images_8/image003.png")
    with refused("image003.png: cannot be read as an image"):
        load(llff).photographs.image(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 4}, "--factor 4: found images_8 in .*, expected images_4 or images"),
        ({"factor": 1}, "--factor 1: found images_8 in .*, expected images"),
        ({"train_scene": [8]}, r"--train_scene: view 8 is also a test view \(test_scene, llffhold\), expected others"),
        ({"test_scene": [9]}, r"--test_scene: found view 9, expected 0\.\.8"),
        ({"test_scene": [1, 1]}, "--test_scene: view 1 is named twice"),
        ({"test_scene": [-1]}, "--test_scene -1: all 9 views are trained on, expected some that are not"),
        ({"test_scene": list(range(9))}, "--test_scene 0 1 .* 8: all 9 views are test views, expected some to train"),
        ({"llffhold": 1}, "--llffhold 1: all 9 views are test views, expected some to train on"),
        ({"fewshot": 8}, r"--fewshot 8: there are 7 views to draw from, expected 0\.\.7"),
        ({"spherify": True}, "--spherify: found no --no_ndc, expected it"),
        ({"spherify": True, "no_ndc": True}, "--spherify: the cameras of .* do not look at a point"),
        ({"maskdir": "masks"}, "--maskdir: not for LLFF scenes"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(llff, options, message):
    with refused(message):
        load(llff, **options)


def test_cameras_all_around_have_no_ndc(tmp_path):
    folder, _ = around(tmp_path / "scene")
    with refused("scene scene: view image.* looks away from the cameras' mean direction, .* or --no_ndc"):
        load(folder)


def test_options_that_ndc_refuses(llff):
    def renderer(*options):
        given = ["--expname", "x", "--dataset_type", "llff", "--datadir", str(llff), "--netwidth", "4", *options]
        config, _ = parse_options(given)
        scene = load_llff(config.data)
        return create_renderer(config, scene, create_networks(config, scene, torch.device("cpu"), seeded()))

    with refused("--lindisp: found --near 0, expected more: .* --no_ndc"):
        renderer("--lindisp")
    assert renderer("--lindisp", "--no_ndc").sampling.lindisp
    for i in range(9):
        iio.imwrite(llff / f"images_8/image{i:03d}.png", random_pixels(i, 4))
    with refused("--visual_hull: scene fern is in NDC, expected --no_ndc"):
        renderer("--skip_empty", "--visual_hull")
