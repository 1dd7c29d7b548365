"""DTU scenes from files: what is loaded, when, and which input is refused."""

import io
import os
import pickle
import re
import shutil
import zipfile

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from infonerf.config import DataConfig
from load_dtu import decompose, load_dtu
from support.scenes import (
    HEIGHT,
    WIDTH,
    cut,
    dtu_cameras,
    dtu_projection,
    halved,
    random_pixels,
    refused,
    without,
    write_dtu,
)


@pytest.fixture
def dtu(tmp_path):
    """6 views."""
    return write_dtu(tmp_path / "scan")


def load(folder, **options):
    return load_dtu(DataConfig(datadir=str(folder), **options))


def cameras(folder):
    return cameras_of(folder / "cameras.npz")


def cameras_of(path):
    with np.load(path) as archive:
        return dict(archive)


def write_cameras(folder, content):
    if isinstance(content, bytes):
        (folder / "cameras.npz").write_bytes(content)
    else:
        np.savez(folder / "cameras.npz", **content)


def test_dtu_scene(dtu):
    scene = load(dtu, train_scene=[2, 0, 5])
    assert scene.name == "scan"
    assert scene.view_names == ("000000", "000001", "000002", "000003", "000004", "000005")
    assert scene.split.train == (2, 0, 5)
    assert scene.split.test == scene.split.val == (1, 3, 4)
    assert (scene.near, scene.far, scene.white_background) == (0.1, 5, False)
    assert set(scene.cameras.sizes) == {(HEIGHT, WIDTH)}
    assert scene.photographs.mask is None
    for view in range(6):
        np.testing.assert_allclose(scene.photographs.image(view), random_pixels(view, 3) / 255, atol=1e-7)


@pytest.mark.parametrize("kind", ["shared", "per_view"])
def test_dtu_cameras_are_recovered(dtu, kind):
    scene = load(dtu, train_scene=[0], dtu_intrinsics=kind)
    known = dtu_cameras(6)
    np.testing.assert_allclose(scene.poses, [camera["pose"][:3] for camera in known], atol=1e-12)
    if kind == "per_view":
        expected = [[20.0 + i, 21.0 + i, 5.2, 3.9] for i in range(6)]
    else:
        expected = [[23.0, 23.0, WIDTH / 2, HEIGHT / 2]] * 6  # the mean of 20..25 and 21..26
    np.testing.assert_allclose(scene.cameras.intrinsics.numpy(), expected, atol=1e-10)


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
    """View 0, and its pose as the released code loads it (docs/method.md, Data)."""
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
    np.testing.assert_allclose(load(dtu, train_scene=[0]).poses, expected, atol=1e-12)


def test_dtu_of_3x4_matrices(dtu):
    expected = load(dtu, train_scene=[0])
    write_cameras(dtu, {name: matrix[:3].astype(np.float32) for name, matrix in cameras(dtu).items()})
    scene = load(dtu, train_scene=[0])
    np.testing.assert_allclose(scene.poses, expected.poses, atol=1e-5)
    np.testing.assert_allclose(scene.cameras.intrinsics.numpy(), expected.cameras.intrinsics.numpy(), atol=1e-3)


def turned(axis, degrees):
    return cv2.Rodrigues(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis))[0]


@pytest.mark.parametrize("rotation", [turned([0, 0, 1], 30), turned([1, 2, 3], 100), np.diag([-1.0, -1, 1])])
@pytest.mark.parametrize("last", [1.0, 2.0])
def test_dtu_scale_matrix_with_a_rotation(dtu, rotation, last):
    """A point of the scene's world falls on the same pixel by world_mat @ scale_mat and by the loaded camera."""
    scale = np.eye(4)
    scale[:3, :3], scale[:3, 3] = 300 * rotation, [10, 20, 600]
    content = cameras(dtu)
    for i in range(6):
        content[f"world_mat_{i}"] = content[f"world_mat_{i}"] @ content[f"scale_mat_{i}"] @ np.linalg.inv(scale)
        content[f"scale_mat_{i}"] = last * scale
    write_cameras(dtu, content)
    scene = load(dtu, train_scene=[0])
    np.testing.assert_allclose(scene.poses, [camera["pose"][:3] for camera in dtu_cameras(6)], atol=1e-9)


