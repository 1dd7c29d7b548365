"""Losses and gradients stay finite whatever the density, the depths and the rays are, in float32 and bfloat16."""

import itertools
from dataclasses import replace

import pytest
import torch

from infonerf.config import LossesConfig
from infonerf.rendering.compositing import Rendering, composite
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.cameras import Rays
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import StepView, loss_terms, total_loss
from loss import carving, colour_losses, depth_prior, depth_smoothness, distortion, entropy, occlusion, smoothing
from support.scenes import small_networks

DENSITIES = (0.0, 1e-30, 1e-10, 1e-3, 1.0, 1e3, 1e8, -1e8)
GROUPS = ("seen", "seen_near", "unseen", "unseen_near", "known")
KNOWN = torch.tensor([2.0, 4.0, 4.1, 6.0]), torch.tensor([1.0, 0.0, 1.5, 1.5])  # depths, weights


def every_loss(activation, kind):
    """Every loss there is; patches of 1 x 1 would have no neighbours, so depth smoothness has 2 x 2."""
    options = LossesConfig(
        entropy=True, entropy_ray_zvals_lambda=1.0, entropy_acc_threshold=-1.0, entropy_type=kind,
        computing_entropy_all=True, smoothing=True, smoothing_lambda=1.0, smoothing_step_size=1,
        smoothing_activation=activation, carving_lambda=1.0, occlusion_lambda=1.0, occlusion_samples=1,
        distortion_lambda=1.0, depth_prior_lambda=1.0, depth_prior_sigma=1e-3,
    )  # fmt: skip
    return [
        *colour_losses(),
        *(entropy(replace(options, entropy_log_scaling=log, entropy_on=on))
          for log, on in itertools.product((False, kind == "log2"), ("alpha", "weights"))),
        *(make(options) for make in (smoothing, carving, occlusion, distortion, depth_prior)),
        depth_smoothness(replace(options, N_entropy=64, depth_smooth_lambda=1.0), size=2),
    ]  # fmt: skip


def depths(kind, n_rays, n_samples):
    even = torch.linspace(2, 6, n_samples).expand(n_rays, -1)
    return {"even": even, "zero length": even.floor(), "all at one": torch.full_like(even, 4.0)}[kind]


@pytest.mark.parametrize("density", [*DENSITIES, "mixed"])
@pytest.mark.parametrize("spacing", ["even", "zero length", "all at one"])
@pytest.mark.parametrize(("n_rays", "n_samples"), [(4, 9), (4, 1)])
def test_losses_of_extreme_densities_are_finite(density, spacing, n_rays, n_samples):
    generator = torch.Generator().manual_seed(0)
    shape = (n_rays, n_samples)
    for activation, kind in (("norm", "log2"), ("softmax", "1-p")):
        raws, renderings = [], {}
        for group in GROUPS:
            if density == "mixed":
                raw = torch.tensor(DENSITIES)[torch.randint(len(DENSITIES), shape, generator=generator)]
            else:
                raw = torch.full(shape, density)
            colour = torch.randn(*shape, 3, generator=generator) * 50
            raws += [raw.requires_grad_(), colour.requires_grad_()]
            directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(n_rays, -1)
            z = depths(spacing, *shape)
            both = composite(colour, raw, z, directions, white_background=True)
            renderings[group] = Rendering(both, both)
        target, alpha = torch.rand(n_rays, 3, generator=generator), torch.tensor([0.0, 0.0, 0.5, 1.0])
        batch = RayBatch({}, target, 2.0, 6.0, alpha, 1 - target, *KNOWN)
        terms = loss_terms(StepView.of(renderings, batch), every_loss(activation, kind), 1)
        for name, (_, value) in terms.items():
            assert torch.isfinite(value), name
        gradients = torch.autograd.grad(total_loss(terms), raws, allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def axis_rays(near, far, n=4):
    """Rays along the axes, one of them of a tiny and one of a huge direction."""
    directions = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1e-6, 0.0], [0.0, 0.0, 1e6]])[:n]
    return Rays(torch.zeros(n, 3), directions, near, far)


@pytest.mark.parametrize("query", [DenseQuery(1000), SparseQuery(1000, None), SparseQuery(1000, torch.bfloat16)],
                         ids=["dense", "fp32", "bf16"])
@pytest.mark.parametrize(("near", "far"), [(2.0, 6.0), (4.0, 4.0), (1e-6, 1e6)])
@pytest.mark.parametrize("fill", ["as drawn", "empty", "opaque"])
@pytest.mark.parametrize(("n_samples", "n_importance"), [(8, 4), (3, 1), (1, 0)])
@pytest.mark.parametrize("lindisp", [False, True])
def test_gradients_of_weights_are_finite(query, near, far, fill, n_samples, n_importance, lindisp):
    networks = small_networks(n_importance, True, torch.float32)
    for network in networks:
        if fill != "as drawn":
            with torch.no_grad():
                network.alpha_linear.bias.fill_(1e8 if fill == "opaque" else -1e3)
    sampling = Sampling(n_samples, n_importance, lindisp=lindisp)
    renderer = Renderer(networks, sampling, white_background=True, query=query, chunk=1000)
    renderings = renderer.groups(dict.fromkeys(GROUPS, axis_rays(near, far)), torch.Generator().manual_seed(0))
    losses = every_loss("norm", "log2")
    if near == far:  # in which distances cannot be measured
        losses = [loss for loss in losses if loss.name not in ("distortion", "depth_prior")]
    batch = RayBatch({}, torch.rand(4, 3), near, far, torch.tensor([0.0, 0.0, 0.5, 1.0]), torch.rand(4, 3),
                     *KNOWN)  # fmt: skip
    terms = loss_terms(StepView.of(renderings, batch), losses, 1)
    total_loss(terms).backward()
    for name, (_, value) in terms.items():
        assert torch.isfinite(value), name
    for parameter in networks.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_one_ray():
    networks, rays = small_networks(4, True, torch.float32), axis_rays(2.0, 6.0, 1)
    for query in (DenseQuery(1000), SparseQuery(1000, torch.bfloat16)):
        batch = RayBatch({"seen": rays}, torch.rand(1, 3), 2.0, 6.0)
        renderings = Renderer(networks, Sampling(8, 4), query=query).groups(batch.groups, torch.Generator())
        total_loss(loss_terms(StepView.of(renderings, batch), colour_losses(), 1)).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in networks.parameters())
