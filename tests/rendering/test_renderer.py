"""Rendering rays and images against the reference; who draws what."""

import itertools

import pytest
import torch

from infonerf.fields.field import CoarseFine
from infonerf.rendering.compositing import Composite, Rendering
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.depths import coarse_depths, fine_depths
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.scene.cameras import Rays, cat_rays
from support import reference
from support.draws import DOUBLE, global_states, rand, seeded, some_rays
from support.scenes import HEIGHT, WIDTH, memory_scene, small_networks

MULTIRES, MULTIRES_VIEWS = 2, 1  # of `small_networks`


def renderer_of(networks, white=False, query=None, chunk=1024, **changed):
    """With as many fine samples as `small_networks` were made for, 5 or none."""
    n_importance = 0 if networks.fine is None else 5
    sampling = Sampling(4, n_importance, **({"perturb": True, "noise_std": 0.5} | changed))
    return Renderer(networks, sampling, white, query or DenseQuery(), chunk)


def assert_renderings(got, expected, **tolerance):
    assert (got.coarse is None) == (expected.coarse is None)
    for one, other in zip(got, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("netchunk", [1, 9, 1000])
def test_query(netchunk):
    """The points o + z d, each with its ray's unit direction; blocks do not matter."""
    network, rays, z = small_networks(0, True).coarse, some_rays(5), rand(5, 4, low=2, high=6)
    raw_rgb, raw_density = DenseQuery(netchunk)(network, rays, z)
    for r, s in itertools.product(range(5), range(4)):
        origin, direction = rays.origins[r], rays.directions[r]
        point, viewdir = origin + z[r, s] * direction, direction / reference.length(direction)
        expected = reference.network(network.state_dict(), point, viewdir, MULTIRES, MULTIRES_VIEWS)
        torch.testing.assert_close((raw_rgb[r, s], raw_density[r, s]), expected, rtol=1e-11, atol=1e-13)


def test_netchunk_bounds_the_points_of_a_query():
    seen = []

    def network(points, viewdirs):
        seen.append(points.shape[:2])
        return torch.zeros_like(points), torch.zeros_like(points[..., 0])

    DenseQuery(13)(network, some_rays(7), rand(7, 4))
    assert seen == [(3, 4), (3, 4), (1, 4)]


@pytest.mark.parametrize("n_importance", [0, 5])
@pytest.mark.parametrize("use_viewdirs", [False, True])
@pytest.mark.parametrize("changed", [{}, {"lindisp": True, "white": True}], ids=["plain", "lindisp-white"])
def test_rays_without_a_generator(n_importance, use_viewdirs, changed):
    """Deterministic and without noise whatever the sampling says, as in an evaluation. tests/training/test_step.py has
    the random draws."""
    networks, rays = small_networks(n_importance, use_viewdirs), some_rays(4)
    got = renderer_of(networks, **changed).rays(rays)
    states = [networks.coarse.state_dict(), networks.fine.state_dict() if n_importance else None]
    rendered = [
        reference.render_ray(
            *states, rays.origins[r], rays.directions[r], 2.0, 6.0, 4, n_importance, MULTIRES, MULTIRES_VIEWS,
            use_viewdirs, lindisp=bool(changed), white=bool(changed),
        )
        for r in range(4)
    ]  # fmt: skip
    assert (got.coarse is None) == (n_importance == 0)
    for passed, rays_of_pass in zip(got, zip(*rendered, strict=True), strict=True):
        if passed is not None:
            for field in (*Composite._fields, "disparity"):
                expected = torch.stack([ray[field] for ray in rays_of_pass])
                torch.testing.assert_close(getattr(passed, field), expected, rtol=1e-9, atol=1e-11)


def test_the_generator_alone_decides():
    """The global random states are neither read nor advanced, with a generator and without."""
    renderer, rays = renderer_of(small_networks(5, True)), some_rays(6)

    def render(generator, global_seed):
        torch.manual_seed(global_seed)
        before = global_states()
        rendering = renderer.rays(rays, generator)
        assert global_states() == before
        return rendering

    for make in (lambda: None, lambda: seeded(1)):
        assert_renderings(render(make(), 1), render(make(), 2), rtol=0, atol=0)
    one, other, even = (render(generator, 1) for generator in (seeded(1), seeded(2), None))
    for pair in itertools.combinations((one, other, even), 2):
        assert not any(torch.isclose(*weights).all() for weights in zip(*(r.coarse.alpha for r in pair), strict=True))


def constant_network(points, viewdirs):
    """Raw density 5 everywhere: so dense that noise of 1 never reaches the relu, so thin that alpha tells it."""
    return torch.zeros_like(points), torch.full_like(points[..., 0], 5.0)


def densities(passed, even):
    """relu(raw + noise) of all samples but the last, from alpha and the deterministic depths."""
    return -torch.log(1 - passed.alpha[:, :-1]) / even.diff(dim=-1)


def test_noise():
    """Of the given standard deviation, in both passes, a draw of its own for every sample; only with a generator."""
    n, along_z = 3000, torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)
    rays = Rays(torch.zeros(n, 3, dtype=DOUBLE), along_z.repeat(n, 1), 0.0, 1.0)
    networks = CoarseFine(constant_network, constant_network)
    noisy, silent = (Renderer(networks, Sampling(4, 4, perturb=False, noise_std=std)) for std in (0.7, 0.0))
    even, five = coarse_depths(rays, 4), torch.full((n, 3), 5.0, dtype=DOUBLE)
    torch.testing.assert_close(densities(noisy.rays(rays).coarse, even), five)
    torch.testing.assert_close(densities(silent.rays(rays, seeded()).coarse, even), five)

    got = noisy.rays(rays, seeded())
    z = fine_depths(even, got.coarse.weights, torch.linspace(0, 1, 4, dtype=DOUBLE).expand(n, -1))
    noise = torch.cat([densities(got.coarse, even), densities(got.fine, z)], dim=-1) - 5
    torch.testing.assert_close(noise.std(0), torch.full((10,), 0.7, dtype=DOUBLE), rtol=0.05, atol=0)
    assert noise.mean(0).abs().max() < 0.06
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.08


