"""A running average of the weights, to render with: single steps, of few rays each, leave noise in them."""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from infonerf.fields.nerf import Networks


class WeightAverage:
    """Exponential moving average of the weights of networks; it begins with those of `source`.

    networks: others of the same shapes, which hold it.
    decay: share of the average that an update keeps; less at first, (1 + n) / (10 + n) after n updates, so that
    the initial weights are soon forgotten.
    """

    @torch.no_grad()
    def __init__(self, networks: Networks, source: Networks, decay: float):
        self.networks, self.decay = networks, decay
        for average, new in zip(networks.parameters(), source.parameters(), strict=True):
            average.requires_grad_(False).copy_(new)

    def update(self, networks: Networks, step: int) -> None:
        """Take in the weights after update `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(keep)(self.networks.parameters(), networks.parameters(), None)
