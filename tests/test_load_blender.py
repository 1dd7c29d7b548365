"""Blender scenes from files: what is loaded, when, and which input is refused."""

import json
import re
import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from infonerf.config import DataConfig
from load_blender import load_blender, view_name
from load_dtu import load_dtu
from support.scenes import (
    HEIGHT,
    WIDTH,
    cut,
    halved,
    look_at_origin,
    names,
    random_pixels,
    refused,
    spoil,
    without,
    write_blender,
    write_depth,
)

ANGLE = 0.6911112070083618


@pytest.fixture
def blender(tmp_path):
    """3 train, 1 val, 2 test views."""
    return write_blender(tmp_path / "lego", counts=(3, 1, 2))


def load(folder, **options):
    return load_blender(DataConfig(datadir=str(folder), **options))


def transforms(folder, split):
    return json.loads((folder / f"transforms_{split}.json").read_text())


def write_transforms(folder, split, content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / f"transforms_{split}.json").write_bytes(text)


def test_blender_scene(tmp_path):
    folder = write_blender(tmp_path / "lego")
    scene = load(folder)
    assert scene.name == "lego"
    assert names(scene, "train") == ["train/r_0", "train/r_1", "train/r_2", "train/r_3"]
    assert names(scene, "val") == ["val/r_0"]
    assert names(scene, "test") == ["test/r_0", "test/r_8"]
    assert scene.split.unseen == scene.split.train + scene.split.val
    assert (scene.near, scene.far, scene.white_background, scene.notes) == (2, 6, False, ())
    assert set(scene.cameras.sizes) == {(HEIGHT, WIDTH)}
    assert scene.photographs.mask is None and scene.photographs.depth is None
    for view, name in enumerate(scene.view_names):
        split, i = name.split("/r_")
        matrix = transforms(folder, split)["frames"][int(i)]["transform_matrix"]
        np.testing.assert_array_equal(scene.poses[view], matrix[:3])
        pixels = iio.imread(folder / f"{name}.png")
        on_black = pixels[..., :3] / 255 * (pixels[..., 3:] / 255)
        np.testing.assert_allclose(scene.photographs.image(view), on_black, atol=1e-6)
    focal = 0.5 * WIDTH / np.tan(0.5 * ANGLE)
    np.testing.assert_allclose(scene.cameras.intrinsics.numpy(), [[focal, focal, WIDTH / 2, HEIGHT / 2]] * 7)


def test_blender_focal_of_each_split(blender):
    write_transforms(blender, "test", transforms(blender, "test") | {"camera_angle_x": 1})
    scene = load(blender, testskip=1)
    expected = 0.5 * WIDTH / np.tan(0.5 * np.array([ANGLE, ANGLE, ANGLE, ANGLE, 1, 1]))
    np.testing.assert_allclose(scene.cameras.intrinsics.numpy()[:, 0], expected)


@pytest.mark.parametrize(
    ("testskip", "val", "test"),
    [(0, range(8), range(16)), (1, range(8), range(16)), (3, (0, 3, 6), (0, 3, 6, 9, 12, 15)), (8, (0,), (0, 8))],
)
def test_blender_testskip(tmp_path, testskip, val, test):
    scene = load(write_blender(tmp_path / "lego"), testskip=testskip)
    assert len(scene.split.train) == 4
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
    scene = load(blender, **options)
    assert scene.split.train == train
    assert scene.split.unseen == (0, 1, 2, 3)
    assert load(blender, unseen_poses="all", **options).split.unseen == (0, 1, 2, 3, 4)


def test_blender_of_100_views(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(100, 1, 1))
    assert names(load(folder, fewshot=4), "train") == ["train/r_26", "train/r_86", "train/r_2", "train/r_55"]
    with refused(r"--train_scene: found view 100, expected 0\.\.99"):
        load(folder, train_scene=[26, 100])


@pytest.mark.parametrize("half_res", [False, True])
def test_blender_white_background(blender, half_res):
    scene = load(blender, white_bkgd=True, half_res=half_res)
    assert scene.white_background
    assert scene.notes == ()
    pixels = iio.imread(blender / "train/r_1.png") / 255
    if half_res:
        pixels = halved(pixels)
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    np.testing.assert_allclose(scene.photographs.image(1), alpha * rgb + (1 - alpha) * 1, atol=1e-6)
    assert scene.photographs.image(1).dtype == np.float32


