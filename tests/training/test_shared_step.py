"""Ranks that share the rays of a step make the updates of one process, in float64, whatever the losses are."""

import sys
from functools import partial

import pytest
import torch

from infonerf.rendering import occupancy
from support import fixed_steps
from support import ranks as support

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


@pytest.mark.parametrize(("size", "captured", "cases"), [
    (2, False, fixed_steps.SHARED), (3, False, fixed_steps.CASES | fixed_steps.SPECIAL), (2, True, fixed_steps.CASES),
], ids=["2", "3", "2, captured"])  # fmt: skip
def test_weights_and_losses(tmp_path, monkeypatch, size, captured, cases):
    monkeypatch.setattr(occupancy, "EVERY", 2)
    monkeypatch.setattr(occupancy, "WARM_UP", 3)
    cases = list(cases)
    found = support.results(size, partial(fixed_steps.shared_results, cases, captured=captured), tmp_path, "forkserver")
    for case in cases:
        losses, weights = fixed_steps.steps_of(fixed_steps.trainer_of(fixed_steps.SHARED[case]))
        for of_rank in found:
            torch.testing.assert_close(of_rank[case][0], losses, rtol=1e-10, atol=1e-12, msg=case)
            for ours, theirs in zip(of_rank[case][1], weights, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, msg=case)
