"""The losses against the reference, values and gradients, also where rays are empty or opaque; the schedules."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from infonerf.config import LossesConfig
from infonerf.rendering.compositing import Rendering
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import Loss, StepView, active, loss_terms, needed_groups, total_loss
from loss import colour_loss, colour_losses, entropy, entropy_loss, ray_entropy, smoothing, smoothness_loss
from support import reference
from support.draws import DOUBLE, rand

ACC = torch.tensor([0.75, 0.91, 0.05, 0.0], dtype=DOUBLE)  # of four rays; all but the first two below 0.1


def alphas(kind):
    """Alphas of four rays of five samples (r s), of a kind that occurs, or that is extreme."""
    one_hot = torch.eye(5, dtype=DOUBLE)[:4]
    return {
        "random": rand(4, 5),
        "some zeros": rand(4, 5).where(rand(4, 5, seed=1) < 0.5, 0),
        "all 0": torch.zeros(4, 5, dtype=DOUBLE),
        "all 1": torch.ones(4, 5, dtype=DOUBLE),
        "one-hot": one_hot,
        "other one-hot": one_hot.flip(0),
        "nearly one-hot": (one_hot + 1e-4).clamp(max=1),
        "1e-30": torch.full((4, 5), 1e-30, dtype=DOUBLE),
        "1e-8": 1e-8 * rand(4, 5),
    }[kind].clone()


KINDS = ["random", "some zeros", "all 0", "all 1", "one-hot", "other one-hot", "nearly one-hot", "1e-30", "1e-8"]


def compare(ours, theirs, *inputs):
    """In float64 ours equals theirs, value and gradients; in float32 all is finite. Returns the value in float32."""
    inputs = [tensor.requires_grad_() for tensor in inputs]
    got, expected = ours(*inputs), theirs(*inputs)
    assert got.shape == ()
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)
    gradients = torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13 + 1e-12 * float(other.abs().max()))
    inputs = [tensor.detach().float().requires_grad_() for tensor in inputs]
    got = ours(*inputs)
    assert got.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(got, inputs))
    return got


# ---- colour ---------------------------------------------------------------------------------------------------------


def test_colour_loss():
    rgb, target = rand(7, 3), rand(7, 3, seed=1)
    compare(lambda rgb: colour_loss(rgb, target), lambda rgb: reference.mean_squared_error(rgb, target), rgb)
    assert torch.autograd.gradcheck(colour_loss, (rgb, target))


# ---- ray entropy ----------------------------------------------------------------------------------------------------


def test_entropy_example():
    alpha = torch.tensor([[0.5, 0.5, 0, 0], [0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0]])
    assert entropy_loss(alpha, ACC.float(), 0.1).item() == pytest.approx(0.367249, abs=5e-7)
    # Without the mask the third ray has two bits; the fourth has none in any case.
    assert entropy_loss(alpha, ACC.float(), -1).item() == pytest.approx(0.367249 + 2 / 4, abs=5e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entropy", ["log2", "1-p"])
@pytest.mark.parametrize("threshold", [0.1, -1.0, 2.0])  # some rays, all rays, no ray
def test_entropy(kind, entropy, threshold):
    compare(
        lambda alpha: entropy_loss(alpha, ACC.to(alpha), threshold, entropy),
        lambda alpha: reference.entropy_term(alpha, ACC, threshold, entropy, False),
        alphas(kind),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.1, -1.0, 2.0])
def test_log_of_the_entropy(kind, threshold):
    """Also where no ray passes the mask: log(1e-10), and no gradient."""
    got = compare(
        lambda alpha: entropy_loss(alpha, ACC.to(alpha), threshold, "log2", log_scaling=True),
        lambda alpha: reference.entropy_term(alpha, ACC, threshold, "log2", True),
        alphas(kind),
    )
    if threshold == 2.0:
        assert got.item() == pytest.approx(math.log(1e-10))


@pytest.mark.parametrize("kind", ["random", "some zeros", "nearly one-hot", "1e-8", "all 1"])
@pytest.mark.parametrize("entropy", ["log2", "1-p"])
def test_entropy_in_float32(kind, entropy):
    """Near the reference's float64. (Not so `1-p` at p = 1 itself, where 1 - p is all rounding.)"""
    expected = torch.stack([reference.ray_entropy(row, entropy) for row in alphas(kind)]).float()
    torch.testing.assert_close(ray_entropy(alphas(kind).float(), entropy), expected, rtol=1e-4, atol=1e-5)


