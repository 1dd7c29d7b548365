"""cameras.png: what it shows, and where."""

import numpy as np
import pytest

from infonerf.capture.dataset import Model
from infonerf.capture.picture import HEADER, PANEL, colour_of, draw, frusta, panel, world_axes
from support.photographs import FOCAL, HEIGHT, WIDTH, poses

INTRINSICS = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)


def model(found=None, points=None, **changes):
    found = poses(4) if found is None else found
    points = np.random.default_rng(0).uniform(0, 1, (200, 3)) if points is None else points
    n = len(found)
    values = {"names": tuple(f"{view}.jpg" for view in range(n)), "poses": found, "points": points,
              "intrinsics": np.tile([INTRINSICS], (n, 1)), "sizes": np.tile([HEIGHT, WIDTH], (n, 1)),
              "colours": np.full((len(points), 3), 200, np.uint8), "error": 0.5, "angle": 20.0}  # fmt: skip
    return Model(**values | changes)


def test_axes_are_those_of_the_cameras_together():
    right, up, forward = world_axes(poses(5))
    assert np.allclose(np.stack([right, up, forward]) @ np.stack([right, up, forward]).T, np.eye(3))
    assert np.allclose(np.cross(forward, up), right)
    assert up @ [0, 0, 1] > 0.8  # the cameras look down a little
    assert forward @ [-1, -1, 0] > 0.9


def test_axes_of_cameras_that_look_everywhere():
    around = []
    for angle in np.radians(range(0, 360, 30)):
        forward = np.array([np.cos(angle), np.sin(angle), 0])
        down = np.array([0, 0, -1.0])
        around.append(np.stack([np.cross(down, forward), down, forward, -forward], axis=1))
    axes = world_axes(np.stack(around))
    assert np.allclose(axes @ axes.T, np.eye(3))
    assert np.allclose(axes[1], [0, 0, 1])


def test_a_frustum_has_its_cameras_field_of_view():
    tip, *corners = frusta(model())[1]
    rays = np.array([corner - tip for corner in corners])
    across = np.linalg.norm(rays[1] - rays[0]) / (rays.mean(axis=0) @ poses(4)[1, :, 2])
    assert np.allclose(tip, poses(4)[1, :, 3])
    assert across == pytest.approx(WIDTH / FOCAL)
    assert ((rays[3] - rays[0]) @ poses(4)[1, :, 1]) > 0  # the fourth corner is below the first


def test_a_panel_shows_cameras_and_points_where_they_are():
    corners = np.array([[(0, 0), (1, 1), (1, 1), (1, -1), (1, -1)], [(0, 4), (1, 5), (1, 5), (1, 3), (1, 3)]], float)
    image = panel(corners, np.array([[4.0, 1], [4, 1]]), np.array([[250, 0, 0]] * 2, np.uint8), "name")
    scale = 800 / 6  # six units, from -1 to 5, between the margins

    def at(x, y):
        return image[round(450 - (y - 2) * scale), round(450 + (x - 2) * scale)]

    assert np.abs(at(0, 0).astype(int) - colour_of(0, 2)).max() < 40
    assert np.abs(at(0, 4).astype(int) - colour_of(1, 2)).max() < 40
    assert at(4, 1)[2] > 230 > 100 > at(4, 1)[0]  # red, in OpenCV's order


def test_a_picture_has_two_panels_and_a_legend():
    image = draw(model(), "title")
    assert image.dtype == np.uint8
    assert image.shape[0] > HEADER + PANEL + 40
    assert image.shape[1:] == (2 * PANEL, 3)
    for part in (image[:HEADER], image[HEADER : HEADER + PANEL, :PANEL], image[HEADER + PANEL :]):
        assert part.std() > 3


@pytest.mark.parametrize("changed", [
    model(points=np.zeros((0, 3))),
    model(points=np.zeros((5, 3))),
    model(found=np.repeat(poses(1), 3, axis=0)),
    model(found=np.repeat(poses(1), 3, axis=0), points=np.zeros((0, 3))),
    model(points=np.array([[0, 0, 0], [1, 1, 1], [1e9, -1e9, 1e9]])),
    model(found=poses(26), names=tuple(f"Ünïcode {n} {'x' * 60}.jpg" for n in range(26))),
])  # fmt: skip
def test_odd_models_are_drawn(changed):
    assert draw(changed, "title").shape[1] == 2 * PANEL
