"""Writing files so that nothing is lost: whole or not at all, never where it cannot be, and by one run at a time."""

import errno
import itertools
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infonerf.system.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where runs are not kept apart
    fcntl = None

LOCK = ".lock"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a file to write that takes the place of `path` at the end of the block, or not at all where the block
    or the disk fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """The same, open."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        yield file


def append_line(path: Path, line: bytes) -> None:
    """Add bytes to the end of a file, all of them or none, in a line of their own."""
    with open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read(1) not in (b"", b"\n"):
            line = b"\r\n" + line  # after one that was cut off
        if file.write(line) < len(line):
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def check_output(option: str, path: Path) -> None:
    """Raise InputError where an option names a file that cannot be written."""
    if path.is_dir():
        raise InputError(f"--{option} {path}: found a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"--{option} {path}: found no folder {path.parent}, expected it to exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"--{option} {path}: cannot write to {path.parent}, expected a writable folder")


def flush_folder(folder: Path) -> None:
    """Make a rename durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def flush_files(folder: Path) -> None:
    """Make the content of all files in a folder durable."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def make_folder(folder: Path) -> Path:
    """The folder, there and writable, or an InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}), expected a writable folder") from error
    return folder


def free_path(path: Path) -> Path:
    """NAME_1.SUFFIX beside `path`, or with the first number that is not taken."""
    numbered = (path.with_stem(f"{path.stem}_{k}") for k in itertools.count(1))
    return next(free for free in numbered if not free.exists())


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Own a folder for the length of the block, or raise InputError where another process does. The kernel lets go
    of it when its owner ends, however it ends; the file that it is tied to stays, and says who was the last."""
    with open(folder / LOCK, "a+", encoding="utf-8", errors="replace") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read(100).strip() or "another process"
                raise InputError(f"{folder}: found that {owner} trains there, expected one run at a time; "
                                 "give this one another --expname") from error
            except OSError:  # a file system without locks
                pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
