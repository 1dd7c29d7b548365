"""Work on a GPU that is done again and again on tensors that stay where they are, captured once as CUDA graphs: the
host then starts thousands of kernels with one call.

What is captured must wait for nothing from the GPU. Where the host has to decide something, or ranks exchange tensors,
the work hands it a call, and one graph ends there and the next begins.
"""

import gc
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Host = Callable[[Callable[[], None]], None]  # takes what the host does between two stretches of the device's work
Work = Callable[[Host], None]
Capture = Callable[[Work], Callable[[], None]]  # work -> what does it again

ASK = {"_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2", "unique_dim"}
COPY = {"_to_copy", "copy_"}


def at_once(work: Work) -> None:
    """Do the work now, without capturing it."""
    work(lambda call: call())


def at_once_watched(work: Work) -> str | None:
    """The same; returns the first operation that makes the host wait, between the host's own calls."""
    watch = Watch()

    def host(call: Callable[[], None]) -> None:
        watch.__exit__(None, None, None)
        call()
        watch.__enter__()

    with watch:
        work(host)
    return watch.found


class Watch(TorchDispatchMode):
    """found: the first operation that asked a tensor for its values, or copied between the CPU and a device."""

    found: str | None = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        name = function.overloadpacket.__name__
        if self.found is None and (name in ASK or name in COPY):
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, torch.Tensor)]
            if name in ASK or len({tensor.device.type for tensor in tensors}) > 1:
                self.found = name
        return result


def capture_cuda(work: Work, device: torch.device) -> Callable[[], None]:
    """Capture the work, which has been done at least once before. Nothing of it is done yet, and no call of the host is
    made. RuntimeError where something in it cannot be captured."""
    parts = []
    gc.collect()  # an older graph that is freed meanwhile could end the capture
    # torch.cuda.graph has one stream for all captures, and does not come back from it where one fails.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), ExitStack() as graph:
        pool = torch.cuda.graph_pool_handle()

        def begin() -> None:
            new = torch.cuda.CUDAGraph()
            graph.enter_context(torch.cuda.graph(new, pool=pool))
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