# Not the logarithm of `1-p`, whose mean is negative; the options refuse it.
@pytest.mark.parametrize(("entropy", "log_scaling"), [("log2", False), ("log2", True), ("1-p", False)])
def test_entropy_gradient(entropy, log_scaling):
    alpha = (0.1 + 0.8 * rand(4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda alpha: entropy_loss(alpha, ACC, 0.1, entropy, log_scaling), alpha)


def test_mask_of_the_entropy():
    """Strict: a ray at the threshold does not count. A masked ray is 0 in a mean over all, and has no gradient."""
    alpha = torch.full((3, 4), 0.5, requires_grad=True)  # two bits each
    loss = entropy_loss(alpha, torch.tensor([0.1, 0.5, 0.0]), 0.1)
    assert loss.item() == pytest.approx(2 / 3)
    alpha = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], requires_grad=True)
    entropy_loss(alpha, torch.tensor([0.1, 0.5, 0.0]), 0.1).backward()
    assert (alpha.grad[[0, 2]] == 0).all()
    assert (alpha.grad[1] != 0).all()


def test_mask_carries_no_gradient():
    alpha, acc = alphas("random"), ACC.clone().requires_grad_()
    assert not entropy_loss(alpha, acc, 0.1).requires_grad
    alpha.requires_grad_()
    entropy_loss(alpha, alpha.sum(-1), 2.5).backward()  # as in training, where acc comes from alpha
    expected = alphas("random").requires_grad_()
    reference.entropy_term(expected, expected.detach().sum(-1), 2.5, "log2", False).backward()
    assert 0 < (alpha.grad != 0).any(-1).sum() < 4
    torch.testing.assert_close(alpha.grad, expected.grad)


# ---- KL smoothness --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "expected"), [("norm", 6.225652), ("softmax", 0.016877)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_smoothness_example(activation, expected, dtype):
    rays = torch.tensor([[0.5, 0.5, 0, 0], [0.9, 0.1, 0, 0]], dtype=dtype)
    near = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.8, 0.1, 0.1, 0]], dtype=dtype)
    assert smoothness_loss(rays, near, activation).item() == pytest.approx(expected, abs=2e-6)
    if activation == "norm":
        assert smoothness_loss(rays, near).item() == pytest.approx(expected, abs=2e-6)  # it is the default


@pytest.mark.parametrize("activation", ["norm", "softmax"])
@pytest.mark.parametrize(("kind", "near_kind"), itertools.product(KINDS, KINDS))
def test_smoothness(activation, kind, near_kind):
    """Gradients in both the rays and the neighbours; float32 is near the reference's float64 everywhere."""
    got = compare(
        lambda alpha, near: smoothness_loss(alpha, near, activation),
        lambda alpha, near: reference.kl_term(alpha, near, activation),
        alphas(kind), alphas(near_kind).flip(1),
    )  # fmt: skip
    expected = reference.kl_term(alphas(kind), alphas(near_kind).flip(1), activation).float()
    torch.testing.assert_close(got.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["norm", "softmax"])
def test_smoothness_gradient(activation):
    inputs = [(0.1 + 0.8 * rand(3, 4, seed=seed)).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(lambda *both: smoothness_loss(*both, activation), inputs)
    gradients = torch.autograd.grad(smoothness_loss(*inputs, activation), inputs)
    assert all((gradient != 0).all() for gradient in gradients)
    assert smoothness_loss(inputs[0], inputs[0], activation).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("kind", "near_kind"), itertools.product(KINDS, KINDS))
