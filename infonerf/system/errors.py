"""The one error that a user can cause, and how scripts end."""

import errno
import re
import signal
import sys
from collections.abc import Callable

from infonerf.system import logs
from infonerf.system.console import guard_consoles

MEMORY = (
    "out of memory; lower netchunk, N_rand and N_entropy, or netwidth; to render, chunk, or raise render_factor; "
    "or make the longer side of the photographs shorter, with half_res, say"
)
GPU = "the GPU failed ({}); what was saved is kept, and the same command goes on from it"
LONGEST = 1500  # characters of a message: what a file holds may be of any length


class InputError(Exception):
    """A file or an option that cannot be used.

    The message is one line that names the file or option, what was found and what was expected.
    Control characters, in a file's name say, are shown as escapes, and the middle of a long line is left out.
    """

    def __init__(self, message: str):
        line = logs.printable(message)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")


class Stopped(BaseException):
    """The user (SIGINT), a terminal that was closed (SIGHUP) or the system (SIGTERM) asked the run to stop. `status`:
    the exit status."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


def stop_signals() -> list[int]:
    """Those that ask a run to stop: of Ctrl-C, of the system, and of a terminal that is closed, unless that is ignored,
    as under nohup."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    heeded = hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([hangup] if heeded else [])]


def exit_status(program: str, run: Callable[[], int]) -> int:
    """What a script exits with: what `run` returns; 2, after one line, where a file or option cannot be used, or needs
    more memory than there is; 1, likewise, where the system fails (a full disk, a GPU); 130 after Ctrl-C, 143 after
    SIGTERM, 129 after SIGHUP. Output that cannot be written changes nothing of it.

    What ends all ranks (`infonerf.system.ranks`) is said by the first one."""
    guard_consoles()
    try:
        return run()
    except Stopped as stopped:
        logs.complain(f"{program}: {stopped}; what was done is kept, and the same command goes on from it")
        return stopped.status
    except KeyboardInterrupt:
        logs.complain(f"{program}: stopped")
        return 130
    except Exception as error:
        short, failed = not isinstance(error, InputError) and out_of_memory(error), gpu_failed(error)
        if not short and not failed and not isinstance(error, (InputError, OSError)):
            raise
        if not (logs.silent and getattr(error, "of_all_ranks", False)):
            said = MEMORY if short else GPU.format(str(error).split("\n")[0]) if failed else error
            print(logs.printable(f"{program}: error: {said}"), file=sys.stderr)
        return 2 if short or isinstance(error, InputError) else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def out_of_memory(error: Exception) -> bool:
    """Whether it says that a device's memory does not suffice. Torch's CPU allocator and OpenCV have no error of their
    own, and torch's says it in other words on each system."""
    said = "out of memory|not enough memory|can't allocate memory|Insufficient memory|Storage size calculation overflow"
    is_such = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return is_such or re.search(said, str(error)) is not None


def gpu_failed(error: Exception) -> bool:
    """Whether it says that a GPU cannot go on, nor be used again by this process."""
    return isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
