"""Blender and DTU scenes from files: what is loaded, when, and which input is refused."""

import inspect
import json
import os
import pickle
import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from errors import InputError
from load_blender import load_blender, view_name
from load_dtu import decompose, load_dtu
from load_scene import load_scene
from scenes import HEIGHT, WIDTH, dtu_cameras, dtu_projection, random_pixels, write_blender, write_depth, write_dtu

ANGLE = 0.6911112070083618


def refused(message: str):
    """Expect an InputError of one line in which the pattern `message` is found."""
    return pytest.raises(InputError, match=rf"\A.*{message}.*\Z")


def names(scene, split):
    return [scene.view_names[view] for view in getattr(scene, split)]


def halved(pixels):
    """Means of 2 x 2 blocks."""
    return pixels.reshape(pixels.shape[0] // 2, 2, pixels.shape[1] // 2, 2, -1).mean((1, 3))


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"not an image")


def cut(path, keep=100):
    path.write_bytes(path.read_bytes()[:keep])


# --- Blender


@pytest.fixture
def blender(tmp_path):
    """3 train, 1 val, 2 test views."""
    return write_blender(tmp_path / "lego", counts=(3, 1, 2))


def transforms(folder, split):
    return json.loads((folder / f"transforms_{split}.json").read_text())


def write_transforms(folder, split, content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / f"transforms_{split}.json").write_bytes(text)


def test_blender_scene(tmp_path):
    folder = write_blender(tmp_path / "lego")
    scene = load_blender(str(folder))
    assert scene.name == "lego"
    assert names(scene, "train") == ["train/r_0", "train/r_1", "train/r_2", "train/r_3"]
    assert names(scene, "val") == ["val/r_0"]
    assert names(scene, "test") == ["test/r_0", "test/r_8"]
    assert scene.unseen == scene.train + scene.val
    assert (scene.near, scene.far, scene.white_background, scene.notes) == (2, 6, False, ())
    assert (scene.height, scene.width) == (HEIGHT, WIDTH)
    assert scene.mask is None and scene.depth is None
    for view, name in enumerate(scene.view_names):
        split, i = name.split("/r_")
        matrix = transforms(folder, split)["frames"][int(i)]["transform_matrix"]
        np.testing.assert_array_equal(scene.poses[view], matrix[:3])
        pixels = iio.imread(folder / f"{name}.png")
        np.testing.assert_allclose(scene.image(view), pixels[..., :3] / 255, atol=1e-7)  # alpha dropped
    focal = 0.5 * WIDTH / np.tan(0.5 * ANGLE)
    np.testing.assert_allclose(scene.intrinsics, [[focal, focal, WIDTH / 2, HEIGHT / 2]] * 7)


def test_blender_focal_of_each_split(blender):
    write_transforms(blender, "test", transforms(blender, "test") | {"camera_angle_x": 1})
    scene = load_blender(blender, testskip=1)
    expected = 0.5 * WIDTH / np.tan(0.5 * np.array([ANGLE, ANGLE, ANGLE, ANGLE, 1, 1]))
    np.testing.assert_allclose(scene.intrinsics[:, 0], expected)


@pytest.mark.parametrize(
    ("testskip", "val", "test"),
    [(0, range(8), range(16)), (1, range(8), range(16)), (3, (0, 3, 6), (0, 3, 6, 9, 12, 15)), (8, (0,), (0, 8))],
)
def test_blender_testskip(tmp_path, testskip, val, test):
    scene = load_blender(write_blender(tmp_path / "lego"), testskip=testskip)
    assert len(scene.train) == 4
    assert names(scene, "val") == [f"val/r_{i}" for i in val]
    assert names(scene, "test") == [f"test/r_{i}" for i in test]


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({"train_scene": [2, 0], "fewshot": 0}, (2, 0)),
        ({"train_scene": [2, 0], "fewshot": 2}, (2, 0)),
        ({"fewshot": 2}, tuple(np.random.RandomState(0).choice(3, 2, replace=False))),
        ({"fewshot": 2, "fewshot_seed": 5}, tuple(np.random.RandomState(5).choice(3, 2, replace=False))),
    ],
)
def test_blender_training_views(blender, options, train):
    scene = load_blender(blender, **options)
    assert scene.train == train
    assert scene.unseen == (0, 1, 2, 3)
    assert load_blender(blender, unseen_poses="all", **options).unseen == (0, 1, 2, 3, 4)


def test_blender_of_100_views(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(100, 1, 1))
    assert names(load_blender(folder, fewshot=4), "train") == ["train/r_26", "train/r_86", "train/r_2", "train/r_55"]
    with refused(r"--train_scene: found view 100, expected 0\.\.99"):
        load_blender(folder, train_scene=[26, 100])


