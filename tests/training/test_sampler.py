"""The sampler: which pixels a step draws, and how it resumes."""

import itertools
import random

import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.rendering.groups import NEIGHBOURS, PATCH, SEEN, UNSEEN
from infonerf.training.generators import distinct_integers
from infonerf.training.neighbours import MovedPose, NearPixel, RotatedPose
from infonerf.training.sampler import Crop, Epochs, RaySampler, TrainingColours, central_crop
from run_nerf_helpers import create_sampler
from support import reference
from support.draws import assert_uniform, global_states, seeded
from support.scenes import (
    HEIGHT,
    WIDTH,
    memory_scene,
    random_pixels,
    read_rays,
    refused,
    scene_cameras,
    transparent_cameras,
    with_photographs,
)
from support.steps import training_colours

GROUPS = {SEEN, UNSEEN, NEIGHBOURS[SEEN], NEIGHBOURS[UNSEEN]}
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
    """Three seen and five unseen views whose rays tell their pixels; the colour of a seen pixel is its number."""
    pools = {SEEN: (transparent_cameras(3), n_seen)} | ({UNSEEN: (transparent_cameras(5), n_unseen)} if unseen else {})
    pixels = TrainingColours(torch.arange(3 * HEIGHT * WIDTH * 3, dtype=torch.float64).reshape(-1, 3))
    return RaySampler(pools, pixels, batching=batching, neighbourhood=neighbourhood or NearPixel(2),
                      crop_fraction=0.5, crop_until=crop_until)  # fmt: skip


def colour_of(pixels):
    """The target colours of seen pixels (view, row, col: r 3)."""
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
    sampler = RaySampler({SEEN: (scene_cameras(views), 20)}, training_colours(scene, torch.float32), batching=True)
    batch = sampler.draw(1, {SEEN}, seeded())
    rays, found = batch.groups[SEEN], set()
    for origin, direction, colour in zip(rays.origins, rays.directions, batch.target, strict=True):
        (pixel,) = [
            (view, row, col)
            for view, row, col in itertools.product(views, range(HEIGHT), range(WIDTH))
            if np.array_equal(scene.photographs.image(view)[row, col], colour.numpy())
        ]
        found.add(pixel)
        view, row, col = pixel
        expected = reference.pixel_ray(scene.poses[view], *scene.cameras.intrinsics[view].tolist(), row, col)
        torch.testing.assert_close((origin, direction), expected)
    assert len(found) == 20


def test_without_batching_a_group_is_distinct_pixels_of_one_view():
    sampler, generator = make_sampler(30, 20), seeded()
    views = {SEEN: torch.zeros(3), UNSEEN: torch.zeros(5)}
    for step in range(1, 501):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        for group, size in ((SEEN, 30), (UNSEEN, 20)):
            pixels = read_rays(batch.groups[group])
            assert pixels.shape == (size, 3)
            assert (pixels[:, 0] == pixels[0, 0]).all()
            assert inside(pixels).all()
            assert len(set(map(tuple, pixels.tolist()))) == size
            views[group][pixels[0, 0]] += 1
        assert torch.equal(batch.target, colour_of(read_rays(batch.groups[SEEN])))
    assert_uniform(views[SEEN])
    assert_uniform(views[UNSEEN])


def test_without_batching_all_pixels_of_a_view():
    """As many rays as pixels: every pixel once."""
    pixels = read_rays(make_sampler(HEIGHT * WIDTH, unseen=False).draw(1, {SEEN}, seeded()).groups[SEEN])
    assert len(set(map(tuple, pixels.tolist()))) == HEIGHT * WIDTH


def test_batching_mixes_the_views_in_shuffled_epochs():
    """3 seen views of 80 pixels are 10 batches of 24, 5 unseen ones 25 batches of 16."""
    sampler, generator = make_sampler(24, 16, batching=True), seeded()
    batches = [sampler.draw(step, {SEEN, UNSEEN}, generator) for step in range(1, 26)]
    for group, n_views, n_batches in ((SEEN, 3, 10), (UNSEEN, 5, 25)):
        pixels = [read_rays(batch.groups[group]) for batch in batches]
        assert all(len(set(part[:, 0].tolist())) > 1 for part in pixels)
        one_pass = torch.cat(pixels[:n_batches]).tolist()
        assert sorted(one_pass) == [
            list(pixel) for pixel in itertools.product(range(n_views), range(HEIGHT), range(WIDTH))
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
    {SEEN}, {SEEN, UNSEEN}, {SEEN, NEIGHBOURS[SEEN]}, {SEEN, UNSEEN, NEIGHBOURS[SEEN]},
    {SEEN, UNSEEN, NEIGHBOURS[UNSEEN]}, GROUPS,
], ids=lambda groups: "+".join(sorted(groups)))  # fmt: skip
def test_only_the_groups_asked_for(groups, batching):
    sizes = {SEEN: 3, UNSEEN: 2, NEIGHBOURS[SEEN]: 3, NEIGHBOURS[UNSEEN]: 2}
    sampler = make_sampler(batching=batching)
    batch = sampler.draw(1, groups, seeded())
    assert {group: len(rays) for group, rays in batch.groups.items()} == {group: sizes[group] for group in groups}
    assert len(batch.target) == 3