def test_dtu_projection_of_any_scale(dtu):
    expected = load(dtu, train_scene=[0])
    for factor in (1e-9, -1e-6, 1e6, -1e8):
        content = cameras(write_dtu(dtu.parent / f"{factor}", masks=False))
        write_cameras(dtu, content | {f"world_mat_{i}": factor * content[f"world_mat_{i}"] for i in range(6)})
        np.testing.assert_allclose(load(dtu, train_scene=[0]).poses, expected.poses, atol=1e-9)


def enlarged(matrices, factors):
    """The cameras of images so many times as large, view by view."""
    return matrices | {f"world_mat_{view}": np.diag([factor, factor, 1, 1]) @ matrices[f"world_mat_{view}"]
                       for view, factor in enumerate(factors)}  # fmt: skip


@pytest.mark.parametrize("kind", ["shared", "per_view"])
@pytest.mark.parametrize("factor", [0.125, 0.5, 1.25, 1.5, 2, 3.1, 4, 8])
def test_dtu_cameras_of_images_of_another_size(dtu, kind, factor):
    expected = load(dtu, train_scene=[0], dtu_intrinsics=kind)
    write_cameras(dtu, enlarged(cameras(dtu), [factor] * 6))
    usual = np.log2(factor) % 1 == 0
    with refused(rf"scan/cameras\.npz: the principal point of 000000\.png is .* in an image of {WIDTH} x {HEIGHT}: "
                 rf"the cameras are of images about .* as large, expected --image_scale {factor if usual else ''}"):
        load(dtu, train_scene=[0], dtu_intrinsics=kind)
    scene = load(dtu, train_scene=[0], dtu_intrinsics=kind, image_scale=factor)
    np.testing.assert_allclose(scene.cameras.intrinsics, expected.cameras.intrinsics, rtol=1e-9)
    with refused(rf"expected --image_scale {factor if usual else ''}"):
        load(dtu, train_scene=[0], image_scale=4 * factor)


def test_dtu_camera_of_another_image(dtu):
    write_cameras(dtu, enlarged(cameras(dtu), [1, 1, 1, 4, 1, 1]))
    with refused(r"principal point of 000003\.png is .*: its camera is of an image about 4 times as large, others"):
        load(dtu, train_scene=[0])
    shifted = np.eye(4)
    shifted[0, 2] = 5
    write_cameras(dtu, {name: shifted @ matrix if name == "world_mat_2" else matrix for name, matrix in
                        cameras(write_dtu(dtu.parent / "other")).items()})  # fmt: skip
    with refused(r"the principal point of 000002\.png is 10\.2 3\.9 in an image of 10 x 8, expected one inside"):
        load(dtu, train_scene=[0])


def test_dtu_principal_point_off_the_middle(dtu):
    shifted = np.eye(4)
    shifted[:2, 2] = 2.5, -1
    write_cameras(dtu, {name: shifted @ matrix if name[0] == "w" else matrix for name, matrix in cameras(dtu).items()})
    scene = load(dtu, train_scene=[0], dtu_intrinsics="per_view")
    np.testing.assert_allclose(scene.cameras.intrinsics[:, 2:], [[7.7, 2.9]] * 6)


def test_dtu_layouts_of_others(dtu):
    expected = load(dtu, train_scene=[0])
    (dtu / "cameras.npz").rename(dtu / "cameras_sphere.npz")
    (dtu / "image").rename(dtu / "images")
    scene = load(dtu, train_scene=[0])
    np.testing.assert_array_equal(scene.poses, expected.poses)
    assert scene.notes == ()
    (dtu / "cameras_sphere.npz").rename(dtu / "cameras_large.npz")
    assert load(dtu, train_scene=[0]).notes == ()
    np.savez(dtu / "cameras_sphere.npz", **without("world_mat_0")(cameras_of(dtu / "cameras_large.npz")))
    with refused(r"cameras_sphere\.npz: no world_mat_0"):
        load(dtu, train_scene=[0])
    shutil.copy(dtu / "cameras_large.npz", dtu / "cameras.npz")
    (dtu / "image").mkdir()
    for path in (dtu / "images").iterdir():
        shutil.copy(path, dtu / "image" / path.name.removeprefix("000"))
    scene = load(dtu, train_scene=[0])
    assert scene.view_names[0] == "000"
    assert [note.removeprefix(f"{dtu}/") for note in scene.notes] == [
        "image is read, images not",
        "cameras.npz is read, cameras_sphere.npz and cameras_large.npz not",
    ]


