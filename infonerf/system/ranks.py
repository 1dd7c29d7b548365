"""The processes ("ranks") of one run under torchrun, and what they do together; or one process, alone.

Two promises keep a run from hanging. What fails on one rank alone fails on all (`together`, `of_first`). And where a
rank ends for another reason, killed say, the others end at once, wherever they stand (`Watch`).
"""

import atexit
import os
import platform
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from infonerf.system.errors import InputError, Stopped, stop_signals
from infonerf.system.logs import silence

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # of torchrun
MEETING = timedelta(minutes=5)  # until all ranks have found each other
PATIENCE = timedelta(minutes=30)  # of a rank that waits for another one, which renders or saves
FOREVER = timedelta(days=1000)
DONE, LEFT = 0, 1  # what a rank tells its neighbour: all is done; it ends, and has said why

Made = TypeVar("Made")


class Ranks:
    """rank: of this process, 0 is the first, which alone writes and talks. size: how many there are. local: which of
    those on its machine it is.

    `sum_` and `gather_rows` take tensors of the run's device (`use`); all ranks must call these methods alike.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0):
        self.rank, self.size, self.local, self.watch = rank, size, local, None
        self.parent = os.getppid()

    @classmethod
    def alone(cls) -> "Ranks":
        """One process, for which nothing here does anything."""
        return cls()

    @classmethod
    def from_environment(cls) -> "Ranks":
        """Those that torchrun started; one process where it did not. Raises InputError where they do not meet."""
        if not all(name in os.environ for name in ENVIRONMENT) or int(os.environ["WORLD_SIZE"]) == 1:
            return cls.alone()
        ranks = cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        if not ranks.first:
            silence()
        try:
            dist.init_process_group("gloo", timeout=MEETING)
            ranks.start()
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"torchrun: {ranks.size} processes cannot reach each other ({reason}); expected "
                             "GLOO_SOCKET_IFNAME to name their network's interface, such as eth0") from error
        return ranks

    def start(self) -> None:
        """Have the ranks, whose default process group is there, watch each other."""
        self.watch = Watch(self.rank, self.size)  # first: it notices who ends while the other group is made
        self.group = self.control = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def left_behind(self) -> bool:
        """Whether torchrun has ended, which started this process and would start none again."""
        return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != self.parent

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def launcher(self) -> list[str]:
        """The words before a script's name that start as many ranks again."""
        here, machines = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"))
        if self.size == 1 or here * machines != self.size:  # not of torchrun, or of machines that differ
            return ["python"]
        words = ["torchrun", "--nproc_per_node", str(here)]
        if machines > 1:
            words += ["--nnodes", str(machines), "--rdzv_backend", "c10d", "--rdzv_endpoint", "HOST:PORT"]
        return words

    def use(self, device: torch.device) -> None:
        """Take tensors of this device from now on: through NCCL on CUDA, through gloo on the CPU.

        Raises InputError where the ranks' devices are of different kinds."""
        if self.size == 1:
            return
        on_cuda = device.type == "cuda"
        if self.agree(on_cuda) and self.agree(not on_cuda):
            self.fail_with(InputError("--device: found a GPU for some ranks only, expected one for each, or cpu"))
        kind = zlib.crc32(torch.cuda.get_device_name(device).encode()) if on_cuda else 0
        if self.agree(kind) != -self.agree(-kind):  # others draw other random numbers
            self.fail_with(InputError("--device: found GPUs of different kinds, expected one kind for all ranks"))
        if on_cuda and self.group is self.control:
            torch.cuda.set_device(device)
            self.group = dist.new_group(backend="nccl", timeout=PATIENCE)

    # Tensors.

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks: in place, without a gradient, one message a dtype."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor.detach())
        for alike in by_dtype.values():
            buffer = torch.cat([tensor.reshape(-1) for tensor in alike])
            with self.collective():
                dist.all_reduce(buffer, group=self.group)
            for tensor, total in zip(alike, buffer.split([tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def gather_rows(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all ranks in their order, without a gradient. part: this rank's, sizes[rank] ...; any of the
        sizes may be 0."""
        if self.size == 1:
            return part
        part, longest = part.detach(), max(sizes)
        if longest == 0:
            return part
        padded = part.new_zeros(longest, *part.shape[1:])
        padded[: len(part)] = part
        gathered = list(part.new_empty(self.size, *padded.shape))
        with self.collective():
            dist.all_gather(gathered, padded, group=self.group)
        return torch.cat([rows[:size] for rows, size in zip(gathered, sizes, strict=True)])

    def share(self, n: int) -> list[int]:
        """How many of `n` items in a row each rank has: as many as any other, or one more."""
        return [n // self.size + (rank < n % self.size) for rank in range(self.size)]

    # Control.

    def agree(self, number: int) -> int:
        """The greatest of the ranks' numbers."""
        if self.size == 1:
            return int(number)
        value = torch.tensor(int(number))
        with self.collective():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.control)
        return int(value)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.agree(0)

    def require_same(self, found: Mapping[str, object]) -> None:
        """Raise InputError, on all ranks, unless each has found the same as the first. found: what, by its name."""
        if self.size == 1:
            return
        everyone = [None] * self.size
        with self.collective():
            dist.all_gather_object(everyone, (platform.node(), found), group=self.control)
        (first, expected), *others = everyone
        for rank, (machine, own) in enumerate(others, start=1):
            if other := [name for name in expected if own[name] != expected[name]]:
                where = f"rank {rank} (on {machine}) has another {other[0]} than rank 0 (on {first})"
                self.fail_with(InputError(f"torchrun: {where}, expected the same"))

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks do. Where a file or the system fails on one of them (InputError, OSError), all raise
        what the lowest of these did."""
        if self.size == 1:
            yield
            return
        own = None
        try:
            yield
        except (InputError, OSError) as error:
            own = error
        errors = [None] * self.size
        with self.collective():
            dist.all_gather_object(errors, own, group=self.control)
        self.fail_with(next((error for error in errors if error is not None), None))

    def of_first(self, make: Callable[[], Made]) -> Made:
        """What `make` returns on the first rank, which alone calls it; of its InputError or OSError, too, all have
        part."""
        if self.size == 1:
            return make()
        outcome = [None, None]
        if self.first:
            try:
                outcome = [make(), None]
            except (InputError, OSError) as error:
                outcome = [None, error]
        with self.collective():
            dist.broadcast_object_list(outcome, 0, group=self.control)
        made, error = outcome
        self.fail_with(error)
        return made

    def fail_with(self, error: Exception | None) -> None:
        if error is not None:
            error.of_all_ranks = True
            raise error

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Where a rank has ended, this one's messages fail before it is told so: that is no error of its own."""
        try:
            yield
        except RuntimeError:
            time.sleep(30)  # the watch ends this process meanwhile, within seconds where the machine is not busy
            raise

    # The end.

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        of_all = getattr(error, "of_all_ranks", isinstance(error, (type(None), Stopped, SystemExit)))
        self.close(orderly=of_all)

    def close(self, orderly: bool = True) -> None:
        """End with all others, whatever signal torchrun sends to those that are not as fast. Not orderly: alone, for a
        reason that is told; the others end, too."""
        if self.watch is None:
            return
        for number in stop_signals():
            signal.signal(number, signal.SIG_IGN)
        self.watch.tell(DONE if orderly else LEFT)
        if orderly:
            self.watch.join()
            dist.destroy_process_group()
        else:
            atexit.register(leave)
        self.watch = None


class Watch(threading.Thread):
    """Waits, in a circle, for a word of the rank before this one. Where the connection breaks instead, that rank has
    ended: this process ends, too, even if it stands in a collective, and the word goes round."""

    def __init__(self, rank: int, size: int):
        super().__init__(name="watch", daemon=True)
        self.before, self.next = (rank - 1) % size, (rank + 1) % size
        self.group = dist.new_group(backend="gloo", timeout=MEETING)
        self.start()

    def tell(self, word: int) -> None:
        with suppress(RuntimeError):  # of one that has ended itself
            dist.send(torch.tensor(word), self.next, group=self.group)

    def run(self) -> None:
        word = torch.tensor(DONE)
        try:
            dist.irecv(word, self.before, group=self.group).wait(FOREVER)
        except RuntimeError:
            say_lost(self.before)
            word.fill_(LEFT)
        if int(word) != DONE:
            self.tell(LEFT)
            os._exit(1)  # the main thread may wait forever, where no exception reaches it


def leave() -> None:
    """End a process whose connections to others nobody takes down."""
    sys.stdout.flush()
    os._exit(1)


def say_lost(rank: int) -> None:
    program = os.path.basename(sys.argv[0])
    text = f"rank {rank} has ended, and so all others; what was saved is kept, and the same command goes on from it"
    with suppress(OSError):
        os.write(2, f"\n{program}: error: {text}\n".encode())