def test_noise_comes_on_top_of_jitter():
    networks, rays = small_networks(0, True), some_rays(5)
    noisy, silent = (renderer_of(networks, noise_std=std).rays(rays, seeded()).fine for std in (0.5, 0))
    assert not torch.isclose(noisy.alpha[:, :-1], silent.alpha[:, :-1]).all(dim=-1).any()


def make_groups(dtype=DOUBLE):
    """Groups of different sizes, in an order that is neither alphabetic nor that of the sampler."""
    sizes = {"seen": 5, "unseen_near": 1, "unseen": 4, "seen_near": 3}
    return {group: some_rays(n, 10 * i, dtype=dtype) for i, (group, n) in enumerate(sizes.items())}


@pytest.mark.parametrize(("chunk", "netchunk"), [(1, 1000), (4, 1000), (13, 1000), (1000, 1), (1000, 10), (5, 7)])
@pytest.mark.parametrize("n_importance", [0, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-11), (torch.float32, 1e-3)])
def test_groups(chunk, netchunk, n_importance, dtype, tolerance):
    """Each group gets what it would alone, in any chunks: they cross the borders of groups."""
    networks, groups = small_networks(n_importance, True, dtype), make_groups(dtype)
    got = renderer_of(networks, query=DenseQuery(netchunk), chunk=chunk).groups(groups, None)
    assert list(got) == list(groups)
    for group, rays in groups.items():
        assert isinstance(got[group], Rendering)
        assert len(got[group].fine.rgb) == len(rays)
        expected = renderer_of(networks).rays(rays)
        assert_renderings(got[group], expected, rtol=tolerance, atol=tolerance)


