"""Rays of pixels, neighbouring rays and the sampler, against the reference with the same draws recomputed."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

import reference
from rays import (
    NEAR,
    SEEN,
    UNSEEN,
    Cameras,
    Crop,
    Drawn,
    Epochs,
    MovedPose,
    NearPixel,
    Pixels,
    Rays,
    RaySampler,
    RotatedPose,
    cameras_of,
    cat_rays,
    central_crop,
    distinct_integers,
    image_rays,
)
from scenes import HEIGHT, WIDTH, memory_scene

GROUPS = {SEEN, UNSEEN, NEAR[SEEN], NEAR[UNSEEN]}
IMAGE = Crop(0, 0, HEIGHT, WIDTH)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene_cameras(views=(3, 0, 5), pixel_center=0.0, dtype=torch.float64):
    return cameras_of(memory_scene(), views, pixel_center, "cpu", dtype)


def transparent_cameras(n):
    """Cameras whose rays tell what they are: the origin is (pose, 0, 0), the direction (col, -row, -1)."""
    poses = torch.eye(3, 4, dtype=torch.float64).repeat(n, 1, 1)
    poses[:, 0, 3] = torch.arange(n)
    return Cameras(poses, torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).repeat(n, 1), 2.0, 6.0)


def read(rays):
    """Rays of `transparent_cameras` -> pose, row, col of each, r 3."""
    return torch.stack([rays.origins[:, 0], -rays.directions[:, 1], rays.directions[:, 0]], dim=1).long()


def drawn(cameras, n, seed):
    """n pixels of random poses, as a step would draw them."""
    pixels = Pixels(*(torch.randint(high, (n,), generator=seeded(seed)) for high in (len(cameras.poses), 8, 10)))
    return Drawn(cameras.rays(pixels), pixels, cameras)


def reference_rays(cameras, pixels, poses=None):
    """The reference's rays of `pixels`, of `poses` where they replace the cameras' own."""
    poses = cameras.poses if poses is None else poses
    pairs = [
        reference.pixel_ray(poses[pose], *cameras.intrinsics[pose].tolist(), row, col)
        for pose, row, col in zip(*(numbers.tolist() for numbers in pixels), strict=True)
    ]
    return [torch.stack(vectors) for vectors in zip(*pairs, strict=True)]


def assert_rays(rays, origins, directions, **tolerance):
    torch.testing.assert_close(rays.origins, origins.to(rays.origins), **tolerance)
    torch.testing.assert_close(rays.directions, directions.to(rays.directions), **tolerance)


def assert_uniform(counts):
    """Chi-square of counts that should be equal; five standard deviations, and the seeds are fixed."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    expected, freedom = counts.sum() / counts.numel(), counts.numel() - 1
    assert expected > 20
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


def global_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


# ---- pixels -> rays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_pixel_rays(pixel_center, dtype, tolerance):
    """Views in the order asked for, each with its own intrinsics; pixels may lie outside the image."""
    scene, views = memory_scene(), (3, 0, 5)
    cameras = cameras_of(scene, views, pixel_center, "cpu", dtype)
    pixels = Pixels(torch.arange(30) % 3, *torch.randint(-4, 14, (2, 30), generator=seeded()))
    rays = cameras.rays(pixels)
    for i, (pose, row, col) in enumerate(zip(*(numbers.tolist() for numbers in pixels), strict=True)):
        view = views[pose]
        origin, direction = reference.pixel_ray(
            scene.poses[view], *scene.intrinsics[view], row + pixel_center, col + pixel_center
        )
        torch.testing.assert_close(rays.origins[i], origin.to(dtype), rtol=0, atol=tolerance)
        torch.testing.assert_close(rays.directions[i], direction.to(dtype), rtol=0, atol=tolerance)
    assert (rays.near, rays.far, rays.origins.dtype) == (2.0, 6.0, dtype)


def test_pixel_ray_example():
    c2w = torch.tensor([[1, 0, 0, 0.1], [0, 0, -1, 0.2], [0, 1, 0, 0.3]])
    rays = Cameras(c2w[None], torch.tensor([[5.0, 5.0, 3.0, 2.0]]), 2.0, 6.0).rays(
        Pixels(torch.tensor([0, 0]), torch.tensor([1, 0]), torch.tensor([2, 0]))
    )
    assert_rays(rays, torch.tensor([[0.1, 0.2, 0.3]] * 2), torch.tensor([[-0.2, 1, 0.2], [-0.6, 1, 0.4]]))


