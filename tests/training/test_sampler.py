"""The sampler: which pixels a step draws, and how it resumes."""

import itertools
import random

import numpy as np
import pytest
import torch

from infonerf.training.sampler import (
    NEAR,
    SEEN,
    UNSEEN,
    Crop,
    Epochs,
    MovedPose,
    NearPixel,
    RaySampler,
    RotatedPose,
    central_crop,
    distinct_integers,
)
from support import reference
from support.draws import assert_uniform, global_states, seeded
from support.scenes import HEIGHT, WIDTH, memory_scene, read_rays, scene_cameras, transparent_cameras

GROUPS = {SEEN, UNSEEN, NEAR[SEEN], NEAR[UNSEEN]}
IMAGE = Crop(0, 0, HEIGHT, WIDTH)


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
            pixels = read_rays(batch.groups[group])
            assert pixels.shape == (size, 3)
            assert (pixels[:, 0] == pixels[0, 0]).all()
            assert inside(pixels).all()
            assert len(set(map(tuple, pixels.tolist()))) == size
            poses[group][pixels[0, 0]] += 1
        assert torch.equal(batch.target, colour_of(read_rays(batch.groups[SEEN])))
    assert_uniform(poses[SEEN])
    assert_uniform(poses[UNSEEN])


def test_without_batching_all_pixels_of_a_view():
    """As many rays as pixels: every pixel once."""
    pixels = read_rays(make_sampler(HEIGHT * WIDTH, unseen=False).draw(1, {SEEN}, seeded()).groups[SEEN])
    assert len(set(map(tuple, pixels.tolist()))) == HEIGHT * WIDTH


def test_batching_mixes_the_poses_in_shuffled_epochs():
    """3 seen views of 80 pixels are 10 batches of 24, 5 unseen ones 25 batches of 16."""
    sampler, generator = make_sampler(24, 16, batching=True), seeded()
    batches = [sampler.draw(step, {SEEN, UNSEEN}, generator) for step in range(1, 26)]
    for group, n_poses, n_batches in ((SEEN, 3, 10), (UNSEEN, 5, 25)):
        pixels = [read_rays(batch.groups[group]) for batch in batches]
        assert all(len(set(part[:, 0].tolist())) > 1 for part in pixels)
        one_pass = torch.cat(pixels[:n_batches]).tolist()
        assert sorted(one_pass) == [
            list(pixel) for pixel in itertools.product(range(n_poses), range(HEIGHT), range(WIDTH))
        ]
    for batch in batches:
        assert torch.equal(batch.target, colour_of(read_rays(batch.groups[SEEN])))


@pytest.mark.parametrize("batching", [False, True])
def test_crop(batching):
    """16 rays are the whole central crop of 8 x 10: before step 5 a step without batching has just these."""
    sampler, generator = make_sampler(16, 16, batching=batching, crop_until=5), seeded()
    for step in range(1, 9):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        for group in (SEEN, UNSEEN):
            pixels = read_rays(batch.groups[group])
            in_crop = inside(pixels, Crop(2, 3, 4, 4))
            assert bool(in_crop.all()) == (step < 5 and not batching)
            assert len(set(map(tuple, pixels.tolist()))) == 16
        assert torch.equal(batch.target, colour_of(read_rays(batch.groups[SEEN])))


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
            steps = read_rays(groups[NEAR[group]]) - read_rays(groups[group])
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
