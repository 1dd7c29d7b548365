"""Cameras by COLMAP, where it is installed (requirements-capture.txt)."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

pycolmap = pytest.importorskip("pycolmap")

from infonerf.capture.dataset import largest_angle, pinhole, plain, undistortion  # noqa: E402
from infonerf.capture.photographs import EXIF_IFD, FOCAL_LENGTH_35MM, MODEL  # noqa: E402
from infonerf.capture.reconstruct import is_better  # noqa: E402
from make_scene import main  # noqa: E402
from support.photographs import FOCAL, HEIGHT, WIDTH, picture, write_photographs  # noqa: E402


def made(folder, photographs, *options):
    assert main([str(photographs), "--output", str(folder), *options]) == 0
    return plain(pycolmap.Reconstruction(folder / "sparse" / "0")), json.loads((folder / "make_scene.json").read_text())


def check_cameras(model, true, degrees):
    """Rotations between views as they are, and centres up to a similarity."""
    found = model.poses
    turned = [a[:, :3].T @ b[:, :3] for a, b in pairwise(found)]
    wanted = [a[:, :3].T @ b[:, :3] for a, b in pairwise(true)]
    cosines = [(np.trace(a.T @ b) - 1) / 2 for a, b in zip(turned, wanted, strict=True)]
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < degrees
    distances = [np.linalg.norm(a[:, 3] - b[:, 3]) for a, b in pairwise(found)]
    expected = [np.linalg.norm(a[:, 3] - b[:, 3]) for a, b in pairwise(true)]
    assert np.array(distances) / distances[0] == pytest.approx(np.array(expected) / expected[0], rel=0.03)


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six photographs, the fifth of nothing and the sixth stored on its side."""
    folder = tmp_path_factory.mktemp("six")
    true = write_photographs(folder / "photos", 6)
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(folder / "photos" / "e.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture(true[5]))).save(folder / "photos" / "f.png", exif=exif)
    return folder, true, *made(folder / "scene", folder / "photos")


def test_cameras_are_found(six):
    _, true, model, record = six
    assert model.names == ("a.png", "b.png", "c.png", "d.png", "f.png")
    assert record["not_registered"] == ["e.png"]
    check_cameras(model, true[[0, 1, 2, 3, 5]], degrees=0.5)
    width, height = record["field_of_view_degrees"]["a.png"]
    assert width == pytest.approx(np.degrees(2 * np.arctan(WIDTH / 2 / FOCAL)), abs=3)
    assert height < width
    assert record["reprojection_error_px"] < 0.5
    assert record["points"] == len(model.points) > 100


def test_a_scene_is_images_and_a_pinhole_model(six):
    folder, _, model, _ = six
    assert sorted(path.name for path in folder.iterdir()) == ["photos", "scene"]
    assert sorted(path.name for path in (folder / "scene").iterdir()) == ["cameras.png", "images", "make_scene.json",
                                                                          "sparse"]  # fmt: skip
    assert tuple(sorted(path.name for path in (folder / "scene" / "images").iterdir())) == model.names
    for name, (height, width) in zip(model.names, model.sizes, strict=True):
        with Image.open(folder / "scene" / "images" / name) as image:
            assert image.size == (width, height)
    found = pycolmap.Reconstruction(folder / "scene" / "sparse" / "0")
    assert {camera.model.name for camera in found.cameras.values()} == {"PINHOLE"}
    point = next(iter(found.points3D.values()))
    element = point.track.elements[0]
    image = found.image(element.image_id)
    assert image.project_point(point.xyz) == pytest.approx(image.points2D[element.point2D_idx].xy, abs=4)


def test_the_points_are_where_the_images_show_them(six):
    """What one view shows at a point is what another shows there."""
    folder, _, model, _ = six
    images = [np.asarray(Image.open(folder / "scene" / "images" / name)).astype(np.float32) for name in model.names]
    colours = []
    for view in (0, 2):
        local = (model.points - model.poses[view, :, 3]) @ model.poses[view, :, :3]
        fx, fy, cx, cy = model.intrinsics[view]
        places = np.stack([fx * local[:, 0] / local[:, 2] + cx, fy * local[:, 1] / local[:, 2] + cy], axis=1) - 0.5
        colours.append(cv2.remap(images[view], places[None].astype(np.float32), None, cv2.INTER_LINEAR)[0])
    inside = np.all([colour.sum(axis=1) > 0 for colour in colours], axis=0)
    assert np.corrcoef(colours[0][inside].ravel(), colours[1][inside].ravel())[0, 1] > 0.8


def test_three_photographs_keep_the_focal_length_of_their_exif(tmp_path, capsys):
    equivalent = FOCAL * 43.267 / np.hypot(WIDTH, HEIGHT)
    exif = Image.Exif()
    exif[MODEL] = "phone"
    exif.get_ifd(EXIF_IFD)[FOCAL_LENGTH_35MM] = round(equivalent)
    true = write_photographs(tmp_path / "photos", 3, exif=exif)
    model, record = made(tmp_path / "scene", tmp_path / "photos")
    assert model.intrinsics[:, :2] == pytest.approx(FOCAL * round(equivalent) / equivalent, rel=1e-6)
    assert len(record["registered"]) == 3
    check_cameras(model, true, degrees=0.5)
    for name in model.names:  # no distortion: nothing to do
        assert (tmp_path / "scene/images" / name).read_bytes() == (tmp_path / "photos" / name).read_bytes()
    assert "from the EXIF, kept" in capsys.readouterr().out


def test_photographs_of_nothing_in_common(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    assert main([str(tmp_path / "photos"), "--output", str(tmp_path / "scene")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no cameras found for 3 photographs: more overlap helps" in error
    assert "transforms.json" in error
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_undistortion_is_opencvs():
    old = pycolmap.Camera(model="SIMPLE_RADIAL", width=80, height=60, params=[70.0, 41.0, 29.0, -0.12])
    new = pinhole(old)
    k = np.array([[70.0, 0, 40.5], [0, 70, 28.5], [0, 0, 1]])
    fx, fy, cx, cy = new.params
    wanted = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    expected = cv2.initUndistortRectifyMap(k, np.array([-0.12, 0, 0, 0]), None, wanted, (new.width, new.height),
                                           cv2.CV_32FC1)  # fmt: skip
    places = undistortion(old, new)
    assert np.abs(places - np.stack(expected, axis=-1)).max() < 1e-3
    assert places.min() > -1  # it shows nothing that the old image does not
    assert np.all(places.reshape(-1, 2).max(axis=0) < [80, 60])


def test_without_distortion_a_camera_stays():
    old = pycolmap.Camera(model="SIMPLE_RADIAL", width=80, height=60, params=[70.0, 40.0, 30.0, 0.0])
    assert pinhole(old).params == pytest.approx([70, 70, 40, 30])
    assert undistortion(old, pinhole(old)) is None


def test_angles_and_what_is_better():
    assert largest_angle(np.zeros(3), np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 0]])) == pytest.approx(90)
    assert is_better((3, 10), (2, 100))
    assert is_better((3, 104), (3, 100))
    assert not is_better((3, 102), (3, 100))


