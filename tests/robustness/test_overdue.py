"""Test views, videos and lines of results.csv that were due and are not there: the same command makes them."""

import csv
import shutil
import signal

import pytest

import evaluate
import run_nerf
from infonerf.command_line import parse_options
from infonerf.evaluation import views
from infonerf.jobs import Job
from infonerf.rendering import pictures
from robustness import faults
from run_nerf import main
from support.runs import scalars
from support.scenes import write_blender

DUE = ("--i_testset", "2", "--i_video", "2", "--i_weights", "100")
NO_VIDEO = ("--i_video", "0")


@pytest.fixture
def folder(tmp_path):
    write_blender(tmp_path / "scene", counts=(4, 1, 16))
    return tmp_path


def command(folder, n_steps, *extra, name="run"):
    return faults.options(folder, name, "--N_iters", str(n_steps), *DUE, *extra)


def finished(words):
    """Whether train.sh would skip the run."""
    return Job("shown", None, parse_options(words)[0]).finished


def left(folder, name):
    return [found(folder, name) for found in (faults.metrics, faults.pictures, faults.results)]


@pytest.mark.parametrize(("killed", "more"), [("write_images", 2), ("write_gif", 3)], ids=["last step", "earlier step"])
def test_what_was_stopped_is_made_by_the_same_command(folder, capsys, monkeypatch, killed, more):
    """In the second picture, or between the videos: then the run is exactly what one is that nobody stopped."""
    assert main(command(folder, more, name="whole")) == 0
    module = views if killed == "write_images" else pictures
    write, count = getattr(module, killed), []

    def stopping(*given):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(module, killed, stopping)
    assert main(command(folder, 2)) == 143
    assert not finished(command(folder, 2))
    monkeypatch.undo()
    capsys.readouterr()
    assert main(command(folder, more)) == 0
    said = capsys.readouterr().out
    assert said.count("making up for what is not there: test views of step 2") == (killed == "write_images")
    assert said.count("making up for what is not there: video of step 2") == 1
    assert left(folder, "run") == left(folder, "whole")
    assert scalars(folder / "logs/run").keys() == scalars(folder / "logs/whole").keys()
    assert finished(command(folder, more))
    assert main(command(folder, more)) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_record_that_lacks_pictures_is_made_up_for(folder, capsys):
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    (folder / "logs/run/testset_000002/test_r_8.png").unlink()
    capsys.readouterr()
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    assert "making up for what is not there: test views of step 2" in capsys.readouterr().out


def test_results_that_are_a_folder(folder, capsys, monkeypatch):
    """The line is written once the folder is gone, by run_nerf.py and evaluate.py, without rendering anything again."""
    results_csv, run = folder / "logs/results.csv", folder / "logs/run"
    results_csv.mkdir(parents=True)
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    said = capsys.readouterr().out
    assert said.count(f"not all test views were made: [Errno 21] Is a directory: '{results_csv}'") == 1
    assert main(command(folder, 2, *NO_VIDEO)) == 1
    assert "not all lines of results.csv were made: [Errno 21]" in capsys.readouterr().out
    assert evaluate.main([str(run), "--device", "cpu", "--split", "val"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("evaluate.py: error: [Errno 21] Is a directory")
    results_csv.rmdir()
    monkeypatch.setattr(views, "write_images", None)
    for _ in range(2):
        assert main(command(folder, 2, *NO_VIDEO)) == 0
        assert evaluate.main([str(run), "--device", "cpu", "--split", "val"]) == 0
    with results_csv.open(newline="") as file:
        assert [(line["step"], line["kind"]) for line in csv.DictReader(file)] == [("2", "testset"), ("2", "valset")]


def test_a_line_that_was_cut_off_is_followed_by_a_new_one(folder):
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    path = folder / "logs/results.csv"
    path.write_bytes(path.read_bytes()[:-30])
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("when", ["trained", "resumed"])
def test_what_only_other_options_ask_for_is_not_overdue(folder, capsys, when):
    """Neither do pictures that an earlier run was not to have keep one from going on."""
    never = ("--i_testset", "0", *NO_VIDEO)
    assert main(command(folder, 2, *(never if when == "trained" else NO_VIDEO))) == 0
    shutil.rmtree(folder / "logs/run/testset_000002", ignore_errors=True)
    capsys.readouterr()
    assert main(command(folder, 2, *(never if when == "resumed" else NO_VIDEO))) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_what_cannot_be_made_up_for_does_not_keep_a_run_from_going_on(folder, capsys, monkeypatch):
    assert main(command(folder, 2, *NO_VIDEO)) == 0
    (folder / "logs/run/testset_000002/metrics.json").unlink()

    def failing(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(views, "write_images", failing)
    assert main(command(folder, 2, *NO_VIDEO)) == 1
    assert main(command(folder, 3, *NO_VIDEO)) == 0
    assert capsys.readouterr().out.count("WARNING: step 2: not all test views were made: [Errno 28]") == 2


def test_of_a_checkpoint_that_is_damaged_nothing_is_made(folder, capsys):
    assert main(command(folder, 3, *NO_VIDEO)) == 0
    (folder / "logs/run/testset_000002/metrics.json").unlink()
    (folder / "logs/run/000002.tar").write_bytes(b"damaged")
    capsys.readouterr()
    assert main(command(folder, 3, *NO_VIDEO)) == 0
    said = capsys.readouterr().out
    assert "000002.tar: cannot be read as a checkpoint" in said and "nothing to do" in said


def test_a_scene_without_test_views_lacks_none(folder, capsys, monkeypatch):
    monkeypatch.setattr(run_nerf, "test_views", lambda scene: ())
    for _ in range(2):
        assert main(command(folder, 2, *NO_VIDEO)) == 0
    assert "nothing to do" in capsys.readouterr().out
