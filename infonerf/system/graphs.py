"""Work on a GPU that is done again and again on tensors that stay where they are, captured once as CUDA graphs: the
host then starts thousands of kernels with one call.

What is captured must wait for nothing from the GPU. Where the host has to decide something, or ranks exchange tensors,
the work hands it a call, and one graph ends there and the next begins.
"""

import gc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Host = Callable[[Callable[[], None]], None]  # takes what the host does between two stretches of the device's work
Work = Callable[[Host], None]

# Operations that tell the host what is in a tensor, or how much; `index` and `index_put` do where they take a mask.
ASK = {"_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero",
       "repeat_interleave", "unique_consecutive", "unique_dim"}  # fmt: skip
COPY, INDEX = {"_to_copy", "copy_"}, {"index", "index_put", "index_put_"}


@dataclass(frozen=True)
class Captured:
    """Work that was captured; calling it does the work again. parts: graphs, and what the host does between them.
    pool: the memory of the graphs."""

    parts: list[Callable[[], None]]
    pool: object = None

    def __call__(self) -> None:
        for part in self.parts:
            part()


class Capture(Protocol):
    def __call__(self, work: Work, beside: Captured | None = None) -> Captured:
        """Capture work that has been done at least once before. Nothing of it is done yet, and no call of the host is
        made. beside: captured before, with memory that this may use, too, as nothing in it is read after the work.
        Raises RuntimeError where something cannot be captured."""


def at_once(work: Work) -> None:
    """Do the work now, without capturing it."""
    work(lambda call: call())


def at_once_watched(work: Work) -> str | None:
    """The same; returns the first operation that makes the host wait, between the host's own calls."""
    finder = WaitFinder()

    def host(call: Callable[[], None]) -> None:
        finder.__exit__(None, None, None)
        call()
        finder.__enter__()

    with finder:
        work(host)
    return finder.found


class WaitFinder(TorchDispatchMode):
    """found: the first operation that asked what is in a tensor, or copied between the CPU and a device."""

    found: str | None = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if self.found is None and waits(function, args, result):
            self.found = function.overloadpacket.__name__
        return result


def waits(function, args, result) -> bool:
    """Whether an operation makes the host wait for the device."""
    name = function.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
    if name in INDEX:
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tree_leaves(args[1]) if tensor is not None)
    return name in ASK or (name in COPY and len({tensor.device.type for tensor in tensors}) > 1)


def capture_cuda(work: Work, beside: Captured | None = None, *, device: torch.device) -> Captured:
    """A Capture, as CUDA graphs."""
    parts, pool = [], beside.pool if beside else torch.cuda.graph_pool_handle()
    gc.collect()  # an older graph that is freed meanwhile could end the capture
    # torch.cuda.graph has one stream for all captures, and does not come back from it where one fails.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), ExitStack() as graph:

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
    return Captured(parts, pool)
