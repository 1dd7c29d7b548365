"""What the entries of a checkpoint may hold. A file may be a sound pickle of anything: each entry is checked here, when
it is read, so that whoever uses it finds the types, ranges and finite numbers that it expects.

A check returns the entry as it is used, and raises ValueError, whose text names what was found within it and what was
expected, where it is of no use. What fits which networks is seen where it is loaded.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infonerf.config import recorded
from infonerf.rendering.occupancy import CELLS

TINY = 1e-37  # what float32 can add to nothing
DEEPEST = 8  # levels of dictionaries and lists; ours have 5
MOST = 10**5  # values in all
MOST_STEPS = 10**9
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
WRAPPERS = re.compile(r"((module|_orig_mod)\.)+")  # of DataParallel and torch.compile, before a parameter's name
FORBIDDEN = ("amsgrad", "maximize", "differentiable", "decoupled_weight_decay")  # of Adam: no training here has them

Checks = Mapping[str, Callable]  # entry -> its check


def shown(value) -> str:
    """A value in a few words, whatever it is."""
    if isinstance(value, Tensor):
        return f"a tensor ({str(value.dtype).removeprefix('torch.')}, {' x '.join(map(str, value.shape)) or 'scalar'})"
    if value is None or type(value) in (bool, int, float, str):
        text = repr(value)
        return text if len(text) < 60 else text[:50] + " ..."
    return f"a {type(value).__name__}"


# Of what a file is made.


def require_plain(content: dict) -> None:
    """Dictionaries and lists of dense tensors on the CPU, numbers and text: no more values than can be looked at."""
    for n, (name, value) in enumerate(values_in(content)):
        if n > MOST:
            raise ValueError(f"found more than {MOST} values, expected fewer")
        if isinstance(value, Tensor):
            require_dense(name, value)
        elif type(value) is int and abs(value) >= 2**63:
            raise ValueError(f"{name}: found an integer of {value.bit_length()} bits, expected at most 64")
        elif not isinstance(value, dict | list | tuple) and type(value) not in (bool, int, float, str, type(None)):
            raise ValueError(f"{name}: found {shown(value)}, expected tensors, numbers and text")


def values_in(value, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All values within a value, and itself, by name: entry.entry."""
    yield name or "the file", value
    if not isinstance(value, dict | list | tuple):
        return
    if depth == DEEPEST:
        raise ValueError(f"{name}: found more than {DEEPEST} levels of lists, expected fewer")
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if type(key) not in (str, int):
            raise ValueError(f"{name or 'the file'}: found {shown(key)} as a name, expected text or a number")
        yield from values_in(part, f"{name}.{str(key)[:100]}".removeprefix("."), depth + 1)


def require_dense(name: str, tensor: Tensor) -> None:
    """Numbers in memory of their own, as many as the file holds."""
    odd = [word for word, is_so in {
        "sparse": tensor.layout != torch.strided,
        "nested": tensor.is_nested,
        "quantised": tensor.is_quantized,
        f"on {tensor.device.type}": tensor.device.type != "cpu",
        "of a class of its own": type(tensor) not in (Tensor, nn.Parameter),
        str(tensor.dtype): tensor.dtype not in DTYPES,
    }.items() if is_so]  # fmt: skip
    if not odd and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        odd = ["of elements that share memory"]
    if odd or tensor.is_neg():
        raise ValueError(f"{name}: found a tensor that is {odd[0] if odd else 'a view'}, expected a dense one")


# Values of a dictionary.


def mapping(value, name: str = "") -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: found {shown(value)}, expected values by name".removeprefix(": "))
    return value


def integer(state: dict, name: str, least: int = 0, most: int = 2**63) -> int:
    value = state.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}: found {shown(value)}, expected an integer from {least} to {most}")
    return value


def number(state: dict, name: str, least: float = 0, below: float = 1e31) -> float:
    """A scalar tensor counts as its number."""
    value = state.get(name)
    found = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if type(found) not in (int, float) or not least <= found < below:
        raise ValueError(f"{name}: found {shown(found)}, expected a number >= {least:g} and < {below:g}")
    return float(found)


def floats(state: dict, name: str) -> Tensor:
    """Of numbers that are finite in float32."""
    value = state.get(name)
    if not isinstance(value, Tensor) or value.dtype not in FLOATS:
        raise ValueError(f"{name}: found {shown(value)}, expected a tensor of floats")
    if not value.float().isfinite().all():
        raise ValueError(f"{name}: found {int((~value.float().isfinite()).sum())} of {value.numel()} numbers that are "
                         "not finite, expected finite ones")
    return value.detach()


# The entries.


def weights(state) -> dict[str, Tensor]:
    """Of a network, by its own names, where all are saved with what was wrapped around it: module.x -> x."""
    for name, value in mapping(state).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name}: found {shown(value)}, expected a tensor of weights")
        if value.dtype.is_floating_point:
            floats(state, name)
    wrapped = WRAPPERS.match(next(iter(state), ""))
    if not wrapped or not all(name.startswith(wrapped[0]) for name in state):
        return dict(state)
    return {name.removeprefix(wrapped[0]): value for name, value in state.items()}


def weights_or_none(state) -> dict[str, Tensor]:
    """Empty where a program says that there are none."""
    return weights(state) if state is not None else {}