def test_blender_half_res(blender):
    whole, half = load(blender), load(blender, half_res=True)
    assert set(half.cameras.sizes) == {(HEIGHT // 2, WIDTH // 2)}
    np.testing.assert_allclose(half.cameras.intrinsics.numpy(), whole.cameras.intrinsics.numpy() / 2)
    np.testing.assert_array_equal(half.poses, whole.poses)
    pixels = halved(iio.imread(blender / "train/r_1.png") / 255)  # first halved, as released, then composited
    np.testing.assert_allclose(half.photographs.image(1), pixels[..., :3] * pixels[..., 3:], atol=1e-6)
    whole, half = (load(blender, drop_alpha=True, half_res=half) for half in (False, True))
    np.testing.assert_allclose(half.photographs.image(1), halved(whole.photographs.image(1)), atol=1e-6)


def test_blender_true_depth(blender):
    values = write_depth(blender, 0.0001)
    scene = load(blender, testskip=1)
    assert all(scene.photographs.depth(view) is None for view in scene.split.train + scene.split.val)
    for view in scene.split.test:
        found, stored = scene.photographs.depth(view), values[scene.view_names[view]]
        assert found.dtype == np.float32 and found.shape == (HEIGHT, WIDTH) and (found == 0).any()
        for row in range(HEIGHT):
            for col in range(WIDTH):
                assert found[row, col] == pytest.approx(int(stored[row, col]) * 0.0001, rel=1e-6)


def test_blender_true_depth_is_halved_without_mixing(tmp_path):
    """Of each 2 x 2 block one pixel; of an odd number of them the one in the middle."""
    folder = write_blender(tmp_path / "lego", counts=(1, 1, 1), height=HEIGHT, width=5)
    values = write_depth(folder)["test/r_0"]
    scene = load(folder, half_res=True)
    found = scene.photographs.depth(scene.split.test[0])
    assert found.shape == scene.photographs.image(scene.split.test[0]).shape[:2] == (HEIGHT // 2, 2)
    for row in range(HEIGHT // 2):  # a column of the half is 2.5 wide: 0..2.5 and 2.5..5, centres 1.25 and 3.75
        for col, there in enumerate((1, 3)):
            assert found[row, col] == pytest.approx(int(values[2 * row + 1, there]) * 0.0001, rel=1e-6)


@pytest.mark.parametrize("scale", [1, 2])
def test_blender_depth_scale_may_be_an_integer(blender, scale):
    values = write_depth(blender, scale)
    found = load(blender).photographs.depth(4)
    np.testing.assert_array_equal(found, scale * values["test/r_0"].astype(float))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), r"cannot be read as an image \(.*No such file"),
    (cut, "cannot be read as an image"),
    (spoil, "cannot be read as an image"),
    (lambda path: iio.imwrite(path, random_pixels(0, 1)[..., 0]), r"mode L, expected 16-bit grey"),
    (lambda path: iio.imwrite(path, random_pixels(0, 3)), r"mode RGB, expected 16-bit grey"),
    (lambda path: iio.imwrite(path, np.zeros((WIDTH, HEIGHT), np.uint16)), "the image is 8 x 10, expected 10 x 8"),
])  # fmt: skip
def test_blender_refuses_depth_images(blender, damage, message):
    write_depth(blender)
    scene = load(blender, testskip=1)
    damage(blender / "test/r_1_depth.png")
    with refused(rf"lego/test/r_1_depth\.png: .*{message}"):
        scene.photographs.depth(5)
    assert scene.photographs.depth(4).any()


@pytest.mark.parametrize("damage", [
    lambda path: path.unlink(), lambda path: iio.imwrite(path, np.zeros((3, 3), np.uint16)), spoil,
])  # fmt: skip
def test_blender_says_which_depth_images_cannot_be_used_before_anything_begins(blender, damage):
    write_depth(blender)
    damage(blender / "test/r_1_depth.png")
    assert load(blender).notes == ()  # every 8th test view only
    [note] = load(blender, testskip=1).notes
    assert re.match(rf"WARNING: {blender}/test/r_1_depth\.png: .*; such views are not measured$", note)


