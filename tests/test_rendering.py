"""Encoding, network, depths, compositing and rendering, fast against the reference: values and gradients."""

import itertools
import math
import random
from functools import partial

import numpy as np
import pytest
import torch

import reference
from rays import Rays, cameras_of, cat_rays, image_rays
from run_nerf_helpers import (
    Composite,
    DenseQuery,
    NeRF,
    Networks,
    Rendering,
    Sampling,
    coarse_depths,
    composite,
    encoded_size,
    fine_depths,
    positional_encoding,
    render_groups,
    render_image,
    render_rays,
    sample_pdf,
)
from scenes import HEIGHT, WIDTH, memory_scene, small_networks

DOUBLE = torch.float64
MULTIRES, MULTIRES_VIEWS = 2, 1  # of `small_networks`


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=seeded(seed), dtype=DOUBLE)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE)


def global_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def assert_uniform(values, low, high, bins=20):
    """Chi-square of a histogram over equal bins; five standard deviations, and the seeds are fixed."""
    assert values.min() >= low
    assert values.max() <= high
    counts = torch.histc(values.double(), bins, low, high)
    expected = counts.sum() / bins
    assert counts.sum() == values.numel()
    assert ((counts - expected) ** 2 / expected).sum() < bins - 1 + 5 * math.sqrt(2 * (bins - 1))


# ---- positional encoding --------------------------------------------------------------------------------------------


def test_encoding_example():
    expected = [0.5, -1, 2, 0.4794, -0.8415, 0.9093, 0.8776, 0.5403, -0.4161]
    expected += [0.8415, -0.9093, -0.7568, 0.5403, -0.4161, -0.6536]
    encoded = positional_encoding(torch.tensor([0.5, -1, 2]), 2)
    torch.testing.assert_close(encoded, torch.tensor(expected), rtol=0, atol=5e-5)


@pytest.mark.parametrize(("n_freqs", "size"), [(None, 3), (0, 3), (1, 9), (4, 27), (10, 63)])
# The frequencies are exact powers of two: with 1 ulp of error, sin(2^9 x) would be off by 1e-4 in float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-14), (torch.float32, 5e-7)])
def test_encoding(n_freqs, size, dtype, tolerance):
    x = rand(4, 5, 3, low=-4, high=4).to(dtype)
    encoded = positional_encoding(x, n_freqs)
    assert encoded.shape == (4, 5, size)
    assert encoded.dtype == dtype
    assert encoded_size(n_freqs) == size
    for i, j in itertools.product(range(4), range(5)):
        expected = reference.encode(x[i, j], n_freqs).to(dtype)
        torch.testing.assert_close(encoded[i, j], expected, rtol=0, atol=tolerance)


def test_encoding_gradient():
    x = rand(4, 3, low=-2, high=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: positional_encoding(x, 3), x)


# ---- the network ----------------------------------------------------------------------------------------------------


def shapes(network):
    return [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]


def layers(*named):
    """Names and shapes of weights and biases, in order, from (name, outputs, inputs)."""
    return [entry for name, n_out, n_in in named for entry in
            ((f"{name}.weight", (n_out, n_in)), (f"{name}.bias", (n_out,)))]  # fmt: skip


def test_parameters_of_the_released_network():
    trunk = [(f"pts_linears.{i}", 256, {0: 63, 5: 319}.get(i, 256)) for i in range(8)]
    heads = [("feature_linear", 256, 256), ("alpha_linear", 1, 256), ("rgb_linear", 3, 128)]
    network = NeRF(generator=seeded())
    assert shapes(network) == layers(*trunk, ("views_linears.0", 128, 283), *heads)
    assert list(network.state_dict()) == [name for name, _ in shapes(network)]
    assert sum(parameter.numel() for parameter in network.parameters()) == 595_844
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("output_ch", [4, 5])
def test_parameters_without_viewing_directions(output_ch):
    network = NeRF(6, 8, None, None, use_viewdirs=False, output_ch=output_ch, generator=seeded())
    trunk = [(f"pts_linears.{i}", 8, {0: 3, 5: 11}.get(i, 8)) for i in range(6)]
    assert shapes(network) == layers(*trunk, ("views_linears.0", 4, 8), ("output_linear", output_ch, 8))


