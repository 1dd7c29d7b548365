"""Work on a GPU that is done again and again on tensors that stay where they are, captured once as CUDA graphs: the
host then starts thousands of kernels with one call.

What is captured must wait for nothing from the GPU. Where the host has to decide something, or ranks exchange tensors,
the work hands it a call, and one graph ends there and the next begins.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch

Host = Callable[[Callable[[], None]], None]  # takes what the host does between two stretches of the device's work
Work = Callable[[Host], None]
Capture = Callable[[Work], Callable[[], None]]  # work -> what does it again


def at_once(work: Work) -> None:
    """Do the work now, without capturing it."""
    work(lambda call: call())


def capture_cuda(work: Work) -> Callable[[], None]:
    """Capture the work, which has been done at least once before, on the current CUDA device. Nothing of it is done
    yet, and no call of the host is made. RuntimeError where something in it cannot be captured."""
    parts, pool, stream = [], torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    with ExitStack() as graph:

        def begin() -> None:
            new = torch.cuda.CUDAGraph()
            graph.enter_context(torch.cuda.graph(new, pool=pool, stream=stream))
            parts.append(new.replay)

        def host(call: Callable[[], None]) -> None:
            graph.close()
            parts.append(call)
            begin()

        begin()
        work(host)

    def again() -> None:
        for part in parts:
            part()

    return again