def adam(state) -> dict:
    """Of Adam: empty where there is none, else its moments by the number of their parameter, and its groups. Of their
    settings those that change the numbers are kept: how it computes is the program's own choice."""
    if state is None or state == {}:
        return {}
    groups = mapping(state).get("param_groups")
    if not isinstance(groups, list) or not groups:
        raise ValueError(f"param_groups: found {shown(groups)}, expected groups of parameters")
    groups = [in_part(f"param_groups.{i}", adam_group, group) for i, group in enumerate(groups)]
    numbers = [number for group in groups for number in group["params"]]
    moments = mapping(state.get("state"), "state")
    moments = {key: in_part(f"state.{key}", adam_moments, value) for key, value in moments.items()}
    if len(set(numbers)) < len(numbers) or not moments.keys() <= set(numbers):
        raise ValueError("state: found parameters that are not in param_groups, or twice, expected each of them once")
    return {"state": moments, "param_groups": groups}


def adam_group(group) -> dict:
    betas, params = (mapping(group).get(name) for name in ("betas", "params"))
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas: found {shown(betas)}, expected two numbers")
    if not isinstance(params, list) or not all(type(number) is int for number in params):
        raise ValueError(f"params: found {shown(params)}, expected numbers of parameters")
    for name in FORBIDDEN:
        if group.get(name, False) is not False:
            raise ValueError(f"{name}: found {shown(group[name])}, expected False")
    least = {"lr": 0, "eps": TINY, "weight_decay": 0}
    settings = {name: number(group, name, least[name]) for name in least}
    both = {f"betas.{i}": beta for i, beta in enumerate(betas)}
    return settings | {"betas": tuple(number(both, name, below=1) for name in both), "params": params}


def adam_moments(moments) -> dict:
    """In memory of their own: updates are made in place."""
    step = number(mapping(moments), "step")
    first, second = (floats(moments, name).clone() for name in ("exp_avg", "exp_avg_sq"))
    if first.shape != second.shape or not (second >= 0).all():
        raise ValueError("exp_avg_sq: found no squares of exp_avg's shape, expected them")
    return {"step": torch.tensor(step, dtype=torch.float32), "exp_avg": first, "exp_avg_sq": second}


def random_states(state) -> dict:
    """Of the generators: those of the CPU are tried."""
    kind = mapping(state).get("samples_device")
    if not isinstance(kind, str):
        raise ValueError(f"samples_device: found {shown(kind)}, expected a kind of device")
    for name, device in (("pixels", "cpu"), ("samples", kind)):
        value = state.get(name)
        if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.ndim != 1:
            raise ValueError(f"{name}: found {shown(value)}, expected the bytes of a generator")
        try:
            if device == "cpu":
                torch.Generator().set_state(value)
        except RuntimeError as error:
            raise ValueError(f"{name}: found bytes of no generator, expected its state") from error
    return state


def sampler(state) -> dict:
    """Of the shuffled epochs, by group."""
    return {group: in_part(group, epochs, value) for group, value in mapping(state).items()}


def epochs(state) -> dict[str, int]:
    n = integer(mapping(state), "n")
    return {"n": n, "seed": integer(state, "seed"), "cursor": integer(state, "cursor", -1, n)}


def occupancy(state) -> dict:
    """Of the grid: its densities, which may be infinite, and whether they are in use."""
    density, in_use = (mapping(state).get(name) for name in ("density", "in_use"))
    if not isinstance(density, Tensor) or density.dtype not in FLOATS or density.shape != (CELLS**3,):
        raise ValueError(f"density: found {shown(density)}, expected {CELLS**3} densities")
    if not (density >= 0).all() or not isinstance(in_use, bool):
        raise ValueError("found densities below 0, or not whether they are in use, expected both")
    return {"density": density, "in_use": in_use}


def held_out(state) -> dict:
    """Of early stopping."""
    views, best = (mapping(state).get(name) for name in ("views", "best"))
    if not isinstance(views, list) or not all(type(view) is int for view in views):
        raise ValueError(f"views: found {shown(views)}, expected numbers of views")
    if type(best) not in (int, float) or math.isnan(best):
        raise ValueError(f"best: found {shown(best)}, expected a PSNR")
    steps = {name: integer(state, name, 0, MOST_STEPS) for name in ("best_step", "waited")}
    return {"views": views, "best": float(best), **steps}


def options(values) -> dict[str, Any]:
    """Those of a run, parsed as from a config file. Of names that are no option, as of other versions, none is kept."""
    if not all(isinstance(name, str) for name in mapping(values)):
        raise ValueError("found options that are none, expected their names and values")
    return recorded(values)


def in_part(name: str, check, value):
    """What a check makes of a part of an entry, whose name its error begins with."""
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{name}{': ' if str(error).startswith('found') else '.'}{error}") from error


NETWORKS = {
    "network_fn_state_dict": weights,
    "network_fine_state_dict": weights_or_none,
    "network_fn_average_state_dict": weights,
    "network_fine_average_state_dict": weights_or_none,
}
TO_LOOK_AT: Checks = NETWORKS | {"options": options}
TO_TRAIN: Checks = TO_LOOK_AT | {
    "optimizer_state_dict": adam,
    "random_states": random_states,
    "sampler": sampler,
    "occupancy": occupancy,
    "held_out": held_out,
}