def test_parameters_of_the_optimizer_are_coarse_then_fine():
    networks = small_networks(3, True)
    expected = [*networks.coarse.parameters(), *networks.fine.parameters()]
    assert all(one is other for one, other in zip(networks.parameters(), expected, strict=True))
    coarse_only = small_networks(0, True)
    assert len(coarse_only.parameters()) == len(list(coarse_only.coarse.parameters()))


@pytest.mark.parametrize("depth", [1, 4, 5, 6, 8])
@pytest.mark.parametrize("use_viewdirs", [False, True])
@pytest.mark.parametrize("freqs", [(2, 1), (None, None), (3, None), (0, 2)], ids=str)
def test_network(depth, use_viewdirs, freqs):
    network = NeRF(depth, 8, *freqs, use_viewdirs=use_viewdirs, output_ch=5, generator=seeded()).to(DOUBLE)
    points, viewdirs = randn(3, 2, 3), randn(3, 3, seed=1)
    viewdirs = viewdirs / viewdirs.norm(dim=-1, keepdim=True)
    raw_rgb, raw_density = network(points, viewdirs)
    assert (raw_rgb.shape, raw_density.shape) == ((3, 2, 3), (3, 2))
    for r, s in itertools.product(range(3), range(2)):
        expected = reference.network(network.state_dict(), points[r, s], viewdirs[r], *freqs)
        torch.testing.assert_close((raw_rgb[r, s], raw_density[r, s]), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("use_viewdirs", [False, True])
def test_network_gradient(use_viewdirs):
    network = NeRF(6, 4, 1, 1, use_viewdirs=use_viewdirs, generator=seeded(3)).to(DOUBLE)
    names, parameters = zip(*network.named_parameters(), strict=True)

    def outputs(points, viewdirs, *parameters):
        return torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (points, viewdirs))

    inputs = (randn(2, 2, 3, seed=4).requires_grad_(), randn(2, 3, seed=5).requires_grad_())
    assert torch.autograd.gradcheck(outputs, (*inputs, *parameters))


def test_initial_weights():
    """PyTorch's default: weights and biases uniform within 1/sqrt(inputs)."""
    network = NeRF(generator=seeded())
    for name, layer in network.named_modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            assert parameter.abs().max() <= bound, name
            if parameter.numel() >= 128:
                assert parameter.abs().max() > 0.95 * bound, name
                assert_uniform(parameter.detach() / bound, -1, 1, bins=8)
    weights = [layer.weight.flatten()[:100] for layer in network.pts_linears[1:5]]
    assert not any(torch.equal(*pair) for pair in itertools.combinations(weights, 2))


@pytest.mark.parametrize("n_in", [63, 319])
def test_initial_bounds_are_those_of_torch(n_in):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Linear(n_in, 2000)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max().item() == pytest.approx(n_in**-0.5, rel=5e-3)
        assert_uniform(parameter.detach() * n_in**0.5, -1.0001, 1.0001)


def test_seed_of_the_initial_weights():
    """The generator alone decides; the global random states are neither read nor advanced."""

    def flat(seed, global_seed):
        torch.manual_seed(global_seed)
        before = global_states()
        network = NeRF(6, 8, generator=seeded(seed))
        assert global_states() == before
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    assert torch.equal(flat(1, 1), flat(1, 2))
    assert not torch.isclose(flat(1, 1), flat(2, 1)).any()


# ---- depths ---------------------------------------------------------------------------------------------------------


def some_rays(n, seed=0, near=2.0, far=6.0, dtype=DOUBLE):
    return Rays(randn(n, 3, seed=seed).to(dtype), randn(n, 3, seed=seed + 1).to(dtype), near, far)


