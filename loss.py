"""The losses: colour, ray entropy, KL smoothness, and those beyond the paper (docs/method.md, Losses).

Axes: r rays, s samples along a ray. First the formulas, then each as a Loss, with its schedule and the rays that it
needs; `losses_of` lists those of a run. Steps are numbered from 1, as in the released code.
Source: InfoNeRF (Kim, Seo, Han, CVPR 2022), sections 3.2 and 3.3, and its released code.
"""

import torch
from torch import Tensor

from infonerf.config import LossesConfig
from infonerf.rendering.groups import KNOWN, NEIGHBOURS, PATCH, SEEN, UNSEEN
from infonerf.training.terms import Loss, StepView, constant

EPS = 1e-10


def colour_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all rays and channels."""
    return (rgb - target).square().mean()


def on_background(rgb: Tensor, opacity: Tensor, background: Tensor) -> Tensor:
    """Colours r 3 that lie on white, and their opacity r -> the same on `background` r 3."""
    return rgb + (1 - opacity[:, None]) * (background - 1)


def ray_distribution(alpha: Tensor) -> Tensor:
    """alpha r s -> normalised opacity along each ray; sums to 1, to 0 on an empty ray."""
    return alpha / (alpha.sum(-1, keepdim=True) + EPS)


def ray_entropy(alpha: Tensor, kind: str = "log2") -> Tensor:
    """alpha r s -> r. `log2`: Shannon entropy in bits. `1-p`: sum p log2(1-p), guarded at p = 1."""
    p = ray_distribution(alpha)
    if kind == "log2":
        return -(p * torch.log2(p + EPS)).sum(-1)
    return (p * torch.log2((1 - p).clamp_min(EPS))).sum(-1)


def entropy_loss(
    alpha: Tensor, acc: Tensor, threshold: float, kind: str = "log2", log_scaling: bool = False
) -> Tensor:
    """Mean ray entropy; a ray whose accumulated opacity is not above `threshold` counts as 0.

    The mask carries no gradient.
    """
    mean = torch.where(acc.detach() > threshold, ray_entropy(alpha, kind), 0).mean()
    return torch.log(mean + EPS) if log_scaling else mean


def smoothness_loss(alpha: Tensor, near_alpha: Tensor, activation: str = "norm", floor: float = 0.0) -> Tensor:
    """Mean KL(neighbour || ray) in nats; samples (r s each) are paired by index, gradients reach both.

    floor: added to every alpha that is normalised. Without it (as released) the gradient in a small alpha
    is about q / alpha, which has no bound where the neighbour's share q is not as small.
    """
    if activation == "softmax":
        log_p, log_q = alpha.log_softmax(-1), near_alpha.log_softmax(-1)
    else:
        log_p, log_q = ((ray_distribution(a + floor) + EPS).log() for a in (alpha, near_alpha))
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def distortion_loss(weights: Tensor, z: Tensor, near: float, far: float) -> Tensor:
    """Mean over rays of sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 d_i / 3, with m_i the middles and d_i the lengths of
    the samples' intervals, in which near..far is 0..1; the last interval ends at far. weights, z: r s.

    It wants a ray's weights to be close together (mip-NeRF 360: Barron et al., CVPR 2022, section 4). As the samples
    are sorted, the double sum is 2 sum_i w_i (m_i sum_j<i w_j - sum_j<i w_j m_j).
    """
    edges = torch.cat([(z - near) / (far - near), torch.ones_like(z[:, :1])], dim=-1)
    length, middle = edges[:, 1:] - edges[:, :-1], (edges[:, 1:] + edges[:, :-1]) / 2
    moments = weights * middle
    pairs = 2 * (moments * weights.cumsum(-1) - weights * moments.cumsum(-1)).sum(-1)  # what j = i adds cancels
    return (pairs + (weights.square() * length).sum(-1) / 3).mean()


def depth_smoothness_loss(depth: Tensor) -> Tensor:
    """Depths of patches p h w -> mean over their pixels (but the last row and column) of the squared differences to
    the pixel below and to the one on the right (RegNeRF: Niemeyer et al., CVPR 2022, section 3.2)."""
    inner = depth[:, :-1, :-1]
    return ((depth[:, 1:, :-1] - inner).square() + (depth[:, :-1, 1:] - inner).square()).mean()


def depth_prior_loss(weights: Tensor, z: Tensor, depth: Tensor, sigma: float | Tensor) -> Tensor:
    """weights, z: r s, known depths r -> r: -log(sum_i w_i exp(-g_i^2 / 2 sigma^2) + 0.01), with g_i the gap between
    the known depth and sample i's interval, z_i to z_i+1 (the last has no end); 0 within it.

    The sum is at most 1: how likely the ray ends where it is known to. 0.01 bounds what a wrong depth can do. DS-NeRF
    (Deng et al., CVPR 2022, section 4.2) asks for weights that form a normal distribution: docs/lab/depth_prior.md.
    """
    end = torch.cat([z[:, 1:], torch.full_like(z[:, :1], torch.inf)], dim=-1)
    gap = (z - depth[:, None]).relu() + (depth[:, None] - end).relu()
    return -torch.log((weights * torch.exp(-(gap / sigma).square() / 2)).sum(-1) + 0.01)


# Losses.


def colour_losses() -> list[Loss]:
    """The colours of the seen rays, by the fine and, where there is one, the coarse pass."""

    def value(passes: dict, view: StepView) -> Tensor | None:
        if SEEN not in passes:
            return None
        rgb, target, batch = passes[SEEN].rgb, view.batch.target, view.batch
        if batch.background is not None:  # photographs and renderings both lie on white
            rgb = on_background(rgb, passes[SEEN].acc, batch.background)
            target = on_background(target, batch.alpha, batch.background)
        return colour_loss(rgb, target)

    weight, label = constant(1.0), "colour loss"
    return [
        Loss("colour_fine", label, (SEEN,), weight, lambda view: value(view.fine, view)),
        Loss("colour_coarse", f"{label}, coarse network", (SEEN,), weight, lambda view: value(view.coarse, view)),
    ]


def entropy(options: LossesConfig) -> Loss:
    """Ray entropy of the unseen rays, of the seen rays (`computing_entropy_all`, and where there are no unseen ones),
    and of such neighbours as the step renders for KL smoothness."""
    needed = [UNSEEN] if options.n_unseen else []
    if options.computing_entropy_all or not options.n_unseen:
        needed.append(SEEN)
    covered = list(needed)
    if options.smoothing and not options.entropy_ignore_smoothing:
        covered += [NEIGHBOURS[SEEN], NEIGHBOURS[UNSEEN]]

    def value(view: StepView) -> Tensor:
        parts = [view.fine[group] for group in covered if group in view.fine]
        mass = torch.cat([getattr(part, options.entropy_on) for part in parts])
        acc = torch.cat([part.acc for part in parts])
        if options.entropy_skip_last:
            mass = mass[:, :-1]
        return entropy_loss(mass, acc, options.entropy_acc_threshold, options.entropy_type, options.entropy_log_scaling)

    def schedule(step: int) -> float:
        start, end, ramp = options.entropy_start_iter, options.entropy_end_iter, options.entropy_ramp
        if step < start or (end is not None and step > end):
            return 0.0
        weight = options.entropy_ray_zvals_lambda
        return weight * min((step - max(start, 1) + 1) / ramp, 1.0) if ramp else weight

    return Loss("entropy", "ray entropy", tuple(needed), schedule, value)


def smoothing(options: LossesConfig) -> Loss:
    """KL smoothness between all seen (and unseen) rays of a step and their neighbours."""
    rays = (SEEN, UNSEEN) if options.n_unseen else (SEEN,)
    near = tuple(NEIGHBOURS[group] for group in rays)

    def schedule(step: int) -> float:
        if options.smoothing_end_iter is not None and step > options.smoothing_end_iter:
            return 0.0
        return options.smoothing_lambda * options.smoothing_rate ** (step // options.smoothing_step_size)

    def value(view: StepView) -> Tensor:
        alpha = torch.cat([view.fine[group].alpha for group in rays])
        near_alpha = torch.cat([view.fine[group].alpha for group in near])
        return smoothness_loss(alpha, near_alpha, options.smoothing_activation, options.smoothing_floor)

    return Loss("smoothing", "KL smoothness", rays + near, schedule, value)


def carving(options: LossesConfig) -> Loss:
    """Space carving: mean accumulated opacity of the seen rays whose pixel is wholly transparent, of the fine pass
    plus, as with colours, of the coarse pass; 0 where there is no such ray."""

    def value(view: StepView) -> Tensor:
        empty = view.batch.alpha == 0
        passes = [part[SEEN] for part in (view.fine, view.coarse) if SEEN in part]
        return sum(torch.where(empty, seen.acc, 0).sum() for seen in passes) / empty.sum().clamp_min(1)

    return Loss("carving", "space carving", (SEEN,), constant(options.carving_lambda), value)


def occlusion(options: LossesConfig) -> Loss:
    """The density of the seen rays' first samples, as a mean over all samples: what is right in front of
    a camera is likely to be a floater (FreeNeRF: Yang, Pavone, Wang, CVPR 2023, section 3.4)."""

    def value(view: StepView) -> Tensor:
        density = view.fine[SEEN].density
        return density[:, : options.occlusion_samples].sum() / density.numel()

    return Loss("occlusion", "occlusion", (SEEN,), constant(options.occlusion_lambda), value)


def distortion(options: LossesConfig) -> Loss:
    """Distortion of the seen (and unseen) rays, from a step on."""
    groups = (SEEN, UNSEEN) if options.n_unseen else (SEEN,)

    def schedule(step: int) -> float:
        return options.distortion_lambda if step >= options.distortion_start_iter else 0.0

    def value(view: StepView) -> Tensor:
        weights = torch.cat([view.fine[group].weights for group in groups])
        z = torch.cat([view.fine[group].z for group in groups])
        return distortion_loss(weights, z, view.batch.near, view.batch.far)

    return Loss("distortion", "distortion", groups, schedule, value)


def depth_smoothness(options: LossesConfig, size: int = PATCH) -> Loss:
    """Depth smoothness of the unseen rays, which come as patches of size x size pixels."""

    def value(view: StepView) -> Tensor:
        return depth_smoothness_loss(view.fine[UNSEEN].depth.unflatten(0, (-1, size, size)))

    return Loss("depth_smooth", "depth smoothness", (UNSEEN,), constant(options.depth_smooth_lambda), value)


def depth_prior(options: LossesConfig) -> Loss:
    """Weights along rays through known depths, of the fine and, as with colours, of the coarse pass. A scene without
    known depths has no such term."""

    def value(view: StepView) -> Tensor | None:
        passes = [part[KNOWN] for part in (view.fine, view.coarse) if KNOWN in part]
        if not passes:
            return None
        batch, sigma = view.batch, options.depth_prior_sigma * (view.batch.far - view.batch.near)
        return sum((batch.known_weights * depth_prior_loss(one.weights, one.z, batch.known_depths, sigma)).mean()
                   for one in passes)

    def schedule(step: int) -> float:
        end = options.depth_prior_end_iter
        return options.depth_prior_lambda * (max(1 - step / end, 0.0) if end else 1.0)

    return Loss("depth_prior", "depth prior", (KNOWN,), schedule, value)


def regularizers_of(options: LossesConfig) -> list[Loss]:
    """The losses of a run beside colour."""
    there = {
        entropy: options.entropy,
        smoothing: options.smoothing,
        carving: options.carving_lambda,
        occlusion: options.occlusion_lambda,
        distortion: options.distortion_lambda,
        depth_smoothness: options.depth_smooth_lambda,
        depth_prior: options.depth_prior_lambda,
    }
    return [make(options) for make, wanted in there.items() if wanted]


def losses_of(options: LossesConfig) -> list[Loss]:
    """The losses of a run, colour first."""
    return colour_losses() + regularizers_of(options)
