"""The one error that a user can cause, and how scripts end."""

import re
import sys
from collections.abc import Callable

from infonerf.system.interrupt import Stopped


class InputError(Exception):
    """A file or an option that cannot be used.

    The message is one line that names the file or option, what was found and what was expected.
    Control characters, in a file's name say, are shown as escapes.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def exit_status(program: str, run: Callable[[], int]) -> int:
    """What a script exits with: what `run` returns; 2, after one line, where a file or option cannot be
    used; 1, likewise, where the system fails (a full disk or memory, say); 130 after Ctrl-C, 143 after SIGTERM."""
    try:
        return run()
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"{program}: {stopped}; what was done is kept, and the same command goes on from it", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advice = "lower netchunk, N_rand and N_entropy, or netwidth; to render, chunk"
        print(f"{program}: error: out of memory; {advice}", file=sys.stderr)
        return 1


def out_of_memory(error: Exception) -> bool:
    """Whether it says that a device's memory does not suffice. Torch's CPU allocator has no error of its own, and says
    it in other words on each system."""
    said = "out of memory|not enough memory|can't allocate memory"
    return isinstance(error, MemoryError) or re.search(said, str(error)) is not None


