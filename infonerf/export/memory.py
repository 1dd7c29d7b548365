"""Whether a mesh fits the memory that is free, asked before it takes it."""

from pathlib import Path

from infonerf.system.errors import InputError

PER_VERTEX = 700  # bytes, with its faces, where most is in memory at once (docs/lab/meshes.md)
MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """Bytes of memory that are free; None where the system does not say so."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def check_memory(n_vertices: int, resolution: int) -> None:
    """Raise InputError where a mesh of so many vertices does not fit, saying which resolution would: their number
    grows with its square."""
    free, needed = available(), PER_VERTEX * n_vertices
    if free is not None and needed > free:
        fits = max(int(resolution * (free / needed) ** 0.5), 1)
        raise InputError(f"--resolution {resolution}: a mesh of {n_vertices:,} vertices takes about {needed / 1e9:.1f} "
                         f"GB, found {free / 1e9:.1f} GB of free memory, expected at most --resolution {fits}")