def test_image_rays_are_those_of_the_first_camera_row_by_row():
    assert read(image_rays(transparent_cameras(2), 3, 4)).tolist() == [[0, r, c] for r in range(3) for c in range(4)]
    cameras = scene_cameras(pixel_center=0.5)
    rays = image_rays(cameras, HEIGHT, WIDTH)
    rows, cols = torch.arange(HEIGHT).repeat_interleave(WIDTH), torch.arange(WIDTH).repeat(HEIGHT)
    pixels = Pixels(torch.zeros(HEIGHT * WIDTH, dtype=torch.long), rows + 0.5, cols + 0.5)
    assert_rays(rays, *reference_rays(cameras, pixels))


def test_viewdirs_are_the_directions_at_unit_length():
    rays = drawn(scene_cameras(), 20, 0).rays
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


# ---- neighbours -----------------------------------------------------------------------------------------------------


def test_rotated_pose():
    """The pose as a whole turns about the world's origin: one draw per pose and step, of its own for each part."""
    parts = [drawn(scene_cameras(), 12, 0), drawn(scene_cameras((1, 2, 3, 4)), 9, 1)]
    generator, again = seeded(5), seeded(5)
    for _ in range(2):  # two steps: other draws
        near = RotatedPose(20.0).near(parts, generator)
        for part, rays in zip(parts, near, strict=True):
            uniform = torch.rand(len(part.cameras.poses), 3, generator=again, dtype=torch.float64)
            angles = (40 * uniform - 20).tolist()
            poses = [reference.rotate_pose(pose, *abc) for pose, abc in zip(part.cameras.poses, angles, strict=True)]
            assert_rays(rays, *reference_rays(part.cameras, part.pixels, poses), rtol=1e-12, atol=1e-12)
            assert (rays.near, rays.far) == (2.0, 6.0)


def test_rotations_are_within_the_angle():
    """Each angle is uniform on +-degrees: turned (0, 0, 1) is (sin b, -sin a cos b, cos a cos b), whatever c is."""
    n, up = 4000, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    cameras = Cameras(torch.eye(3, 4, dtype=torch.float64).repeat(n, 1, 1), torch.ones(n, 4), 2.0, 6.0)
    rays = Rays(up.repeat(n, 1), torch.eye(3, dtype=torch.float64)[0].repeat(n, 1), 2.0, 6.0)
    part = Drawn(rays, Pixels(torch.arange(n), torch.zeros(n), torch.zeros(n)), cameras)
    (turned,) = RotatedPose(30.0).near([part], seeded())
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
    (rays,) = neighbourhood.near([part], seeded())
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
        near = MovedPose(0.3).near(parts, generator)
        for part, rays in zip(parts, near, strict=True):
            moves.append(0.3 * torch.randn(len(part.cameras.poses), 3, generator=again))
            origins = part.cameras.poses[part.pixels.pose, :, 3] + moves[-1][part.pixels.pose]
            assert_rays(rays, origins, part.rays.directions, rtol=0, atol=1e-12)
            assert (rays.near, rays.far) == (2.0, 6.0)
    assert torch.cat(moves).std().item() == pytest.approx(0.3, rel=0.03)


def test_near_pixel():
    """Against the reference, from cameras of their own intrinsics: one distance for all parts, the rest per ray."""
    cameras = scene_cameras(pixel_center=0.5), scene_cameras((1, 2, 3, 4), pixel_center=0.5)
    parts = [drawn(cameras[0], 12, 0), drawn(cameras[1], 9, 1)]
    generator, again = seeded(5), seeded(5)
    for _ in range(5):
        near = NearPixel(4).near(parts, generator)
        distance = int(torch.randint(1, 5, (1,), generator=again))
        for part, rays in zip(parts, near, strict=True):
            pose, rows, cols = part.pixels
            split = torch.randint(0, distance + 1, rows.shape, generator=again)
            signs = 2 * torch.randint(0, 2, (2, *rows.shape), generator=again) - 1
            numbers = torch.stack([rows, cols, split, *signs], dim=1).tolist()
            pixels = [
                reference.neighbour_pixel(row, col, distance, part_of_it, *of_ray)
                for row, col, part_of_it, *of_ray in numbers
            ]
            rows, cols = torch.tensor(pixels).T + 0.5
            expected = reference_rays(part.cameras, Pixels(pose, rows, cols))
            assert_rays(rays, *expected, rtol=1e-12, atol=1e-12)


