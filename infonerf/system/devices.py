"""Devices, and what they can do."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from infonerf.system.errors import InputError
from infonerf.system.logs import say
from infonerf.system.ranks import Ranks


def rank_device(name: str, ranks: Ranks) -> torch.device:
    """The device of a rank, of which each has its own GPU; `find_device` where there is but one."""
    if ranks.size == 1:
        return find_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {name}: expected auto, cpu or cuda under torchrun, which chooses among GPUs")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return find_device("cpu")
    count = torch.cuda.device_count()
    if 0 < count <= ranks.local:
        raise InputError(f"torchrun: found {count} GPUs for more processes of a machine, expected --nproc_per_node "
                         f"{count}, or --device cpu")
    return find_device(f"cuda:{ranks.local}")


def find_device(name: str) -> torch.device:
    """auto: CUDA when there is a GPU that works, else the CPU."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        fault = fault_of(torch.device("cuda"))
        if fault is None:
            return torch.device("cuda")
        say(f"WARNING: the GPU cannot be used ({fault}): going on with the CPU")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: found no CUDA device, expected auto or cpu on this machine")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: found {torch.cuda.device_count()} CUDA devices, expected one of them")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: found no MPS device, expected auto or cpu on this machine")
    fault = fault_of(device)
    if fault:
        raise InputError(f"--device {name}: found a device that cannot be used ({fault}), expected auto or cpu")
    return device


def fault_of(device: torch.device) -> str | None:
    """Why a device that is there computes nothing: this PyTorch has no kernels for a GPU, say, or others hold it."""
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError as error:
        return str(error).strip().split("\n")[0]
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 faster than those of float32."""
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast_to(dtype: torch.dtype | None, device: torch.device):
    """A context in which matrix products are of `dtype`; None: of their factors' own."""
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one dtype that lie on the CPU, on a device: in one transfer, for which on CUDA the host does not
    wait."""
    if device.type == "cpu":
        return list(tensors)
    row = torch.cat([tensor.flatten() for tensor in tensors])
    on_cuda = device.type == "cuda"
    if on_cuda and torch.cuda.is_available():  # the pretended GPU of the tests takes it as it is
        row = row.pin_memory()
    parts = row.to(device, non_blocking=on_cuda).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
