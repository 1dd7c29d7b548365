"""What a captured step must not do is found before it is captured."""

import pytest
import torch

from infonerf.system.graphs import at_once, at_once_watched

X = torch.arange(6.0)
WAITING = {
    "_local_scalar_dense": lambda: float(X.sum()),
    "nonzero": lambda: X.nonzero(),
    "index": lambda: X[X > 2],
    "index_put_": lambda: X.clone().__setitem__(X > 2, torch.zeros(3)),
    "masked_select": lambda: X.masked_select(X > 2),
    "repeat_interleave": lambda: X.repeat_interleave(torch.tensor([1, 2, 0, 0, 0, 1])),
    "unique_consecutive": lambda: torch.unique_consecutive(X),
    "bincount": lambda: torch.bincount(X.long()),
}


@pytest.mark.parametrize("name", WAITING)
def test_operations_that_wait(name):
    assert at_once_watched(lambda host: WAITING[name]()) == name


def test_what_may_be_captured():
    def work(host):
        rows = torch.tensor([0, 3])
        y = X.clone()
        y[rows] = torch.where(y[rows] > 1, 0.0, y[rows])
        y.index_put_((rows,), torch.ones(2), accumulate=True)
        host(lambda: done.append(float(y.sum())))  # the host may ask
        done.append("end")

    done = []
    assert at_once_watched(work) is None
    assert done == [14.0, "end"]
    at_once(work)
    assert done == [14.0, "end"] * 2


def test_a_wait_after_the_host_is_found():
    def work(host):
        host(lambda: None)
        X.nonzero()

    assert at_once_watched(work) == "nonzero"
