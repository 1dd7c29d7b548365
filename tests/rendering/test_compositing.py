"""Compositing against the reference: values and gradients."""

import itertools

import pytest
import torch

from infonerf.rendering.compositing import Composite, composite
from support import reference
from support.draws import DOUBLE, rand, randn

FIELDS = (*Composite._fields, "disparity")


def fields_of(composited):
    """Field, the disparity among them -> value."""
    return {field: getattr(composited, field) for field in FIELDS}


def test_compositing_example():
    raw_rgb = torch.tensor([[[0.0, 0, 0], [1, -1, 2], [2, 0, 0], [-1, 1, 0]]])
    density, z = torch.tensor([[1, -3, 5, 0.5]]), torch.tensor([[2, 3, 3.5, 5]])
    got = composite(raw_rgb, density, z, torch.tensor([[0, 0.3, -1]]))
    expected = {
        "rgb": torch.tensor([[0.633967, 0.500032, 0.5]]),
        "depth": torch.tensor([2.528259]),
        "acc": torch.tensor([1.0]),
        "disparity": torch.tensor([0.395529]),
        "weights": torch.tensor([[0.647967, 0, 0.351893, 0.00014]]),
        "alpha": torch.tensor([[0.647967, 0, 0.999602, 1]]),
        "density": torch.tensor([[1, 0, 5, 0.5]]),
        "z": z,
    }
    assert expected.keys() == set(FIELDS)
    for field, value in expected.items():
        torch.testing.assert_close(getattr(got, field), value, rtol=0, atol=1e-6, msg=field)


def reference_composites(raw_rgb, raw_density, z, directions, noise, white):
    """The reference, ray by ray: field -> what all rays have of it."""
    rays = [
        reference.composite(raw_rgb[r], raw_density[r], z[r], directions[r], None if noise is None else noise[r], white)
        for r in range(len(z))
    ]
    return {field: torch.stack([ray[field] for ray in rays]) for field in FIELDS}


def gradients(got, inputs, fields):
    """Gradients of a fixed random combination of `fields` in raw colour and density."""
    total = sum((got[field] * rand(*got[field].shape, seed=i).to(got["rgb"])).sum() for i, field in enumerate(fields))
    return torch.autograd.grad(total, inputs)


def compare_composite(raw_rgb, raw_density, z, directions, noise=None, white=False, fields=FIELDS):
    """Ours in float64 equals the reference, in float32 is finite and near it; the same for gradients of `fields`."""
    inputs = (raw_rgb.requires_grad_(), raw_density.requires_grad_())
    got = fields_of(composite(*inputs, z, directions, noise, white))
    expected = reference_composites(*inputs, z, directions, noise, white)
    ours, theirs = gradients(got, inputs, fields), gradients(expected, inputs, fields)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)

    inputs = [tensor.detach().float().requires_grad_() for tensor in inputs]
    noise = None if noise is None else noise.float()
    got = fields_of(composite(*inputs, z.float(), directions.float(), noise, white))
    for field in FIELDS:
        torch.testing.assert_close(got[field], expected[field].float(), rtol=1e-4, atol=2e-6)
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
    for gradient in gradients(fields_of(got), (raw_rgb, density), FIELDS):
        assert (gradient == 0).all()


def test_long_opaque_ray():
    """192 opaque samples: the transmittance, 1e-10 to the power of up to 191, underflows without harm."""
    density = torch.full((1, 192), 1e4, requires_grad=True)
    raw_rgb = torch.zeros(1, 192, 3, requires_grad=True)
    z = torch.linspace(2, 6, 192)[None]
    got = fields_of(composite(raw_rgb, density, z, torch.tensor([[0.0, 0, -1]])))
    assert all(value.isfinite().all() for value in got.values())
    assert got["depth"].item() == pytest.approx(2)
    assert all(gradient.isfinite().all() for gradient in gradients(got, (raw_rgb, density), FIELDS))


@pytest.mark.parametrize("white", [False, True])
def test_composite_gradient(white):
    """Densities on both sides of 0, none near enough for the finite difference to cross it."""
    density = torch.tensor([[0.5, -0.7, 0.3, 0.2], [-0.5, 0.9, 1.3, -0.4], [-1.0, -1.0, 0.4, -1.0]], dtype=DOUBLE)
    z = torch.tensor([[2.0, 3.0, 3.5, 5.0]], dtype=DOUBLE).repeat(3, 1)
    inputs = (randn(3, 4, 3), density, z, randn(3, 3, seed=1), 0.1 * rand(3, 4))

    def render(*given):
        return tuple(fields_of(composite(*given, white_background=white)).values())

    assert torch.autograd.gradcheck(render, [x.requires_grad_() for x in inputs])
