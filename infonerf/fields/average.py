"""A running average of the weights, to render with: single steps, of few rays each, leave noise in them."""

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from infonerf.fields.field import CoarseFine


class WeightAverage:
    """Exponential moving average of the weights of networks, which it begins with.

    networks: others of the same shapes, which hold it.
    decay: fraction of the average that an update keeps; less at first, (1 + n) / (10 + n) after n updates, so that
    the initial weights are soon forgotten.
    """

    def __init__(self, networks: CoarseFine, decay: float):
        self.networks, self.decay = copy.deepcopy(networks), decay
        for parameter in self.networks.parameters():
            parameter.requires_grad_(False)

    def kept(self, step: int) -> float:
        """The fraction of the average that update `step` keeps."""
        return min(self.decay, (1 + step) / (10 + step))

    def update(self, networks: CoarseFine, step: int) -> None:
        """Take in the weights after update `step`."""
        get_ema_multi_avg_fn(self.kept(step))(self.networks.parameters(), networks.parameters(), None)

    def take(self, networks: CoarseFine, share: Tensor) -> None:
        """Replace a share (0..1) of the average, a scalar on the device, by the weights."""
        averages = self.networks.parameters()
        change = torch._foreach_sub([parameter.detach() for parameter in networks.parameters()], averages)
        torch._foreach_mul_(change, share)
        torch._foreach_add_(averages, change)