@pytest.mark.parametrize("half_res", [False, True])
def test_blender_white_background(blender, half_res):
    scene = load_blender(blender, white_bkgd=True, half_res=half_res)
    assert scene.white_background
    assert scene.notes == ()
    pixels = iio.imread(blender / "train/r_1.png") / 255
    if half_res:
        pixels = halved(pixels)
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    np.testing.assert_allclose(scene.image(1), alpha * rgb + (1 - alpha) * 1, atol=1e-6)
    assert scene.image(1).dtype == np.float32


def test_blender_half_res(blender):
    whole, half = load_blender(blender), load_blender(blender, half_res=True)
    assert (half.height, half.width) == (HEIGHT // 2, WIDTH // 2)
    np.testing.assert_allclose(half.intrinsics, whole.intrinsics / 2)
    np.testing.assert_array_equal(half.poses, whole.poses)
    np.testing.assert_allclose(half.image(1), halved(whole.image(1)), atol=1e-6)


def test_blender_true_depth(blender):
    values = write_depth(blender, 0.0001)
    scene = load_blender(blender, testskip=1)
    assert all(scene.depth(view) is None for view in scene.train + scene.val)
    for view in scene.test:
        found, stored = scene.depth(view), values[scene.view_names[view]]
        assert found.dtype == np.float32 and found.shape == (HEIGHT, WIDTH) and (found == 0).any()
        for row in range(HEIGHT):
            for col in range(WIDTH):
                assert found[row, col] == pytest.approx(int(stored[row, col]) * 0.0001, rel=1e-6)


def test_blender_true_depth_is_halved_without_mixing(tmp_path):
    """Of each 2 x 2 block one pixel; of an odd number of them the one in the middle."""
    folder = write_blender(tmp_path / "lego", counts=(1, 1, 1), height=HEIGHT, width=5)
    values = write_depth(folder)["test/r_0"]
    scene = load_blender(folder, half_res=True)
    found = scene.depth(scene.test[0])
    assert found.shape == scene.image(scene.test[0]).shape[:2] == (HEIGHT // 2, 2)
    for row in range(HEIGHT // 2):  # a column of the half is 2.5 wide: 0..2.5 and 2.5..5, centres 1.25 and 3.75
        for col, there in enumerate((1, 3)):
            assert found[row, col] == pytest.approx(int(values[2 * row + 1, there]) * 0.0001, rel=1e-6)


@pytest.mark.parametrize("scale", [1, 2])
def test_blender_depth_scale_may_be_an_integer(blender, scale):
    values = write_depth(blender, scale)
    found = load_blender(blender).depth(4)
    np.testing.assert_array_equal(found, scale * values["test/r_0"].astype(float))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), r"cannot be read as an image \(.*No such file"),
    (cut, "cannot be read as an image"),
    (spoil, "cannot be read as an image"),
    (lambda path: iio.imwrite(path, random_pixels(0, 1)[..., 0]), r"type uint8, expected 16-bit grey"),
    (lambda path: iio.imwrite(path, random_pixels(0, 3)), r"shape \(8, 10, 3\) and type uint8, expected 16-bit grey"),
    (lambda path: iio.imwrite(path, np.zeros((WIDTH, HEIGHT), np.uint16)), "the image is 8 x 10, expected 10 x 8"),
])  # fmt: skip
def test_blender_refuses_depth_images(blender, damage, message):
    write_depth(blender)
    scene = load_blender(blender, testskip=1)
    damage(blender / "test/r_1_depth.png")
    with refused(rf"lego/test/r_1_depth\.png: .*{message}"):
        scene.depth(5)
    assert scene.depth(4).any()


def test_blender_refuses_a_missing_depth_image_before_anything_begins(blender):
    write_depth(blender)
    (blender / "test/r_1_depth.png").unlink()
    assert load_blender(blender).depth  # every 8th test view only
    with refused(r"lego/test/r_1_depth\.png: the image is missing"):
        load_blender(blender, testskip=1)


def test_blender_of_rgb_images(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(2, 1, 1), channels=3)
    assert load_blender(folder).notes == ()
    scene = load_blender(folder, white_bkgd=True, train_scene=[1])
    [note] = scene.notes
    assert note.startswith(f"{folder}/train/r_1.png: RGB without alpha")
    np.testing.assert_allclose(scene.image(1), iio.imread(folder / "train/r_1.png") / 255, atol=1e-7)


