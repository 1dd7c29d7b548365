"""Arrays of .npy and .npz files that may say anything: no more is read than there is, and nothing is executed."""

import io
import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LARGEST_FILE = 2**30  # bytes


def read_array(path: Path) -> np.ndarray:
    """The numbers in a .npy file. Raises an exception, of whatever kind, where it cannot be read as such."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"found {path.stat().st_size} bytes")
    return array_of(path.read_bytes())


def read_arrays(path: Path, wanted: Callable[[str], bool], largest: int) -> dict[str, np.ndarray]:
    """The numbers in an .npz file under names that are wanted, of at most `largest` bytes each with its header. Raises
    an exception, of whatever kind, where it cannot be read as such."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            raise ValueError(kind_of(file.read(10)))
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        members = {name: member for name, member in members.items() if wanted(name)}
        for name, member in members.items():
            if member.file_size > largest:
                raise ValueError(f"{name} has {member.file_size} bytes, expected at most {largest}")
        return {name: array_of(archive.read(member), name) for name, member in members.items()}


def array_of(content: bytes, name: str = "the array") -> np.ndarray:
    """The array of a .npy file's content, float64; its header may promise no more than there is."""
    file = io.BytesIO(content)
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(kind_of(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of what only looks like a header
        shape, by_columns, kind = HEADERS[np.lib.format.read_magic(file)](file)
    if kind.hasobject:
        raise ValueError(PICKLED)
    if kind.kind not in "iuf":
        raise ValueError(f"{name} is of type {kind}, expected numbers")
    there = (len(content) - file.tell()) // kind.itemsize
    if min(shape, default=0) < 0 or math.prod(shape) > there:
        raise ValueError(f"{name} has {there} numbers, expected those of shape {shape}, as its header says")
    array = np.frombuffer(content, kind, math.prod(shape), file.tell())
    with np.errstate(invalid="ignore"):  # of signalling NaN
        return array.reshape(shape, order="F" if by_columns else "C").astype(np.float64)


PICKLED = "found pickled objects, which may be programs and are never loaded; expected arrays of numbers"


def kind_of(content: bytes) -> str:
    """What begins so, where it is not what was expected."""
    if content.startswith(b"\x80"):
        return PICKLED
    if content.startswith(np.lib.format.MAGIC_PREFIX):
        return "found a single array"
    return "found an archive" if content.startswith(b"PK") else "found no array"
