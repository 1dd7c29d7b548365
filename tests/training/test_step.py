"""A whole step, fast against the reference: terms, total, and the gradient of every parameter, in float64."""

import itertools

import pytest
import torch

from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.groups import NEIGHBOURS, SEEN, UNSEEN
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.cameras import cat_rays
from infonerf.training.neighbours import MovedPose, NearPixel, RotatedPose
from infonerf.training.terms import StepView, loss_terms, needed_groups, total_loss
from support import reference
from support.scenes import memory_scene, small_networks
from support.steps import THRESHOLD, make_losses, make_sampler

N_SAMPLES = 4
DENSE = DenseQuery(8)
QUERIES = pytest.mark.parametrize("query", [DENSE, SparseQuery(5)], ids=["dense", "sparse"])


def reference_step(renderer, batch, use_viewdirs, seed, **losses):
    """The reference's loss on the same rays and the same draws (the seen rays' first, then all others');
    gradients land in the networks' parameters."""
    pair = renderer.networks.coarse, renderer.networks.fine
    states = [dict(network.named_parameters()) if network is not None else None for network in pair]
    draws, groups = torch.Generator().manual_seed(seed), {}
    for part in ([SEEN], [group for group in batch.groups if group != SEEN]):
        rendered = iter(reference_rays(states, [batch.groups[group] for group in part], renderer, use_viewdirs, draws))
        groups |= {group: list(itertools.islice(rendered, len(batch.groups[group]))) for group in part}
    return reference.step_loss(groups, batch.target, **losses)


def reference_rays(states, parts, renderer, use_viewdirs, draws):
    """The reference's rendering of each ray of all parts, whose numbers are drawn together."""
    if not parts:
        return []
    rays, double = cat_rays(parts), {"generator": draws, "dtype": torch.float64}
    n, sampling = len(rays), renderer.sampling
    uniforms = torch.rand(n, sampling.n_samples, **double)
    noise_coarse = sampling.noise_std * torch.randn(n, sampling.n_samples, **double)
    u, noise_fine = [None] * n, [None] * n
    if sampling.n_importance:
        u = torch.rand(n, sampling.n_importance, **double)
        noise_fine = sampling.noise_std * torch.randn(n, sampling.n_samples + sampling.n_importance, **double)
    return [
        reference.render_ray(
            *states, rays.origins[i], rays.directions[i], rays.near, rays.far, sampling.n_samples,
            sampling.n_importance, 2, 1, use_viewdirs, lindisp=sampling.lindisp, uniforms=uniforms[i], u=u[i],
            noise_coarse=noise_coarse[i], noise_fine=noise_fine[i], white=renderer.white_background,
        )
        for i in range(n)
    ]


def compare_step(*, entropy=True, smoothing=True, unseen=True, batching=False, n_importance=3, use_viewdirs=True,
                 neighbourhood=None, white=False, lindisp=False, crop_until=0, step=1, chunk=1000, query=DENSE,
                 **changed):
    scene = memory_scene()
    sampler = make_sampler(
        scene, unseen=unseen and entropy, batching=batching, crop_until=crop_until,
        neighbourhood=neighbourhood or RotatedPose(5.0),
    )
    losses = make_losses(entropy, smoothing, unseen and entropy, **changed)
    sampling = Sampling(N_SAMPLES, n_importance, lindisp, perturb=True, noise_std=0.5)
    networks = small_networks(n_importance, use_viewdirs)
    renderer = Renderer(networks, sampling, white, query, chunk)

    batch = sampler.draw(step, needed_groups(losses, step), torch.Generator().manual_seed(step))
    renderings = renderer.groups(batch.groups, torch.Generator().manual_seed(3))
    terms = loss_terms(StepView.of(renderings, batch, networks), losses, step)
    total_loss(terms).backward()
    ours = [parameter.grad for parameter in networks.parameters()]

    for network in networks:
        network.zero_grad()
    expected, raw = reference_step(
        renderer, batch, use_viewdirs, 3,
        entropy=entropy, entropy_lambda=0.3, entropy_threshold=THRESHOLD, entropy_kind=changed.get("kind", "log2"),
        entropy_log_scaling=changed.get("log_scaling", False), entropy_all=changed.get("seen", False),
        entropy_ignore_smoothing=changed.get("ignore", False), smoothing=smoothing,
        smoothing_weight=reference.smoothing_weight(step, 0.2, 0.5, 1, None),
        smoothing_activation=changed.get("activation", "norm"),
    )
    expected.backward()

    assert set(batch.groups) == expected_groups(entropy and unseen, smoothing)
    torch.testing.assert_close(total_loss(terms), expected, rtol=1e-10, atol=1e-13)
    colour = sum(value for name, (_, value) in terms.items() if name.startswith("colour"))
    torch.testing.assert_close(colour, raw["colour"], rtol=1e-10, atol=1e-13)
    for name in ("entropy", "smoothing"):
        assert (name in terms) == (name in raw)
        if name in terms:
            torch.testing.assert_close(terms[name][1], raw[name], rtol=1e-10, atol=1e-13)
    largest = max(float(grad.abs().max()) for grad in ours if grad is not None)
    for grad, parameter in zip(ours, networks.parameters(), strict=True):
        assert (grad is None) == (parameter.grad is None)
        if grad is not None:
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-8, atol=1e-10 * largest)
    return terms


def expected_groups(unseen, smoothing):
    groups = {SEEN} | ({UNSEEN} if unseen else set())
    return groups | ({NEIGHBOURS[group] for group in groups} if smoothing else set())


@pytest.mark.parametrize(
    ("entropy", "smoothing", "batching", "n_importance", "use_viewdirs"),
    list(itertools.product([False, True], [False, True], [False, True], [0, 3], [False, True])),
)
@QUERIES
def test_every_combination_of_terms(entropy, smoothing, batching, n_importance, use_viewdirs, query):
    compare_step(entropy=entropy, smoothing=smoothing, batching=batching, n_importance=n_importance,
                 use_viewdirs=use_viewdirs, query=query)


@pytest.mark.parametrize("changed", [
    {"kind": "1-p"}, {"log_scaling": True}, {"seen": True}, {"ignore": True}, {"activation": "softmax"},
    {"unseen": False}, {"unseen": False, "ignore": True}, {"white": True}, {"lindisp": True}, {"crop_until": 5},
    {"neighbourhood": NearPixel(3)}, {"neighbourhood": MovedPose(0.1)},
    {"neighbourhood": NearPixel(3), "batching": True},
    {"neighbourhood": MovedPose(0.1), "batching": True}, {"step": 4}, {"chunk": 1000, "white": True, "n_importance": 0},
], ids=str)
@QUERIES
def test_every_variant_of_the_terms(changed, query):
    compare_step(**changed, query=query)


def test_terms_are_not_all_masked_or_zero():
    """The comparisons above would mean little if the entropy mask let no ray, or all rays, pass."""
    terms = compare_step()
    assert terms["entropy"][1] > 0.1
    assert terms["smoothing"][1] > 0.1