def test_blender_decodes_on_demand(blender):
    """Loading reads the size of the first training image; val images need not even be there."""
    spoil(blender / "train/r_0.png", blender / "train/r_1.png", *blender.glob("test/*.png"))
    shutil.rmtree(blender / "val")
    scene = load_blender(blender, train_scene=[2, 0])
    assert scene.image(2).shape == (HEIGHT, WIDTH, 3)
    for view in scene.train[1:] + scene.val + scene.test:
        with refused(rf"{scene.view_names[view]}\.png: cannot be read as an image"):
            scene.image(view)


@pytest.mark.parametrize(
    ("file_path", "expected"),
    [("./train/a", "train/a"), ("train/a", "train/a"), ("./images/a", "train/images/a"), ("a", "train/a")],
)
def test_view_name(file_path, expected):
    assert view_name("train", file_path) == expected


def test_blender_takes_3x4_matrices(blender):
    content = transforms(blender, "train")
    expected = load_blender(blender).poses
    for frame in content["frames"]:
        del frame["transform_matrix"][3]
    write_transforms(blender, "train", content)
    np.testing.assert_array_equal(load_blender(blender).poses, expected)


def first_frame(**changes):
    return lambda c: c | {"frames": [c["frames"][0] | changes, *c["frames"][1:]]}


def without(name):
    return lambda c: {key: value for key, value in c.items() if key != name}


def matrix(change):
    return lambda c: first_frame(transform_matrix=change(c["frames"][0]["transform_matrix"]))(c)


MATRIX = r"transform_matrix of \./{split}/r_0 is {found}, expected a finite 4 x 4 matrix"
FORM = "{reason}; expected camera_angle_x and frames of file_path and transform_matrix"
NOT_FINITE, SHAPE_33 = MATRIX.replace("{found}", "not finite"), MATRIX.replace("{found}", r"of shape \(3, 3\)")
RADIANS = "expected radians between 0 and pi"
SCALE = r"depth_scale is {found}, expected a number above 0, at most 6 \(far\)"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: json.dumps(c).encode()[:300], "not valid JSON"),
        (lambda c: b"", "not valid JSON"),
        (lambda c: b"\xff\xfe\x00", "not valid JSON"),
        (lambda c: b"[" * 100_000, "not valid JSON"),
        (lambda c: [c], FORM),
        (lambda c: None, FORM),
        (without("frames"), "no 'frames'; expected"),
        (without("camera_angle_x"), "no 'camera_angle_x'; expected"),
        (lambda c: c | {"frames": 3}, FORM),
        (lambda c: c | {"frames": {"a": 1}}, FORM),
        (lambda c: c | {"frames": ["./train/r_0"]}, FORM),
        (lambda c: c | {"frames": [without("file_path")(c["frames"][0])]}, "no 'file_path'; expected"),
        (lambda c: c | {"frames": [without("transform_matrix")(c["frames"][0])]}, "no 'transform_matrix'; expected"),
        (lambda c: c | {"frames": []}, "found no frames, expected at least one"),
        (lambda c: c | {"camera_angle_x": "wide"}, f"camera_angle_x is 'wide', {RADIANS}"),
        (lambda c: c | {"camera_angle_x": "0.7"}, f"camera_angle_x is '0.7', {RADIANS}"),
        (lambda c: c | {"camera_angle_x": None}, f"camera_angle_x is None, {RADIANS}"),
        (lambda c: c | {"camera_angle_x": 0}, f"camera_angle_x is 0, {RADIANS}"),
        (lambda c: c | {"camera_angle_x": 40.0}, rf"camera_angle_x is 40\.0, {RADIANS}"),
        (lambda c: c | {"camera_angle_x": float("nan")}, f"camera_angle_x is nan, {RADIANS}"),
        *[(lambda c, scale=scale: c | {"depth_scale": scale}, SCALE.replace("{found}", found)) for scale, found in (
            (0, "0"), (-0.1, r"-0\.1"), (None, "None"), ("0.1", "'0.1'"), ([1], r"\[1\]"), (float("nan"), "nan"),
            (float("inf"), "inf"), (10**400, "10+"))],
        (matrix(lambda m: [row[:3] for row in m[:3]]), SHAPE_33),
        (matrix(lambda m: m[0]), MATRIX.replace("{found}", r"of shape \(4,\)")),
        (matrix(lambda m: [m[0], m[1][:2], m[2], m[3]]), FORM),
        (matrix(lambda m: [["a"] * 4] * 4), FORM),
        (matrix(lambda m: [[float("nan")] * 4, *m[1:]]), NOT_FINITE),
        (matrix(lambda m: [[float("inf")] * 4, *m[1:]]), NOT_FINITE),
        (matrix(lambda m: [[None] * 4, *m[1:]]), NOT_FINITE),
        (matrix(lambda m: [[10**400] * 4, *m[1:]]), FORM),
    ],
)
def test_blender_refuses_transforms(blender, split, change, message):
    write_transforms(blender, split, change(transforms(blender, split)))
    message = message.replace("{split}", split).replace("{reason}", ".+")
    with refused(rf"{blender}/transforms_{split}\.json: {message}"):
        load_blender(blender)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_blender_refuses_a_missing_split(blender, split):
    (blender / f"transforms_{split}.json").unlink()
    with refused(rf"lego/transforms_{split}\.json: no such file; a Blender scene has one for each"):
        load_blender(blender)