@pytest.mark.parametrize("batching", [False, True])
def test_neighbours_are_paired_with_their_rays(batching):
    """A neighbour stands at the place of its ray: same view, and the distance 1 that a reach of 1 allows."""
    sampler, generator = make_sampler(30, 20, batching=batching, neighbourhood=NearPixel(1)), seeded()
    for step in range(1, 6):
        groups = sampler.draw(step, GROUPS, generator).groups
        for group in (SEEN, UNSEEN):
            steps = read_rays(groups[NEIGHBOURS[group]]) - read_rays(groups[group])
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


# ---- views that differ in size and intrinsics -----------------------------------------------------------------------

SIZES = [(9, 12), (16, 8), (20, 11), (8, 24)]


def sized_sampler(n_seen, n_unseen, **options):
    """A sampler of a scene in memory whose views differ in size: seen are 2 and 0, unseen are all."""
    scene = memory_scene(4, train=(2, 0), sizes=SIZES)
    pools = {SEEN: (scene.cameras.at((2, 0)), n_seen), UNSEEN: (scene.cameras.at(range(4)), n_unseen)}
    return scene, RaySampler(pools, training_colours(scene), **options)


def pixels_of(scene, views, rays):
    """The view, row and column of each ray, by projecting it into that of `views` from whose place it comes. They are
    whole numbers, and lie within the view."""
    same = (rays.origins[:, None].numpy() == scene.poses[list(views), :, 3]).all(-1)
    assert (same.sum(1) == 1).all()
    view = np.array(views)[same.argmax(1)]
    x, y, z = np.einsum("rij,ri->jr", scene.poses[view, :, :3], rays.directions.numpy())
    fx, fy, cx, cy = scene.cameras.intrinsics.numpy()[view].T
    found = np.stack([cy - fy * y / -z, cx + fx * x / -z], axis=1)
    pixels = found.round().astype(int)
    np.testing.assert_allclose(found, pixels, rtol=0, atol=1e-9)
    assert ((pixels >= 0) & (pixels < np.array(SIZES)[view])).all()
    return list(zip(view.tolist(), *pixels.T.tolist(), strict=True))


def colours_of(scene, pixels):
    images = {view: torch.from_numpy(scene.photographs.image(view)).double() for view in range(4)}
    return torch.stack([images[view][row, col] for view, row, col in pixels])


def all_pixels(views):
    return [(view, row, col) for view in views for row in range(SIZES[view][0]) for col in range(SIZES[view][1])]


def test_sizes_with_batching_every_pixel_of_every_view_once_an_epoch():
    """The seen views have 328 pixels, 8 batches of 41; the unseen ones 648, 24 of 27; and the same in the next one."""
    scene, sampler = sized_sampler(41, 27, batching=True)
    generator, seen, unseen = seeded(), [], []
    for step in range(1, 25):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        seen += (pixels := pixels_of(scene, (2, 0), batch.groups[SEEN]))
        unseen += pixels_of(scene, range(4), batch.groups[UNSEEN])
        assert torch.equal(batch.target, colours_of(scene, pixels))
    for epoch in range(3):
        assert sorted(seen[328 * epoch : 328 * (epoch + 1)]) == sorted(all_pixels((2, 0)))
    assert sorted(unseen) == sorted(all_pixels(range(4)))
    assert len({view for view, _, _ in seen[:41]}) == 2


@pytest.mark.parametrize("crop_until", [0, 600])
def test_sizes_without_batching_distinct_pixels_of_one_view(crop_until):
    """Of the whole of it, or of its own central crop."""
    scene, sampler = sized_sampler(24, 20, batching=False, crop_fraction=0.5, crop_until=crop_until)
    generator, covered = seeded(), {SEEN: set(), UNSEEN: set()}
    for step in range(1, 600):
        batch = sampler.draw(step, {SEEN, UNSEEN}, generator)
        for group, views, n in ((SEEN, (2, 0), 24), (UNSEEN, range(4), 20)):
            pixels = pixels_of(scene, views, batch.groups[group])
            assert len({view for view, _, _ in pixels}) == 1
            assert len(set(pixels)) == n
            covered[group].update(pixels)
            if group == SEEN:
                assert torch.equal(batch.target, colours_of(scene, pixels))
    for group, views in ((SEEN, (2, 0)), (UNSEEN, range(4))):
        expected = all_pixels(views)
        if crop_until:
            crops = [central_crop(*size, 0.5) for size in SIZES]
            expected = [pixel for pixel in expected if inside(torch.tensor(pixel), crops[pixel[0]])]
        assert covered[group] == set(expected)


def test_sizes_without_batching_all_pixels_of_the_smallest_view():
    scene, sampler = sized_sampler(9 * 12, 1, batching=False)
    generator, drawn = seeded(), {}
    for step in range(1, 20):
        pixels = pixels_of(scene, (2, 0), sampler.draw(step, {SEEN}, generator).groups[SEEN])
        drawn[pixels[0][0]] = sorted(pixels)
    assert drawn[0] == all_pixels((0,))
    assert len(set(drawn[2])) == 108


