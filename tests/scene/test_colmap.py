"""COLMAP models in both formats: round trips, and what is refused."""

import shutil
import struct

import numpy as np
import pytest

from infonerf.config import DataConfig
from infonerf.scene import colmap
from infonerf.scene.colmap import read_colmap
from infonerf.scene.distortion import MODELS
from infonerf.system.errors import InputError
from load_capture import load_capture
from support.captures import lens, names, poses, sparse_points, write_colmap, write_images
from support.scenes import refused


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A capture in each format, to be copied."""
    return {ending: write_colmap(tmp_path_factory.mktemp(ending), ending) for ending in ("bin", "txt")}


@pytest.fixture(params=["bin", "txt"])
def model(request, models, tmp_path):
    """A copy, and its format."""
    return shutil.copytree(models[request.param], tmp_path / "capture"), request.param


@pytest.mark.parametrize("ending", ["bin", "txt"])
@pytest.mark.parametrize("kind", MODELS)
def test_round_trip(tmp_path, ending, kind):
    capture = read_colmap(write_colmap(tmp_path, ending, kind))
    assert sorted(view.name for view in capture.views) == names()
    assert capture.notes == () and capture.splits is None
    for view in capture.views:
        number = names().index(view.name)
        np.testing.assert_allclose(view.pose, poses()[number], rtol=0, atol=1e-9)
        assert view.lens == lens(kind)
        assert view.image == tmp_path / "images" / view.name
        seen = capture.points[view.points]
        kept = sparse_points()[np.arange(60) % 3 > 0]
        np.testing.assert_allclose(seen, kept, rtol=0, atol=1e-12)
        places = (seen - view.pose[:, 3]) @ view.pose[:, :3] * [1, -1, -1]
        np.testing.assert_allclose(view.lens.project(places[:, :2] / places[:, 2:]), view.pixels, atol=1e-9)
        np.testing.assert_allclose(capture.errors[view.points], 0.2 + 0.01 * np.arange(60)[np.arange(60) % 3 > 0])


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0"])
def test_places_of_a_model(tmp_path, place):
    assert len(read_colmap(write_colmap(tmp_path, place=place)).views) == 6


def test_names_in_folders_with_spaces(tmp_path):
    listed = [f"left cam/{i} a.png" for i in range(3)] + [f"right/{i}.png" for i in range(3)]
    for ending in ("bin", "txt"):
        capture = read_colmap(write_colmap(tmp_path / ending, ending, listed=listed))
        assert sorted(view.name for view in capture.views) == listed


def test_photographs_without_camera_and_images_without_file_are_left_out(model):
    folder, _ = model
    write_images(folder / "images", ["more/new.png", "z.png"])
    (folder / "images/002.png").unlink()
    shutil.copytree(folder / "sparse/0", folder / "sparse/1")
    capture = read_colmap(folder)
    assert len(capture.views) == 5
    assert capture.notes == (
        "1 of 6 views have no image file and are left out: 002.png",
        "2 photographs of images/ have no camera in sparse/0 and are left out: more/new.png, z.png",
        "sparse/0 is read; there are other models beside it",
    )
    shutil.rmtree(folder / "images")
    with refused("found 6 views, none with a photograph"):
        read_colmap(folder)


def test_points_may_be_missing(model):
    folder, ending = model
    (folder / f"sparse/0/points3D.{ending}").unlink()
    capture = read_colmap(folder)
    assert len(capture.points) == 0 and all(len(view.points) == 0 for view in capture.views)


def test_an_image_without_places(tmp_path):
    folder = write_colmap(tmp_path, "txt")
    path = folder / "sparse/0/images.txt"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:3], "", *lines[4:]]))
    capture = read_colmap(folder)
    assert sorted(len(view.points) for view in capture.views) == [0, 40, 40, 40, 40, 40]
    scene = load_capture(DataConfig(datadir=str(folder)))
    assert np.isfinite(scene.world).all() and 0 < scene.near < scene.far


def test_no_model(tmp_path):
    with refused("found no COLMAP model, expected cameras and images"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("part", colmap.PARTS)
def test_every_cut_of_a_binary_file_is_refused(models, tmp_path, part):
    folder = shutil.copytree(models["bin"], tmp_path / "capture")
    path = folder / f"sparse/0/{part}.bin"
    content = path.read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with refused(rf"{part}\.bin: "):
            read_colmap(folder)


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, 10**12, 10**5])
@pytest.mark.parametrize("part", colmap.PARTS)
def test_a_count_that_the_file_cannot_hold_takes_no_memory(models, tmp_path, part, count):
    folder = shutil.copytree(models["bin"], tmp_path / "capture")
    path = folder / f"sparse/0/{part}.bin"
    path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
    with refused(rf"{part}\.bin: found {count} as the number of its records"):
        read_colmap(folder)


def test_a_count_of_places_or_tracks_that_the_file_cannot_hold(models, tmp_path):
    for part, at in (("images", 8 + 4 + 56 + 4 + 8), ("points3D", 8 + 8 + 24 + 3 + 8)):
        folder = shutil.copytree(models["bin"], tmp_path / part)
        path = folder / f"sparse/0/{part}.bin"
        content = bytearray(path.read_bytes())
        content[at : at + 8] = struct.pack("<Q", 2**60)
        path.write_bytes(content)
        with refused(rf"{part}\.bin: ends after {len(content)} bytes"):
            read_colmap(folder)


def replaced(old, new, part):
    return lambda folder, ending: [
        path.write_bytes(path.read_bytes().replace(old, new)) for path in [folder / f"sparse/0/{part}.{ending}"]
    ]


@pytest.mark.parametrize(("damage", "message"), [
    (replaced(b"PINHOLE", b"FISHEYE_9", "cameras"),
     "found model FISHEYE_9 of camera 38, expected one of SIMPLE_PINHOLE"),
    (replaced(b"PINHOLE", b"FOV", "cameras"), "found '3 FOV 20 16 14.0 15.0 9.6 8.3' in line 2, expected CAMERA_ID"),
    (replaced(b" 20 16", b" 20", "cameras"), "in line 2, expected CAMERA_ID MODEL WIDTH HEIGHT"),
    (replaced(b" 20 16", b" 20 -3", "cameras"), "camera 38 is of size 20 x -3"),
    (replaced(b" 14.0 15.0", b" nan 15.0", "cameras"), "camera 38 is of intrinsics"),
    (replaced(b" 14.0 15.0", b" -14.0 15.0", "cameras"), "camera 38 is of intrinsics"),
    (replaced(b"3 PINHOLE", b"4 PINHOLE", "cameras"),
     "found camera 3 for 000.png, expected one of those in cameras.txt"),
    (replaced(b"000.png", b"../0.png", "images"), "found an image of name '../0.png', expected a path within images/"),
    (replaced(b"000.png", b"/0.png", "images"), "found an image of name '/0.png', expected a path within images/"),
    (replaced(b"3 000.png", b"000.png", "images"), "expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"),
    (replaced(b" -1\n", b" x\n", "images"), None),
    (replaced(b" -1 ", b" ", "images"), "expected X Y POINT3D_ID of each place"),
    (replaced(b" 1 2 3 0.", b" 1 2 3 e.", "points3D"), "in line 2, expected POINT3D_ID X Y Z R G B ERROR"),
])  # fmt: skip
def test_damaged_text_is_refused(models, tmp_path, damage, message):
    folder = shutil.copytree(models["txt"], tmp_path / "capture")
    damage(folder, "txt")
    if message is None:
        read_colmap(folder)
        return
    with refused(rf"\.txt: .*{message}"):
        read_colmap(folder)


def test_a_rotation_of_length_0_is_refused(models, tmp_path):
    folder = shutil.copytree(models["bin"], tmp_path / "capture")
    path = folder / "sparse/0/images.bin"
    content = bytearray(path.read_bytes())
    content[12:44] = bytes(32)
    path.write_bytes(content)
    with refused("found the pose 0 0 0 0 .* of 005.png, expected a quaternion"):
        read_colmap(folder)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_gives_a_capture_or_an_input_error(models, tmp_path, seed):
    rng, ending = np.random.default_rng(seed), ("bin", "txt")[seed % 2]
    folder = shutil.copytree(models[ending], tmp_path / "capture")
    path = folder / f"sparse/0/{colmap.PARTS[seed % 3]}.{ending}"
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, len(content), 4):
        content[at] = rng.integers(0, 256)
    path.write_bytes(content)
    try:
        capture = read_colmap(folder)
    except InputError as error:
        assert str(error).isprintable() and "\n" not in str(error)
    else:
        assert all(np.isfinite(view.pose).all() for view in capture.views) and np.isfinite(capture.points).all()
