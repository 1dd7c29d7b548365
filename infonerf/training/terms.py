"""What a loss is, and the sum that a training step minimises. The losses themselves are in loss.py.

Steps are numbered from 1, as in the released code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from infonerf.fields.field import CoarseFine
from infonerf.rendering.compositing import Composite, Rendering
from infonerf.rendering.groups import SEEN
from infonerf.training.sampler import RayBatch

Terms = dict[str, tuple[float | Tensor, Tensor]]  # name -> (weight, unweighted value)


@dataclass(frozen=True)
class StepView:
    """What a loss sees of a step: the composites of the coarse pass, where there is one, and of the last pass, by ray
    group; the rays, colours and alphas that were drawn; the networks, for a loss on their parameters."""

    coarse: dict[str, Composite]
    fine: dict[str, Composite]
    batch: RayBatch
    networks: CoarseFine | None = None

    @classmethod
    def of(cls, renderings: Mapping[str, Rendering], batch: RayBatch, networks: CoarseFine | None = None) -> "StepView":
        coarse = {group: passes.coarse for group, passes in renderings.items() if passes.coarse is not None}
        return cls(coarse, {group: passes.fine for group, passes in renderings.items()}, batch, networks)


def constant(weight: float) -> Callable[[int], float]:
    """A schedule that never changes."""
    return lambda step: weight


@dataclass(frozen=True)
class Loss:
    """A term of the loss.

    name: in logs. label: in words, for people. groups: the ray groups that must be rendered for it, where its weight is
    not 0. schedule: step number -> weight. value: StepView -> scalar; None where this step has no such term.
    """

    name: str
    label: str
    groups: tuple[str, ...]
    schedule: Callable[[int], float]
    value: Callable[[StepView], Tensor | None]


def active(losses: Sequence[Loss], step: int) -> list[Loss]:
    """Those with a weight at this step."""
    return [loss for loss in losses if loss.schedule(step) != 0]


def needed_groups(losses: Sequence[Loss], step: int) -> set[str]:
    """The ray groups to draw and render at this step."""
    return {SEEN}.union(*(loss.groups for loss in active(losses, step)))


def weights_at(losses: Sequence[Loss], step: int) -> dict[str, float]:
    """The weights of the losses that are active at a step, by name."""
    return {loss.name: loss.schedule(step) for loss in active(losses, step)}


def loss_terms(
    view: StepView, losses: Sequence[Loss], step: int, weights: Mapping[str, float | Tensor] | None = None
) -> Terms:
    """Every term of the step's loss, and the penalties of the networks. weights: of the active losses, instead of
    those at the step."""
    weights = weights_at(losses, step) if weights is None else weights
    values = {loss.name: loss.value(view) for loss in losses if loss.name in weights}
    terms = {name: (weights[name], value) for name, value in values.items() if value is not None}
    return terms | (view.networks.penalties() if view.networks is not None else {})


def total_loss(terms: Terms) -> Tensor:
    """The weighted sum that is minimised."""
    return sum(weight * value for weight, value in terms.values())