def test_blender_refuses_a_frame_twice(blender):
    content = transforms(blender, "train")
    write_transforms(blender, "train", content | {"frames": content["frames"] + content["frames"][:1]})
    with refused("scene lego: view train/r_0 is listed twice, expected every view once"):
        load_blender(blender)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_scene": [3]}, r"--train_scene: found view 3, expected 0\.\.2"),
        ({"train_scene": [-1]}, r"--train_scene: found view -1, expected 0\.\.2"),
        ({"train_scene": [1, 1]}, "--train_scene: view 1 is named twice, expected every view once"),
        ({"train_scene": [0, 1], "fewshot": 3}, "--fewshot 3 contradicts --train_scene.*expected fewshot = 2, or 0"),
        ({"fewshot": 4}, r"--fewshot 4: .*3 views.*expected 0\.\.3"),
    ],
)
def test_blender_refuses_options(blender, options, message):
    with refused(message):
        load_blender(blender, **options)


@pytest.mark.parametrize("name", ["train/r_1", "test/r_0"])
def test_blender_refuses_a_missing_image(blender, name):
    (blender / f"{name}.png").unlink()
    with refused(rf"lego/{name}\.png: the image is missing, expected every image"):
        load_blender(blender)


def test_blender_refuses_a_truncated_first_image(blender):
    cut(blender / "train/r_0.png")
    with refused(r"lego/train/r_0\.png: cannot be read as an image"):
        load_blender(blender)


@pytest.mark.parametrize("half_res", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (HEIGHT + 1, WIDTH + 1), (1, 1)])
def test_blender_refuses_an_image_of_another_size(blender, half_res, height, width):
    iio.imwrite(blender / "train/r_1.png", random_pixels(0, 4, height, width))
    scene = load_blender(blender, half_res=half_res)
    with refused(rf"lego/train/r_1\.png: the image is {width} x {height}, expected {WIDTH} x {HEIGHT}"):
        scene.image(1)


def test_blender_refuses_to_halve_one_pixel(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(1, 1, 1), height=1)
    with refused(f"--half_res: the images are {WIDTH} x 1, expected at least 2 x 2"):
        load_blender(folder, half_res=True)


@pytest.mark.parametrize("load", [load_blender, load_dtu])
def test_datadir_is_not_a_folder(tmp_path, load):
    (tmp_path / "file").write_text("")
    for name in ("file", "none"):
        with refused(f"--datadir {tmp_path}/{name}: found no such folder, expected the scene's files there"):
            load(str(tmp_path / name))
    for nothing in ("", None):
        with refused("--datadir: not given, expected the folder of the scene"):
            load(nothing)


# --- DTU


@pytest.fixture
def dtu(tmp_path):
    """6 views."""
    return write_dtu(tmp_path / "scan")


def cameras(folder):
    with np.load(folder / "cameras.npz") as archive:
        return dict(archive)


def write_cameras(folder, content):
    if isinstance(content, bytes):
        (folder / "cameras.npz").write_bytes(content)
    else:
        np.savez(folder / "cameras.npz", **content)


def test_dtu_scene(dtu):
    scene = load_dtu(str(dtu), train_scene=[2, 0, 5])
    assert scene.name == "scan"
    assert scene.view_names == ("000000", "000001", "000002", "000003", "000004", "000005")
    assert scene.train == (2, 0, 5)
    assert scene.test == scene.val == (1, 3, 4)
    assert (scene.near, scene.far, scene.white_background) == (0.1, 5, False)
    assert (scene.height, scene.width) == (HEIGHT, WIDTH)
    assert scene.mask is None
    for view in range(6):
        np.testing.assert_allclose(scene.image(view), random_pixels(view, 3) / 255, atol=1e-7)


