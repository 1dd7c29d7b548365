"""Standard output and error that never fail: losing them costs a run nothing."""

import logging
import os
import sys
import traceback
import warnings

from infonerf.system.logs import printable

NAMES = {"stdout": "standard output", "stderr": "standard error"}


class Console:
    """A stream of text that drops what cannot be written: the disk is full, the reader has gone, it was closed.

    The first loss is said on the other one of the two. name: stdout or stderr. error: the last loss, if any.
    """

    def __init__(self, stream, name: str):
        self.stream, self.name, self.error = stream, name, None

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.attempt(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, act, *given) -> None:
        try:
            act(*given)
        except (OSError, ValueError) as error:
            self.lose(error)
        except RuntimeError:  # a signal's handler writes within a write
            pass

    def lose(self, error: Exception) -> None:
        first, self.error = self.error is None, error
        if first:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            other = sys.stderr if self.name == "stdout" else sys.stdout
            other.write(f"\nWARNING: {NAMES[self.name]} cannot be written ({reason}); going on without it\n")
            other.flush()


def guard_consoles() -> None:
    """From now on, neither stream fails. Characters that a console cannot show (ä on one of ASCII; bytes of a file's
    name that are no text) are printed as escapes, in progress bars, warnings and tracebacks too; so are those that it
    would obey, from files, in what Python prints by itself."""
    sys.excepthook, warnings.formatwarning = show_traceback, one_line_warning
    logging.lastResort.setFormatter(PrintableFormatter())
    for name in NAMES:
        stream = getattr(sys, name)
        if stream is None:  # closed, as by 2>&-
            stream = open(os.devnull, "w")  # noqa: SIM115
        if hasattr(stream, "reconfigure"):  # not a test's
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, Console):
            setattr(sys, name, Console(stream, name))


class PrintableFormatter(logging.Formatter):
    """Of what libraries log."""

    def format(self, record):
        return printable(super().format(record), keep="\n")


def show_traceback(kind, error, trace) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    print(printable(text, keep="\n"), end="", file=sys.stderr)


def one_line_warning(message, category, *where) -> str:
    return f"{printable(f'{category.__name__}: {message}')}\n"


def is_lost(name: str = "stdout") -> bool:
    """Whether some of what was written to a stream is lost."""
    stream = getattr(sys, name)
    stream.flush()
    return getattr(stream, "error", None) is not None
