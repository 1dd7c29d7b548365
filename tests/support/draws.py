"""Random tensors of a seed for tests, and whether draws are uniform."""

import math
import random

import numpy as np
import torch
from torch import Tensor

from infonerf.scene.cameras import Rays

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=seeded(seed), dtype=DOUBLE)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE)


def some_rays(n: int, seed: int = 0, near: float = 2.0, far: float = 6.0, dtype: torch.dtype = DOUBLE) -> Rays:
    return Rays(randn(n, 3, seed=seed).to(dtype), randn(n, 3, seed=seed + 1).to(dtype), near, far)


def global_states() -> tuple:
    """The states of all global generators, which nothing should touch."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def assert_uniform(counts) -> None:
    """Chi-square of counts that should be equal; five standard deviations, and the seeds are fixed."""
    counts = torch.as_tensor(counts, dtype=DOUBLE)
    expected, freedom = counts.sum() / counts.numel(), counts.numel() - 1
    assert expected > 5  # or chi-square says nothing
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


def assert_uniform_between(values: Tensor, low: float, high: float, bins: int = 20) -> None:
    """All values are between low and high, and equally many in each of equal bins."""
    assert values.min() >= low
    assert values.max() <= high
    assert_uniform(torch.histc(values.double(), bins, low, high))
