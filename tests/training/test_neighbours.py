"""Neighbouring rays, against the reference with the same draws recomputed."""


import pytest
import torch

from infonerf.scene.cameras import Cameras, Pixels, Rays
from infonerf.training.neighbours import Drawn, MovedPose, NearPixel, RotatedPose
from support import reference
from support.draws import assert_uniform, seeded
from support.rays import assert_rays, reference_rays
from support.scenes import read_rays, scene_cameras, transparent_cameras


def drawn(cameras, n, seed):
    """n pixels of random views, as a step would draw them."""
    pixels = Pixels(*(torch.randint(high, (n,), generator=seeded(seed)) for high in (len(cameras.poses), 8, 10)))
    return Drawn(cameras.rays(pixels), pixels, cameras)


def test_rotated_pose():
    """The pose as a whole turns about the world's origin: one draw per pose and step, of its own for each part."""
    parts = [drawn(scene_cameras(), 12, 0), drawn(scene_cameras((1, 2, 3, 4)), 9, 1)]
    generator, again = seeded(5), seeded(5)
    for _ in range(2):  # two steps: other draws
        near = RotatedPose(20.0).neighbours(parts, generator)
        for part, rays in zip(parts, near, strict=True):
            uniform = torch.rand(len(part.cameras.poses), 3, generator=again, dtype=torch.float64)
            angles = (40 * uniform - 20).tolist()
            poses = [reference.rotate_pose(pose, *abc) for pose, abc in zip(part.cameras.poses, angles, strict=True)]
            assert_rays(rays, *reference_rays(part.cameras, part.pixels, poses), rtol=1e-12, atol=1e-12)
            assert (rays.near, rays.far) == (2.0, 6.0)


def test_rotations_are_within_the_angle():
    """Each angle is uniform on +-degrees: turned (0, 0, 1) is (sin b, -sin a cos b, cos a cos b), whatever c is."""
    n, up = 4000, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(n, 1, 1)
    cameras = Cameras(poses, torch.ones(n, 4), ((1, 1),) * n, 2.0, 6.0)
    rays = Rays(up.repeat(n, 1), torch.eye(3, dtype=torch.float64)[0].repeat(n, 1), 2.0, 6.0)
    part = Drawn(rays, Pixels(torch.arange(n), torch.zeros(n), torch.zeros(n)), cameras)
    (turned,) = RotatedPose(30.0).neighbours([part], seeded())
    x, y, z = turned.origins.unbind(-1)
    b = torch.rad2deg(torch.asin(x))
    a = torch.rad2deg(torch.atan2(-y, z))
    # Turned (1, 0, 0) is (cos b cos c, ...), which leaves |c|.
    c = torch.rad2deg(torch.acos((turned.directions[:, 0] / torch.cos(torch.deg2rad(b))).clamp(-1, 1)))
    for angle, low in ((a, -30), (b, -30), (c, 0)):
        assert angle.min() >= low - 1e-9
        assert angle.max() <= 30 + 1e-9
        assert_uniform(torch.histc(angle, 20, low, 30))


@pytest.mark.parametrize("neighbourhood", [RotatedPose(20.0), MovedPose(0.3)], ids=str)
def test_rays_of_a_pose_move_alike(neighbourhood):
    """Half the rays are of pose 0, half of pose 1: two different new positions, and no change to the cameras."""
    cameras = scene_cameras()
    before = cameras.poses.clone()
    pixels = Pixels(torch.arange(8) % 2, torch.arange(8), torch.arange(8))
    part = Drawn(cameras.rays(pixels), pixels, cameras)
    (rays,) = neighbourhood.neighbours([part], seeded())
    assert (rays.origins[0::2] == rays.origins[0]).all()
    assert (rays.origins[1::2] == rays.origins[1]).all()
    moves = rays.origins[:2] - cameras.poses[:2, :, 3]
    assert moves.norm(dim=-1).min() > 0.01
    assert not torch.allclose(*moves)
    assert torch.equal(cameras.poses, before)  # the released random_pos moved the training cameras in place


def test_moved_pose():
    parts = [drawn(scene_cameras(), 12, 0), drawn(scene_cameras((1, 2, 3, 4)), 9, 1)]
    generator, again, moves = seeded(5), seeded(5), []
    for _ in range(300):
        near = MovedPose(0.3).neighbours(parts, generator)
        for part, rays in zip(parts, near, strict=True):
            moves.append(0.3 * torch.randn(len(part.cameras.poses), 3, generator=again))
            origins = part.cameras.poses[part.pixels.camera, :, 3] + moves[-1][part.pixels.camera]
            assert_rays(rays, origins, part.rays.directions, rtol=0, atol=1e-12)
            assert (rays.near, rays.far) == (2.0, 6.0)
    assert torch.cat(moves).std().item() == pytest.approx(0.3, rel=0.03)


def test_near_pixel():
    """Against the reference, from cameras of their own intrinsics: one distance for all parts, the rest per ray."""
    cameras = scene_cameras(pixel_center=0.5), scene_cameras((1, 2, 3, 4), pixel_center=0.5)
    parts = [drawn(cameras[0], 12, 0), drawn(cameras[1], 9, 1)]
    generator, again = seeded(5), seeded(5)
    for _ in range(5):
        near = NearPixel(4).neighbours(parts, generator)
        distance = int(torch.randint(1, 5, (1,), generator=again))
        for part, rays in zip(parts, near, strict=True):
            view, rows, cols = part.pixels
            split = torch.randint(0, distance + 1, rows.shape, generator=again)
            signs = 2 * torch.randint(0, 2, (2, *rows.shape), generator=again) - 1
            numbers = torch.stack([rows, cols, split, *signs], dim=1).tolist()
            pixels = [
                reference.neighbour_pixel(row, col, distance, part_of_it, *of_ray)
                for row, col, part_of_it, *of_ray in numbers
            ]
            rows, cols = torch.tensor(pixels).T + 0.5
            expected = reference_rays(part.cameras, Pixels(view, rows, cols))
            assert_rays(rays, *expected, rtol=1e-12, atol=1e-12)


def test_distribution_of_near_pixels():
    cameras, reach, n_steps = transparent_cameras(2), 4, 400
    parts = [drawn(cameras, 20, 0), drawn(cameras, 10, 1)]
    generator = seeded()
    distances, splits, quadrants, outside = torch.zeros(reach + 1), torch.zeros(5, 5), torch.zeros(4), 0
    for _ in range(n_steps):
        near = NearPixel(reach).neighbours(parts, generator)
        after = torch.cat([read_rays(rays) for rays in near])
        view, rows, cols = (after - torch.cat([read_rays(part.rays) for part in parts])).unbind(-1)
        assert (view == 0).all()
        distance = rows.abs() + cols.abs()
        assert (distance == distance[0]).all()  # one draw for the seen and the unseen part
        distances[distance[0]] += 1
        splits[distance[0]] += torch.bincount(rows.abs(), minlength=5)
        inner = (rows != 0) & (cols != 0)
        quadrants += torch.bincount((2 * (rows > 0) + (cols > 0))[inner], minlength=4)
        outside += int((after < 0).any())
    assert distances[0] == 0
    assert_uniform(distances[1:])
    for distance in range(1, reach + 1):
        assert_uniform(splits[distance, : distance + 1])
    assert_uniform(quadrants)
    assert outside