def test_blender_of_rgb_images(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(2, 1, 1), channels=3)
    assert load(folder).notes == ()
    scene = load(folder, white_bkgd=True, train_scene=[1])
    [note] = scene.notes
    assert note.startswith(f"{folder}/train/r_1.png: RGB without alpha")
    np.testing.assert_allclose(scene.photographs.image(1), iio.imread(folder / "train/r_1.png") / 255, atol=1e-7)


def test_blender_decodes_on_demand(blender):
    """Loading reads the headers of what is trained on or measured; val images need not even be there."""
    spoil(blender / "train/r_1.png")
    for path in (blender / "train/r_0.png", *blender.glob("test/*.png")):
        cut(path)
    shutil.rmtree(blender / "val")
    scene = load(blender, train_scene=[2, 0])
    assert scene.notes == ()
    assert scene.photographs.image(2).shape == (HEIGHT, WIDTH, 3)
    for view in scene.split.train[1:] + scene.split.val + scene.split.test:
        with refused(rf"{scene.view_names[view]}\.png: cannot be read as an image"):
            scene.photographs.image(view)


@pytest.mark.parametrize(
    ("file_path", "expected"),
    [("./train/a", "train/a"), ("train/a", "train/a"), ("./images/a", "train/images/a"), ("a", "train/a")],
)
def test_view_name(file_path, expected):
    assert view_name("train", file_path) == expected


def test_blender_takes_3x4_matrices(blender):
    content = transforms(blender, "train")
    expected = load(blender).poses
    for frame in content["frames"]:
        del frame["transform_matrix"][3]
    write_transforms(blender, "train", content)
    np.testing.assert_array_equal(load(blender).poses, expected)


def first_frame(**changes):
    return lambda c: c | {"frames": [c["frames"][0] | changes, *c["frames"][1:]]}


def matrix(change):
    return lambda c: first_frame(transform_matrix=change(c["frames"][0]["transform_matrix"]))(c)


MATRIX = r"transform_matrix of \./{split}/r_0 is {found}, expected a finite 4 x 4 matrix"
FORM = "{reason}; expected camera_angle_x and frames of file_path and transform_matrix"
NOT_FINITE, SHAPE_33 = MATRIX.replace("{found}", "not finite"), MATRIX.replace("{found}", r"of shape \(3, 3\)")
RADIANS = "expected radians between 1e-6 and pi"
SCALE = r"depth_scale is {found}, expected a number above 0, at most 6 \(far\)"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: json.dumps(c).encode()[:300], "not valid JSON"),
        (lambda c: b"", "not valid JSON"),
        (lambda c: b"\xff\xfe\x00", "not valid JSON"),
        (lambda c: b"[" * 100_000, "not valid JSON"),
        (lambda c: [c], "found .*, expected an object with frames"),
        (lambda c: None, "found None, expected an object with frames"),
        (without("frames"), "no 'frames'; expected"),
        (without("camera_angle_x"), "no 'camera_angle_x'; expected"),
        (lambda c: c | {"frames": 3}, FORM),
        (lambda c: c | {"frames": {"a": 1}}, FORM),
        (lambda c: c | {"frames": ["./train/r_0"]}, FORM),
        (lambda c: c | {"frames": [without("file_path")(c["frames"][0])]}, "no 'file_path'; expected"),
        (lambda c: c | {"frames": [without("transform_matrix")(c["frames"][0])]}, "no 'transform_matrix'; expected"),
        (lambda c: c | {"camera_angle_x": "wide"}, f"camera_angle_x is 'wide', {RADIANS}"),
        (lambda c: c | {"camera_angle_x": "0.7"}, f"camera_angle_x is '0.7', {RADIANS}"),
        (lambda c: c | {"camera_angle_x": None}, f"camera_angle_x is None, {RADIANS}"),
        (lambda c: c | {"camera_angle_x": 0}, f"camera_angle_x is 0, {RADIANS}"),
        (lambda c: c | {"camera_angle_x": 1e-300}, f"camera_angle_x is 1e-300, {RADIANS}"),
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
        (matrix(lambda m: [[1e300] * 4, *m[1:]]), MATRIX.replace("{found}", r"of numbers up to 1e\+300")),
        (matrix(lambda m: [[x * 1e-300 for x in row] for row in m]), MATRIX.replace("{found}", "singular")),
        (matrix(lambda m: [[10**400] * 4, *m[1:]]), FORM),
    ],
)
def test_blender_refuses_transforms(blender, split, change, message):
    write_transforms(blender, split, change(transforms(blender, split)))
    message = message.replace("{split}", split).replace("{reason}", ".+")
    with refused(rf"{blender}/transforms_{split}\.json: {message}"):
        load(blender)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("empty", [False, True])