@pytest.mark.parametrize("kind", ["shared", "per_view"])
def test_dtu_cameras_are_recovered(dtu, kind):
    scene = load_dtu(dtu, train_scene=[0], dtu_intrinsics=kind)
    known = dtu_cameras(6)
    np.testing.assert_allclose(scene.poses, [camera["pose"][:3] for camera in known], atol=1e-12)
    if kind == "per_view":
        expected = [[20.0 + i, 21.0 + i, 5.2, 3.9] for i in range(6)]
    else:
        expected = [[23.0, 23.0, WIDTH / 2, HEIGHT / 2]] * 6  # the mean of 20..25 and 21..26
    np.testing.assert_allclose(scene.intrinsics, expected, atol=1e-10)


@pytest.mark.parametrize("sign", [1, -1])
def test_dtu_camera_projects_as_its_matrix(sign):
    """A point of the scene falls on the same pixel by the world matrix and by what is loaded from it."""
    rng = np.random.default_rng(3)
    scale = np.diag([2.0, 2.0, 2.0, 1.0])
    scale[:3, 3] = [0.5, -0.25, 1.0]
    for camera in dtu_cameras(4):
        world = sign * dtu_projection(camera | {"scale": scale})
        pose, (fx, fy, cx, cy) = decompose(world, scale)
        point = rng.uniform(-1, 1, 3)
        x, y, z = pose[:, :3].T @ (point - pose[:, 3])
        pixel = cx + fx * x / -z, cy - fy * y / -z
        u, v, w = (world @ scale @ [*(point * [1, -1, -1]), 1])[:3]
        np.testing.assert_allclose(pixel, (u / w, v / w), atol=1e-9)
        assert fx > 0
        assert fy > 0


def test_dtu_camera_of_scan24():
    """View 0, and its pose as the released code loads it (method specification, section 9)."""
    world = [
        [651.85748, -0.9612245, 374.54453, -133484.17],
        [-48.019226, 715.63812, 170.44954, 5858.6719],
        [-0.241605, -0.030951001, 0.969881, 22.540121],
    ]
    scale = np.diag([231.0682, 231.0682, 231.0682, 1])
    scale[:3, 3] = [-28.461128, -13.186272, 641.4886]
    pose, intrinsics = decompose(np.array(world), scale)
    expected = [
        [0.9702627, 0.01474287, 0.24160498, 0.94904715],
        [-0.00747991, 0.99949294, -0.030951, -0.05204561],
        [-0.24193878, 0.02822342, 0.96988094, 2.6711922],
    ]
    np.testing.assert_allclose(pose, expected, atol=3e-7)
    np.testing.assert_allclose(intrinsics, [723.0826, 720.7938, 205.8013, 154.7677], atol=1e-3)


def test_dtu_without_scale_matrices(dtu):
    """A missing scale_mat is the identity."""
    content = {f"world_mat_{i}": dtu_projection(c | {"scale": np.eye(4)}) for i, c in enumerate(dtu_cameras(6))}
    write_cameras(dtu, content)
    expected = [camera["pose"][:3] for camera in dtu_cameras(6)]
    np.testing.assert_allclose(load_dtu(dtu, train_scene=[0]).poses, expected, atol=1e-12)


def test_dtu_of_3x4_matrices(dtu):
    expected = load_dtu(dtu, train_scene=[0])
    write_cameras(dtu, {name: matrix[:3].astype(np.float32) for name, matrix in cameras(dtu).items()})
    scene = load_dtu(dtu, train_scene=[0])
    np.testing.assert_allclose(scene.poses, expected.poses, atol=1e-5)
    np.testing.assert_allclose(scene.intrinsics, expected.intrinsics, atol=1e-3)


def test_dtu_images_are_in_order_of_their_numbers(tmp_path):
    folder = write_dtu(tmp_path / "scan", n=11)
    for i in range(11):
        (folder / "image" / f"{i:06d}.png").rename(folder / "image" / f"scan24_{i}.png")
    iio.imwrite(folder / "image/scan24_3.JPG", random_pixels(3, 3))
    (folder / "image/scan24_3.png").unlink()
    (folder / "image/note_99.txt").write_text("no image")
    scene = load_dtu(folder, train_scene=[0])
    assert scene.view_names == tuple(f"scan24_{i}" for i in range(11))
    for view in (2, 10):
        np.testing.assert_allclose(scene.image(view), random_pixels(view, 3) / 255, atol=1e-7)
    assert scene.image(3).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("options", "train", "test"),
    [
        ({"train_scene": [2, 0]}, (2, 0), (1, 3, 4, 5)),
        ({"train_scene": [2, 0], "test_scene": [-1]}, (2, 0), (1, 3, 4, 5)),
        ({"train_scene": [2, 0], "test_scene": []}, (2, 0), (1, 3, 4, 5)),
        ({"train_scene": [2, 0], "test_scene": [5, 1]}, (2, 0), (5, 1)),
        ({"train_scene": [2, 0], "fewshot": 2}, (2, 0), (1, 3, 4, 5)),
        ({"test_scene": [5, 1]}, (0, 2, 3, 4), (5, 1)),
        ({"fewshot": 3}, (5, 2, 1), (0, 3, 4)),
        ({"fewshot": 3, "test_scene": [4]}, (5, 2, 1), (4,)),
    ],
)
def test_dtu_splits(dtu, options, train, test):
    scene = load_dtu(dtu, **options)
    assert scene.train == train
    assert scene.test == scene.val == test


