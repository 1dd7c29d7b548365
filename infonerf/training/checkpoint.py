"""Checkpoints: {step:06d}.tar, in the layout of nerf-pytorch, DS-NeRF and the released InfoNeRF.

Their four keys (`global_step`, `network_fn_state_dict`, `network_fine_state_dict`,
`optimizer_state_dict`) stand beside ours: `version`, `options`, the entries of further parts of a training
(`random_states`, `sampler`, with skip_empty `occupancy`, with ema_decay the averaged weights, with i_val
`held_out`), and `checksum`, the SHA-256 of all the others.
In our files `global_step` is the number of completed updates; theirs hold one less, so that a file
of theirs is recognised by the missing `version`.
"""

import hashlib
import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from infonerf.fields.field import CoarseFine
from infonerf.system.errors import InputError, gpu_failed, out_of_memory
from infonerf.system.files import atomic_file, free_path, make_folder
from infonerf.system.picture_folders import parse_picture_folder
from infonerf.training.checkpoint_content import MOST_STEPS, TO_TRAIN, Checks, in_part, require_plain, shown
from infonerf.version import VERSION

OUR_KEYS = {"version", "options", "random_states", "sampler"}
NETWORK_KEYS = {"coarse": "network_fn_state_dict", "fine": "network_fine_state_dict"}
AVERAGE_KEYS = {"coarse": "network_fn_average_state_dict", "fine": "network_fine_average_state_dict"}
LIKE_A_CHECKPOINT = re.compile(r"\.(tar|pt|pth|ckpt)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read. step: completed updates. content: its entries as `checkpoint_content` checked them, on the
    CPU. written_here: whether this program wrote it."""

    path: Path
    step: int
    content: dict
    written_here: bool = False

    @property
    def has_average(self) -> bool:
        """Whether the run kept an average of its weights."""
        return AVERAGE_KEYS["coarse"] in self.content

    def load(self, parts: Mapping[str, "Part"]) -> list[str]:
        """Load each entry into its part. Returns the entries that the file does not have; InputError where one does not
        fit, or a network is not there, or one that is there would be left out."""
        for keys in (NETWORK_KEYS, AVERAGE_KEYS):
            if keys["coarse"] in parts and keys["fine"] not in parts and self.content.get(keys["fine"]):
                raise InputError(f"{self.path}: holds a fine network ({keys['fine']}), found --N_importance 0, "
                                 "expected more, as the run of the file had")
        missing = []
        for entry, part in parts.items():
            state = self.content.get(entry)
            try:
                if self.lacks(entry, part):
                    missing.append(entry)
                else:
                    part.load_state_dict(state)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from error
            except (ValueError, RuntimeError) as error:
                if out_of_memory(error) or gpu_failed(error):
                    raise
                raise InputError(f"{self.path}: its entry {entry} cannot be used ({error})") from error
        return missing

    def require_fit(self, parts: Mapping[str, "Part"]) -> None:
        """Raise InputError where weights or moments are of other shapes than the parts'. An average may lack."""
        for entry, part in parts.items():
            has_some = not self.lacks(entry, part) and (self.has_average or entry not in AVERAGE_KEYS.values())
            if has_some and isinstance(part, (NetworkPart, OptimizerPart)):
                try:
                    part.require_fit(self.content.get(entry))
                except InputError as error:
                    raise InputError(f"{self.path}: {error}") from error

    def lacks(self, entry: str, part: "Part") -> bool:
        """Whether the file has no state for this part. Networks must have one; an empty optimizer state counts as
        none."""
        if isinstance(part, NetworkPart):
            return False
        return entry not in self.content or (isinstance(part, OptimizerPart) and not self.content[entry])


Reader = Callable[[Path], Checkpoint]  # raises InputError where it cannot


class Part(Protocol):
    """What a checkpoint saves and loads."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


@dataclass(frozen=True)
class NetworkPart:
    """A network that takes only weights of its own shapes. which: coarse or fine. entry: where a checkpoint has it."""

    network: nn.Module
    which: str
    entry: str

    def state_dict(self) -> dict:
        return self.network.state_dict()

    def load_state_dict(self, state: dict | None) -> None:
        self.require_fit(state)
        self.network.load_state_dict(state)

    def require_fit(self, state: dict | None) -> None:
        expected = self.network.state_dict()
        if not state:
            why = " as --N_importance is above 0" if self.which == "fine" else ""
            raise InputError(f"holds no {self.which} network ({self.entry}), expected one{why}")
        for name in sorted(expected.keys() | state.keys()):
            found, wanted = (shape_of(s.get(name)) for s in (state, expected))
            if found != wanted:
                raise InputError(
                    f"{self.which} network, {name}: found {found}, expected {wanted}; "
                    "do the options (field, netdepth, netwidth, mi_mlp, multires, use_viewdirs ...) match the run's?"
                )


def shape_of(tensor: torch.Tensor | None) -> str:
    """In words."""
    if tensor is None:
        return "none"
    return f"{tuple(tensor.shape)}" + ("" if tensor.is_floating_point() else f" {tensor.dtype}")


def network_parts(networks: CoarseFine, keys: Mapping[str, str] = NETWORK_KEYS) -> dict[str, NetworkPart]:
    """The networks that there are, by their entries."""
    pair = {"coarse": networks.coarse, "fine": networks.fine}
    parts = [NetworkPart(network, which, keys[which]) for which, network in pair.items() if network is not None]
    return {part.entry: part for part in parts}


@dataclass(frozen=True)
class OptimizerPart:
    """An optimizer whose state asks for no fused kernels and no CUDA graphs in a file: other devices and versions may
    have none."""

    optimizer: torch.optim.Optimizer

    def state_dict(self) -> dict:
        state = self.optimizer.state_dict()
        alike = {"fused": None, "capturable": False}
        return state | {"param_groups": [group | alike | {"lr": float(group["lr"])} for group in state["param_groups"]]}

    def load_state_dict(self, state: dict) -> None:
        self.require_fit(state)
        lrates = [group["lr"] for group in self.optimizer.param_groups]
        groups = [self.optimizer.defaults | group for group in state["param_groups"]]
        self.optimizer.load_state_dict(state | {"param_groups": groups})
        for group, lrate in zip(self.optimizer.param_groups, lrates, strict=True):
            if isinstance(lrate, torch.Tensor):  # on the device, where a captured step reads it
                group["lr"] = lrate.fill_(group["lr"])

    def require_fit(self, state: dict) -> None:
        found, own = ([group["params"] for group in groups] for groups in (state["param_groups"],
                                                                           self.optimizer.param_groups))  # fmt: skip
        shapes = [[tuple(state["state"][n]["exp_avg"].shape) if n in state["state"] else None for n in numbers]
                  for numbers in found]  # fmt: skip
        expected = [[tuple(parameter.shape) for parameter in parameters] for parameters in own]
        if [*map(len, shapes)] != [*map(len, expected)]:
            raise InputError(f"its optimizer state does not fit the networks (found groups of {[*map(len, shapes)]} "
                             f"parameters, expected {[*map(len, expected)]})")
        for one, other in zip(chain(*shapes), chain(*expected), strict=True):
            if one not in (None, other):
                raise InputError(f"its optimizer state does not fit the networks (found a moment of shape {one}, "
                                 f"expected {other})")


def path_of(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.tar"


def saved(folder: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints, ascending by step. Any name of digits counts, as an integer."""
    paths = folder.iterdir() if os.path.isdir(folder) else ()
    return sorted((int(path.stem), path) for path in paths if re.fullmatch(r"\d+\.tar", path.name))


def newest(folder: Path) -> Path | None:
    """The checkpoint with the greatest step."""
    return next((path for _, path in reversed(saved(folder))), None)


def of_other_names(folder: Path) -> list[Path]:
    """Files in a run's folder that may be checkpoints, but have no step for a name: model_200000.tar, latest.pth,
    000003.tar.bak. A link to one that has is none."""
    files = [path for path in folder.iterdir() if path.is_file()] if os.path.isdir(folder) else []
    ours = {path.resolve() for _, path in saved(folder)}
    named = [path for path in files if LIKE_A_CHECKPOINT.search(path.name) and path.suffix != ".tmp"]
    return sorted(path for path in named if path.resolve() not in ours)


def newest_readable(folder: Path, say: Callable[[str], None], take: Reader) -> Checkpoint | None:
    """The newest checkpoint of a run that `take` reads; where none has a step for its name, that of another name with
    the most steps. What is not taken of other names, or cannot be read, is said. None where a run has none; InputError
    where some are named for their steps and none of them can be read."""
    own, others = [path for _, path in reversed(saved(folder))], of_other_names(folder)
    found = first_readable(own, say, take) if own else furthest(others, say, take)
    passed_over = [path.name for path in others if found is None or path != found.path]
    if passed_over:
        say(f"passed over in {folder}, as not named for a step: {', '.join(passed_over)}; --ft_path FILE takes one")
    return found


def first_readable(paths: Sequence[Path], say: Callable[[str], None], take: Reader) -> Checkpoint:
    """The first that can be read; each one before it is said. InputError where none can."""
    *paths, last = paths
    for path in paths:
        try:
            return take(path)
        except InputError as error:
            say(f"WARNING: {error}; going back to the checkpoint before it")
    return take(last)


def furthest(paths: Iterable[Path], say: Callable[[str], None], take: Reader) -> Checkpoint | None:
    """Of the files that are checkpoints that with the most steps, if any. What was put aside, as .bak, is not read."""
    found = None
    for path in paths:
        if not LIKE_A_CHECKPOINT.fullmatch(path.suffix):
            continue
        try:
            candidate = take(path)
        except InputError as error:
            say(f"WARNING: {error}")
        else:
            found = candidate if found is None or candidate.step >= found.step else found
    if found:
        say(f"{found.path}: taken, as no checkpoint there is named for its step (--no_reload starts afresh)")
    return found


def remove_old(folder: Path, step: int, keep: int, spared: int | None = None) -> None:
    """Of the checkpoints up to `step`, keep the newest `keep`, and that of step `spared`; 0 keeps all."""
    if keep:
        for old, path in [(s, p) for s, p in saved(folder) if s <= step][:-keep]:
            if old != spared:
                path.unlink(missing_ok=True)


def save(folder: Path, step: int, options: dict, parts: Mapping[str, Part]) -> Path:
    """Write a checkpoint so that a crash at any moment leaves either all of it or none. parts: entry -> what is saved
    there."""
    content = {"global_step": step, "version": VERSION, "options": options}
    content |= {entry: part.state_dict() for entry, part in parts.items()}
    content["checksum"] = checksum(content)
    with atomic_file(path_of(make_folder(folder), step)) as file:
        file.write(serialised(content))
    return path_of(folder, step)


def serialised(content: dict) -> memoryview:
    """As torch saves it, in memory: torch has an error of its own for a disk that is full, and hides the disk's."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def checksum(content: dict) -> str:
    """SHA-256 of everything in a checkpoint but its own entry "checksum": tensors by their type, shape and bytes,
    anything else as it prints."""
    digest = hashlib.sha256()
    for part in hashed_parts({name: value for name, value in content.items() if name != "checksum"}):
        digest.update(part)
    return digest.hexdigest()


def hashed_parts(value) -> Iterable[bytes]:
    """What is hashed of a value, through dictionaries and sequences."""
    if isinstance(value, dict):
        yield b"{%d" % len(value)
        for key, entry in value.items():
            yield repr(key).encode()
            yield from hashed_parts(entry)
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for entry in value:
            yield from hashed_parts(entry)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield repr(value).encode()


def read(path: str | Path, checks: Checks = TO_TRAIN) -> Checkpoint:
    """Read a checkpoint of ours or of the released layout, without executing anything in it. A checksum, where the file
    has one, is verified. checks: of the entries that are wanted, others are left out (TO_LOOK_AT, TO_TRAIN)."""
    path = Path(path)
    content = unpickled(path)
    missing = {"global_step", NETWORK_KEYS["coarse"]} - set(content if isinstance(content, dict) else ())
    if missing:
        raise InputError(f"{path}: not a checkpoint of a NeRF, found no {min(missing)} in it")
    try:
        return checked(path, content, checks)
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def unpickled(path: Path):
    """What is in a file of torch's, whatever it is, on the CPU."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint")
    if is_packed(path):
        raise InputError(f"{path}: cannot be read as a checkpoint (its parts are compressed), expected plain ones")
    try:
        with warnings.catch_warnings():  # of tensors of rare kinds, which are refused
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        if out_of_memory(error) and "overflow" not in str(error):  # no fault of the file
            raise
        reason = re.split(r"\n|\. ", str(error).strip())[0][:200] or type(error).__name__
        advice = re.search("weights.only", reason, re.IGNORECASE)  # torch's, to execute what is in the file
        if advice or isinstance(error, KeyError):
            reason = "no torch file, or one that holds more than tensors and plain values"
        elif isinstance(error, EOFError) or re.match(r"PytorchStreamReader failed reading|\[Errno 22\]", reason):
            reason = "cut off or damaged"
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def is_packed(path: Path) -> bool:
    """Whether a zip archive's members are larger than the whole, as torch writes none: they may be of any size. Of
    what is damaged, in one of many ways, torch will say so."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    return False


def checked(path: Path, content: dict, checks: Checks) -> Checkpoint:
    """Raises ValueError or InputError, that say where in the file it is of no use."""
    if "checksum" not in content:  # of another program, of whose other entries nothing is wanted
        content = {entry: content[entry] for entry in content.keys() & {"global_step", *OUR_KEYS, *checks}}
    require_plain(content)
    if "checksum" in content and content["checksum"] != checksum(content):
        raise ValueError("damaged, found other content than its checksum was made of (where the file was changed on "
                         "purpose, leave its entry 'checksum' out)")
    step = content["global_step"]
    if type(step) is not int or not 0 <= step <= MOST_STEPS:
        raise ValueError(f"found {shown(step)} as global_step, expected an integer from 0 to {MOST_STEPS}")
    entries = {entry: in_part(entry, check, content[entry]) for entry, check in checks.items() if entry in content}
    return Checkpoint(path, completed_updates(path, content), entries, written_here=content.keys() >= OUR_KEYS)


def completed_updates(path: Path, content: dict) -> int:
    """Ours say it. The released code stores i-1 in the file named i after update i; a file that was
    renamed still says i-1."""
    step = content["global_step"]
    if content.keys() >= OUR_KEYS:
        return step
    return int(path.stem) if path.stem.isdecimal() and int(path.stem) in (step, step + 1) else step + 1


def set_aside(folder: Path, step: int) -> Path | None:
    """Move checkpoints and pictures later than `step` to a new subfolder, so that a run which starts at
    `step` neither overwrites them nor resumes from them. Returns the subfolder, None where none is later."""
    later = [path for saved_step, path in saved(folder) if saved_step > step]
    if not later:
        return None
    for path in folder.iterdir():
        pictures = parse_picture_folder(path.name)
        if pictures and path.is_dir() and pictures.step > step:
            later.append(path)
    aside = free_path(folder / "superseded")
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)
    return aside
