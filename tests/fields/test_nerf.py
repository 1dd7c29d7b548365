"""Positional encoding and the MLP, fast against the reference: values and gradients."""

import itertools

import pytest
import torch

from infonerf.fields.nerf import NeRF, encoded_size, positional_encoding
from support import reference
from support.draws import DOUBLE, assert_uniform_between, global_states, rand, randn, seeded
from support.scenes import small_networks

MULTIRES, MULTIRES_VIEWS = 2, 1  # of `small_networks`


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
                assert_uniform_between(parameter.detach() / bound, -1, 1, bins=8)
    weights = [layer.weight.flatten()[:100] for layer in network.pts_linears[1:5]]
    assert not any(torch.equal(*pair) for pair in itertools.combinations(weights, 2))


@pytest.mark.parametrize("n_in", [63, 319])
def test_initial_bounds_are_those_of_torch(n_in):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Linear(n_in, 2000)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max().item() == pytest.approx(n_in**-0.5, rel=5e-3)
        assert_uniform_between(parameter.detach() * n_in**0.5, -1.0001, 1.0001)


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