def test_distribution_of_near_pixels():
    cameras, reach, n_steps = transparent_cameras(2), 4, 400
    parts = [drawn(cameras, 20, 0), drawn(cameras, 10, 1)]
    generator = seeded()
    distances, splits, quadrants, outside = torch.zeros(reach + 1), torch.zeros(5, 5), torch.zeros(4), 0
    for _ in range(n_steps):
        near = NearPixel(reach).near(parts, generator)
        after = torch.cat([read(rays) for rays in near])
        pose, rows, cols = (after - torch.cat([read(part.rays) for part in parts])).unbind(-1)
        assert (pose == 0).all()
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


# ---- which pixels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "fraction", "crop"), [
    ((8, 10), 0.5, (2, 3, 4, 4)),
    ((400, 400), 0.5, (100, 100, 200, 200)),
    ((300, 400), 0.3, (105, 140, 90, 120)),
    ((8, 10), 1.0, (0, 0, 8, 10)),
    ((7, 9), 1.0, (0, 0, 6, 8)),  # as released: symmetrical about h // 2
    ((8, 10), 0.01, (3, 4, 2, 2)),
    ((1, 9), 0.5, (0, 2, 1, 4)),
    ((1, 1), 0.5, (0, 0, 1, 1)),
])  # fmt: skip
def test_central_crop(size, fraction, crop):
    crop = Crop(*crop)
    assert central_crop(*size, fraction) == crop
    pixels = torch.stack(crop.pixel(torch.arange(len(crop))), dim=1).tolist()
    rows, cols = range(crop.top, crop.top + crop.height), range(crop.left, crop.left + crop.width)
    assert pixels == [list(pixel) for pixel in itertools.product(rows, cols)]


@pytest.mark.parametrize(("n", "high"), [
    (1, 1), (5, 5), (100, 100), (24, 100), (25, 100), (26, 100), (250, 1000), (1024, 160_000), (0, 5),
])  # fmt: skip
def test_distinct_integers_are_distinct(n, high):
    for seed in range(20):
        numbers = distinct_integers(n, high, seeded(seed))
        assert numbers.shape == (n,)
        assert len(set(numbers.tolist())) == n
        assert all(0 <= number < high for number in numbers.tolist())


@pytest.mark.parametrize(("n", "high"), [(2, 8), (2, 5), (3, 12), (4, 4)])
def test_distinct_integers_are_uniform_and_in_random_order(n, high):
    """All ordered pairs of the first and the last number are alike, on both of its ways of drawing."""
    generator, counts = seeded(1), torch.zeros(high, high)
    places = torch.zeros(n, high)
    for _ in range(6000):
        numbers = distinct_integers(n, high, generator)
        counts[numbers[0], numbers[-1]] += 1
        places[torch.arange(n), numbers] += 1
    assert_uniform(counts[~torch.eye(high, dtype=torch.bool)])
    for place in places:
        assert_uniform(place)


def test_too_many_distinct_integers():
    with pytest.raises(ValueError, match="6 different integers of 5"):
        distinct_integers(6, 5, seeded())


@pytest.mark.parametrize("size", [1, 3, 10, 25])
def test_epochs_pass_over_every_number_once(size):
    """Batches stay full across the end of a pass (the released code's shrank) and may exceed a pass."""
    epochs, generator = Epochs(10), seeded()
    batches = [epochs.draw(size, generator) for _ in range(10)]
    assert all(len(batch) == size and batch.dtype == torch.int64 for batch in batches)
    passes = torch.cat(batches).reshape(-1, 10).tolist()
    assert all(sorted(numbers) == list(range(10)) for numbers in passes)
    assert len({tuple(numbers) for numbers in passes}) == size  # another order in each pass


def test_epochs_are_uniform():
    generator, counts = seeded(), torch.zeros(5, 5)
    for _ in range(1000):
        counts[torch.arange(5), Epochs(5).draw(5, generator)] += 1
    for place in counts:
        assert_uniform(place)


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 5])
def test_epochs_resume(batches):
    """From before the first pass, from the middle of one, and from the end of one (10 = 5 batches of 2 passes)."""
    epochs, generator = Epochs(10), seeded()
    for _ in range(batches):
        epochs.draw(4, generator)
    state, rng = epochs.state_dict(), generator.get_state()
    assert all(isinstance(value, int) for value in state.values())
    expected = [epochs.draw(4, generator) for _ in range(8)]
    resumed = Epochs(10)
    resumed.load_state_dict(state)
    generator.set_state(rng)
    assert torch.equal(torch.stack(expected), torch.stack([resumed.draw(4, generator) for _ in range(8)]))


def test_epochs_of_another_number_of_pixels_start_afresh():
    epochs, generator = Epochs(10), seeded()
    epochs.draw(4, generator)
    other = Epochs(12)
    other.load_state_dict(epochs.state_dict())
    assert sorted(other.draw(12, generator).tolist()) == list(range(12))