def test_blender_without_val_or_test(blender, split, empty):
    path = blender / f"transforms_{split}.json"
    if empty:
        write_transforms(blender, split, transforms(blender, split) | {"frames": []})
    else:
        path.unlink()
    scene = load(blender, testskip=1)
    assert names(scene, split) == [] and names(scene, "train") == ["train/r_0", "train/r_1", "train/r_2"]
    assert len(scene.view_names) == 3 + (2 if split == "val" else 1)


def test_blender_needs_training_views(blender):
    write_transforms(blender, "train", transforms(blender, "train") | {"frames": []})
    with refused(r"transforms_train\.json: found no frames, expected at least one"):
        load(blender)
    (blender / "transforms_train.json").unlink()
    with refused(r"lego/transforms_train\.json: no such file; a Blender scene has one"):
        load(blender)


def test_test_poses_without_pictures_are_rendered_only(blender):
    (blender / "test/r_0.png").unlink()
    scene = load(blender, testskip=1)
    assert (names(scene, "test"), names(scene, "unmeasured")) == (["test/r_1"], ["test/r_0"])
    shutil.rmtree(blender / "test")
    scene = load(blender, testskip=1)
    assert (names(scene, "test"), names(scene, "unmeasured")) == ([], ["test/r_0", "test/r_1"])
    assert names(scene, "unseen") == ["train/r_0", "train/r_1", "train/r_2", "val/r_0"]


@pytest.mark.parametrize("file_path", [3, None, ["./train/r_0"], True], ids=str)
def test_blender_refuses_a_file_path_that_is_no_text(blender, file_path):
    write_transforms(blender, "train", first_frame(file_path=file_path)(transforms(blender, "train")))
    with refused(r"transforms_train\.json: found .* as file_path, expected the path of an image"):
        load(blender)


OUTSIDE = ("../secret/r_0", "./train/../../secret/r_0", "{absolute}/secret/r_0")


@pytest.mark.parametrize("file_path", OUTSIDE)
def test_blender_stays_in_its_folder_unless_told_otherwise(blender, tmp_path, file_path):
    (tmp_path / "secret").mkdir()
    shutil.copy(blender / "train/r_0.png", tmp_path / "secret/r_0.png")
    file_path = file_path.replace("{absolute}", str(tmp_path))
    write_transforms(blender, "train", first_frame(file_path=file_path)(transforms(blender, "train")))
    with refused(rf"transforms_train\.json: file_path '{file_path}' leads out of the scene's folder.*--allow_outside"):
        load(blender)
    scene = load(blender, allow_outside=True, drop_alpha=True)
    pixels = iio.imread(blender / "train/r_0.png")
    np.testing.assert_allclose(scene.photographs.image(0), pixels[..., :3] / 255, atol=1e-7)