@pytest.mark.parametrize("lindisp", [False, True])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 8])
@pytest.mark.parametrize("jitter", [False, True])
def test_coarse_depths(lindisp, n_samples, jitter):
    u = rand(3, n_samples) if jitter else None
    z = coarse_depths(some_rays(3, near=0.5, far=7.0), n_samples, lindisp, u)
    assert z.shape == (3, n_samples)
    for r in range(3):
        expected = reference.coarse_depths(0.5, 7.0, n_samples, lindisp, u[r] if jitter else None)
        torch.testing.assert_close(z[r], expected, rtol=1e-14, atol=0)
    if not jitter:
        assert z[0, 0] == 0.5
        assert n_samples == 1 or z[0, -1] == pytest.approx(7.0)


@pytest.mark.parametrize("lindisp", [False, True])
def test_random_coarse_depths_are_uniform_in_their_intervals(lindisp):
    """Between the midpoints of the even depths; the first and last interval end at near and far."""
    z = coarse_depths(some_rays(3000), 5, lindisp, torch.rand(3000, 5, generator=seeded(), dtype=DOUBLE))
    even = [2.0, 2.4, 3.0, 4.0, 6.0] if lindisp else [2.0, 3.0, 4.0, 5.0, 6.0]
    edges = [2.0, *((a + b) / 2 for a, b in itertools.pairwise(even)), 6.0]
    for k in range(5):
        assert_uniform(z[:, k], edges[k], edges[k + 1])
    assert not torch.isclose(z[0], z[1]).any()


def test_sample_pdf_example():
    edges, weights = torch.tensor([[2.0, 3, 4, 6]]), torch.tensor([[0.1, 0.7, 0.2]])
    drawn = sample_pdf(edges, weights, torch.linspace(0, 1, 5)[None])
    torch.testing.assert_close(drawn, torch.tensor([[2.0000, 3.2143, 3.5714, 3.9286, 6.0000]]), rtol=0, atol=1e-4)


def bins(kind, n_rays=6, n_bins=7):
    """edges (r b+1) and weights (r b) of a kind that occurs, or that is extreme."""
    edges, weights = rand(n_rays, n_bins + 1, low=2, high=6).sort(-1).values, rand(n_rays, n_bins, seed=1)
    if kind == "empty bins":
        weights[:, ::2] = 0
    elif kind == "all empty":
        weights[:] = 0
    elif kind == "one hot":
        weights = torch.eye(n_bins, dtype=DOUBLE)[:n_rays]
    elif kind == "tiny":
        weights *= 1e-30
    elif kind == "huge":
        weights *= 1e6
    elif kind == "bins of no length":
        edges[:, 2:5] = edges[:, 2:3]
    return edges, weights


KINDS = ["random", "empty bins", "all empty", "one hot", "tiny", "huge", "bins of no length"]


@pytest.mark.parametrize("kind", KINDS)
def test_sample_pdf(kind):
    edges, weights = bins(kind)
    u = rand(6, 40, seed=2)
    u[:, 0] = 0
    drawn = sample_pdf(edges, weights, u)
    for r in range(6):
        expected = reference.inverse_transform(edges[r], weights[r], u[r])
        torch.testing.assert_close(drawn[r], expected, rtol=1e-9, atol=1e-9)
    # In float32: never outside the edges, and in the order of u.
    drawn = sample_pdf(edges.float(), weights.float(), u.sort(-1).values.float())
    assert (drawn >= edges[:, :1].float() - 1e-6).all()
    assert (drawn <= edges[:, -1:].float() + 1e-6).all()
    assert (drawn.diff(dim=-1) >= -1e-5).all()


