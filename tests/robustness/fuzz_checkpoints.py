"""Checkpoints that are sound files of odd content: what fuzz.py puts into one, and how a run takes it up."""

import contextlib
import io
import math
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import run_nerf
from infonerf.command_line import parse_options
from infonerf.evaluation.estimates import draw_rays, psnr_of_rays
from infonerf.system.interrupt import Interrupt
from robustness.fuzz_scenes import Loader
from run_nerf_helpers import find_checkpoint, load_scene, loaded_run
from support.runs import options
from support.scenes import write_blender

KINDS = {
    "nerf": ["--skip_empty", "--ema_decay", "0.9", "--i_val", "9", "--entropy", "--entropy_ray_zvals_lambda", "0.01"],
    "planes": ["--field", "planes", "--planes_resolution", "8", "--planes_components", "2", "--planes_tv", "0.1"],
}
CPU = torch.device("cpu")


# Odd content.


def itself() -> list:
    ring = [1]
    ring.append(ring)
    return ring


def deep() -> list:
    value = []
    for _ in range(100):
        value = [value]
    return value


def shared() -> list:
    """Of few objects and 10**30 values."""
    value = []
    for _ in range(30):
        value = [value] * 10
    return value


SCALARS = (
    None, True, False, -1, 0, 1, 7, 10**9, 2**62, 2**70, -(2**64), 0.5, 1e300, -1e300, math.nan, math.inf, -math.inf,
    "", "None", "x", "\x1b[31mred", "a\nb\r\x07", "\0", "\ud800", "x" * 10**5, "9" * 5000, b"bytes", 3j, (), [], {},
    {"a": 1}, [1, "a"], {1, 2}, torch.Size([3]), torch.float32, CPU, bytearray(3),
)  # fmt: skip
MAKERS = (itself, deep, shared)
TENSORS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda t: t.unsqueeze(0), lambda t: t.flatten(), lambda t: t.mT if t.ndim > 1 else t[:0], lambda t: t[:-1],
    lambda t: t.double(), lambda t: t.double() * 1e300, lambda t: t * 1e30, lambda t: t.half(), lambda t: t.bfloat16(),
    lambda t: t.long(), lambda t: t.bool(), lambda t: -t, lambda t: torch.zeros_like(t), lambda t: t * math.nan,
    lambda t: t.fill_(math.inf), lambda t: t.index_fill(0, torch.tensor([0]), math.nan), lambda t: t.to("meta"),
    lambda t: t.to_sparse(), lambda t: t.to_sparse_csr(), lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    lambda t: t.flatten()[:1].expand(t.shape), lambda t: torch.zeros(1).expand(10**6, 10**6),
    lambda t: t.flatten().as_strided(t.shape, (1,) * t.ndim), lambda t: torch.nested.nested_tensor([t, t]),
    lambda t: t.to(torch.complex64), lambda t: t.to(torch.complex64).conj().imag, lambda t: t.to(torch.float8_e4m3fn),
    lambda t: torch.nn.Parameter(t), lambda t: t.flatten()[0], lambda t: torch.empty(0), lambda t: t.view(torch.uint8),
    lambda t: t.clone().set_(t.untyped_storage(), 0, t.shape, (0,) * t.ndim), lambda t: t.tolist(), lambda t: t.char(),
)  # fmt: skip
NUMBERS = (lambda x: -x, lambda x: x + 1, lambda x: x - 1, lambda x: x * 1000, str, float, lambda x: [x],
           lambda x: not x, lambda x: torch.tensor(x), lambda x: x + 0.5)  # fmt: skip


def with_odd_content(file: bytes, rng: random.Random) -> bytes:
    """A checkpoint with one to three odd values, and no checksum."""
    content, target = torch.load(io.BytesIO(file), weights_only=True), io.BytesIO()
    content.pop("checksum", None)
    with warnings.catch_warnings():  # of tensors of rare kinds
        warnings.simplefilter("ignore")
        for _ in range(rng.choice((1, 1, 2, 3))):
            container, key = place(content, rng)
            with contextlib.suppress(RuntimeError, TypeError, ValueError, OverflowError, IndexError):
                change(container, key, rng)
        torch.save(content, target)
    return target.getvalue()


def place(content: dict, rng: random.Random) -> tuple[dict | list, object]:
    """A dictionary or list somewhere in the content, and a key of it."""
    container, depth = content, 0
    while True:
        keys = list(container) if isinstance(container, dict) else range(len(container))
        key = rng.choice(keys)
        inner = container[key]
        depth += 1
        if not isinstance(inner, dict | list) or not inner or depth == 5 or rng.random() < 0.15:
            return container, key
        container = inner


def change(container: dict | list, key, rng: random.Random) -> None:
    value, kind = container[key], rng.random()
    if kind < 0.1:
        del container[key]
    elif kind < 0.15 and isinstance(container, dict):
        container[rng.choice((*SCALARS[:24], b"a", (1, 2), "a.b", key))] = value
    elif kind < 0.2:
        other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], value
    elif kind < 0.25:
        other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key] = container[other]
    elif isinstance(value, torch.Tensor) and kind < 0.85:
        container[key] = rng.choice(TENSORS)(value.clone())
    elif isinstance(value, int | float) and kind < 0.6:
        container[key] = rng.choice(NUMBERS)(value)
    elif kind < 0.92:
        container[key] = rng.choice(SCALARS)
    elif kind < 0.95:
        container[key] = rng.choice(MAKERS)()
    else:
        container[key] = rng.choice(TENSORS)(torch.randn(2, 3))


# A run that meets it.


def taken_up(folder: Path, kind: str, looking: bool) -> Loader:
    """A run whose only checkpoint is odd: trained on for two steps, or looked at."""
    scene = write_blender(folder / "scene", counts=(2, 2, 2))
    words = options(scene, folder, *KINDS[kind])
    with quiet():
        assert run_nerf.main([*words, "--N_iters", "2"]) == 0
        how = ["--eval_only", "--skip_empty", "False"] if looking else []  # filling the grid takes its time
        config, _ = parse_options([*words, "--N_iters", "9", *how])
    path, scene = folder / "logs/run/000002.tar", load_scene(config.data)

    def look():
        run = loaded_run(config, scene, CPU, find_checkpoint(config), Interrupt())
        assert math.isfinite(psnr_of_rays(run.renderer, draw_rays(scene, scene.split.test, 20, CPU))["psnr"])

    def train():
        trainer = run_nerf.create_trainer(config, scene, CPU)
        run_nerf.resume(trainer, find_checkpoint(config), config, scene)
        with contextlib.suppress(run_nerf.NonFiniteLoss):
            for _ in range(2):
                trainer.train_step()

    def read():
        with quiet() as printed:
            look() if looking else train()
        assert all(line.isprintable() for line in printed.getvalue().split("\n")), printed.getvalue()

    return Loader(path, [path.read_bytes()], read, with_odd_content)


@contextlib.contextmanager
def quiet():
    """What is printed meanwhile."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        yield printed


LOADERS = {f"{doing}_{kind}": partial(taken_up, kind=kind, looking=doing == "look")
           for kind in KINDS for doing in ("resume", "look")}  # fmt: skip
