"""Damage well-formed files at random, and read them: `python tests/robustness/fuzz.py --rounds 20000`.

Whatever a file holds, a loader returns something sound or raises an InputError of one printable line, and warns of
nothing. A table at the end says how often each loader did; anything else, or a reader that takes long or much memory,
has failed: its input is kept.
A round's input depends on the seed, the loader and the round alone. (test_fuzz.py does a few hundred rounds.)
"""

import argparse
import io
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from infonerf.system.errors import InputError
from robustness import fuzz_checkpoints, fuzz_loaders
from robustness.fuzz_scenes import Loader

LOADERS = fuzz_loaders.LOADERS | fuzz_checkpoints.LOADERS
LONGEST = 10  # seconds that a reader may take
MEMORY = 4 * 2**30  # bytes that it may take, where that can be limited (Linux)
LONGEST_LINE = 1600  # characters
TOKENS = (
    b"null", b"true", b"-1", b"0", b"1e300", b"1e-300", b"NaN", b"-Infinity", b"9" * 400, b'"a"', b"[]", b"{}",
    b"[" * 2000, b"\\u0000", b"\\ud800", b"\0", b"\xff", b"\n", b"../", b"#", b"'", b"--", b" " * 500, b"None",
    "\u2028".encode(),
)  # fmt: skip


# Damage.


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file of bytes with one to four random changes; some are made inside an archive, or keep checksums right."""
    if data[:2] == b"PK" and rng.random() < 0.5:
        return with_member_damaged(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice((flip, cut, insert, swap, repeat, replace_number))(data, rng)
    return with_checksums(data) if data.startswith(b"\x89PNG") and rng.random() < 0.5 else data


def span(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, longest))


def flip(data, rng):
    start, end = span(data, rng, 4)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def cut(data, rng):
    start, end = span(data, rng)
    return data[:start] + (data[end:] if rng.random() < 0.8 else b"")


def insert(data, rng):
    start = rng.randrange(len(data) + 1)
    new = rng.choice(TOKENS) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 16))
    return data[:start] + new + data[start:]


def swap(data, rng):
    (a, b), (c, d) = sorted((span(data, rng), span(data, rng)))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[max(b, d):]


def repeat(data, rng):
    start, end = span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 3, 50)) + data[end:]


def replace_number(data, rng):
    """Or a word, of a text."""
    found = list(re.finditer(rb'-?\d[\d.e+-]*|"[^"\n]*"|[A-Za-z_]+', data[:20_000]))
    match = rng.choice(found) if found else None
    return data[: match.start()] + rng.choice(TOKENS) + data[match.end() :] if match else data


def with_member_damaged(data: bytes, rng: random.Random) -> bytes:
    """A zip archive whose checksums are right, with one of its files damaged."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        chosen = rng.choice(sorted(members, key=lambda name: not name.endswith(".pkl"))[:6])
        for name, content in members.items():
            new.writestr(name, damaged(content, rng) if name == chosen else content)
    return target.getvalue()


def with_checksums(png: bytes) -> bytes:
    """A PNG with the checksums of its chunks made right."""
    parts, at = [png[:8]], 8
    while at + 12 <= len(png):
        length = struct.unpack(">I", png[at : at + 4])[0]
        body = png[at + 4 : at + 8 + length]
        parts.append(png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts) + png[at:]


# The rounds.


class TooLong(BaseException):
    """No Exception, which loaders may take for a fault of the file."""


def too_long(signum, frame):
    raise TooLong(f"more than {LONGEST} seconds")


def outcome(loader: Loader) -> tuple[str, str]:
    """What became of the file that is in its place, and why it failed where it did."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        result, why = outcome_of_reading(loader)
    if not warned:
        return result, why
    first = warned[0]
    return "failed", f"{first.category.__name__} at {first.filename}:{first.lineno}: {first.message}\n{why}"


def outcome_of_reading(loader: Loader) -> tuple[str, str]:
    signal.alarm(LONGEST)
    try:
        loader.read()
        return "accepted", ""
    except InputError as error:
        good = str(error).isprintable() and len(str(error)) <= LONGEST_LINE
        return ("refused", "") if good else ("failed", f"more than one line: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "failed", traceback.format_exc()
    finally:
        signal.alarm(0)


def fuzz(name: str, rounds: int, seed: int, folder: Path) -> tuple[Counter, float]:
    """How often a loader accepted, refused and failed, and its slowest round in seconds. What failed is kept in
    the folder with its traceback, and so is the input of a round that ends the process."""
    (folder / name).mkdir(parents=True)
    loader, counts, slowest = LOADERS[name](folder / name), Counter(), 0.0
    signal.signal(signal.SIGALRM, too_long)
    for number in tqdm(range(rounds), desc=name, leave=False, mininterval=1):
        rng = random.Random(f"{seed} {name} {number}")
        content = rng.choice(loader.seeds)
        change = loader.change if loader.change and rng.random() < 0.5 else damaged
        content = change(content, rng)
        loader.path.write_bytes(content)
        start = time.perf_counter()
        result, why = outcome(loader)
        slowest = max(slowest, time.perf_counter() - start)
        counts[result] += 1
        if result == "failed":
            (folder / f"{name}_{number}").write_bytes(content)
            (folder / f"{name}_{number}.why").write_text(why, errors="replace")
    return counts, slowest


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description="Read damaged files; exit status 1 where a loader failed.")
    parser.add_argument("--rounds", type=int, default=1000, help="of each loader (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS), metavar="LOADER",
                        help=", ".join(LOADERS))
    given = parser.parse_args()
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY + address_space(), resource.RLIM_INFINITY))
    folder, failed = Path(tempfile.mkdtemp(prefix="fuzz_")), 0
    print(f"damaged files in {folder}")
    print(f"{'loader':<18}{'refused':>9}{'accepted':>9}{'failed':>9}{'slowest, s':>12}{'peak, MB':>10}")
    for name in given.only:
        counts, slowest = fuzz(name, given.rounds, given.seed, folder)
        failed += counts["failed"]
        numbers = "".join(f"{counts[key]:>9}" for key in ("refused", "accepted", "failed"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # since the start
        print(f"{name:<18}{numbers}{slowest:>12.2f}{peak:>10}", flush=True)
    print(f"{failed} failed" + (f", kept in {folder}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
