"""make_scene.py: the command line, and that nothing is lost or left half done. COLMAP: capture/test_reconstruct.py."""

import os
import signal
import sys

import pytest

import make_scene
from infonerf.capture import make
from infonerf.system.errors import InputError
from make_scene import main
from support.photographs import write_photographs


@pytest.fixture
def photographs(tmp_path):
    write_photographs(tmp_path / "photos", 2)
    return tmp_path / "photos"


@pytest.fixture
def no_colmap(monkeypatch):
    """As if it were installed; where it is asked for cameras, it raises what is appended to the list."""
    errors = []

    def reconstruct(job):
        assert sorted(path.name for path in job.images.iterdir()) == ["00000.jpg", "00001.jpg"]
        raise errors[0]

    monkeypatch.setattr(make_scene, "require_pycolmap", lambda: "0")
    monkeypatch.setattr(make, "reconstruct", reconstruct)
    return errors


def error_of(capsys, *argv):
    assert main([str(value) for value in argv]) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error" in line]
    assert len(lines) == 1
    return lines[0]


def test_without_pycolmap_the_command_that_installs_it(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    expected = "make_scene.py: error: make_scene.py needs pycolmap: pip install -r requirements-capture.txt"
    assert error_of(capsys, photographs, "--output", tmp_path / "scene") == expected


@pytest.mark.parametrize(("source", "message"), [
    ("nothing", "found nothing there, expected a folder of photographs or a video"),
    ("photos/a.png", "found one photograph, expected a folder of two or more, or a video"),
    ("notes.txt", "cannot be read as a video, expected a folder of photographs or a video"),
    ("empty", "found no photographs, expected JPEG, PNG, WebP or HEIC files"),
    ("one", "found 1 photograph that can be read, expected 2 or more"),
])  # fmt: skip
def test_bad_photographs(photographs, tmp_path, no_colmap, capsys, source, message):
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    write_photographs(tmp_path / "one", 1)
    (tmp_path / "one" / "z.jpg").write_bytes(b"broken")
    before = sorted(tmp_path.rglob("*"))
    assert error_of(capsys, tmp_path / source, "--output", tmp_path / "scene").endswith(message)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_overwritten(photographs, tmp_path, no_colmap, capsys):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "mine").write_text("")
    expected = "found something there, expected a new folder; nothing is overwritten"
    assert error_of(capsys, photographs, "--output", tmp_path / "scene").endswith(expected)
    assert error_of(capsys, photographs, "--output", photographs).endswith(expected)
    assert error_of(capsys, photographs, "--output", photographs / "a.png").endswith(expected)
    assert "cannot write to" in error_of(capsys, photographs, "--output", photographs / "a.png" / "scene")


@pytest.mark.parametrize(("error", "status"), [(InputError("no cameras"), 2), (KeyboardInterrupt(), 130)])
def test_what_is_half_done_goes_away(photographs, tmp_path, no_colmap, capsys, error, status):
    no_colmap.append(error)
    assert main([str(photographs), "--output", str(tmp_path / "scene")]) == status
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert sorted(path.name for path in photographs.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_is_half_done_goes_away_with_a_signal(photographs, tmp_path, no_colmap, monkeypatch, name):
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    monkeypatch.setattr(make, "reconstruct", lambda job: os.kill(os.getpid(), number))
    try:
        with pytest.raises(SystemExit) as stopped:
            main([str(photographs), "--output", str(tmp_path / "scene")])
    finally:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(number, handler)
    assert stopped.value.code == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(("options", "message"), [
    ([], "the following arguments are required: --output"),
    (["--output", "x", "--frames", "1"], "argument --frames: found '1', expected an integer >= 2"),
    (["--output", "x", "--fov", "180"], "argument --fov: found '180', expected a number >= 1 and <= 170"),
    (["--output", "x", "--focal", "0"], "argument --focal: found '0', expected a number > 0"),
    (["--output", "x", "--focal", "9", "--fov", "9"], "argument --fov: not allowed with argument --focal"),
])  # fmt: skip
def test_bad_options(capsys, options, message):
    assert message in error_of(capsys, "photos", *options)


@pytest.mark.parametrize(("options", "focal"), [([], None), (["--focal", "321"], 321), (["--fov", "90"], 120)])
def test_the_focal_length_that_is_given(photographs, tmp_path, no_colmap, monkeypatch, capsys, options, focal):
    jobs = []

    def reconstruct(job):
        jobs.append(job)
        raise InputError("enough")

    monkeypatch.setattr(make, "reconstruct", reconstruct)
    assert main([str(photographs), "--output", str(tmp_path / "scene"), *options]) == 2
    assert [photograph.focal for photograph in jobs[0].photographs] == pytest.approx([focal] * 2)
    said = capsys.readouterr().out
    assert ("from the command line, kept" if focal else "estimated from a guess of 0.8 x the longer side") in said


def test_the_next_command_can_be_copied(photographs, monkeypatch, capsys):
    for name in ("require_pycolmap", "make_scene"):
        monkeypatch.setattr(make_scene, name, lambda *_: None)
    assert main([str(photographs), "--output", "my scene"]) == 0
    assert "--datadir 'my scene'\n" in capsys.readouterr().out