def test_smoothness_with_a_floor(kind, near_kind):
    """The released term of alphas that are all larger by the floor; its gradient is bounded, that without is not."""
    rays, near, floor = alphas(kind), alphas(near_kind).flip(1), 1e-3
    compare(
        lambda alpha, near: smoothness_loss(alpha, near, floor=floor),
        lambda alpha, near: reference.kl_term(alpha + floor, near + floor, "norm"),
        rays, near,
    )  # fmt: skip
    for gradient in torch.autograd.grad(smoothness_loss(rays, near, floor=floor), (rays, near)):
        assert gradient.abs().max() < math.log(1 / floor) / floor / len(rays)
    empty = torch.tensor([[1e-7, 0.5]], requires_grad=True)
    for bound, given in ((1e6, {}), (1e3, {"floor": floor})):
        (gradient,) = torch.autograd.grad(smoothness_loss(empty, torch.tensor([[0.5, 0.5]]), **given), empty)
        assert 0.1 * bound < gradient.abs().max() < 10 * bound


# ---- schedules and groups -------------------------------------------------------------------------------------------


def make_entropy(weight=0.3, end=None, unseen=True, seen=False, neighbours=True, **options):
    return entropy(LossesConfig(
        entropy=True, N_entropy=2 * unseen, entropy_ray_zvals_lambda=weight, entropy_end_iter=end,
        computing_entropy_all=seen, smoothing=True, entropy_ignore_smoothing=not neighbours, **options,
    ))  # fmt: skip


def make_smoothness(weight=0.2, end=None, unseen=True, rate=0.5, step_size=10, activation="norm", floor=0.0):
    return smoothing(LossesConfig(
        entropy=True, N_entropy=2 * unseen, smoothing=True, smoothing_lambda=weight, smoothing_end_iter=end,
        smoothing_rate=rate, smoothing_step_size=step_size, smoothing_activation=activation, smoothing_floor=floor,
    ))  # fmt: skip


def step_view(fine, coarse=None, target=None):
    return StepView(coarse or {}, fine, RayBatch({}, target, 2.0, 6.0))


@pytest.mark.parametrize("end", [None, 0, 1, 12])
def test_schedule_of_the_entropy(end):
    loss = make_entropy(0.3, end)
    assert loss.name == "entropy"
    for step in range(1, 40):
        assert loss.schedule(step) == reference.entropy_weight(step, 0.3, end)


@pytest.mark.parametrize(("end", "rate", "step_size"), [
    (None, 0.5, 10), (0, 0.5, 10), (25, 0.5, 10), (12, 1.0, 5000), (None, 0.0, 4), (30, 0.9, 1),
])  # fmt: skip
def test_schedule_of_the_smoothness(end, rate, step_size):
    loss = make_smoothness(0.2, end, rate=rate, step_size=step_size)
    assert loss.name == "smoothing"
    for step in range(1, 40):
        assert loss.schedule(step) == reference.smoothing_weight(step, 0.2, rate, step_size, end)


def test_no_loss_needs_only_the_seen_rays():
    assert needed_groups([], 1) == {"seen"}


@pytest.mark.parametrize("weights", list(itertools.product([None, 0.0, 0.3], [None, 0.0, 0.2])), ids=str)
@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("ends", [(None, None), (5, 8), (8, 5)], ids=str)
def test_groups_that_a_step_renders(weights, unseen, seen, ends):
    """`None`: the term is not asked for; 0 is as good. Neighbours are rendered for the smoothness only, however
    many terms look at them."""
    losses = []
    if weights[0] is not None:
        losses.append(make_entropy(weights[0], ends[0], unseen, seen))
    if weights[1] is not None:
        losses.append(make_smoothness(weights[1], ends[1], unseen))
    for step in range(1, 12):
        entropy, smoothness = (bool(weight) and step <= (end or 99) for weight, end in zip(weights, ends, strict=True))
        expected = {"seen"}
        if unseen and (entropy or smoothness):
            expected |= {"unseen"}
        if smoothness:
            expected |= {"seen_near", "unseen_near"} if unseen else {"seen_near"}
        assert needed_groups(losses, step) == expected
        names = {loss.name for loss in active(losses, step)}
        assert names == {name for name, on in (("entropy", entropy), ("smoothing", smoothness)) if on}


