"""A few rounds of fuzz.py, and that it finds what it looks for."""

import contextlib
import time

import pytest

from infonerf.system.errors import InputError
from robustness import fuzz, fuzz_checkpoints
from robustness.fuzz import LOADERS
from robustness.fuzz_scenes import SCENES, Loader


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_files_are_refused_or_read(tmp_path, name):
    rounds = 30 if name in fuzz_checkpoints.LOADERS else 100 if name in SCENES else 60
    counts, _ = fuzz.fuzz(name, rounds, 1, tmp_path)
    assert counts["failed"] == 0, "\n".join(path.read_text() for path in tmp_path.glob("*.why"))
    assert counts["accepted"] and (counts["refused"] or name in ("events", "metrics.json"))  # whose damages are notes


def test_what_fails_is_kept(tmp_path, monkeypatch):
    def read():
        if path.stat().st_size % 2:
            raise InputError(f"{path}: of odd size")
        raise ValueError("no InputError")

    path = tmp_path / "file"
    monkeypatch.setitem(LOADERS, "mine", lambda folder: Loader(path, [b"seed"], read))
    counts, _ = fuzz.fuzz("mine", 20, 0, tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("mine_*.why"))
    assert counts["failed"] == len(kept) > 0 and counts["refused"] + counts["failed"] == 20
    assert "ValueError: no InputError" in (tmp_path / kept[0]).read_text()
    assert len((tmp_path / kept[0][: -len(".why")]).read_bytes()) % 2 == 0


def test_what_never_ends_fails(tmp_path, monkeypatch):
    def read():
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    monkeypatch.setattr(fuzz, "LONGEST", 1)
    monkeypatch.setitem(LOADERS, "mine", lambda folder: Loader(folder / "file", [b"seed"], read))
    assert fuzz.fuzz("mine", 1, 0, tmp_path)[0] == {"failed": 1}
