"""Camera models against OpenCV's own projection, and undistorted photographs."""

import cv2
import numpy as np
import pytest

from infonerf.scene.distortion import MODELS, Lens, pinhole_of, undistorted
from support.captures import VALUES

SIZES = {"width": 200, "height": 150}
BIG = VALUES | {"f": 140.0, "fx": 140.0, "fy": 150.0, "cx": 104.0, "cy": 71.0}


def lens(model: str, **values) -> Lens:
    return Lens.of_model(model, 200, 150, [(BIG | values)[name] for name in MODELS[model]])


def opencv(camera: Lens, places: np.ndarray) -> np.ndarray:
    """OpenCV's projection of places on the plane z = 1."""
    k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    points = np.pad(places, ((0, 0), (0, 1)), constant_values=1.0)[:, None]
    if camera.fisheye:
        k1, k2, _, _, k3, k4, _, _ = camera.coefficients
        return cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), k, np.array([k1, k2, k3, k4]))[0][:, 0]
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, np.array(camera.coefficients))[0][:, 0]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_projects_as_opencv(model):
    places = np.random.default_rng(0).uniform(-0.6, 0.6, (200, 2))
    camera = lens(model)
    np.testing.assert_allclose(camera.project(places), opencv(camera, places), rtol=0, atol=1e-9)
    np.testing.assert_allclose(camera.unproject(camera.project(places)), places, rtol=0, atol=1e-9)


def test_the_models_have_what_colmap_says():
    assert lens("SIMPLE_RADIAL").coefficients == (0.05, 0, 0, 0, 0, 0, 0, 0)
    assert lens("RADIAL").coefficients == (0.05, -0.02, 0, 0, 0, 0, 0, 0)
    assert lens("OPENCV").coefficients == (0.05, -0.02, 0.002, -0.001, 0, 0, 0, 0)
    assert lens("FULL_OPENCV").coefficients == (0.05, -0.02, 0.002, -0.001, 0.004, 0.01, -0.003, 0.001)
    assert lens("OPENCV_FISHEYE").coefficients == (0.05, -0.02, 0, 0, 0.004, 0.01, 0, 0)
    assert lens("SIMPLE_PINHOLE").intrinsics.tolist() == [140, 140, 104, 71]
    assert lens("PINHOLE").intrinsics.tolist() == [140, 150, 104, 71]
    assert [model for model in MODELS if lens(model).is_pinhole] == ["SIMPLE_PINHOLE", "PINHOLE"]
    assert [model for model in MODELS if lens(model).fisheye] == [m for m in MODELS if m.endswith("FISHEYE")]


def test_the_fox_capture():
    """instant-ngp's: pixel (0, 0) lies at (-.40130, -.69822), as its README says."""
    values = [1375.52, 1374.49, 554.558, 965.268, 0.0578421, -0.0805099, -0.000980296, 0.00015575]
    fox = Lens.of_model("OPENCV", 1080, 1920, values)
    np.testing.assert_allclose(fox.unproject(np.zeros((1, 2)))[0], [-0.40130, -0.69822], atol=5e-6)


@pytest.mark.parametrize("k1", [-0.2, -0.05, 0.0, 0.05, 0.3])
@pytest.mark.parametrize("model", MODELS)
def test_all_pixels_of_an_undistorted_image_are_of_the_photograph(model, k1):
    camera = lens(model, k1=k1)
    pinhole = pinhole_of(camera)
    assert pinhole.is_pinhole
    cols, rows = np.meshgrid(np.arange(pinhole.width) + 0.5, np.arange(pinhole.height) + 0.5)
    places = pinhole.unproject(np.stack([cols, rows], axis=-1).reshape(-1, 2))
    found = opencv(camera, places)
    assert (found >= 0.5 - 1e-3).all() and (found <= np.array([199.5, 149.5]) + 1e-3).all()
    white = np.ones((150, 200, 3), np.float32)
    image = undistorted(camera, white)
    assert image.shape == (pinhole.height, pinhole.width, 3) and (image == 1).all()
    assert pinhole.width >= 0.6 * 200 and pinhole.height >= 0.6 * 150  # the rest has no place in some of the models


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"])
def test_an_undistorted_image_shows_what_the_pinhole_camera_sees(model):
    """The photograph of a smooth function of the direction is that function again."""
    camera = lens(model)

    def picture(places):
        return np.stack([np.sin(4 * places[:, 0]), np.cos(3 * places[:, 1]), places[:, 0] * places[:, 1]], axis=-1)

    def shot(camera):
        cols, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        places = camera.unproject(np.stack([cols, rows], axis=-1).reshape(-1, 2))
        return picture(places).reshape(camera.height, camera.width, 3).astype(np.float32)

    difference = undistorted(camera, shot(camera)) - shot(pinhole_of(camera))
    assert np.abs(difference).max() < 2e-3  # of interpolation; half a pixel would be 0.014


def test_a_pinhole_is_left_alone():
    camera, pixels = lens("PINHOLE"), np.random.default_rng(0).random((150, 200, 3), np.float32)
    assert pinhole_of(camera) == camera
    assert undistorted(camera, pixels) is pixels


@pytest.mark.parametrize("values", [{"k1": -9.0}, {"k1": 1e5}, {"p1": 40.0}])
def test_a_distortion_that_folds_the_image_has_no_pinhole(values):
    assert pinhole_of(lens("OPENCV", **values)) is None


def test_a_wide_fisheye_is_cut():
    wide = Lens.of_model("OPENCV_FISHEYE", 200, 200, [60, 60, 100, 100, 0, 0, 0, 0])  # 190 degrees across
    pinhole = pinhole_of(wide)
    assert (pinhole.width, pinhole.height) == (int(2 * 60 * 3**0.5), int(2 * 60 * 3**0.5))
    assert pinhole.cx == pytest.approx(60 * 3**0.5)


def test_faults():
    assert lens("OPENCV").fault() is None
    assert "of size 0 x 150" in Lens(0, 150, 1, 1, 0, 0).fault()
    assert "of size" in Lens(2**63, 150, 1, 1, 0, 0).fault()
    assert "intrinsics" in Lens(200, 150, -1, 1, 0, 0).fault()
    assert "intrinsics" in Lens(200, 150, float("nan"), 1, 0, 0).fault()
    assert "coefficients" in Lens(200, 150, 1, 1, 0, 0, coefficients=(float("nan"),) * 8).fault()


def test_resized():
    half = lens("OPENCV").resized(100, 50)
    assert half.intrinsics.tolist() == pytest.approx([70, 50, 52, 71 / 3])
    assert half.coefficients == lens("OPENCV").coefficients
