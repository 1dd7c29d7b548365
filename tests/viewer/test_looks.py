"""From pictures to 8 bits, and photographs as an eye sees them."""

from dataclasses import replace

import numpy as np
import pytest

from infonerf.viewer import looks
from infonerf.viewer.frames import Picture, Wish, camera_of
from support.scenes import memory_scene


@pytest.fixture
def picture():
    rgb = np.random.default_rng(0).random((4, 6, 3), np.float32)
    acc = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    return Picture(rgb, 2 * acc, acc, np.full((4, 6), 2.0, np.float32))


def test_colour_and_opacity(picture):
    np.testing.assert_array_equal(looks.coloured("colour", picture, 2, 6, 16), np.round(picture.rgb * 255))
    np.testing.assert_array_equal(looks.coloured("opacity", picture, 2, 6, 16)[..., 1], np.round(picture.acc * 255))


def test_near_is_bright_and_nothing_is_far(picture):
    seen = looks.coloured("depth", picture, 2, 6, 16).sum(-1, dtype=int)
    assert seen[-1, -1] > seen[0, 0] and seen[0, 0] < 10


def test_entropy_is_that_of_rays_that_see_something(picture):
    seen = looks.coloured("entropy", picture, 2, 6, 16)
    np.testing.assert_array_equal(seen[0, 0], looks.mapped(np.zeros((1, 1)))[0, 0])
    np.testing.assert_array_equal(seen[-1, -1], looks.mapped(np.full((1, 1), 0.5))[0, 0])


def test_error_is_the_difference_and_grey_where_the_photograph_ends(picture):
    truth = picture.rgb.copy()
    truth[0, 0], truth[1, 1] = np.nan, picture.rgb[1, 1] + looks.MOST_ERROR
    seen = looks.coloured("error", picture, 2, 6, 16, truth)
    assert (seen[0, 0] == looks.OUTSIDE).all()
    np.testing.assert_array_equal(seen[1, 1], looks.mapped(np.ones((1, 1)))[0, 0])
    np.testing.assert_array_equal(seen[2, 2], looks.mapped(np.zeros((1, 1)))[0, 0])
    without, colour = (looks.coloured(look, picture, 2, 6, 16) for look in ("error", "colour"))
    np.testing.assert_array_equal(without, colour)


def test_what_is_seen_through_hides_nothing(picture):
    depth = looks.hiding_depth(picture, 160.0)
    assert (depth[picture.acc <= 0.5] == 160).all()
    np.testing.assert_allclose(depth[picture.acc > 0.5], 2)


def test_what_is_no_number_is_black():
    assert (looks.eight_bit(np.array([np.nan, np.inf, -1.0])) == [0, 255, 0]).all()


def test_standing_in_a_camera_to_a_small_tolerance():
    poses = memory_scene().poses
    assert looks.view_stood_in(poses[3], poses, 4.0) == 3
    moved = poses[3].copy()
    moved[:, 3] += 0.1
    assert looks.view_stood_in(moved, poses, 4.0) is None
    turned = poses[3].copy()
    turned[:, :3] = poses[3][:, :3] @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert looks.view_stood_in(turned, poses, 4.0) is None


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_a_photograph_is_seen_where_its_rays_are(pixel_center):
    """Colours that say where their ray leads are seen on the same rays; what lies outside is NaN."""
    scene = memory_scene(pixel_center=pixel_center, sizes=[(40, 60)] * 6)
    camera = scene.cameras.at([2])
    in_camera = camera.image_rays().directions @ camera.poses[0, :, :3]
    image = in_camera.reshape(40, 60, 3).numpy()
    wish = Wish(scene.poses[2], 2 * np.arctan(2.0), (90, 150))
    seen = looks.seen_photograph(image, camera, wish, (90, 150))
    mine = camera_of(wish, (90, 150), camera)
    wanted = (mine.image_rays().directions @ mine.poses[0, :, :3]).reshape(90, 150, 3).numpy()
    inside = ~np.isnan(seen[..., 0])
    assert 0.1 < inside.mean() < 0.99
    np.testing.assert_allclose(seen[inside], wanted[inside], atol=0.5 / 11)  # half a pixel, at the edge
    middle = inside & (np.abs(wanted[..., 0]) < 0.2) & (np.abs(wanted[..., 1]) < 0.2)
    np.testing.assert_allclose(seen[middle], wanted[middle], atol=2e-3)


def test_a_smaller_picture_sees_means_of_the_photographs_pixels():
    scene = memory_scene(sizes=[(40, 40)] * 6, pixel_center=0.5)
    camera = replace(scene.cameras.at([0]), intrinsics=scene.cameras.intrinsics[:1] * 0 + 20.0)
    board = np.indices((40, 40)).sum(0) % 2 * np.ones((3, 1, 1))
    seen = looks.seen_photograph(board.transpose(1, 2, 0), camera, Wish(scene.poses[0], np.pi / 2, (10, 10)), (10, 10))
    np.testing.assert_allclose(seen, 0.5, atol=0.01)