def test_blender_of_symbolic_links(blender, tmp_path):
    """A folder of a scene, or the scene itself, may lie elsewhere."""
    expected = load(blender).photographs.image(0)
    (blender / "train").rename(tmp_path / "elsewhere")
    (blender / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(blender)
    np.testing.assert_array_equal(load(tmp_path / "link").photographs.image(0), expected)


@pytest.mark.parametrize("file_path", ["a\nb", "a" * 300, "a\0b", "\ud800", "\x1b[31m"], ids=ascii)
def test_blender_names_of_no_file_are_one_line(blender, file_path):
    write_transforms(blender, "train", first_frame(file_path=file_path)(transforms(blender, "train")))
    with refused(r"\.png: the image is missing, expected every image that is trained on"):
        load(blender)


def test_blender_refuses_a_frame_twice(blender):
    content = transforms(blender, "train")
    write_transforms(blender, "train", content | {"frames": content["frames"] + content["frames"][:1]})
    with refused("scene lego: view train/r_0 is listed twice, expected every view once"):
        load(blender)


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
        load(blender, **options)


@pytest.mark.parametrize("name", ["train/r_1"])
def test_blender_refuses_a_missing_image(blender, name):
    (blender / f"{name}.png").unlink()
    with refused(rf"lego/{name}\.png: the image is missing, expected every image .* \(--train_scene 0 .*are there"):
        load(blender)


def test_blender_refuses_a_truncated_first_image(blender):
    cut(blender / "train/r_0.png")
    with refused(r"lego/train/r_0\.png: cannot be read as an image"):
        load(blender)


@pytest.mark.parametrize("half_res", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (HEIGHT + 1, WIDTH + 1), (1, 1)])
def test_blender_refuses_an_image_of_another_size(blender, half_res, height, width):
    fault = rf"the image is {width} x {height}, expected {WIDTH} x {HEIGHT} as the first training image"
    iio.imwrite(blender / "test/r_1.png", random_pixels(0, 4, height, width))
    scene = load(blender, half_res=half_res, testskip=1)
    assert scene.notes == (f"WARNING: {blender}/test/r_1.png: {fault}; such views are not measured",)
    with refused(rf"lego/test/r_1\.png: {fault}"):
        scene.photographs.image(5)
    iio.imwrite(blender / "train/r_1.png", random_pixels(0, 4, height, width))
    with refused(rf"lego/train/r_1\.png: {fault}"):
        load(blender, half_res=half_res)


def test_blender_refuses_to_halve_one_pixel(tmp_path):
    folder = write_blender(tmp_path / "lego", counts=(1, 1, 1), height=1)
    with refused(f"--half_res: the images are {WIDTH} x 1, expected at least 2 x 2"):
        load(folder, half_res=True)


@pytest.mark.parametrize("loader", [load_blender, load_dtu])
def test_datadir_is_not_a_folder(tmp_path, loader):
    (tmp_path / "file").write_text("")
    for name in ("file", "none"):
        with refused(f"--datadir {tmp_path}/{name}: found no such folder, expected the scene's files there"):
            loader(DataConfig(datadir=str(tmp_path / name)))
    for nothing in ("", None):
        with refused("--datadir: not given, expected the folder of the scene"):
            loader(DataConfig(datadir=nothing))


# What other programs write.


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG"])
@pytest.mark.parametrize("written", [True, False])
def test_file_path_with_and_without_ending(blender, ending, written):
    for path in blender.glob("*/r_*.png"):
        array = iio.imread(path)[..., :3]
        path.unlink()
        extension = ending.lower() if ending != ".jpeg" else ".jpg"
        path.with_suffix(ending).write_bytes(iio.imwrite("<bytes>", array, extension=extension))
    for split in ("train", "val", "test"):
        content = transforms(blender, split)
        for frame in content["frames"] if written else ():
            frame["file_path"] = frame["file_path"].replace("/", "\\") + ending
        write_transforms(blender, split, content)
    scene = load(blender, testskip=1)
    assert scene.view_names == ("train/r_0", "train/r_1", "train/r_2", "val/r_0", "test/r_0", "test/r_1")
    assert names(scene, "test") == ["test/r_0", "test/r_1"]
    assert scene.photographs.image(5).shape == (HEIGHT, WIDTH, 3)


def test_an_ending_that_is_part_of_the_name(blender):
    (blender / "train/r_0.png").rename(blender / "train/r_0.png.png")
    content = first_frame(file_path="./train/r_0.png")(transforms(blender, "train"))
    write_transforms(blender, "train", content)
    assert load(blender).photographs.image(0).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("file_path", ["C:\\photos\\r_0", "..\\secret\\r_0", "\\\\server\\share\\r_0"])
def test_paths_of_windows_stay_in_the_folder_too(blender, file_path):
    write_transforms(blender, "train", first_frame(file_path=file_path)(transforms(blender, "train")))
    with refused("leads out of the scene's folder"):
        load(blender)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json(blender, encoding):
    expected = load(blender).poses
    content = json.dumps(transforms(blender, "train"), ensure_ascii=False)
    write_transforms(blender, "train", content.encode(encoding))
    np.testing.assert_array_equal(load(blender).poses, expected)