def test_sample_pdf_in_light_bins():
    """A bin of mass below 1e-5 is divided by 1 instead: u just inside it hardly leaves its lower edge."""
    weights = torch.tensor([[0.7, 0.0, 0.7]], dtype=DOUBLE)
    edges = torch.tensor([[0.0, 1, 2, 3]], dtype=DOUBLE)
    u = torch.tensor([[(0.7 + 1.5e-5) / (1.4 + 3e-5)]], dtype=DOUBLE)
    drawn = sample_pdf(edges, weights, u)
    assert drawn.item() == pytest.approx(1 + 0.5e-5 / 1.4, abs=1e-8)
    torch.testing.assert_close(drawn[0], reference.inverse_transform(edges[0], weights[0], u[0]))
    # A bin is closed at its lower end: u at the very top of a light bin is at the start of the next.
    weights, edges = torch.tensor([[0.0, 3.0]], dtype=DOUBLE), edges[:, :3]
    u = torch.tensor([[1e-5 / (1e-5 + (3 + 1e-5))]], dtype=DOUBLE)
    assert sample_pdf(edges, weights, u).item() == 1


def test_samples_follow_the_weights():
    """Per bin as many samples as it has weight, and within each bin uniformly; a bin of no weight has 1e-5."""
    edges = torch.tensor([[2.0, 2.5, 4.0, 4.0, 5.0, 6.0]], dtype=DOUBLE)
    weights = torch.tensor([[0.3, 0.1, 0.2, 0.0, 0.4]], dtype=DOUBLE)
    n = 20000
    drawn = sample_pdf(edges, weights, rand(1, n))[0]
    at_4 = drawn == 4.0  # the bin of no length
    assert at_4.double().mean().item() == pytest.approx(0.2, abs=0.015)
    for k in (0, 1, 4):
        low, high = edges[0, k].item(), edges[0, k + 1].item()
        inside = drawn[(drawn >= low) & (drawn < high) & ~at_4]
        assert len(inside) / n == pytest.approx(weights[0, k].item(), abs=0.015)
        assert_uniform(inside, low, high)
    assert ((drawn > 4) & (drawn < 5)).sum() < 10


def test_samples_of_an_empty_ray_are_uniform():
    edges = torch.linspace(2, 6, 9, dtype=DOUBLE).expand(1, -1)
    assert_uniform(sample_pdf(edges, torch.zeros(1, 8, dtype=DOUBLE), rand(1, 20000)), 2, 6)


def test_fine_depths():
    z, weights = rand(4, 6, low=2, high=6).sort(-1).values, rand(4, 6, seed=1).requires_grad_()
    u = rand(4, 9, seed=2)
    got = fine_depths(z, weights, u)
    assert got.shape == (4, 15)
    assert (got.diff(dim=-1) >= 0).all()
    assert not got.requires_grad
    for r in range(4):
        torch.testing.assert_close(got[r], reference.fine_depths(z[r], weights[r], u[r]), rtol=1e-12, atol=0)
        assert set(z[r].tolist()) <= set(got[r].tolist())


# ---- compositing ----------------------------------------------------------------------------------------------------


def test_compositing_example():
    raw_rgb = torch.tensor([[[0.0, 0, 0], [1, -1, 2], [2, 0, 0], [-1, 1, 0]]])
    density, z = torch.tensor([[1, -3, 5, 0.5]]), torch.tensor([[2, 3, 3.5, 5]])
    got = composite(raw_rgb, density, z, torch.tensor([[0, 0.3, -1]]))
    expected = Composite(
        rgb=torch.tensor([[0.633967, 0.500032, 0.5]]),
        depth=torch.tensor([2.528259]),
        acc=torch.tensor([1.0]),
        disparity=torch.tensor([0.395529]),
        weights=torch.tensor([[0.647967, 0, 0.351893, 0.00014]]),
        alpha=torch.tensor([[0.647967, 0, 0.999602, 1]]),
        density=torch.tensor([[1, 0, 5, 0.5]]),
        z=z,
    )
    for field, value in expected._asdict().items():
        torch.testing.assert_close(getattr(got, field), value, rtol=0, atol=1e-6, msg=field)