def test_dtu_unseen_pool(dtu):
    everything = (0, 1, 2, 3, 4, 5)
    released = load_dtu(dtu, train_scene=[2, 0])  # nothing is left between training and test
    assert released.unseen == everything
    chosen = load_dtu(dtu, train_scene=[2, 0], test_scene=[5, 1])
    assert chosen.unseen == (0, 2, 3, 4)
    asked = load_dtu(dtu, train_scene=[2, 0], test_scene=[5, 1], unseen_poses="all")
    assert asked.unseen == everything


@pytest.mark.parametrize("kind", ["shared", "per_view"])
def test_dtu_half_res(dtu, kind):
    whole = load_dtu(dtu, train_scene=[0], dtu_intrinsics=kind)
    half = load_dtu(dtu, train_scene=[0], dtu_intrinsics=kind, half_res=True, maskdir=dtu / "mask")
    assert (half.height, half.width) == (HEIGHT // 2, WIDTH // 2)
    np.testing.assert_allclose(half.intrinsics, whole.intrinsics / 2)
    np.testing.assert_allclose(half.image(1), halved(whole.image(1)), atol=1e-6)
    mask = half.mask(1)  # 5 of 10 columns are the object's; the third of 5 is half of it
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.broadcast_to([True, True, True, False, False], mask.shape))


def test_dtu_white_background(dtu):
    iio.imwrite(dtu / "image/000001.png", random_pixels(9, 4))
    scene = load_dtu(dtu, train_scene=[0], white_bkgd=True)
    assert scene.white_background
    rgb, alpha = random_pixels(9, 4)[..., :3] / 255, random_pixels(9, 4)[..., 3:] / 255
    np.testing.assert_allclose(scene.image(1), alpha * rgb + 1 - alpha, atol=1e-6)
    np.testing.assert_allclose(scene.image(0), random_pixels(0, 3) / 255, atol=1e-7)


def test_dtu_masks_belong_to_the_images_of_their_numbers(tmp_path):
    folder = write_dtu(tmp_path / "scan", n=11, masks=False)
    masks = folder / "mask"
    masks.mkdir()
    for i in [*range(11), 99]:  # one for no image
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[0, : i % 11] = 255
        iio.imwrite(masks / f"{i}.png", mask)
    scene = load_dtu(folder, train_scene=[0], maskdir=str(masks))
    for view in range(11):
        mask = scene.mask(view)
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.sum() == mask[0, :view].sum() == min(view, WIDTH)


def test_dtu_decodes_on_demand(dtu):
    spoil(*(path for path in dtu.glob("image/*.png") if path.stem != "000002"), *dtu.glob("mask/*.png"))
    scene = load_dtu(dtu, train_scene=[2, 0], maskdir=dtu / "mask")
    assert scene.image(2).shape == (HEIGHT, WIDTH, 3)
    with refused(r"image/000000\.png: cannot be read as an image"):
        scene.image(0)
    with refused(r"mask/002\.png: cannot be read as an image"):
        scene.mask(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_scene": [6]}, r"--train_scene: found view 6, expected 0\.\.5"),
        ({"train_scene": [-1]}, r"--train_scene: found view -1, expected 0\.\.5"),
        ({"train_scene": [1, 1]}, "--train_scene: view 1 is named twice"),
        ({"train_scene": [0, 1], "fewshot": 3}, "--fewshot 3 contradicts --train_scene"),
        ({"fewshot": 7}, r"--fewshot 7: .*6 views.*expected 0\.\.6"),
        ({"fewshot": 6}, "--train_scene: 6 training and 0 test views of 6, expected some of each"),
        ({}, "--train_scene: 6 training and 0 test views of 6, expected some of each"),
        ({"test_scene": [0, 1, 2, 3, 4, 5]}, "--train_scene: 0 training and 6 test views of 6, expected some of each"),
        ({"train_scene": [0], "test_scene": [6]}, r"--test_scene: found view 6, expected 0\.\.5"),
        ({"train_scene": [0], "test_scene": [-1, 3]}, r"--test_scene: found view -1, expected 0\.\.5"),
        ({"train_scene": [0], "test_scene": [3, 3]}, "--test_scene: view 3 is named twice"),
        ({"train_scene": [0, 3], "test_scene": [4, 3]}, "--test_scene: view 3 is also a training view, expected other"),
    ],
)
def test_dtu_refuses_options(dtu, options, message):
    with refused(message):
        load_dtu(dtu, **options)