def rectified(folder, *lights):
    """DTU's own names, under several light conditions that differ in their pixels."""
    for i in range(6):
        (folder / f"image/{i:06d}.png").unlink()
        for k, light in enumerate(lights):
            iio.imwrite(folder / f"image/rect_{i + 1:03d}_{light}.png", random_pixels(10 * k + i, 3))


def test_dtu_names_of_rectified_images(dtu):
    rectified(dtu, "5_r5000")
    scene = load(dtu, train_scene=[2], maskdir=str(dtu / "mask"))
    assert scene.view_names[2] == "rect_003_5_r5000"
    assert scene.notes == ()
    assert scene.photographs.mask(5).sum() == HEIGHT * WIDTH // 2


def test_dtu_light_conditions(dtu):
    rectified(dtu, "0_r5000", "3_r5000", "max")
    scene = load(dtu, train_scene=[2])
    assert scene.view_names == tuple(f"rect_{i:03d}_3_r5000" for i in range(1, 7))
    np.testing.assert_allclose(scene.photographs.image(4), random_pixels(14, 3) / 255, atol=1e-7)
    assert scene.notes == (f"{dtu}/image: of the light conditions 0, 3, max only 3 is read",)
    (dtu / "image/rect_005_3_r5000.png").unlink()
    with refused(r"scan/image: found several light conditions, but of view 5 no 3, expected rect_005_3_r5000\.png"):
        load(dtu, train_scene=[2])


def test_dtu_images_are_in_order_of_their_numbers(tmp_path):
    folder = write_dtu(tmp_path / "scan", n=11)
    for i in range(11):
        (folder / "image" / f"{i:06d}.png").rename(folder / "image" / f"scan24_{i}.png")
    iio.imwrite(folder / "image/scan24_3.JPG", random_pixels(3, 3))
    (folder / "image/scan24_3.png").unlink()
    (folder / "image/note_99.txt").write_text("no image")
    scene = load(folder, train_scene=[0])
    assert scene.view_names == tuple(f"scan24_{i}" for i in range(11))
    for view in (2, 10):
        np.testing.assert_allclose(scene.photographs.image(view), random_pixels(view, 3) / 255, atol=1e-7)
    assert scene.photographs.image(3).shape == (HEIGHT, WIDTH, 3)


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
    scene = load(dtu, **options)
    assert scene.split.train == train
    assert scene.split.test == scene.split.val == test


def test_dtu_unseen_pool(dtu):
    everything = (0, 1, 2, 3, 4, 5)
    released = load(dtu, train_scene=[2, 0])  # nothing is left between training and test
    assert released.split.unseen == everything
    chosen = load(dtu, train_scene=[2, 0], test_scene=[5, 1])
    assert chosen.split.unseen == (0, 2, 3, 4)
    asked = load(dtu, train_scene=[2, 0], test_scene=[5, 1], unseen_poses="all")
    assert asked.split.unseen == everything


