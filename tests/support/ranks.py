"""Ranks of a test: forked processes with the environment that torchrun would give them, and what they print."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm


def start(size: int, work: Callable[[], int | None], folder: Path) -> list[int]:
    """Fork `size` ranks that do `work`, which returns their exit status. Returns their process ids; rank r prints to
    folder/r.out and r.err."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    return [forked(rank, size, port, work, folder) for rank in range(size)]


def forked(rank: int, size: int, port: int, work: Callable[[], int | None], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):  # whatever the tests' own are
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        sys.stdout, sys.stderr = ((folder / f"{rank}.{end}").open("w", buffering=1) for end in ("out", "err"))
        os.dup2(sys.stderr.fileno(), 2)
        tqdm.set_lock(threading.RLock())  # else shared, with those that are killed
        given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_WORLD_SIZE": 1}
        os.environ |= {name: str(value) for name, value in given.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        status = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def statuses(children: Sequence[int], seconds: float = 60) -> list[int]:
    """The exit statuses of all ranks, which end within so many seconds; -9 for one that was killed."""
    until, ended = time.monotonic() + seconds, {}
    while len(ended) < len(children) and time.monotonic() < until:
        for child in set(children) - ended.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for child in set(children) - ended.keys():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [ended.get(child) for child in children]


def printed(folder: Path, end: str) -> list[str]:
    """What each rank printed: "out" or "err"."""
    return [path.read_text() for path in sorted(folder.glob(f"[0-9].{end}"))]