def reference_composites(raw_rgb, raw_density, z, directions, noise, white):
    """The reference, ray by ray, stacked into a Composite."""
    rays = [
        reference.composite(raw_rgb[r], raw_density[r], z[r], directions[r], None if noise is None else noise[r], white)
        for r in range(len(z))
    ]
    return Composite(*(torch.stack([ray[field] for ray in rays]) for field in Composite._fields))


def gradients(got, inputs, fields):
    """Gradients of a fixed random combination of `fields` in raw colour and density."""
    total = sum((getattr(got, field) * rand(*getattr(got, field).shape, seed=i).to(got.rgb)).sum()
                for i, field in enumerate(fields))  # fmt: skip
    return torch.autograd.grad(total, inputs)


def compare_composite(raw_rgb, raw_density, z, directions, noise=None, white=False, fields=Composite._fields):
    """Ours in float64 equals the reference, in float32 is finite and near it; the same for gradients of `fields`."""
    inputs = (raw_rgb.requires_grad_(), raw_density.requires_grad_())
    got = composite(*inputs, z, directions, noise, white)
    expected = reference_composites(*inputs, z, directions, noise, white)
    ours, theirs = gradients(got, inputs, fields), gradients(expected, inputs, fields)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)

    inputs = [tensor.detach().float().requires_grad_() for tensor in inputs]
    got = composite(*inputs, z.float(), directions.float(), None if noise is None else noise.float(), white)
    for field in Composite._fields:
        torch.testing.assert_close(getattr(got, field), getattr(expected, field).float(), rtol=1e-4, atol=2e-6)
    for one, other in zip(gradients(got, inputs, fields), theirs, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize(("n_rays", "n_samples"), [(5, 8), (1, 8), (5, 1), (1, 1), (3, 2)])
def test_composite(noise, white, n_rays, n_samples):
    shape = (n_rays, n_samples)
    compare_composite(
        3 * randn(*shape, 3), 2 * randn(*shape, seed=1), rand(*shape, seed=2, low=2, high=6).sort(-1).values,
        randn(n_rays, 3, seed=3), randn(*shape, seed=4) if noise else None, white,
    )  # fmt: skip


EXTREMES = [0.0, 1e-30, 1e4, 1e8, -5.0]


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("equal_depths", [False, True])
def test_composite_of_extreme_densities(white, equal_depths):
    """Every sequence of four extremes, also with depths that coincide (bins of no length).

    The disparity's gradient, which no loss uses, is left out: that of a ray of acc 0 is not finite.
    """
    density = torch.tensor(list(itertools.product(EXTREMES, repeat=4)), dtype=DOUBLE)[:: 2 if white else 3]
    z = torch.tensor([2.0, 3.0, 3.0, 3.0] if equal_depths else [2.0, 3.0, 3.5, 5.0], dtype=DOUBLE)
    compare_composite(
        randn(len(density), 4, 3), density, z.expand(len(density), -1), randn(len(density), 3, seed=1), white=white,
        fields=("rgb", "depth", "acc", "weights", "alpha"),
    )  # fmt: skip


@pytest.mark.parametrize("white", [False, True])
def test_ray_that_misses_everything(white):
    """Background, disparity 0, nothing NaN (the released disparity was), and no gradient, the disparity's included."""
    density = torch.tensor([[-1.0, 0.0, -1e8, -1e-30]], requires_grad=True)
    raw_rgb = torch.zeros(1, 4, 3, requires_grad=True)
    got = composite(raw_rgb, density, torch.tensor([[2.0, 3, 3, 5]]), torch.tensor([[0, 0.3, -1]]), None, white)
    assert (got.rgb == float(white)).all()
    assert all((getattr(got, field) == 0).all() for field in ("depth", "acc", "disparity", "weights", "alpha"))
    for gradient in gradients(got, (raw_rgb, density), Composite._fields):
        assert (gradient == 0).all()


def test_long_opaque_ray():
    """192 opaque samples: the transmittance, 1e-10 to the power of up to 191, underflows without harm."""
    density = torch.full((1, 192), 1e4, requires_grad=True)
    raw_rgb = torch.zeros(1, 192, 3, requires_grad=True)
    z = torch.linspace(2, 6, 192)[None]
    got = composite(raw_rgb, density, z, torch.tensor([[0.0, 0, -1]]))
    assert all(field.isfinite().all() for field in got)
    assert got.depth.item() == pytest.approx(2)
    assert all(gradient.isfinite().all() for gradient in gradients(got, (raw_rgb, density), Composite._fields))


@pytest.mark.parametrize("white", [False, True])
def test_composite_gradient(white):
    """Densities on both sides of 0, none near enough for the finite difference to cross it."""
    density = torch.tensor([[0.5, -0.7, 0.3, 0.2], [-0.5, 0.9, 1.3, -0.4], [-1.0, -1.0, 0.4, -1.0]], dtype=DOUBLE)
    z = torch.tensor([[2.0, 3.0, 3.5, 5.0]], dtype=DOUBLE).repeat(3, 1)
    inputs = (randn(3, 4, 3), density, z, randn(3, 3, seed=1), 0.1 * rand(3, 4))
    render = partial(composite, white_background=white)
    assert torch.autograd.gradcheck(lambda *args: tuple(render(*args)), [x.requires_grad_() for x in inputs])


# ---- rendering ------------------------------------------------------------------------------------------------------


def sampling_of(n_importance, **changed):
    return Sampling(4, n_importance, **({"perturb": True, "noise_std": 0.5} | changed))


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
@pytest.mark.parametrize("changed", [{}, {"lindisp": True, "white_background": True}], ids=["plain", "lindisp-white"])
def test_render_rays_without_a_generator(n_importance, use_viewdirs, changed):
    """Deterministic and without noise whatever the sampling says, as in an evaluation. tests/test_step.py has the
    random draws."""
    networks, rays = small_networks(n_importance, use_viewdirs), some_rays(4)
    got = render_rays(networks, rays, sampling_of(n_importance, **changed))
    states = [network.state_dict() if network is not None else None for network in networks]
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
            expected = [torch.stack([ray[field] for ray in rays_of_pass]) for field in Composite._fields]
            torch.testing.assert_close(tuple(passed), tuple(expected), rtol=1e-9, atol=1e-11)


def test_the_generator_alone_decides():
    """The global random states are neither read nor advanced, with a generator and without."""
    networks, rays = small_networks(5, True), some_rays(6)

    def render(generator, global_seed):
        torch.manual_seed(global_seed)
        before = global_states()
        rendering = render_rays(networks, rays, sampling_of(5), generator)
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
    networks, noisy = Networks(constant_network, constant_network), Sampling(4, 4, perturb=False, noise_std=0.7)
    even, five = coarse_depths(rays, 4), torch.full((n, 3), 5.0, dtype=DOUBLE)
    torch.testing.assert_close(densities(render_rays(networks, rays, noisy).coarse, even), five)
    silent = render_rays(networks, rays, Sampling(4, 4, perturb=False), seeded())
    torch.testing.assert_close(densities(silent.coarse, even), five)

    got = render_rays(networks, rays, noisy, seeded())
    z = fine_depths(even, got.coarse.weights, torch.linspace(0, 1, 4, dtype=DOUBLE).expand(n, -1))
    noise = torch.cat([densities(got.coarse, even), densities(got.fine, z)], dim=-1) - 5
    torch.testing.assert_close(noise.std(0), torch.full((10,), 0.7, dtype=DOUBLE), rtol=0.05, atol=0)
    assert noise.mean(0).abs().max() < 0.06
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.08


def test_noise_comes_on_top_of_jitter():
    networks, rays = small_networks(0, True), some_rays(5)
    noisy, silent = (render_rays(networks, rays, sampling_of(0, noise_std=std), seeded()).fine for std in (0.5, 0))
    assert not torch.isclose(noisy.alpha[:, :-1], silent.alpha[:, :-1]).all(dim=-1).any()


def make_groups(dtype=DOUBLE):
    """Groups of different sizes, in an order that is neither alphabetic nor that of the sampler."""
    sizes = {"seen": 5, "unseen_near": 1, "unseen": 4, "seen_near": 3}
    return {group: some_rays(n, 10 * i, dtype=dtype) for i, (group, n) in enumerate(sizes.items())}


@pytest.mark.parametrize(("chunk", "netchunk"), [(1, 1000), (4, 1000), (13, 1000), (1000, 1), (1000, 10), (5, 7)])
@pytest.mark.parametrize("n_importance", [0, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-11), (torch.float32, 1e-3)])
def test_render_groups(chunk, netchunk, n_importance, dtype, tolerance):
    """Each group gets what it would alone, in any chunks: they cross the borders of groups."""
    networks, groups = small_networks(n_importance, True, dtype), make_groups(dtype)
    got = render_groups(networks, groups, sampling_of(n_importance), None, chunk, DenseQuery(netchunk))
    assert list(got) == list(groups)
    for group, rays in groups.items():
        assert isinstance(got[group], Rendering)
        assert len(got[group].fine.rgb) == len(rays)
        expected = render_rays(networks, rays, sampling_of(n_importance))
        assert_renderings(got[group], expected, rtol=tolerance, atol=tolerance)