@pytest.mark.parametrize("kind", ["shared", "per_view"])
def test_dtu_half_res(dtu, kind):
    whole = load(dtu, train_scene=[0], dtu_intrinsics=kind)
    half = load(dtu, train_scene=[0], dtu_intrinsics=kind, half_res=True, maskdir=str(dtu / "mask"))
    assert set(half.cameras.sizes) == {(HEIGHT // 2, WIDTH // 2)}
    np.testing.assert_allclose(half.cameras.intrinsics.numpy(), whole.cameras.intrinsics.numpy() / 2)
    np.testing.assert_allclose(half.photographs.image(1), halved(whole.photographs.image(1)), atol=1e-6)
    mask = half.photographs.mask(1)  # 5 of 10 columns are the object's; the third of 5 is half of it
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.broadcast_to([True, True, True, False, False], mask.shape))


def test_dtu_white_background(dtu):
    iio.imwrite(dtu / "image/000001.png", random_pixels(9, 4))
    scene = load(dtu, train_scene=[0], white_bkgd=True)
    assert scene.white_background
    rgb, alpha = random_pixels(9, 4)[..., :3] / 255, random_pixels(9, 4)[..., 3:] / 255
    np.testing.assert_allclose(scene.photographs.image(1), alpha * rgb + 1 - alpha, atol=1e-6)
    np.testing.assert_allclose(scene.photographs.image(0), random_pixels(0, 3) / 255, atol=1e-7)


def test_dtu_masks_belong_to_the_images_of_their_numbers(tmp_path):
    folder = write_dtu(tmp_path / "scan", n=11, masks=False)
    masks = folder / "mask"
    masks.mkdir()
    for i in [*range(11), 99]:  # one for no image
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[0, : i % 11] = 255
        iio.imwrite(masks / f"{i}.png", mask)
    scene = load(folder, train_scene=[0], maskdir=str(masks))
    for view in range(11):
        mask = scene.photographs.mask(view)
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.sum() == mask[0, :view].sum() == min(view, WIDTH)


def mask_pixels():
    return np.indices((HEIGHT, WIDTH)).sum(0) % WIDTH < WIDTH // 2


def palette(mask, colours):
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def large(mask):
    """Masks of four times the size, each pixel of which has 8 of 16 of the object where `mask` is set, else 7."""
    half = np.zeros((4, 4), np.uint8)
    half[:2] = 255
    return np.where(np.kron(mask, np.ones((4, 4))) > 0, np.tile(half, mask.shape),
                    np.tile(half * (np.arange(16).reshape(4, 4) > 0), mask.shape)).astype(np.uint8)  # fmt: skip


MASK_FORMS = {
    "0 and 255": lambda m: Image.fromarray(m.astype(np.uint8) * 255),
    "0 and 1": lambda m: Image.fromarray(m.astype(np.uint8)),
    "bits": lambda m: Image.fromarray(m),
    "16 bits of 0 and 1": lambda m: Image.fromarray(m.astype(np.uint16)),
    "rgb of 0 and 1": lambda m: Image.fromarray(np.repeat(m[..., None], 3, -1).astype(np.uint8)),
    "opaque rgba of 0 and 1": lambda m: Image.fromarray(np.dstack([m, m, m, np.full(m.shape, 255)]).astype(np.uint8)),
    "rgba": lambda m: Image.fromarray(np.dstack([*[m * 255] * 4]).astype(np.uint8)),
    "alpha of a photograph": lambda m: Image.fromarray(np.dstack([random_pixels(0, 3), m * 255]).astype(np.uint8)),
    "grey and alpha": lambda m: Image.fromarray(np.dstack([m * 0, m * 255]).astype(np.uint8)),
    "palette of grey": lambda m: palette(m, [0, 0, 0, 1, 1, 1]),
    "palette of a colour": lambda m: palette(m, [0, 0, 0, 128, 0, 0]),
    "palette of black and white": lambda m: palette(m, [0, 0, 0, 255, 255, 255]),
    "larger": lambda m: Image.fromarray(np.kron(m, np.ones((3, 3))).astype(np.uint8) * 255),
    "larger, averaged": lambda m: Image.fromarray(large(m)),
}


@pytest.mark.parametrize("form", MASK_FORMS)
@pytest.mark.parametrize("names", ["{:03d}.png", "{:04d}.png", "{:06d}.png"])
def test_dtu_masks_of_every_form(dtu, form, names):
    shutil.rmtree(dtu / "mask")
    (dtu / "mask").mkdir()
    for i in range(6):
        MASK_FORMS[form](mask_pixels()).save(dtu / "mask" / names.format(i))
    scene = load(dtu, train_scene=[0], maskdir=str(dtu))  # whose folder mask it is
    np.testing.assert_array_equal(scene.photographs.mask(2), mask_pixels())
    assert scene.notes == ()


@pytest.mark.parametrize(("value", "word"), [(0, "empty"), (255, "full")])
def test_dtu_masks_of_all_or_nothing(dtu, value, word):
    def write(*views):
        for view in views:
            iio.imwrite(dtu / f"mask/{view:03d}.png", np.full((HEIGHT, WIDTH), value, np.uint8))

    write(0)  # that of a training view is not asked for
    assert load(dtu, train_scene=[0], maskdir=str(dtu / "mask")).notes == ()
    write(2, 4)
    notes = load(dtu, train_scene=[0], maskdir=str(dtu / "mask")).notes
    assert notes == (f"{dtu}/mask: the masks of these test views are {word}: 002.png, 004.png",)
    write(1, 3, 5)
    with refused(rf"mask/001\.png: the mask is {word}, as every test view's is, expected the object's"):
        load(dtu, train_scene=[0], maskdir=str(dtu / "mask"))


def test_dtu_decodes_on_demand(dtu):
    """But the first training image and the masks of the test views; of all others only the headers."""
    for path in (*(path for path in dtu.glob("image/*.png") if path.stem != "000002"), dtu / "mask/002.png"):
        cut(path, 60)
    scene = load(dtu, train_scene=[2, 0], maskdir=str(dtu / "mask"))
    assert scene.photographs.image(2).shape == (HEIGHT, WIDTH, 3)
    with refused(r"image/000000\.png: cannot be read as an image"):
        scene.photographs.image(0)
    with refused(r"mask/002\.png: cannot be read as an image"):
        scene.photographs.mask(2)
    cut(dtu / "mask/001.png", 60)
    with refused(r"mask/001\.png: cannot be read as an image"):
        load(dtu, train_scene=[2, 0], maskdir=str(dtu / "mask"))


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
        load(dtu, **options)


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
        lambda folder: write_cameras(folder, cameras(folder) | {"world_mat_3": np.eye(4) + 1j}),
        lambda folder: write_cameras(folder, cameras(folder) | {"world_mat_3": np.eye(4, dtype=bool)}),
    ],
    ids=["empty", "truncated", "truncated at the end", "text", "pickle", "npy", "pickled matrix", "text matrix",
         "complex matrix", "boolean matrix"],
)
def test_dtu_refuses_what_is_no_archive(dtu, damage):
    damage(dtu)
    with refused(r"scan/cameras\.npz: not a readable npz archive of matrices \(.+\)"):
        load(dtu, train_scene=[0])


