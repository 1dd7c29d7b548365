"""DTU scenes from files: what is loaded, when, and which input is refused."""

import io
import os
import pickle
import shutil
import zipfile

import imageio.v3 as iio
import numpy as np
import pytest

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
    spoil,
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
    with np.load(folder / "cameras.npz") as archive:
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


def test_dtu_decodes_on_demand(dtu):
    spoil(*(path for path in dtu.glob("image/*.png") if path.stem != "000002"), *dtu.glob("mask/*.png"))
    scene = load(dtu, train_scene=[2], maskdir=str(dtu / "mask"))
    assert scene.photographs.image(2).shape == (HEIGHT, WIDTH, 3)
    with refused(r"image/000000\.png: cannot be read as an image"):
        scene.photographs.image(0)
    with refused(r"mask/002\.png: cannot be read as an image"):
        scene.photographs.mask(2)


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
        (lambda c: c | {"world_mat_3": 1e300 * np.eye(4)}, rf"world_mat_3 is of numbers up to 1e\+300, {WHOLE}"),
        (lambda c: c | {"world_mat_3": 1e-300 * np.eye(4)}, f"world_mat_3 is singular, {WHOLE}"),
        (lambda c: c | {"scale_mat_3": np.eye(4)[[1, 2, 0, 3]]}, "world_mat_3 and scale_mat_3 give a camera that"),
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
        load(dtu, train_scene=[0])


@pytest.mark.parametrize("half_res", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (HEIGHT + 1, WIDTH + 1), (1, 1)])
def test_dtu_refuses_images_and_masks_of_another_size(dtu, half_res, height, width):
    iio.imwrite(dtu / "image/000003.png", random_pixels(0, 3, height, width))
    iio.imwrite(dtu / "mask/002.png", random_pixels(0, 1, height, width)[..., 0])
    scene = load(dtu, train_scene=[0], half_res=half_res, maskdir=str(dtu / "mask"))
    found = f"the image is {width} x {height}, expected {WIDTH} x {HEIGHT}"
    with refused(rf"image/000003\.png: {found}"):
        scene.photographs.image(3)
    with refused(rf"mask/002\.png: {found}"):
        scene.photographs.mask(2)


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
