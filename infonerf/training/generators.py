"""The random states of a run, and draws of integers. Nothing seeds or reads torch's global generators."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from infonerf.system.logs import say


@dataclass(frozen=True)
class Generators:
    """The random states of a run. pixels: which views and pixels are drawn, always on the CPU, so the
    same on every device. samples: jitter and noise, on the device. weights: the initial networks."""

    weights: torch.Generator
    pixels: torch.Generator
    samples: torch.Generator

    def state_dict(self) -> dict:
        return {
            "pixels": self.pixels.get_state(),
            "samples": self.samples.get_state(),
            "samples_device": self.samples.device.type,
        }

    def load_state_dict(self, state: dict) -> None:
        """The state of `samples` of another kind of device cannot be taken over, which is said."""
        self.pixels.set_state(state["pixels"])
        if state["samples_device"] == self.samples.device.type:
            self.samples.set_state(state["samples"])
        else:
            say("the checkpoint was trained on another kind of device: the jitter of samples starts from the seed")


def create_generators(seed: int, device: torch.device) -> Generators:
    """Independent generators from one seed."""
    weights, pixels, samples = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint32))
    return Generators(
        torch.Generator().manual_seed(weights),
        torch.Generator().manual_seed(pixels),
        torch.Generator(device).manual_seed(samples),
    )


def random_integer(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform on low..high-1."""
    return int(torch.randint(low, high, (1,), generator=generator))


def distinct_integers(n: int, high: int, generator: torch.Generator) -> Tensor:
    """`n` different integers of 0..high-1, uniform and in random order, on the CPU.

    The first n different values of a sequence of uniform draws are such a sample; it costs O(n),
    where a permutation would cost O(high).
    """
    if n > high:
        raise ValueError(f"{n} different integers of {high}")
    if 4 * n > high:
        return torch.randperm(high, generator=generator)[:n]
    values = torch.randint(high, (n,), generator=generator)
    while True:
        ordered, place = torch.sort(values, stable=True)
        again = torch.zeros(len(values), dtype=torch.bool)
        again[place[1:]] = ordered[1:] == ordered[:-1]
        if not again.any():
            return values
        values = torch.cat([values[~again], torch.randint(high, (int(again.sum()),), generator=generator)])