@pytest.mark.parametrize("batching", [False, True])
@pytest.mark.parametrize("crop_until", [0, 1000])
def test_sizes_of_patches(batching, crop_until):
    """Whole patches of neighbouring pixels of one view each, anywhere in it, or in its central crop."""
    scene, sampler = sized_sampler(
        5, 3 * PATCH**2, batching=batching, patches=True, crop_fraction=1.0, crop_until=crop_until
    )
    generator, corners, mixed = seeded(), {view: set() for view in range(4)}, False
    for step in range(1, 400):
        pixels = pixels_of(scene, range(4), sampler.draw(step, {SEEN, UNSEEN}, generator).groups[UNSEEN])
        views = set()
        for patch in (pixels[i : i + PATCH**2] for i in range(0, len(pixels), PATCH**2)):
            view, top, left = patch[0]
            assert patch == [(view, top + row, left + col) for row in range(PATCH) for col in range(PATCH)]
            corners[view].add((top, left))
            views.add(view)
        assert len(views) == 1 or batching
        mixed |= len(views) > 1
    assert mixed == batching
    for view, (height, width) in enumerate(SIZES):
        area = Crop(0, 0, height, width)
        if crop_until and not batching:
            area = central_crop(height, width, 1.0)
        tops = range(area.top, area.top + area.height - PATCH + 1)
        lefts = range(area.left, area.left + area.width - PATCH + 1)
        assert corners[view] == set(itertools.product(tops, lefts))


@pytest.mark.parametrize("batching", [False, True])
def test_sizes_of_alphas_and_neighbours(batching):
    """An alpha belongs to the pixel that the colour does; a neighbour to the camera of its ray."""
    scene, sampler = sized_sampler(40, 20, batching=batching, neighbourhood=NearPixel(1))
    colours = training_colours(scene).rgb
    sampler.colours = TrainingColours(colours, colours[:, 1] + 2)
    batch = sampler.draw(1, GROUPS, seeded())
    assert torch.equal(batch.alpha, batch.target[:, 1] + 2)
    for group, views in ((SEEN, (2, 0)), (UNSEEN, range(4))):
        pixels, near = pixels_of(scene, views, batch.groups[group]), batch.groups[NEIGHBOURS[group]]
        for (view, row, col), origin, direction in zip(pixels, near.origins, near.directions, strict=True):
            fxfycxcy = scene.cameras.intrinsics[view].tolist()
            around = [reference.pixel_ray(scene.poses[view], *fxfycxcy, row + i, col + j)
                      for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0))]  # fmt: skip
            assert np.array_equal(origin.numpy(), scene.poses[view][:, 3])
            assert any(torch.allclose(direction, expected, rtol=0, atol=1e-12) for _, expected in around)


def test_sizes_resume():
    _, sampler = sized_sampler(41, 27, batching=True)
    generator = seeded()
    for step in (1, 2, 3):
        sampler.draw(step, {SEEN, UNSEEN}, generator)
    state, rng = sampler.state_dict(), generator.get_state()
    expected = [sampler.draw(step, {SEEN, UNSEEN}, generator) for step in range(4, 30)]
    _, resumed = sized_sampler(41, 27, batching=True)
    resumed.load_state_dict(state)
    generator.set_state(rng)
    assert all(same_batch(batch, resumed.draw(4, {SEEN, UNSEEN}, generator)) for batch in expected)


def test_sizes_as_a_run_sets_them_up():
    """Colours and alphas of all training views in a row, and no more rays than the smallest of them has pixels."""

    def alpha(view):
        return random_pixels(view + 7, 1, *SIZES[view])[..., 0].astype(np.float32) / 255

    scene = with_photographs(memory_scene(4, train=(2, 0, 3), sizes=SIZES), alpha=alpha)
    command = ["--expname", "t", "--datadir", "d", "--dataset_type", "blender", "--random_bkgd", "--white_bkgd"]
    config, _ = parse_options([*command, "--N_entropy", "0", "--N_rand", "200"])
    sampler = create_sampler(config, scene, torch.device("cpu"))
    assert torch.equal(sampler.colours.rgb, training_colours(scene, torch.float32).rgb)
    alphas = torch.cat([torch.from_numpy(alpha(view)).flatten() for view in (2, 0, 3)])
    assert torch.equal(sampler.colours.alpha, alphas)
    assert sampler.draw(1, {SEEN}, seeded()).background.shape == (200, 3)
    most = config.replace(no_batching=True, N_rand=108)
    create_sampler(most, scene, torch.device("cpu"))
    for changes, found in (({"N_rand": 109}, "N_rand 109: an image has 108"),
                           ({"N_rand": 25, "precrop_iters": 9}, "N_rand 25: the central crop .* has 24")):  # fmt: skip
        with refused(f"--{found} pixels, expected no more rays than that"):
            create_sampler(most.replace(**changes), scene, torch.device("cpu"))
