"""Ranks of a test: processes with the environment that torchrun would give them, what they print, and their faults."""

import errno
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import torch
from tqdm import tqdm

from infonerf.system.errors import InputError
from infonerf.system.ranks import Ranks


def start(size: int, work: Callable[[], int | None], folder: Path, method: str = "fork") -> list[BaseProcess]:
    """Start `size` ranks that do `work`, which returns an exit status. Rank r prints to folder/r.out and r.err."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    if method == "forkserver":
        prepare_forkserver()
    context = multiprocessing.get_context(method)
    children = [context.Process(target=rank_main, args=(rank, size, port, work, folder)) for rank in range(size)]
    for child in children:
        child.start()
    return children


def start_script(
    size: int, script: str, argv: Sequence[str], folder: Path, fault: Callable[[], None] | None = None
) -> list[BaseProcess]:
    """As `start`, of run_nerf or evaluate with a fault of below. Forked from a server that has imported them: from a
    process that has trained, as a test may have, none that trains can be forked."""
    return start(size, partial(run_script, script, list(argv), fault), folder, "forkserver")


def prepare_forkserver() -> None:
    # the last two: what a training imports as it starts
    modules = ["support.ranks", "run_nerf", "evaluate", "torch.utils.tensorboard", "torch._dynamo"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):  # to import them from
        forkserver.ensure_running()


def rank_main(rank: int, size: int, port: int, work: Callable[[], int | None], folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    sys.stdout, sys.stderr = ((folder / f"{rank}.{end}").open("w", buffering=1) for end in ("out", "err"))
    os.dup2(sys.stderr.fileno(), 2)
    tqdm.set_lock(threading.RLock())  # else shared with those that are killed
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_WORLD_SIZE": 1}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in given.items()}
    sys.exit(work() or 0)


def run_script(script: str, argv: list[str], fault: Callable[[], None] | None) -> int:
    if fault:
        fault()
    return importlib.import_module(script).main(argv)


def statuses(children: Sequence[BaseProcess], seconds: float = 240) -> list[int | None]:
    """The exit statuses of all ranks, -9 for one that was killed; None for one that does not end within the time."""
    until = time.monotonic() + seconds
    for child in children:
        child.join(max(until - time.monotonic(), 0))
    ended = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return ended


def printed(folder: Path, end: str) -> list[str]:
    """What each rank printed: "out" or "err"."""
    return [path.read_text() for path in sorted(folder.glob(f"[0-9].{end}"))]


# Faults, each in all ranks or in one.


def lack_scene(rank: int) -> None:
    import run_nerf_helpers

    load = run_nerf_helpers.load_scene

    def load_scene(data):
        if os.environ["RANK"] == str(rank):
            raise InputError("scene: no such folder")
        return load(data)

    run_nerf_helpers.load_scene = load_scene


def another_scene() -> None:
    """The last training photograph is lighter in one pixel for every rank but the first."""
    import run_nerf_helpers

    load, lighter = run_nerf_helpers.load_scene, os.environ["RANK"] != "0"

    def load_scene(data):
        scene = load(data)

        def image(view):
            pixels = scene.photographs.image(view).copy()
            pixels[-1, -1] += lighter * (view == scene.split.train[-1])
            return pixels

        return replace(scene, photographs=replace(scene.photographs, image=image))

    run_nerf_helpers.load_scene = load_scene


def meet_soon() -> None:
    """Wait half a minute for a rank that does not come, not five."""
    from infonerf.system import ranks

    ranks.MEETING = timedelta(seconds=30)


def another_version() -> None:
    import run_nerf_helpers

    run_nerf_helpers.code = lambda: os.environ["RANK"]


def move_apart(folder: Path) -> None:
    """Relative paths are those of another disk for each rank."""
    (own := folder / os.environ["RANK"]).mkdir(exist_ok=True)
    os.chdir(own)


def fill_disk(step: int) -> None:
    """No checkpoint of this step can be written."""
    from infonerf.training import checkpoint

    save = checkpoint.save

    def full(folder, saved, *given):
        if saved == step:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return save(folder, saved, *given)

    checkpoint.save = full


def refuse_pictures() -> None:
    from infonerf.evaluation import views

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    views.write_images = full


def stop_in_second_view() -> None:
    """A rank that renders a second view is asked to stop."""
    from infonerf.rendering.renderer import Renderer

    image, rendered = Renderer.image, []

    def stopping(*given):
        rendered.append(given)
        if len(rendered) == 2:
            signal.raise_signal(signal.SIGINT)
        return image(*given)

    Renderer.image = stopping


def results(size: int, work: Callable[[Ranks], object], folder: Path, method: str = "fork") -> list:
    """What work(ranks) returns on each rank."""
    ended = statuses(start(size, partial(keep_result, work, folder), folder, method))
    assert ended == [0] * size, printed(folder, "err")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def keep_result(work: Callable[[Ranks], object], folder: Path) -> None:
    with Ranks.from_environment() as ranks:
        torch.save(work(ranks), folder / f"{ranks.rank}.pt")
