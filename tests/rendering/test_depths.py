"""Depths along rays, even and drawn from weights, against the reference."""

import itertools

import pytest
import torch

from infonerf.rendering.depths import coarse_depths, fine_depths, sample_pdf
from support import reference
from support.draws import DOUBLE, assert_uniform_between, rand, seeded, some_rays


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
        assert_uniform_between(z[:, k], edges[k], edges[k + 1])
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
        assert_uniform_between(inside, low, high)
    assert ((drawn > 4) & (drawn < 5)).sum() < 10


def test_samples_of_an_empty_ray_are_uniform():
    edges = torch.linspace(2, 6, 9, dtype=DOUBLE).expand(1, -1)
    assert_uniform_between(sample_pdf(edges, torch.zeros(1, 8, dtype=DOUBLE), rand(1, 20000)), 2, 6)


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
