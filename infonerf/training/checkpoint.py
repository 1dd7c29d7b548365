"""Checkpoints: {step:06d}.tar, in the layout of nerf-pytorch, DS-NeRF and the released InfoNeRF.

Their four keys (`global_step`, `network_fn_state_dict`, `network_fine_state_dict`,
`optimizer_state_dict`) stand beside ours: `version`, `options`, `random_states`, `sampler`, with
skip_empty `occupancy`, with ema_decay the averaged weights, with i_val `held_out`, and `checksum`, the
SHA-256 of all the others.
In our files `global_step` is the number of completed updates; theirs hold one less, so that a file
of theirs is recognised by the missing `version`.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file, free_path, make_folder
from infonerf.version import VERSION

OUR_KEYS = {"version", "options", "random_states", "sampler"}
NETWORK_KEYS = {"coarse": "network_fn_state_dict", "fine": "network_fine_state_dict"}
AVERAGE_KEYS = {"coarse": "network_fn_average_state_dict", "fine": "network_fine_average_state_dict"}


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read. step: completed updates. content: the dictionary in the file, on the CPU."""

    path: Path
    step: int
    content: dict

    @property
    def ours(self) -> bool:
        return self.content.keys() >= OUR_KEYS


def path_of(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.tar"


def saved(folder: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints, ascending by step. Any name of digits counts, as an integer."""
    paths = folder.iterdir() if os.path.isdir(folder) else ()
    return sorted((int(path.stem), path) for path in paths if re.fullmatch(r"\d+\.tar", path.name))


def latest(folder: Path) -> Path | None:
    """The checkpoint with the greatest step."""
    return next((path for _, path in reversed(saved(folder))), None)


def newest_valid(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint of a run that can be read; each one that cannot is said. None where a run has none;
    InputError where it has some and none can be read."""
    paths = [path for _, path in reversed(saved(folder))]
    for path in paths:
        try:
            return read(path)
        except InputError as error:
            if path == paths[-1]:
                raise
            say(f"WARNING: {error}; going back to the checkpoint before it")
    return None


def remove_old(folder: Path, step: int, keep: int, spared: int | None = None) -> None:
    """Of the checkpoints up to `step`, keep the newest `keep`, and that of step `spared`; 0 keeps all."""
    if keep:
        for old, path in [(s, p) for s, p in saved(folder) if s <= step][:-keep]:
            if old != spared:
                path.unlink(missing_ok=True)


def save(folder: Path, step: int, networks, optimizer, *, options: dict, random_states: dict, sampler: dict,
         occupancy: dict | None = None, average=None, held_out: dict | None = None) -> Path:
    """Write a checkpoint so that a crash at any moment leaves either all of it or none.

    networks: the coarse and the fine network (or None), with `coarse` and `fine` attributes; average: likewise, of
    averaged weights.
    """
    content = {
        "global_step": step,
        "optimizer_state_dict": with_fused(optimizer.state_dict(), None),
        "version": VERSION,
        "options": options,
        "random_states": random_states,
        "sampler": sampler,
    }
    for keys, pair in ((NETWORK_KEYS, networks), (AVERAGE_KEYS, average)):
        content |= {key: network.state_dict() for which, key in keys.items() if (network := getattr(pair, which, None))}
    content |= {name: state for name, state in (("occupancy", occupancy), ("held_out", held_out)) if state is not None}
    content["checksum"] = checksum(content)
    with atomic_file(path_of(make_folder(folder), step)) as file:
        file.write(serialised(content))
    return path_of(folder, step)


def with_fused(state: dict, fused: bool | None) -> dict:
    """An optimizer's state that asks for fused kernels, or not. In a file it does not: other devices and versions may
    have none."""
    return state | {"param_groups": [group | {"fused": fused} for group in state["param_groups"]]}


def serialised(content: dict) -> memoryview:
    """As torch saves it, in memory: torch has an error of its own for a disk that is full, and hides the disk's."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def checksum(content: dict) -> str:
    """SHA-256 of everything in a checkpoint but its own entry "checksum": tensors by their type, shape and bytes,
    anything else as it prints."""
    digest = hashlib.sha256()
    for part in parts({name: value for name, value in content.items() if name != "checksum"}):
        digest.update(part)
    return digest.hexdigest()


def parts(value) -> Iterable[bytes]:
    """What is hashed of a value, through dictionaries and sequences."""
    if isinstance(value, dict):
        yield b"{%d" % len(value)
        for key, entry in value.items():
            yield repr(key).encode()
            yield from parts(entry)
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for entry in value:
            yield from parts(entry)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield repr(value).encode()


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours or of the released layout, without executing anything in it. A checksum, where
    the file has one, is verified."""
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        reason = re.split(r"\n|\. ", str(error).strip())[0][:200] or type(error).__name__
        if re.search("weights.only", reason, re.IGNORECASE):  # torch's advice is to execute what is in the file
            reason = "no torch file, or one that holds more than tensors and plain values"
        elif isinstance(error, EOFError) or re.match(r"PytorchStreamReader failed reading|\[Errno 22\]", reason):
            reason = "cut off or damaged"
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    missing = {"global_step", NETWORK_KEYS["coarse"]} - set(content if isinstance(content, dict) else ())
    if missing:
        raise InputError(f"{path}: not a checkpoint of a NeRF, found no {min(missing)} in it")
    if "checksum" in content and content["checksum"] != checksum(content):
        raise InputError(f"{path}: damaged, found other content than its checksum was made of (where the file "
                         "was changed on purpose, leave its entry 'checksum' out)")
    if not isinstance(content["global_step"], int) or content["global_step"] < 0:
        raise InputError(f"{path}: found {content['global_step']!r} as global_step, expected an integer >= 0")
    options = content.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise InputError(f"{path}: found options that are none, expected their names and values")
    return Checkpoint(path, completed_updates(path, content), content)


def completed_updates(path: Path, content: dict) -> int:
    """Ours say it. The released code stores i-1 in the file named i after update i; a file that was
    renamed still says i-1."""
    step = content["global_step"]
    if content.keys() >= OUR_KEYS:
        return step
    return int(path.stem) if path.stem.isdecimal() and int(path.stem) in (step, step + 1) else step + 1


def load_networks(checkpoint: Checkpoint, networks, averaged: bool = False) -> None:
    """Load the weights into networks of the same shapes, or raise InputError. averaged: load the averaged weights,
    where the file has them."""
    for which, key in (AVERAGE_KEYS if averaged and has_average(checkpoint) else NETWORK_KEYS).items():
        network = getattr(networks, which)
        if network is not None:
            load_network(checkpoint, key, network, which)


def has_average(checkpoint: Checkpoint) -> bool:
    """Whether the run kept an average of its weights."""
    return AVERAGE_KEYS["coarse"] in checkpoint.content


def load_network(checkpoint: Checkpoint, key: str, network: nn.Module, which: str) -> None:
    state, expected = checkpoint.content.get(key), network.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{checkpoint.path}: holds no {which} network ({key}), expected one as N_importance > 0")
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = (tuple(s[name].shape) if name in s else None for s in (state, expected))
        if found != wanted:
            raise InputError(
                f"{checkpoint.path}: {which} network, {name}: found {found or 'none'}, expected {wanted or 'none'}; "
                "do the options (netdepth, netwidth, multires, use_viewdirs, mi_mlp ...) match the run's?"
            )
    network.load_state_dict(state)


def load_optimizer(checkpoint: Checkpoint, optimizer) -> bool:
    """Load the optimizer's state; False where the file has none."""
    state = checkpoint.content.get("optimizer_state_dict")
    if not state:
        return False
    try:
        optimizer.load_state_dict(with_fused(state, optimizer.defaults["fused"]))
        for parameter, moments in optimizer.state.items():
            if moments["exp_avg"].shape != parameter.shape or moments["exp_avg_sq"].shape != parameter.shape:
                raise ValueError(f"a moment of shape {tuple(moments['exp_avg'].shape)} for {tuple(parameter.shape)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{checkpoint.path}: its optimizer state does not fit the networks ({error})") from error
    return True


def set_aside(folder: Path, step: int) -> Path | None:
    """Move checkpoints and pictures later than `step` to a new subfolder, so that a run which starts at
    `step` neither overwrites them nor resumes from them. Returns the subfolder, None where none is later."""
    later = [path for saved_step, path in saved(folder) if saved_step > step]
    if later:
        pictures = ((re.fullmatch(r"[a-z_]+_(\d+)(_factor\d+)?", path.name), path) for path in folder.iterdir())
        later += [path for match, path in pictures if match and path.is_dir() and int(match[1]) > step
                  and not path.name.startswith("superseded_")]
    else:
        return None
    aside = free_path(folder / "superseded")
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)
    return aside