# Entropies in bits: seen 0, unseen 1, seen_near log2 3, unseen_near 2. All rays are solid.
ROWS = {
    "seen": [1, 0, 0, 0],
    "unseen": [1, 1, 0, 0],
    "seen_near": [1, 1, 1, 0],
    "unseen_near": [1, 1, 1, 1],
}
BITS = {"seen": 0, "unseen": 1, "seen_near": math.log2(3), "unseen_near": 2}
SIZES = {"seen": 1, "unseen": 2, "seen_near": 1, "unseen_near": 2}
ALL = list(ROWS)


def composites(names, acc=1.0):
    """What the losses read of the final composites, the groups of SIZES."""
    return {
        name: SimpleNamespace(
            alpha=torch.tensor([ROWS[name]] * SIZES[name], dtype=DOUBLE),
            acc=torch.full((SIZES[name],), acc, dtype=DOUBLE),
        )
        for name in names
    }


@pytest.mark.parametrize(("rendered", "options", "covered"), [
    (["seen", "unseen"], {}, ["unseen"]),
    (["seen", "unseen"], {"neighbours": False}, ["unseen"]),
    (["seen", "unseen"], {"seen": True}, ["seen", "unseen"]),
    (["seen"], {"unseen": False}, ["seen"]),
    (["seen"], {"unseen": False, "seen": True}, ["seen"]),
    (ALL, {}, ["unseen", "seen_near", "unseen_near"]),
    (ALL, {"seen": True}, ALL),
    (ALL, {"neighbours": False}, ["unseen"]),
    (ALL, {"neighbours": False, "seen": True}, ["seen", "unseen"]),
    (["seen", "seen_near"], {"unseen": False}, ["seen", "seen_near"]),
    (["seen", "seen_near"], {"unseen": False, "neighbours": False}, ["seen"]),
], ids=str)  # fmt: skip
def test_groups_that_the_entropy_covers(rendered, options, covered):
    """One mean over all rays of the groups, whatever the order in which they come."""
    expected = sum(SIZES[name] * BITS[name] for name in covered) / sum(SIZES[name] for name in covered)
    for names in (rendered, rendered[::-1]):
        assert make_entropy(**options).value(step_view(composites(names))).item() == pytest.approx(expected, abs=1e-7)


def test_the_entropy_hands_its_options_on():
    half, solid = step_view(composites(ALL, acc=0.5)), step_view(composites(ALL))
    assert make_entropy(entropy_acc_threshold=0.5).value(half).item() == 0
    assert make_entropy(entropy_acc_threshold=0.4).value(half).item() > 1
    expected = math.log((2 * 1 + math.log2(3) + 2 * 2) / 5)
    assert make_entropy(entropy_log_scaling=True).value(solid).item() == pytest.approx(expected)
    assert make_entropy(entropy_type="1-p").value(step_view(composites(["unseen"]))).item() == pytest.approx(-1)


@pytest.mark.parametrize("activation", ["norm", "softmax"])
@pytest.mark.parametrize("unseen", [False, True])
def test_groups_that_the_smoothness_pairs(activation, unseen):
    """One mean over the pairs of both groups, each ray with its own neighbour."""
    groups = composites(ALL)
    groups["unseen"].alpha, groups["unseen_near"].alpha = rand(2, 4), rand(2, 4, seed=1)
    names = ["seen", "unseen"] if unseen else ["seen"]
    rays = torch.cat([groups[name].alpha for name in names])
    near = torch.cat([groups[name + "_near"].alpha for name in names])
    got = make_smoothness(unseen=unseen, activation=activation).value(step_view(groups))
    torch.testing.assert_close(got, reference.kl_term(rays, near, activation))
    if activation == "norm":
        got = make_smoothness(unseen=unseen, floor=0.3).value(step_view(groups))
        torch.testing.assert_close(got, reference.kl_term(rays + 0.3, near + 0.3, activation))


# ---- the whole loss -------------------------------------------------------------------------------------------------