# ---- the sampler ----------------------------------------------------------------------------------------------------


def make_sampler(n_seen=3, n_unseen=2, *, batching=False, unseen=True, crop_until=0, neighbourhood=None):
    """Three seen and five unseen poses whose rays tell their pixels; the colour of a seen pixel is its number."""
    pools = {SEEN: (transparent_cameras(3), n_seen)} | ({UNSEEN: (transparent_cameras(5), n_unseen)} if unseen else {})
    images = torch.arange(3 * HEIGHT * WIDTH * 3, dtype=torch.float64).reshape(3, HEIGHT, WIDTH, 3)
    crop = central_crop(HEIGHT, WIDTH, 0.5)
    return RaySampler(
        pools, images, batching=batching, crop=crop, crop_until=crop_until, neighbourhood=neighbourhood or NearPixel(2)
    )


def colour_of(pixels):
    """The target colours of seen pixels (pose, row, col: r 3)."""
    number = (pixels[:, 0] * HEIGHT + pixels[:, 1]) * WIDTH + pixels[:, 2]
    return 3.0 * number[:, None].double() + torch.arange(3)


def inside(pixels, crop=IMAGE):
    _, rows, cols = pixels.unbind(-1)
    return (rows >= crop.top) & (rows < crop.top + crop.height) & (cols >= crop.left) & (cols < crop.left + crop.width)


def same_batch(one, other):
    return (
        one.groups.keys() == other.groups.keys()
        and torch.equal(one.target, other.target)
        and all(
            torch.equal(rays.origins, other.groups[group].origins)
            and torch.equal(rays.directions, other.groups[group].directions)
            for group, rays in one.groups.items()
        )
    )


def test_targets_are_the_pixels_of_the_view():
    """With the cameras and photographs of a scene: the ray of every target colour is that of its pixel."""
    scene, views = memory_scene(train=(4, 1)), (4, 1)
    cameras = scene_cameras(views)
    images = torch.stack([torch.from_numpy(scene.image(view)) for view in views])
    sampler = RaySampler({SEEN: (cameras, 20)}, images, batching=True)
    batch = sampler.draw(1, {SEEN}, seeded())
    rays, found = batch.groups[SEEN], set()
    for origin, direction, colour in zip(rays.origins, rays.directions, batch.target, strict=True):
        (pixel,) = [
            (view, row, col)
            for view, row, col in itertools.product(views, range(HEIGHT), range(WIDTH))
            if np.array_equal(scene.image(view)[row, col], colour.numpy())
        ]
        found.add(pixel)
        view, row, col = pixel
        expected = reference.pixel_ray(scene.poses[view], *scene.intrinsics[view], row, col)
        torch.testing.assert_close((origin, direction), expected)
    assert len(found) == 20


def test_without_batching_a_group_is_distinct_pixels_of_one_pose():
    sampler, generator = make_sampler(30, 20), seeded()
    poses = {SEEN: torch.zeros(3), UNSEEN: torch.zeros(5)}
    for step in range(1, 501):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        for group, size in ((SEEN, 30), (UNSEEN, 20)):
            pixels = read(batch.groups[group])
            assert pixels.shape == (size, 3)
            assert (pixels[:, 0] == pixels[0, 0]).all()
            assert inside(pixels).all()
            assert len(set(map(tuple, pixels.tolist()))) == size
            poses[group][pixels[0, 0]] += 1
        assert torch.equal(batch.target, colour_of(read(batch.groups[SEEN])))
    assert_uniform(poses[SEEN])
    assert_uniform(poses[UNSEEN])


def test_without_batching_all_pixels_of_a_view():
    """As many rays as pixels: every pixel once."""
    pixels = read(make_sampler(HEIGHT * WIDTH, unseen=False).draw(1, {SEEN}, seeded()).groups[SEEN])
    assert len(set(map(tuple, pixels.tolist()))) == HEIGHT * WIDTH


def test_batching_mixes_the_poses_in_shuffled_epochs():
    """3 seen views of 80 pixels are 10 batches of 24, 5 unseen ones 25 batches of 16."""
    sampler, generator = make_sampler(24, 16, batching=True), seeded()
    batches = [sampler.draw(step, {SEEN, UNSEEN}, generator) for step in range(1, 26)]
    for group, n_poses, n_batches in ((SEEN, 3, 10), (UNSEEN, 5, 25)):
        pixels = [read(batch.groups[group]) for batch in batches]
        assert all(len(set(part[:, 0].tolist())) > 1 for part in pixels)
        one_pass = torch.cat(pixels[:n_batches]).tolist()
        assert sorted(one_pass) == [
            list(pixel) for pixel in itertools.product(range(n_poses), range(HEIGHT), range(WIDTH))
        ]
    for batch in batches:
        assert torch.equal(batch.target, colour_of(read(batch.groups[SEEN])))


