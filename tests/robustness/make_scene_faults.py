"""Kill make_scene.py by the clock and before each change that it makes to the disk, and look at what it leaves:
`python tests/robustness/make_scene_faults.py --rounds 30` (with pycolmap: requirements-capture.txt).

A folder of the wanted name is there only where it is whole, and the photographs are what they were.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

import numpy as np

import make_scene
from infonerf.capture import make
from infonerf.capture.dataset import Model
from infonerf.capture.photographs import write_undistorted
from infonerf.capture.reconstruct import Outcome
from support.photographs import FOCAL, HEIGHT, WIDTH, poses, write_photographs

WHOLE = {"images", "sparse", "cameras.png", "make_scene.json"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def without_colmap() -> None:
    """Have this process write what COLMAP would find of photographs, which are copied."""

    def write_dataset(model, photographs, output, step):
        (output / "images").mkdir()
        (output / "sparse" / "0").mkdir(parents=True)
        for photograph in photographs:
            write_undistorted(photograph, output / "images" / photograph.name, None)
            step()
        for part in ("cameras", "images", "points3D"):
            (output / "sparse" / "0" / f"{part}.bin").write_bytes(bytes(1000))
        n = len(photographs)
        intrinsics = np.tile([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], (n, 1))
        return Model(tuple(item.name for item in photographs), poses(n), intrinsics, np.tile([HEIGHT, WIDTH], (n, 1)),
                     np.zeros((1, 3)), np.zeros((1, 3), np.uint8), 0.1, 9.0)  # fmt: skip

    make_scene.require_pycolmap = make.require_pycolmap = lambda: "0"
    make.reconstruct = lambda job: Outcome("usual thresholds", [len(job.photographs)])
    make.write_dataset = write_dataset


def attempt(
    folder: Path, number: int | None = None, delay: float | None = None, prepare=lambda: None
) -> tuple[int | None, str]:
    """Fork, and make folder/scene of folder/photos. The process is killed before its `number`-th change of the folder,
    or after `delay` seconds. Returns the exit status, None where it was killed, and what it and those that it started
    said, after all of them have ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for descriptor in (1, 2):
            os.dup2(writer, descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
        os.close(writer)
        prepare()
        if number is not None:
            die_before(number, str(folder))
        status = make_scene.main([str(folder / "photos"), "--output", str(folder / "scene")])
        os._exit(status)
    os.close(writer)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, errors="replace") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None, said


def die_before(number: int, folder: str) -> None:
    seen = Counter()

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(folder):
            seen["changes"] += 1
            if seen["changes"] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check(folder: Path, photographs: dict[str, str]) -> bool:
    """Whether there is a scene, which is whole."""
    assert hashes(folder / "photos") == photographs
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} <= {"photos", "scene"}
    if not (folder / "scene").exists():
        return False
    assert {path.name for path in (folder / "scene").iterdir()} == WHOLE
    registered = json.loads((folder / "scene" / "make_scene.json").read_text())["registered"]
    assert sorted(path.name for path in (folder / "scene" / "images").iterdir()) == registered
    assert all(path.stat().st_size for path in (folder / "scene").rglob("*"))
    return True


def make_whole(folder: Path, photographs: dict[str, str], prepare=lambda: None) -> None:
    status, said = attempt(folder, prepare=prepare)
    assert status == 0 and check(folder, photographs), said


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill make_scene.py, and look at what it leaves.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--photographs", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="make_scene_") as name:
        folder, rng, killed = Path(name), random.Random(0), 0
        write_photographs(folder / "photos", given.photographs)
        photographs, start = hashes(folder / "photos"), time.monotonic()
        make_whole(folder, photographs)
        usual = time.monotonic() - start
        for _ in range(given.rounds):
            (folder / "scene").rename(folder / f".before_{time.monotonic_ns()}")
            by_clock = rng.random() < 0.7
            fault = {"delay": rng.uniform(0, usual)} if by_clock else {"number": rng.randint(1, 40)}
            status, said = attempt(folder, **fault)
            assert status in (None, 0), said
            killed += status is None
            if not check(folder, photographs):
                make_whole(folder, photographs)
        print(f"{given.rounds} rounds, {killed} killed: each left nothing of the wanted name, or the whole scene")
    return 0


if __name__ == "__main__":
    sys.exit(main())
