"""What a field is: a network, or a grid, that says density and colour at points in space.

Axes: ... points of any shape; the features of a point are whatever the field makes of it.
"""

import copy
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Field(nn.Module):
    """A field that can be trained and rendered. A subclass defines `features`, `density` and `colour`; what else a
    field brings to a training (a schedule, learning rates, penalties) has the plainest default.
    """

    def features(self, points: Tensor) -> Tensor:
        """points ... 3 -> ... f, from which density and colour are read."""
        raise NotImplementedError

    def density(self, features: Tensor) -> Tensor:
        """features ... f -> raw density ..., of which rendering takes what is above 0."""
        raise NotImplementedError

    def encode_directions(self, directions: Tensor) -> Tensor:
        """Unit viewing directions ... 3 -> ... d: what `colour` takes of them, once for all samples of a ray."""
        return directions

    def colour(self, features: Tensor, encoded: Tensor) -> Tensor:
        """features ... f, encoded directions ... d -> raw colour ... 3, whose sigmoid is rendered."""
        raise NotImplementedError

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """points r s 3, unit directions r 3 -> raw colour r s 3, raw density r s: the reference for what rendering
        computes piece by piece."""
        features = self.features(points)
        encoded = self.encode_directions(directions)[:, None].expand(*points.shape[:2], -1)
        return self.colour(features, encoded), self.density(features)

    def set_step(self, step: int) -> None:
        """Set what follows a schedule (frequencies, say) for a training step, counted from 1. A checkpoint of n updates
        is rendered as in step n."""

    @property
    def capturable(self) -> bool:
        """Whether a step with this field may be captured as a CUDA graph: what it computes depends on nothing that
        changes from step to step but tensors that stay where they are, and on `phase`. By default one without a
        schedule."""
        return type(self).set_step is Field.set_step

    @property
    def phase(self) -> Hashable:
        """What of the schedule is no tensor: where it changes, a step is captured anew."""
        return None

    def hidden_layers(self) -> list[nn.Linear]:
        """The layers whose weights may be of low precision."""
        return []

    def parameter_groups(self, lrate: float) -> list[dict]:
        """Groups of parameters for torch's optimizers, each with its learning rate at the start."""
        return [{"params": list(self.parameters()), "lr": lrate}]

    def penalties(self) -> dict[str, tuple[float, Tensor]]:
        """Terms of the loss that depend on the parameters alone: name -> (weight, value). A weight that changes from
        step to step is a tensor, or a part of `phase`."""
        return {}

    @property
    def multiplications(self) -> int:
        """Multiplications per point, roughly: they decide how many threads are worth their cost."""
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True, eq=False)
class CoarseFine:
    """The fields of the two passes. Without importance sampling there is no fine one."""

    coarse: Field
    fine: Field | None

    def __iter__(self) -> Iterator[Field]:
        """The fields that there are."""
        return (field for field in (self.coarse, self.fine) if field is not None)

    @property
    def last(self) -> Field:
        """The field of the last pass, whose densities pictures show."""
        return self.coarse if self.fine is None else self.fine

    @property
    def device(self) -> torch.device:
        return next(self.coarse.parameters()).device

    def parameters(self) -> list[nn.Parameter]:
        """In the order of the released optimizer: coarse, then fine."""
        return [parameter for field in self for parameter in field.parameters()]

    def parameter_groups(self, lrate: float) -> list[dict]:
        """Of both fields. Groups that differ in nothing but their parameters are one, as in the released optimizer."""
        merged: list[dict] = []
        for field in self:
            for group in field.parameter_groups(lrate):
                alike = [other for other in merged if settings_of(other) == settings_of(group)]
                if alike:
                    alike[0]["params"] += group["params"]
                else:
                    merged.append({**group, "params": list(group["params"])})
        return merged

    def penalties(self) -> dict[str, tuple[float, Tensor]]:
        """Of both fields, as NAME_coarse and NAME_fine."""
        named = {"coarse": self.coarse} | ({} if self.fine is None else {"fine": self.fine})
        return {f"{name}_{which}": term for which, field in named.items() for name, term in field.penalties().items()}

    def set_step(self, step: int) -> None:
        for field in self:
            field.set_step(step)

    def in_precision(self, dtype: torch.dtype | None) -> "CoarseFine":
        """These fields with the weights of the hidden layers in `dtype`: copies to compute with; None: themselves."""
        if dtype is None:
            return self
        copies = copy.deepcopy(self)
        for field in copies:
            for layer in field.hidden_layers():
                for name, parameter in list(layer.named_parameters(recurse=False)):
                    setattr(layer, name, nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad))
        return copies

    def density_at(self, points: Tensor) -> Tensor:
        """points n 3 -> n: the greater of the fields' densities, at least 0."""
        found = torch.zeros(len(points), device=points.device)
        for field in self:
            torch.maximum(found, field.density(field.features(points)).float(), out=found)
        return found


def settings_of(group: dict) -> dict:
    """What a group of parameters asks of the optimizer."""
    return {name: value for name, value in group.items() if name != "params"}
