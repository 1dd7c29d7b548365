"""make_scene.py that is killed, or whose disk is full: real processes, with a stand-in for COLMAP."""

import os
import resource

import pytest

from robustness.make_scene_faults import attempt, check, hashes, make_whole, without_colmap
from support.photographs import write_photographs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def folder(tmp_path):
    write_photographs(tmp_path / "photos", 2)
    return tmp_path


def test_killed_before_any_change_of_the_disk_it_leaves_nothing_or_all(folder):
    photographs, found = hashes(folder / "photos"), []
    for number in range(1, 1000):
        status, said = attempt(folder, number, prepare=without_colmap)
        found.append(check(folder, photographs))
        if found[-1]:
            break
    assert status in (None, 0) and len(found) > 12, said
    assert len(list(folder.glob(".make_scene.*"))) >= len(found) - 3


def test_what_a_killed_one_left_is_in_nobodys_way(folder):
    assert attempt(folder, 8, prepare=without_colmap)[0] is None and list(folder.glob(".make_scene.*"))
    make_whole(folder, hashes(folder / "photos"), without_colmap)


@pytest.mark.parametrize("size", [0, 900, 3000, 30_000])
def test_a_full_disk_is_one_line(folder, size):
    """Where no file may grow above so many bytes: in the working copies, the model, the pictures."""

    def prepare():
        without_colmap()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    photographs = hashes(folder / "photos")
    status, said = attempt(folder, prepare=prepare)
    assert status == 1 and not check(folder, photographs), said
    lines = [line for line in said.replace("\r", "\n").splitlines() if "rror" in line or "Traceback" in line]
    assert len(lines) == 1 and "make_scene.py: error: " in lines[0] and str(folder / "scene") in lines[0]
    assert [path.name for path in folder.iterdir()] == ["photos"]