def test_groups_in_one_chunk_draw_as_their_rays():
    """For the seen rays, then for all others together."""
    renderer, groups, draws = renderer_of(small_networks(5, True), chunk=13), make_groups(), seeded()
    got = renderer.groups(groups, seeded())
    for part in (["seen"], ["unseen_near", "unseen", "seen_near"]):
        whole = renderer.rays(cat_rays(groups[group] for group in part), draws)
        joined = Composite(*(torch.cat(field) for field in zip(*(got[group].fine for group in part), strict=True)))
        torch.testing.assert_close(joined, whole.fine, rtol=0, atol=0)


def test_chunks_draw_different_numbers():
    """Two like rays in two chunks do not get the same jitter."""
    rays = cat_rays([some_rays(1), some_rays(1)])
    got = renderer_of(small_networks(5, True), chunk=1).groups({"seen": rays}, seeded())
    assert not torch.isclose(*got["seen"].coarse.alpha[:, :-1]).all()


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("white", [False, True])
def test_last_pass(chunk, white):
    """A view is its rays, deterministically; the progress adds up."""
    rays = memory_scene().cameras.image_rays(2)
    renderer, done = renderer_of(small_networks(5, True), white, DenseQuery(50), chunk), []
    image = renderer.last_pass(rays, done.append)
    assert sum(done) == HEIGHT * WIDTH
    assert max(done) == min(chunk, HEIGHT * WIDTH)
    for row, col in ((0, 0), (0, 9), (3, 4), (7, 0), (7, 9)):
        number = row * WIDTH + col
        ray = Rays(rays.origins[number : number + 1], rays.directions[number : number + 1], 2.0, 6.0)
        fine = renderer_of(renderer.networks, white).rays(ray).fine
        for field, value in image._asdict().items():
            torch.testing.assert_close(value[number], getattr(fine, field)[0], rtol=1e-10, atol=1e-12)
    assert not image.rgb.requires_grad
    assert float(image.rgb.std()) > 0.001


@pytest.mark.parametrize("chunk", [7, 1000])
def test_an_image_is_its_rays_in_rows(chunk):
    """Of the first camera, in float32."""
    cameras = memory_scene().cameras.at((2, 1))
    renderer, done = renderer_of(small_networks(5, True, torch.float32), True, DenseQuery(50), chunk), []
    image, flat = renderer.image(cameras, done.append), renderer.last_pass(cameras.to("cpu").image_rays())
    assert sum(done) == HEIGHT * WIDTH
    assert image.rgb.shape == (HEIGHT, WIDTH, 3)
    assert all(field.shape == (HEIGHT, WIDTH) for field in image[1:])
    assert all(torch.equal(field.flatten(0, 1), expected) for field, expected in zip(image, flat, strict=True))
    assert not image.rgb.requires_grad
    assert float(image.rgb.std()) > 0.001


def test_images_of_views_that_differ_in_size():
    """Each as its own camera sees it: pixel by pixel, at its own size, whole and at a third of that."""
    sizes = [(6, 9), (5, 4), (12, 7)]
    scene, renderer = memory_scene(3, sizes=sizes), renderer_of(small_networks(5, True, torch.float32))
    for factor, views in ((1, sizes), (3, [(2, 3), (1, 1), (4, 2)])):
        for view, (height, width) in enumerate(views):
            cameras = scene.cameras.at([view]).scaled(factor)
            image = renderer.image(cameras)
            assert image.rgb.shape == (height, width, 3)
            assert image.depth.shape == image.acc.shape == (height, width)
            fx, fy, cx, cy = scene.cameras.intrinsics[view].tolist()
            across, down = width / sizes[view][1], height / sizes[view][0]
            intrinsics = fx * across, fy * down, cx * across, cy * down
            pairs = [reference.pixel_ray(scene.poses[view], *intrinsics, row, col)
                     for row in range(height) for col in range(width)]  # fmt: skip
            origins, directions = (torch.stack(vectors).float() for vectors in zip(*pairs, strict=True))
            expected = renderer.last_pass(Rays(origins, directions, 2.0, 6.0))
            for found, value in zip(image, expected, strict=True):
                torch.testing.assert_close(found.flatten(0, 1), value, rtol=1e-3, atol=1e-3)
