"""Blocks of work side by side on a CPU: one thread a block, instead of all threads on each operation of a block.

The operations on a block are short, and so many that waiting for each other after every one of them would cost two
threads a quarter of their time, and far more on a machine that does other things as well.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Block, Result = TypeVar("Block"), TypeVar("Result")
MOST = 8  # with more threads, Python itself would be what they wait for
LEAST_WORK = 1.25e8  # multiplications of a thread in float32: with fewer, threads wait for each other's Python


def n_workers(device: torch.device, work: float) -> int:
    """How many workers share `work` multiplications: on a CPU the number, at most MOST and each with LEAST_WORK or
    more, that leaves the fewest of PyTorch's threads idle; 1 elsewhere."""
    if device.type != "cpu":
        return 1
    threads = torch.get_num_threads()
    most = max(1, min(threads, MOST, int(work / LEAST_WORK)))
    return max(range(1, most + 1), key=lambda workers: (threads // workers * workers, workers))


def limit(threads: int) -> None:
    """How many threads the operations of this thread use."""
    torch.get_num_threads()  # the first call in a thread takes over the number that all share; only now set its own
    torch.set_num_threads(threads)


@functools.cache
def executor(workers: int, threads: int) -> ThreadPoolExecutor:
    """Threads whose own operations use `threads` threads each."""
    return ThreadPoolExecutor(workers, "block", limit, (threads,))


def share_out(
    work: Callable[[Sequence[Block]], Result], blocks: Sequence[Block], workers: int
) -> list[Result]:
    """The results of `work` on the blocks dealt out in turn, in an order that is always the same.

    `work` runs on a thread of its own: whatever is set for a thread (autocast, grad mode) it must set itself.
    """
    threads, workers = torch.get_num_threads(), min(workers, len(blocks))
    if workers <= 1:
        return [work(blocks)]
    try:
        return list(executor(workers, threads // workers).map(work, [blocks[i::workers] for i in range(workers)]))
    finally:
        torch.set_num_threads(threads)  # a thread that starts sets it for all that start later
