"""A CUDA graph on the CPU: operations are recorded with the tensors that they are given, and done again on these."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from infonerf.system.graphs import Captured, waits

DRAWS = {"rand", "randn", "randint", "randperm", "uniform_", "normal_", "bernoulli_"}


class Recorder(TorchDispatchMode):
    """Records, and does, what is asked meanwhile. As under CUDA graphs, nothing may ask a tensor for its values.

    operations: name of each, views left out. before: tensors that were written to, and what was in them.
    """

    def __init__(self):
        super().__init__()
        self.entries, self.operations, self.before = [], [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name in DRAWS or waits(function, args, None):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        self.before += [(tensor, tensor.detach().clone()) for tensor in written(function, args, kwargs)]
        result = function(*args, **kwargs)
        if not function.is_view:
            self.operations.append(name)
            self.entries.append((function, args, kwargs, result))
        return result

    def undo(self) -> None:
        for tensor, values in reversed(self.before):
            tensor.detach().copy_(values)

    def again(self) -> None:
        for function, args, kwargs, result in self.entries:
            new = function(*args, **kwargs)
            if function._schema.is_mutable:
                continue
            for old, value in zip(tree_leaves(result), tree_leaves(new), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != value.data_ptr():
                    old.detach().copy_(value)


def written(function, args, kwargs) -> list[Tensor]:
    """The tensors that a call writes to."""
    found = []
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


def capture(work, beside=None):
    """As capture_cuda: nothing of the work is done yet."""
    parts, recorders = [], [Recorder()]

    def begin() -> None:
        recorders[-1].__enter__()
        parts.append(torch.no_grad()(recorders[-1].again))

    def host(call) -> None:
        recorders[-1].__exit__(None, None, None)
        parts.append(call)
        recorders.append(Recorder())
        begin()

    begin()
    try:
        work(host)
    finally:
        recorders[-1].__exit__(None, None, None)
        for recorder in reversed(recorders):
            recorder.undo()
    return Captured(parts, recorders)