def npy(folder):
    with (folder / "cameras.npz").open("wb") as file:
        np.save(file, np.eye(4))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "cameras.npz", 0),
        lambda folder: cut(folder / "cameras.npz", 1000),
        lambda folder: cut(folder / "cameras.npz", -20),
        lambda folder: (folder / "cameras.npz").write_text("world_mat_0\n1 0 0 0\n"),
        lambda folder: (folder / "cameras.npz").write_bytes(pickle.dumps(cameras(folder))),
        npy,
        lambda folder: write_cameras(folder, cameras(folder) | {"world_mat_3": np.array([{}])}),
        lambda folder: write_cameras(folder, cameras(folder) | {"world_mat_3": np.array(["a"])}),
    ],
    ids=["empty", "truncated", "truncated at the end", "text", "pickle", "npy", "pickled matrix", "text matrix"],
)
def test_dtu_refuses_what_is_no_archive(dtu, damage):
    damage(dtu)
    with refused(r"scan/cameras\.npz: not a readable npz archive of matrices \(.+\)"):
        load_dtu(dtu, train_scene=[0])


def test_dtu_runs_no_pickle(dtu):
    class Pickled:
        def __reduce__(self):
            return os.mkdir, (str(dtu / "ran"),)

    for content in (pickle.dumps(Pickled()), {"world_mat_0": np.array([Pickled()])}):
        write_cameras(dtu, content)
        with refused(r"scan/cameras\.npz: not a readable npz archive"):
            load_dtu(dtu, train_scene=[0])
        assert not (dtu / "ran").exists()


@pytest.mark.parametrize("at", range(72, 200, 16))
def test_dtu_refuses_a_damaged_compressed_archive(dtu, at):
    """Damage somewhere in the first matrix: zipfile, zlib and numpy notice it, each in its own way."""
    np.savez_compressed(dtu / "cameras.npz", **cameras(dtu))
    content = bytearray((dtu / "cameras.npz").read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\xff"
    (dtu / "cameras.npz").write_bytes(content)
    with refused(r"scan/cameras\.npz: "):
        load_dtu(dtu, train_scene=[0])


WHOLE = "expected a finite, invertible 4 x 4 matrix"
RANK_2 = np.diag([1.0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("world_mat_3"), "no world_mat_3, expected one for each of the 6 images"),
        (lambda c: c | {"world_mat_3": np.eye(3)}, rf"world_mat_3 is of shape \(3, 3\), {WHOLE}"),
        (lambda c: c | {"world_mat_3": np.float64(1)}, rf"world_mat_3 is of shape \(\), {WHOLE}"),
        (lambda c: c | {"world_mat_3": np.full((4, 4), np.nan)}, f"world_mat_3 is not finite, {WHOLE}"),
        (lambda c: c | {"world_mat_3": np.zeros((4, 4))}, f"world_mat_3 is singular, {WHOLE}"),
        (lambda c: c | {"world_mat_3": np.ones((4, 4))}, f"world_mat_3 is singular, {WHOLE}"),
        (lambda c: c | {"world_mat_3": RANK_2}, f"world_mat_3 is singular, {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.eye(3)}, rf"scale_mat_3 is of shape \(3, 3\), {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.full((4, 4), np.inf)}, f"scale_mat_3 is not finite, {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.zeros((4, 4))}, f"scale_mat_3 is singular, {WHOLE}"),
    ],
)
def test_dtu_refuses_cameras(dtu, change, message):
    write_cameras(dtu, change(cameras(dtu)))
    with refused(rf"scan/cameras\.npz: {message}"):
        load_dtu(dtu, train_scene=[0])


def test_dtu_refuses_missing_cameras(dtu):
    (dtu / "cameras.npz").unlink()
    with refused(r"scan/cameras\.npz: no such file; a DTU scan has its cameras there"):
        load_dtu(dtu, train_scene=[0])


TWICE = "found the number of .* again, expected one image of each number"


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "--datadir .*scan/image: found no such folder, expected"),
        (empty, "scan/image: found no image, expected files such as 000000.png"),
        (lambda image: (image / "000001.png").rename(image / "a.png"), r"image/a\.png: found no number in the name"),
        (lambda image: shutil.copy(image / "000001.png", image / "1.png"), TWICE),
        (lambda image: shutil.copy(image / "000001.png", image / "000001.jpg"), TWICE),
        # without it, view 1 would be the next image with the camera of this one
        (lambda image: (image / "000001.png").unlink(), "more cameras than the 5 images, whose numbers are not 0..4"),
        (lambda image: (image / "000000.png").unlink(), "more cameras than the 5 images, whose numbers are not 0..4"),
        (lambda image: cut(image / "000000.png"), r"image/000000\.png: cannot be read as an image"),
    ],
)
def test_dtu_refuses_images(dtu, damage, message):
    damage(dtu / "image")
    with refused(message):
        load_dtu(dtu, train_scene=[0])