def test_render_groups_in_one_chunk_draws_as_render_rays():
    """For the seen rays, then for all others together."""
    networks, groups, draws = small_networks(5, True), make_groups(), seeded()
    got = render_groups(networks, groups, sampling_of(5), seeded(), 13, DenseQuery())
    for part in (["seen"], ["unseen_near", "unseen", "seen_near"]):
        whole = render_rays(networks, cat_rays(groups[group] for group in part), sampling_of(5), draws)
        joined = Composite(*(torch.cat(field) for field in zip(*(got[group].fine for group in part), strict=True)))
        torch.testing.assert_close(joined, whole.fine, rtol=0, atol=0)


def test_chunks_draw_different_numbers():
    """Two like rays in two chunks do not get the same jitter."""
    rays = cat_rays([some_rays(1), some_rays(1)])
    got = render_groups(small_networks(5, True), {"seen": rays}, sampling_of(5), seeded(), 1, DenseQuery())
    assert not torch.isclose(*got["seen"].coarse.alpha[:, :-1]).all()


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("white", [False, True])
def test_render_image(chunk, white):
    """A view is its rays, deterministically, in rows; the progress adds up."""
    rays = image_rays(cameras_of(memory_scene(), [2], 0.0, "cpu", DOUBLE), HEIGHT, WIDTH)
    networks = small_networks(5, True)
    done, sampling = [], sampling_of(5, white_background=white)
    image = render_image(networks, rays, HEIGHT, WIDTH, sampling, chunk, DenseQuery(50), done.append)
    assert sum(done) == HEIGHT * WIDTH
    assert max(done) == min(chunk, HEIGHT * WIDTH)
    for row, col in ((0, 0), (0, 9), (3, 4), (7, 0), (7, 9)):
        number = row * WIDTH + col
        ray = Rays(rays.origins[number : number + 1], rays.directions[number : number + 1], 2.0, 6.0)
        fine = render_rays(networks, ray, sampling).fine
        for field, value in image._asdict().items():
            torch.testing.assert_close(value[row, col], getattr(fine, field)[0], rtol=1e-10, atol=1e-12)
    assert image.rgb.shape == (HEIGHT, WIDTH, 3)
    assert all(field.shape == (HEIGHT, WIDTH) for field in image[1:])
    assert not image.rgb.requires_grad
    assert float(image.rgb.std()) > 0.001