def test_dtu_runs_no_pickle(dtu):
    class Pickled:
        def __reduce__(self):
            return os.mkdir, (str(dtu / "ran"),)

    for content in (pickle.dumps(Pickled()), {"world_mat_0": np.array([Pickled()])}):
        write_cameras(dtu, content)
        with refused(r"scan/cameras\.npz: not a readable npz .*found pickled objects, which may be programs"):
            load(dtu, train_scene=[0])
        assert not (dtu / "ran").exists()


def test_dtu_reads_no_archive_that_would_fill_the_memory(dtu):
    """Small files that say, or hold, much: a shape in a header, zeros that compress well; and what is not needed."""
    def write(name, content):
        write_cameras(dtu, before)
        with zipfile.ZipFile(dtu / "cameras.npz", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.npy", content)

    before = without("world_mat_5")(cameras(dtu))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 4)})
    for content in (header.getvalue(), np.lib.format.magic(1, 0) + bytes(10**7)):
        write("world_mat_5", content)
        with refused(r"scan/cameras\.npz: not a readable npz archive of matrices \(.+\)"):
            load(dtu, train_scene=[0])
    before = cameras(write_dtu(dtu.parent / "other"))
    write("camera_mat_0", header.getvalue())
    assert load(dtu, train_scene=[0]).split.train == (0,)