@pytest.mark.parametrize("half_res", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (HEIGHT + 1, WIDTH + 1), (1, 1)])
def test_dtu_refuses_images_and_masks_of_another_size(dtu, half_res, height, width):
    iio.imwrite(dtu / "image/000003.png", random_pixels(0, 3, height, width))
    iio.imwrite(dtu / "mask/002.png", random_pixels(0, 1, height, width)[..., 0])
    scene = load_dtu(dtu, train_scene=[0], half_res=half_res, maskdir=dtu / "mask")
    found = f"the image is {width} x {height}, expected {WIDTH} x {HEIGHT}"
    with refused(rf"image/000003\.png: {found}"):
        scene.image(3)
    with refused(rf"mask/002\.png: {found}"):
        scene.mask(2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "--maskdir .*scan/mask: found no such folder, expected"),
        (empty, "scan/mask: found no image, expected files such as"),
        (lambda mask: (mask / "003.png").unlink(), r"--maskdir .*no mask numbered 3, expected one for .*000003\.png"),
        (lambda mask: (mask / "003.png").rename(mask / "object.png"), r"mask/object\.png: found no number in the name"),
        (lambda mask: shutil.copy(mask / "003.png", mask / "4.png"), TWICE),
    ],
)
def test_dtu_refuses_masks(dtu, damage, message):
    damage(dtu / "mask")
    with refused(message):
        load_dtu(dtu, train_scene=[0], maskdir=str(dtu / "mask"))


# --- dataset_type -> loader


DEFAULTS = {
    "maskdir": None, "half_res": False, "testskip": 8, "white_bkgd": False, "train_scene": None, "test_scene": None,
    "fewshot": 0, "fewshot_seed": 0, "unseen_poses": "no_test", "dtu_intrinsics": "shared",
}  # fmt: skip
CHANGED = {
    "half_res": True, "testskip": 3, "white_bkgd": True, "train_scene": [1], "test_scene": [3], "fewshot": 1,
    "fewshot_seed": 7, "unseen_poses": "all", "dtu_intrinsics": "per_view", "maskdir": "masks",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [("blender", "load_blender"), ("dtu", "load_dtu")])
def test_load_scene_hands_every_option_on(monkeypatch, kind, name):
    loader = {"blender": load_blender, "dtu": load_dtu}[kind]
    taken = set(inspect.signature(loader).parameters) - {"datadir"}
    options = CHANGED if kind == "dtu" else CHANGED | {"test_scene": None, "maskdir": None}
    monkeypatch.setattr(f"load_scene.{name}", lambda datadir, **given: (datadir, given))
    assert load_scene(kind, "folder", **options) == ("folder", {option: options[option] for option in taken})


def test_load_scene(tmp_path):
    blender, dtu = write_blender(tmp_path / "lego", counts=(1, 1, 1)), write_dtu(tmp_path / "scan", n=2)
    assert load_scene("blender", str(blender), **DEFAULTS).view_names == ("train/r_0", "val/r_0", "test/r_0")
    scene = load_scene("dtu", str(dtu), **DEFAULTS | {"train_scene": [1], "maskdir": str(dtu / "mask")})
    assert scene.train == (1,)
    assert scene.mask(0).sum() == HEIGHT * WIDTH / 2


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("blender", {"test_scene": [1]}, "--test_scene: not for Blender scenes"),
        ("blender", {"maskdir": "masks"}, "--maskdir: not for Blender scenes"),
        ("llff", {}, "--dataset_type llff: not supported yet, expected blender or dtu"),
    ],
)
def test_load_scene_refuses(kind, options, message):
    with refused(message):
        load_scene(kind, "folder", **DEFAULTS | options)