@pytest.mark.parametrize("batching", [False, True])
def test_crop(batching):
    """16 rays are the whole central crop of 8 x 10: before step 5 a step without batching has just these."""
    sampler, generator = make_sampler(16, 16, batching=batching, crop_until=5), seeded()
    for step in range(1, 9):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        for group in (SEEN, UNSEEN):
            pixels = read(batch.groups[group])
            in_crop = inside(pixels, Crop(2, 3, 4, 4))
            assert bool(in_crop.all()) == (step < 5 and not batching)
            assert len(set(map(tuple, pixels.tolist()))) == 16
        assert torch.equal(batch.target, colour_of(read(batch.groups[SEEN])))


@pytest.mark.parametrize("batching", [False, True])
@pytest.mark.parametrize("groups", [
    {SEEN}, {SEEN, UNSEEN}, {SEEN, NEAR[SEEN]}, {SEEN, UNSEEN, NEAR[SEEN]}, {SEEN, UNSEEN, NEAR[UNSEEN]}, GROUPS,
], ids=lambda groups: "+".join(sorted(groups)))  # fmt: skip
def test_only_the_groups_asked_for(groups, batching):
    sizes = {SEEN: 3, UNSEEN: 2, NEAR[SEEN]: 3, NEAR[UNSEEN]: 2}
    sampler = make_sampler(batching=batching)
    batch = sampler.draw(1, groups, seeded())
    assert {group: len(rays) for group, rays in batch.groups.items()} == {group: sizes[group] for group in groups}
    assert len(batch.target) == 3


@pytest.mark.parametrize("batching", [False, True])
def test_neighbours_are_paired_with_their_rays(batching):
    """A neighbour stands at the place of its ray: same pose, and the distance 1 that a reach of 1 allows."""
    sampler, generator = make_sampler(30, 20, batching=batching, neighbourhood=NearPixel(1)), seeded()
    for step in range(1, 6):
        groups = sampler.draw(step, GROUPS, generator).groups
        for group in (SEEN, UNSEEN):
            steps = read(groups[NEAR[group]]) - read(groups[group])
            assert (steps[:, 0] == 0).all()
            assert (steps.abs().sum(-1) == 1).all()


@pytest.mark.parametrize("batching", [False, True])
@pytest.mark.parametrize("neighbourhood", [RotatedPose(5.0), MovedPose(0.1), NearPixel(3)], ids=str)
def test_the_generator_alone_decides(neighbourhood, batching):
    """The global random states of torch, numpy and python are neither read nor advanced."""

    def draw(seed, global_seed):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        random.seed(global_seed)
        before = global_states()
        sampler, generator = make_sampler(20, 10, batching=batching, neighbourhood=neighbourhood), seeded(seed)
        batches = [sampler.draw(step, GROUPS, generator) for step in (1, 2)]
        assert global_states() == before
        return batches

    for one, same, other in zip(draw(1, 1), draw(1, 2), draw(2, 1), strict=True):
        assert same_batch(one, same)
        for group, rays in one.groups.items():
            assert not torch.equal(rays.directions, other.groups[group].directions)
    assert not same_batch(*draw(1, 1))  # nor does every step draw the same


def test_sampler_resumes():
    sampler, generator = make_sampler(24, 16, batching=True), seeded()
    for step in (1, 2, 3):
        sampler.draw(step, {SEEN, UNSEEN}, generator)
    state, rng = sampler.state_dict(), generator.get_state()
    expected = [sampler.draw(step, GROUPS, generator) for step in range(4, 20)]
    resumed = make_sampler(24, 16, batching=True)
    resumed.load_state_dict(state)
    generator.set_state(rng)
    assert all(same_batch(batch, resumed.draw(4, GROUPS, generator)) for batch in expected)


def test_state_of_another_configuration():
    """Without batching there is none; a state without the unseen group leaves that group at its start."""
    assert make_sampler().state_dict() == {}
    make_sampler().load_state_dict({SEEN: {"n": 240, "seed": 1, "cursor": 2}})
    sampler = make_sampler(24, 16, batching=True)
    sampler.load_state_dict(make_sampler(24, batching=True, unseen=False).state_dict())
    assert len(sampler.draw(1, GROUPS, seeded()).groups[UNSEEN]) == 16
