"""The losses: colour, ray entropy, KL smoothness, and the list of regularizers with their schedules.

Axes: r rays, s samples along a ray. A term takes alphas and opacities and returns a scalar.
Steps are numbered from 1, as in the released code.
Source: InfoNeRF (Kim, Seo, Han, CVPR 2022), sections 3.2 and 3.3, and its released code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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


class Composites(dict):
    """What regularizers see of a step: the name of a ray group -> its final composite.

    coarse: likewise of the coarse pass, where there is one. alpha: r, of the seen rays' pixels, where it is asked for.
    """

    def __init__(self, renderings: Mapping, alpha: Tensor | None = None):
        super().__init__({group: rendering.fine for group, rendering in renderings.items()})
        self.coarse = {group: both.coarse for group, both in renderings.items() if both.coarse is not None}
        self.alpha = alpha


@dataclass(frozen=True)
class Regularizer:
    """A term of the loss that is added to the colour loss.

    groups: the ray groups that must be rendered for it, where its weight is not 0.
    weight: step number -> weight. value: Composites, the groups' final composites -> scalar.
    """

    name: str
    groups: tuple[str, ...]
    weight: Callable[[int], float]
    value: Callable[[Mapping], Tensor]


def entropy_regularizer(
    *, weight: float, end: int | None, threshold: float, kind: str, log_scaling: bool,
    unseen: bool, seen: bool, neighbours: bool,
    on: str = "alpha", skip_last: bool = False, start: int = 0, ramp: int = 0,
) -> Regularizer:
    """Ray entropy of the unseen rays (`unseen`), the seen rays (`seen`, and where there are no unseen
    ones), and of such neighbours (`neighbours`) as the step renders for others.

    on: which of a sample's numbers are the distribution, `alpha` (the paper's) or the rendering `weights`.
    skip_last: leave out the last sample, whose bin has no end. start: the first step with the term, whose
    weight grows over `ramp` steps.
    """
    needed = ("unseen",) * unseen + ("seen",) * (seen or not unseen)
    covered = needed + ("seen_near", "unseen_near") * neighbours

    def value(composites: Mapping) -> Tensor:
        parts = [composites[group] for group in covered if group in composites]
        mass, acc = torch.cat([getattr(part, on) for part in parts]), torch.cat([part.acc for part in parts])
        return entropy_loss(mass[:, :-1] if skip_last else mass, acc, threshold, kind, log_scaling)

    def schedule(step: int) -> float:
        if step < start or (end is not None and step > end):
            return 0.0
        return weight * min((step - max(start, 1) + 1) / ramp, 1.0) if ramp else weight

    return Regularizer("entropy", needed, schedule, value)


def smoothness_regularizer(
    *, weight: float, rate: float, step_size: int, end: int | None, activation: str, unseen: bool, floor: float = 0.0
) -> Regularizer:
    """KL smoothness between all seen (and unseen) rays of a step and their neighbours."""
    rays = ("seen", "unseen") if unseen else ("seen",)
    near = tuple(f"{group}_near" for group in rays)

    def schedule(step: int) -> float:
        return weight * rate ** (step // step_size) if end is None or step <= end else 0.0

    def value(composites: Mapping) -> Tensor:
        alpha, near_alpha = (torch.cat([composites[group].alpha for group in part]) for part in (rays, near))
        return smoothness_loss(alpha, near_alpha, activation, floor)

    return Regularizer("smoothing", rays + near, schedule, value)


def carving_regularizer(*, weight: float) -> Regularizer:
    """Space carving: mean accumulated opacity of the seen rays whose pixel is wholly transparent, of the fine pass
    plus, as with colours, of the coarse pass; 0 where there is no such ray."""

    def value(composites: Composites) -> Tensor:
        empty = composites.alpha == 0
        passes = [group["seen"] for group in (composites, composites.coarse) if "seen" in group]
        return sum(torch.where(empty, seen.acc, 0).sum() for seen in passes) / empty.sum().clamp_min(1)

    return Regularizer("carving", ("seen",), lambda step: weight, value)


def occlusion_regularizer(*, weight: float, samples: int) -> Regularizer:
    """The density of the seen rays' first `samples` samples, as a mean over all samples: what is right in front of
    a camera is likely to be a floater (FreeNeRF: Yang, Pavone, Wang, CVPR 2023, section 3.4)."""

    def value(composites: Mapping) -> Tensor:
        density = composites["seen"].density
        return density[:, :samples].sum() / density.numel()

    return Regularizer("occlusion", ("seen",), lambda step: weight, value)


def distortion_regularizer(*, weight: float, start: int, near: float, far: float, unseen: bool) -> Regularizer:
    """Distortion loss of the seen (and unseen) rays, from step `start` on."""
    groups = ("seen", "unseen") if unseen else ("seen",)

    def value(composites: Mapping) -> Tensor:
        weights, z = (torch.cat([getattr(composites[group], name) for group in groups]) for name in ("weights", "z"))
        return distortion_loss(weights, z, near, far)

    return Regularizer("distortion", groups, lambda step: weight if step >= start else 0.0, value)


def depth_smoothness_regularizer(*, weight: float, size: int) -> Regularizer:
    """Depth smoothness of the unseen rays, which come as patches of size x size pixels."""

    def value(composites: Mapping) -> Tensor:
        return depth_smoothness_loss(composites["unseen"].depth.unflatten(0, (-1, size, size)))

    return Regularizer("depth_smooth", ("unseen",), lambda step: weight, value)


def active(regularizers: list[Regularizer], step: int) -> list[Regularizer]:
    """Those with a weight at this step."""
    return [regularizer for regularizer in regularizers if regularizer.weight(step) != 0]


def needed_groups(regularizers: list[Regularizer], step: int) -> set[str]:
    """The ray groups to draw and render at this step."""
    return {"seen"}.union(*(regularizer.groups for regularizer in active(regularizers, step)))


def loss_terms(
    renderings: Mapping, target: Tensor, regularizers: list[Regularizer], step: int,
    alpha: Tensor | None = None, background: Tensor | None = None,
) -> dict[str, tuple[float, Tensor]]:
    """Every term of the step's loss as name -> (weight, unweighted value).

    renderings: group -> Rendering. Colour is compared on the seen rays only: on `background` (r 3) where there is
    one, for which the target's `alpha` (r) is needed, and both target and renderings must lie on white.
    """
    seen = renderings["seen"]
    if background is not None:
        target = on_background(target, alpha, background)

    def colour(seen) -> Tensor:
        rgb = seen.rgb if background is None else on_background(seen.rgb, seen.acc, background)
        return colour_loss(rgb, target)

    terms = {"colour_fine": (1.0, colour(seen.fine))}
    if seen.coarse is not None:
        terms["colour_coarse"] = (1.0, colour(seen.coarse))
    composites = Composites(renderings, alpha)
    for regularizer in active(regularizers, step):
        terms[regularizer.name] = (regularizer.weight(step), regularizer.value(composites))
    return terms


def total_loss(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """The weighted sum that is minimised."""
    return sum(weight * value for weight, value in terms.values())