def intrinsics(folder, **options):
    return load(folder, **options).cameras.intrinsics.numpy()


def says(blender, split="train", frame=None, **values):
    content = {"frames": transforms(blender, split)["frames"]} | values
    content["frames"][1] |= frame or {}
    write_transforms(blender, split, content)


@pytest.mark.parametrize(("values", "expected"), [
    ({"fl_x": 15.0}, (15, 15, 5, 4)),
    ({"fl_x": 15.0, "fl_y": 12, "cx": 6.5, "cy": 3.5}, (15, 12, 6.5, 3.5)),
    ({"fl_x": 15.0, "cx": 6.5, "w": 10, "h": 8, "k1": 0.0, "camera_model": "OPENCV"}, (15, 15, 6.5, 4)),
    ({"fl_x": 30.0, "fl_y": 24, "cx": 13, "cy": 7, "w": 20, "h": 16}, (15, 12, 6.5, 3.5)),
    ({"fl_x": 7.5, "w": 5, "h": 4}, (15, 15, 5, 4)),
    ({"camera_angle_y": 2 * np.arctan(4 / 12)}, (12, 12, 5, 4)),
    ({"camera_angle_x": 2 * np.arctan(5 / 15), "camera_angle_y": 2 * np.arctan(4 / 12)}, (15, 12, 5, 4)),
    ({"camera_angle_x": 2 * np.arctan(5 / 15), "fl_x": 15.1}, (15.1, 15.1, 5, 4)),
    ({"fl_y": 12}, (12, 12, 5, 4)),
])  # fmt: skip
def test_blender_intrinsics(blender, values, expected):
    says(blender, **values)
    np.testing.assert_allclose(intrinsics(blender)[:3], [expected] * 3)
    np.testing.assert_allclose(intrinsics(blender, half_res=True)[:3], [np.array(expected) / 2] * 3)


def test_blender_intrinsics_of_a_frame(blender):
    says(blender, fl_x=15.0, cx=6.5, frame={"fl_x": 14.0, "cy": 3.0})
    np.testing.assert_allclose(intrinsics(blender)[:3], [[15, 15, 6.5, 4], [14, 14, 6.5, 3], [15, 15, 6.5, 4]])


@pytest.mark.parametrize("scale", [2, 4, 8, 0.5, 1.5])
def test_image_scale_divides_what_is_in_pixels(blender, scale):
    says(blender, fl_x=15.0 * scale, cx=6.5 * scale, w=10, h=8)
    np.testing.assert_allclose(intrinsics(blender, image_scale=scale)[:3], [[15, 15, 6.5, 4]] * 3)
    says(blender, camera_angle_x=ANGLE)
    np.testing.assert_array_equal(intrinsics(blender, image_scale=scale), intrinsics(blender))


@pytest.mark.parametrize(("values", "message"), [
    ({"fl_x": 15, "w": 20, "h": 8}, "w and h are 20 and 8, expected the shape of the images, which are 10 x 8"),
    ({"fl_x": 30, "camera_angle_x": 2 * np.arctan(5 / 15)}, r"fl_x 30 does not go with .*--image_scale 2"),
    ({"fl_x": 15, "k1": -0.2, "k2": 0.05}, r"found k1 -0\.2, k2 0\.05, expected .* --dataset_type capture undistorts"),
    ({"fl_x": 15, "p2": 0.001}, r"found p2 0\.001"),
    ({"fl_x": 15, "camera_model": "OPENCV_FISHEYE"}, "found camera_model OPENCV_FISHEYE"),
    ({"fl_x": 15, "is_fisheye": True}, "found is_fisheye"),
    ({"fl_x": 15, "camera_model": "EQUIRECTANGULAR"}, "found camera_model EQUIRECTANGULAR"),
    ({"fl_x": 0}, "fl_x is 0, expected a number above 0"),
    ({"fl_x": "15"}, "fl_x is '15', expected a number above 0"),
    ({"fl_x": 15, "cx": float("nan")}, "cx is nan, expected a number"),
    ({"cx": 5}, "no 'camera_angle_x'; expected it, or fl_x"),
    ({"camera_angle_y": 4}, "camera_angle_y is 4, expected radians"),
])  # fmt: skip
def test_blender_refuses_intrinsics(blender, values, message):
    says(blender, **values)
    with refused(rf"transforms_train\.json: {message}"):
        load(blender)


