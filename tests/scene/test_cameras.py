"""Rays of pixels, against the reference."""

from dataclasses import replace

import pytest
import torch

from infonerf.scene.cameras import Cameras, Pixels, Rays, cat_rays
from support import reference
from support.draws import seeded
from support.rays import assert_rays, reference_rays
from support.scenes import HEIGHT, WIDTH, memory_scene, read_rays, scene_cameras, transparent_cameras


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_pixel_rays(pixel_center, dtype, tolerance):
    """Views in the order asked for, each with its own intrinsics; pixels may lie outside the image."""
    scene, views = memory_scene(pixel_center=pixel_center), (3, 0, 5)
    cameras = scene.cameras.at(views).to("cpu", dtype)
    pixels = Pixels(torch.arange(30) % 3, *torch.randint(-4, 14, (2, 30), generator=seeded()))
    rays = cameras.rays(pixels)
    for i, (number, row, col) in enumerate(zip(*(numbers.tolist() for numbers in pixels), strict=True)):
        view = views[number]
        intrinsics = scene.cameras.intrinsics[view].tolist()
        origin, direction = reference.pixel_ray(scene.poses[view], *intrinsics, row + pixel_center, col + pixel_center)
        torch.testing.assert_close(rays.origins[i], origin.to(dtype), rtol=0, atol=tolerance)
        torch.testing.assert_close(rays.directions[i], direction.to(dtype), rtol=0, atol=tolerance)
    assert (rays.near, rays.far, rays.origins.dtype) == (2.0, 6.0, dtype)


def test_pixel_ray_example():
    c2w = torch.tensor([[1, 0, 0, 0.1], [0, 0, -1, 0.2], [0, 1, 0, 0.3]])
    cameras = Cameras(c2w[None], torch.tensor([[5.0, 5.0, 3.0, 2.0]]), ((4, 6),), 2.0, 6.0)
    rays = cameras.rays(Pixels(torch.tensor([0, 0]), torch.tensor([1, 0]), torch.tensor([2, 0])))
    assert_rays(rays, torch.tensor([[0.1, 0.2, 0.3]] * 2), torch.tensor([[-0.2, 1, 0.2], [-0.6, 1, 0.4]]))


def test_image_rays_are_those_of_one_camera_row_by_row():
    cameras = replace(transparent_cameras(2), sizes=((3, 4), (5, 2)))
    assert read_rays(cameras.image_rays()).tolist() == [[0, r, c] for r in range(3) for c in range(4)]
    assert read_rays(cameras.image_rays(1)).tolist() == [[1, r, c] for r in range(5) for c in range(2)]
    cameras = scene_cameras(pixel_center=0.5)
    rays = cameras.image_rays()
    rows, cols = torch.arange(HEIGHT).repeat_interleave(WIDTH), torch.arange(WIDTH).repeat(HEIGHT)
    pixels = Pixels(torch.zeros(HEIGHT * WIDTH, dtype=torch.long), rows + 0.5, cols + 0.5)
    assert_rays(rays, *reference_rays(cameras, pixels))


def test_viewdirs_are_the_directions_at_unit_length():
    pixels = Pixels(*(torch.randint(high, (20,), generator=seeded(0)) for high in (3, HEIGHT, WIDTH)))
    rays = scene_cameras().rays(pixels)
    lengths = torch.stack([reference.length(direction) for direction in rays.directions])
    assert lengths.min() > 1.0001  # directions are not normalised
    torch.testing.assert_close(rays.viewdirs, rays.directions / lengths[:, None], rtol=0, atol=1e-15)


def test_split_and_cat():
    rays = Rays(torch.arange(21.0).reshape(7, 3), -torch.arange(21.0).reshape(7, 3), 1.5, 9.0)
    for size, sizes in ((3, [3, 3, 1]), (7, [7]), (100, [7]), (1, [1] * 7)):
        parts = rays.split(size)
        assert [len(part) for part in parts] == sizes
        whole = cat_rays(iter(parts))
        assert_rays(whole, rays.origins, rays.directions, rtol=0, atol=0)
        assert all((part.near, part.far) == (1.5, 9.0) for part in [*parts, whole])


@pytest.mark.parametrize("factor", [1, 2, 3, 100])
def test_scaled_cameras_of_views_that_differ_in_size(factor):
    """Each view by itself: a pixel of the smaller image is where it was in the larger one, in units of the image."""
    sizes = [(8, 10), (7, 9), (3, 20), (1, 2)]
    cameras = memory_scene(4, sizes=sizes).cameras
    scaled = cameras.scaled(factor)
    assert scaled.sizes == tuple((max(height // factor, 1), max(width // factor, 1)) for height, width in sizes)
    assert (scaled.near, scaled.far, len(scaled)) == (cameras.near, cameras.far, 4)
    for view, ((height, width), (h, w)) in enumerate(zip(sizes, scaled.sizes, strict=True)):
        rows, cols = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
        rays = scaled.rays(Pixels(torch.full_like(rows, view), rows, cols))
        before = Pixels(torch.full_like(rows, view), rows * (height / h), cols * (width / w))
        expected = reference_rays(cameras, before)
        assert_rays(rays, *expected, rtol=1e-6, atol=1e-6)
        assert_rays(scaled.image_rays(view), rays.origins, rays.directions, rtol=0, atol=0)


def test_cameras_at_keep_what_is_theirs():
    cameras = memory_scene(3, sizes=[(8, 10), (7, 9), (3, 20)], pixel_center=0.5).cameras
    chosen = cameras.at((2, 0, 2))
    assert chosen.sizes == ((3, 20), (8, 10), (3, 20))
    assert torch.equal(chosen.poses, cameras.poses[[2, 0, 2]])
    assert torch.equal(chosen.intrinsics, cameras.intrinsics[[2, 0, 2]])
    assert (chosen.near, chosen.far, chosen.pixel_center) == (2.0, 6.0, 0.5)
    for number, view in enumerate((2, 0, 2)):
        rays, expected = chosen.image_rays(number), cameras.image_rays(view)
        assert len(rays) == len(expected) == cameras.sizes[view][0] * cameras.sizes[view][1]
        assert_rays(rays, expected.origins, expected.directions, rtol=0, atol=0)