def renderings(coarse=True):
    """group -> Rendering whose composites have what the losses read; each a leaf of its own gradient."""

    def passed(name, seed):
        n = SIZES[name]
        return SimpleNamespace(
            rgb=rand(n, 3, seed=seed).requires_grad_(),
            alpha=rand(n, 4, seed=seed + 1).requires_grad_(),
            acc=torch.ones(n, dtype=DOUBLE),
        )

    return {name: Rendering(passed(name, 10 * i) if coarse else None, passed(name, 10 * i + 5))
            for i, name in enumerate(ALL)}  # fmt: skip


def terms_of(groups, target, losses, step):
    """Colour, and other losses."""
    return loss_terms(StepView.of(groups, RayBatch({}, target, 2.0, 6.0)), [*colour_losses(), *losses], step)


@pytest.mark.parametrize("coarse", [False, True])
def test_colour_is_compared_on_the_seen_rays_only(coarse):
    """On the colours of both passes, each with weight 1; the others see the final alphas only."""
    groups, target = renderings(coarse), rand(1, 3, seed=99)
    terms = terms_of(groups, target, [make_entropy(), make_smoothness()], 7)
    seen = groups["seen"]
    passes = {"colour_fine": seen.fine} | ({"colour_coarse": seen.coarse} if coarse else {})
    assert set(terms) == {*passes, "entropy", "smoothing"}
    for name, passed in passes.items():
        assert terms[name][0] == 1
        torch.testing.assert_close(terms[name][1], reference.mean_squared_error(passed.rgb, target))
    total_loss(terms).backward()
    for group, rendering in groups.items():
        assert (rendering.fine.rgb.grad is not None) == (group == "seen")
        assert rendering.fine.alpha.grad is not None
        if coarse:
            assert (rendering.coarse.rgb.grad is not None) == (group == "seen")
            assert rendering.coarse.alpha.grad is None


@pytest.mark.parametrize("step", [7, 25])
@pytest.mark.parametrize("coarse", [False, True])
def test_total_loss_is_the_weighted_sum(step, coarse):
    """Weights of the step, values unweighted, against the reference's step."""
    groups, target = renderings(coarse), rand(1, 3, seed=99)
    terms = terms_of(groups, target, [make_entropy(), make_smoothness()], step)
    assert terms["entropy"][0] == 0.3
    assert terms["smoothing"][0] == 0.2 * 0.5 ** (step // 10)
    rays = {
        name: [
            ({"rgb": rendering.coarse.rgb[r]} if coarse else None, {k: v[r] for k, v in vars(rendering.fine).items()})
            for r in range(SIZES[name])
        ]
        for name, rendering in groups.items()
    }
    expected, values = reference.step_loss(
        rays, target, entropy=True, entropy_lambda=0.3, smoothing=True, smoothing_weight=0.2 * 0.5 ** (step // 10)
    )
    torch.testing.assert_close(total_loss(terms), expected)
    for name in ("entropy", "smoothing"):
        torch.testing.assert_close(terms[name][1], values[name])


def test_terms_of_no_weight_are_left_out():
    """Not merely multiplied by 0: the groups that they need are not there."""
    losses = [make_entropy(end=5), make_smoothness(end=8), make_smoothness(0.0)]
    everything, target = renderings(), rand(1, 3, seed=99)
    for step, names in ((5, {"entropy", "smoothing"}), (6, {"smoothing"}), (9, set())):
        groups = {name: everything[name] for name in needed_groups(losses, step)}
        terms = terms_of(groups, target, losses, step)
        assert set(terms) == {"colour_fine", "colour_coarse"} | names


def test_a_new_loss_is_one_entry():
    new = Loss("new", "a new one", ("unseen",), lambda step: 2.0 * step, lambda view: view.fine["unseen"].alpha.sum())
    assert needed_groups([new], 1) == {"seen", "unseen"}
    groups, target = renderings(), rand(1, 3, seed=99)
    terms = terms_of(groups, target, [new], 3)
    colour = reference.colour_term(groups["seen"].fine.rgb, groups["seen"].coarse.rgb, target)
    torch.testing.assert_close(total_loss(terms), colour + 6 * groups["unseen"].fine.alpha.sum())
