"""A running average of the weights, to render with: single steps, of few rays each, leave noise in them."""

import copy

import torch

from run_nerf_helpers import Networks


class WeightAverage:
    """Exponential moving average of the networks' weights; `networks` are networks of these weights.

    decay: share of the average that an update keeps; less at first, (1 + n) / (10 + n) after n updates, so that
    the initial weights are soon forgotten.
    """

    def __init__(self, networks: Networks, decay: float):
        self.decay, self.networks = decay, Networks(*map(copy.deepcopy, networks))
        for parameter in self.networks.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, networks: Networks, step: int) -> None:
        """Take in the weights after update `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, new in zip(self.networks.parameters(), networks.parameters(), strict=True):
            average.lerp_(new, 1 - keep)
