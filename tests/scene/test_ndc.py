"""Normalised device coordinates, against points that are projected one by one, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.rendering.occupancy import Occupancy
from infonerf.scene.cameras import NDC, Pixels, Rays, cat_rays
from infonerf.scene.scene import bounds_of, with_depth_range
from infonerf.training.neighbours import Drawn, MovedPose, NearPixel, RotatedPose
from support import reference
from support.draws import seeded
from support.rays import reference_rays
from support.scenes import HEIGHT, WIDTH, forward_scene, refused

NEIGHBOURHOODS = [RotatedPose(5.0), MovedPose(0.1), NearPixel(3)]


def some_pixels(n=40, views=6):
    return Pixels(*(torch.randint(high, (n,), generator=seeded(3)) for high in (views, HEIGHT, WIDTH)))


def in_world(cameras):
    return replace(cameras, ndc=None)


def assert_same_points(cameras, warped, rays):
    """The rays of NDC are those of the world: their points at depths 0 to 1 are the world's from the near plane on."""
    for i in range(len(rays)):
        start = max(float((-1 - rays.origins[i, 2]) / rays.directions[i, 2]), 0.0)
        begin = float(rays.origins[i, 2] + start * rays.directions[i, 2])
        for depth in (0.0, 0.3, 0.9):
            # At depth d the world's z is begin / (1 - d).
            z = (begin / (1 - depth) - float(rays.origins[i, 2])) / float(rays.directions[i, 2])
            point = (rays.origins[i] + z * rays.directions[i]).tolist()
            expected = reference.ndc_point(cameras.ndc.x_scale, cameras.ndc.y_scale, point)
            found = warped.origins[i] + depth * warped.directions[i]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_rays_pass_through_the_projections_of_their_points():
    cameras, pixels = forward_scene().cameras, some_pixels()
    rays, world = cameras.rays(pixels), in_world(cameras).rays(pixels)
    assert_same_points(cameras, rays, world)
    shifted = Pixels(pixels.camera, pixels.rows + 0.5, pixels.cols + 0.5)
    torch.testing.assert_close(world.directions, reference_rays(cameras, shifted)[1], rtol=0, atol=1e-13)
    torch.testing.assert_close(rays.viewdirs, world.viewdirs, rtol=0, atol=0)
    torch.testing.assert_close(rays.origins[:, 2], -torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close((rays.origins + rays.directions)[:, 2], torch.ones(40, dtype=torch.float64))


def test_the_released_formula():
    """Of a camera of one focal length and the image's centre, at any pose."""
    height, width, focal, generator = 30, 40, 25.0, seeded(1)
    origins = 0.6 * torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.3
    directions = torch.rand(50, 3, generator=generator, dtype=torch.float64) - torch.tensor([0.5, 0.5, 1.5])
    rays = NDC(2 * focal / width, 2 * focal / height).rays(Rays(origins, directions, 0.0, 1.0))
    for i in range(50):
        (ox, oy, oz), (dx, dy, dz) = origins[i].tolist(), directions[i].tolist()
        t = -(1 + oz) / dz
        ox, oy, oz = ox + t * dx, oy + t * dy, oz + t * dz
        a, b = -focal / (width / 2), -focal / (height / 2)
        origin = [a * ox / oz, b * oy / oz, 1 + 2 / oz]
        direction = [a * (dx / dz - ox / oz), b * (dy / dz - oy / oz), -2 / oz]
        torch.testing.assert_close(rays.origins[i], reference.f64(origin), rtol=0, atol=1e-12)
        torch.testing.assert_close(rays.directions[i], reference.f64(direction), rtol=0, atol=1e-12)


def test_a_camera_at_the_origin_fills_the_cube():
    """Principal point and size count for the rays alone: the map is one of the world's."""
    scene = forward_scene(2)
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(2, 1, 1)
    cameras = replace(scene.cameras, poses=poses, pixel_center=0.0, ndc=NDC(2 * 12 / WIDTH, 2 * 11 / HEIGHT),
                      intrinsics=torch.tensor([[12.0, 11, 5, 4], [12.0, 11, 4, 4.5]], dtype=torch.float64))  # fmt: skip
    corner = Pixels(torch.tensor([0, 1]), torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
    rays = cameras.rays(corner)
    torch.testing.assert_close(rays.origins[0], reference.f64([-1, 1, -1]))
    torch.testing.assert_close(rays.directions[0], reference.f64([0, 0, 2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(rays.origins[1], reference.f64([-4 / 5, 4.5 / 4, -1]))


def test_sample_depths_are_where_surfaces_are():
    cameras, pixels = forward_scene().cameras, some_pixels()
    z = 2 + 30 * torch.rand(40, generator=seeded(2), dtype=torch.float64)
    rays, world = cameras.rays(pixels), in_world(cameras).rays(pixels)
    depths = cameras.sample_depths(pixels, z)
    for i in range(40):
        point = (world.origins[i] + z[i] * world.directions[i]).tolist()
        expected = reference.ndc_point(cameras.ndc.x_scale, cameras.ndc.y_scale, point)
        torch.testing.assert_close(rays.origins[i] + depths[i] * rays.directions[i], expected, rtol=1e-10, atol=1e-10)
    assert ((depths > 0) & (depths < 1)).all()
    for outside in (0.3, -2.0):  # before the near plane, and behind
        depths = cameras.sample_depths(pixels, torch.full_like(z, outside))
        assert ((depths < 0) | (depths > 1)).all()
    assert in_world(cameras).sample_depths(pixels, z) is z


def test_a_camera_beyond_the_near_plane_begins_where_it_stands():
    cameras, pixels = forward_scene().cameras, some_pixels(views=1)
    poses = cameras.poses.clone()
    poses[0, 2, 3] = -1.7
    cameras = replace(cameras, poses=poses)
    rays = cameras.rays(pixels)
    assert_same_points(cameras, rays, in_world(cameras).rays(pixels))
    expected = reference.ndc_point(cameras.ndc.x_scale, cameras.ndc.y_scale, poses[0, :, 3].tolist())
    torch.testing.assert_close(rays.origins, expected.expand(40, 3))
    depths = cameras.sample_depths(pixels, torch.zeros(40, dtype=torch.float64))
    torch.testing.assert_close(depths, torch.zeros(40, dtype=torch.float64))


@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS, ids=str)
def test_neighbours_are_moved_in_the_world(neighbourhood):
    cameras, pixels = forward_scene().cameras, some_pixels()
    world = in_world(cameras)
    [near] = neighbourhood.neighbours([Drawn(cameras.world_rays(pixels), pixels, cameras)], seeded(4))
    [expected] = neighbourhood.neighbours([Drawn(world.rays(pixels), pixels, world)], seeded(4))
    assert_same_points(cameras, near, expected)
    torch.testing.assert_close(near.viewdirs, expected.viewdirs, rtol=0, atol=0)


@pytest.mark.parametrize("degrees", [90.0, 180.0])
def test_what_does_not_look_ahead_stays_finite(degrees):
    cameras, pixels = forward_scene().cameras.to("cpu"), some_pixels()
    [near] = RotatedPose(degrees).neighbours([Drawn(cameras.world_rays(pixels), pixels, cameras)], seeded(4))
    assert near.origins.isfinite().all()
    assert near.directions.isfinite().all()


def test_rays_keep_their_directions_in_the_world():
    rays = forward_scene().cameras.rays(some_pixels(7))
    parts = rays.split(3)
    assert [len(part.in_world) for part in parts] == [3, 3, 1]
    whole, order = cat_rays(iter(parts)), torch.tensor([3, 0])
    for name in ("origins", "directions", "in_world", "viewdirs"):
        assert torch.equal(getattr(whole, name), getattr(rays, name))
        assert torch.equal(getattr(rays.at(order), name), getattr(rays, name)[order])


def test_cameras_keep_their_ndc():
    scene = forward_scene()
    cameras = scene.cameras
    for other in (cameras.at([1]), cameras.to("cpu"), cameras.narrowed(0.5), cameras.scaled(2), scene.unseen_cameras(),
                  scene.cameras_at(scene.poses[:2])):  # fmt: skip
        assert other.ndc == cameras.ndc
    assert (cameras.narrowed(0.5).near, cameras.narrowed(0.5).far) == (0.25, 0.75)


def test_bounds_hold_all_that_training_cameras_see():
    scene = forward_scene()
    low, high = bounds_of(scene)
    assert low[2] < -1
    assert high[2] > 1
    assert (high - low < 8).all()
    occupancy = Occupancy(torch.from_numpy(np.stack([low, high])))
    for view in scene.split.train:
        rays = scene.cameras.image_rays(view)
        for depth in (0.0, 0.4, 1.0):
            assert occupancy.occupied(rays.origins + depth * rays.directions).all()


def test_depths_end_at_infinity():
    assert with_depth_range(forward_scene(), 0.1, None).near == 0.1
    with refused("--far 2: scene memory is in NDC, expected at most 1, which is infinity"):
        with_depth_range(forward_scene(), None, 2.0)