@pytest.mark.parametrize("at", range(72, 200, 16))
def test_dtu_refuses_a_damaged_compressed_archive(dtu, at):
    """Damage somewhere in the first matrix: zipfile, zlib and numpy notice it, each in its own way."""
    np.savez_compressed(dtu / "cameras.npz", **cameras(dtu))
    content = bytearray((dtu / "cameras.npz").read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\xff"
    (dtu / "cameras.npz").write_bytes(content)
    with refused(r"scan/cameras\.npz: "):
        load(dtu, train_scene=[0])


def test_a_matrix_that_opencv_cannot_decompose_is_named(dtu, monkeypatch):
    decomposed, calls = cv2.decomposeProjectionMatrix, []

    def failing(matrix):
        calls.append(matrix)
        if len(calls) < 3:
            return decomposed(matrix)
        return decomposed(np.zeros((2, 2)))  # OpenCV's own error

    monkeypatch.setattr(cv2, "decomposeProjectionMatrix", failing)
    with refused(r"scan/cameras\.npz: world_mat_2 gives a camera that is none that OpenCV can decompose, expected"):
        load(dtu, train_scene=[0])


WHOLE = "expected a finite, invertible 4 x 4 matrix"
RANK_2 = np.diag([1.0, 1, 0, 1])
SHEAR = np.eye(4) + 0.1 * np.diag([1.0, 0, 0], 1)


def scaled_by(change):
    """In place of every scale_mat's 3 x 3 part."""
    def changed(matrices):
        matrix = np.block([[change, np.ones((3, 1))], [np.zeros((1, 3)), 1]])
        return matrices | {name: matrix for name in matrices if name.startswith("scale")}

    return changed


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
        (lambda c: c | {"world_mat_3": 1e300 * np.eye(4)}, rf"world_mat_3 is of numbers up to 1e\+300, {WHOLE}"),
        (lambda c: c | {"world_mat_3": 1e-300 * np.eye(4)}, f"world_mat_3 is singular, {WHOLE}"),
        (lambda c: c | {"world_mat_3": c["world_mat_3"].T}, r"the last row of world_mat_3 is \[.*\], expected 0 0 0 1"),
        (lambda c: c | {"world_mat_3": c["world_mat_3"] @ SHEAR}, "world_mat_3 gives a camera that is skewed: K is"),
        (lambda c: c | {"scale_mat_3": c["scale_mat_3"] + np.diag([0, 0, 1], 1)}, "scale_mat_3 differs from scale"),
        (lambda c: c | {"scale_mat_3": c["scale_mat_3"][:3]}, "scale_mat_3 differs from scale_mat_0"),
        (without("scale_mat_3"), "found scale_mat_0, but no scale_mat_3, expected all 6 or none"),
        (lambda c: {n: m for n, m in c.items() if n[0] == "w" or n[-1] == "5"}, "found scale_mat_5, but no scale_mat"),
        (scaled_by(np.diag([1.0, 1.0, 1.01])), "scale_mat_0 scales unevenly or shears, expected a number times a rot"),
        (scaled_by(np.eye(3) + 0.01 * np.eye(3)[[1, 2, 0]]), "scale_mat_0 scales unevenly or shears"),
        (scaled_by(np.diag([1.0, 1.0, -1.0])), "scale_mat_0 mirrors the scene, expected"),
        (lambda c: c | {f"scale_mat_{i}": np.diag([1.0, 1, 1, 0]) for i in range(6)}, "the last row of scale_mat_0 is"),
        (lambda c: c | {f"scale_mat_{i}": c["scale_mat_0"].T for i in range(6)}, "the last row of scale_mat_0 is"),
        (lambda c: c | {"scale_mat_3": np.eye(3)}, rf"scale_mat_3 is of shape \(3, 3\), {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.full((4, 4), np.inf)}, f"scale_mat_3 is not finite, {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.zeros((4, 4))}, f"scale_mat_3 is singular, {WHOLE}"),
    ],
)
def test_dtu_refuses_cameras(dtu, change, message):
    write_cameras(dtu, change(cameras(dtu)))
    with refused(rf"scan/cameras\.npz: {message}"):
        load(dtu, train_scene=[0])


def test_dtu_refuses_missing_cameras(dtu):
    (dtu / "cameras.npz").unlink()
    with refused(r"scan/cameras\.npz: no such file; a DTU scan has its cameras there"):
        load(dtu, train_scene=[0])


TWICE = "found the number of .* again, expected one image of each number"


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "--datadir .*scan/image: found no such folder, nor images, expected"),
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
        load(dtu, train_scene=[0])


@pytest.mark.parametrize("half_res", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (HEIGHT + 1, WIDTH + 1), (1, 1), (HEIGHT // 2, WIDTH // 2)])
def test_dtu_refuses_images_and_masks_of_another_size(dtu, half_res, height, width):
    """A training image's at once; a test view's is said at the start."""
    iio.imwrite(dtu / "mask/002.png", random_pixels(0, 1, height, width)[..., 0])
    with refused(rf"mask/002\.png: the mask is {width} x {height}, expected {WIDTH} x {HEIGHT} as .*, or larger"):
        load(dtu, train_scene=[0], half_res=half_res, maskdir=str(dtu / "mask"))
    iio.imwrite(dtu / "image/000003.png", random_pixels(0, 3, height, width))
    message = rf"image/000003\.png: the image is {width} x {height}, expected {WIDTH} x {HEIGHT}"
    scene = load(dtu, train_scene=[0], half_res=half_res)
    assert any(re.search(message, note) for note in scene.notes)
    for refuses in (lambda: scene.photographs.image(3), lambda: load(dtu, train_scene=[0, 3], half_res=half_res)):
        with refused(message):
            refuses()


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
        load(dtu, train_scene=[0], maskdir=str(dtu / "mask"))