def test_distortion_of_one_frame_is_refused(blender):
    says(blender, fl_x=15, frame={"k3": 1e-4})
    with refused(r"found k3 0\.0001"):
        load(blender)


def with_matrices(folder, change, which=slice(None), splits=("train", "val", "test")):
    for split in splits:
        content = transforms(folder, split)
        for frame in content["frames"][which]:
            frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()
        write_transforms(folder, split, content)


@pytest.mark.parametrize("scale", [0.25, 4.0, (0.5, 1.0, 2.0)], ids=str)
@pytest.mark.parametrize("which", [slice(None), slice(1, 2)], ids=["all", "one"])
def test_scaled_cameras_are_normalised_and_noted(blender, scale, which):
    expected = load(blender).poses
    with_matrices(blender, lambda m: m * np.array([*np.broadcast_to(scale, 3), 1]), which, ("train",))
    scene = load(blender)
    np.testing.assert_allclose(scene.poses, expected, atol=1e-12)
    [note] = scene.notes
    assert re.match(r"[13] poses \(train/r_[01]\) had axes of another length than 1", note)


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m * [-1, 1, 1, 1], "mirrored"),
    (lambda m: m * [1, -1, 1, 1], "mirrored"),
    (lambda m: m * [1, 1, -1, 1], "mirrored"),
    (lambda m: np.diag([1, -1, 1, 1]) @ m, "mirrored"),
    (lambda m: m[:, [1, 0, 2, 3]], "mirrored"),
    (lambda m: m @ (np.eye(4) + 0.1 * np.eye(4, k=1) * [0, 1, 0, 0]), "sheared"),
    (lambda m: np.diag([1, 1, 2, 1]) @ m, "sheared"),
    (lambda m: m.T, r"of last row [^ ]+ [^ ]+ [^ ]+ 1 instead of 0 0 0 1 \(transposed\?\)"),
    (lambda m: m * [[1], [1], [1], [2]], "of last row 0 0 0 2 instead"),
])  # fmt: skip
@pytest.mark.parametrize("split", ["train", "test"])
def test_matrices_of_no_camera_are_refused(blender, change, message, split):
    with_matrices(blender, change, slice(0, 1), (split,))
    with refused(rf"transforms_{split}\.json: transform_matrix of (\./)?{split}/r_0 is {message}"):
        load(blender)


def test_rounded_matrices_are_left_as_they_are(blender):
    with_matrices(blender, lambda m: m.round(4))
    scene = load(blender)
    assert scene.notes == ()
    np.testing.assert_array_equal(scene.poses[0], transforms(blender, "train")["frames"][0]["transform_matrix"][:3])


@pytest.mark.parametrize("change", [
    lambda m: m * [1, 1, 1, 10] + 0,  # far off, as all is 10 times as large
    lambda m: m + np.array([[0, 0, 0, 100], [0] * 4, [0] * 4, [0] * 4]),
    lambda m: m + np.array([[0, 0, 0, 1.5], [0] * 4, [0] * 4, [0] * 4]),
])  # fmt: skip
def test_cameras_unlike_those_of_nerf_synthetic(blender, change):
    as_released = load(blender)
    assert as_released.bounds is not None and len(as_released.path) == 40
    with_matrices(blender, lambda m: np.concatenate([change(m)[:3], m[3:]]))
    scene = load(blender)
    assert scene.bounds is None and scene.path is None
    [note] = scene.notes
    assert "WARNING: the training cameras do not look at the origin" in note


@pytest.mark.parametrize("link", [shutil.copyfile, lambda a, b: b.symlink_to(a), lambda a, b: b.hardlink_to(a)])
def test_photographs_that_are_trained_on_and_tested_on(blender, link):
    (blender / "test/r_1.png").unlink()
    link(blender / "train/r_1.png", blender / "test/r_1.png")
    content = transforms(blender, "test")
    content["frames"][1]["transform_matrix"] = look_at_origin(99, 9).tolist()
    write_transforms(blender, "test", content)
    [note] = load(blender, testskip=1).notes
    assert note.startswith(f"WARNING: {blender}/test/r_1.png is a copy of a photograph that is trained on, for 1 of 2")
