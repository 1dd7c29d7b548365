"""Early stopping (--i_val and --patience): which views are held out, when a run ends, and what is kept of it."""

import math
import re

import pytest
import torch

import evaluate
import run_nerf
from infonerf.system.errors import InputError
from infonerf.training import checkpoint, early_stopping
from infonerf.training.early_stopping import HELD_OUT_RAYS, HeldOut, held_out_views
from run_nerf import main
from support.runs import contents, options, same, scalars
from support.scenes import memory_scene, write_dtu


def these_psnrs(monkeypatch, *psnrs):
    """Let the next measurements find these."""
    left = list(psnrs)
    monkeypatch.setattr(early_stopping, "psnr_of_rays", lambda renderer, drawn: {"psnr": left.pop(0)})


def steps_saved(tmp_path):
    return [step for step, _ in checkpoint.saved(tmp_path / "logs/run")]


@pytest.mark.parametrize(("patience", "psnrs", "waited", "best_step", "ends_after"), [
    (2, [10, 11, 10.5, 12, 11, 11.9, 13], [0, 0, 1, 0, 1, 2, 0], 7, 6),
    (2, [10, 10, 10], [0, 1, 2], 1, 3),
    (1, [-5, math.nan], [0, 1], 1, 2),
    (2, [math.nan, math.nan], [1, 2], 0, 2),
    (0, [10, 9, 8, 7, 6, 5], [0, 1, 2, 3, 4, 5], 1, None),
])  # fmt: skip
def test_patience(monkeypatch, patience, psnrs, waited, best_step, ends_after):
    these_psnrs(monkeypatch, *psnrs)
    held_out, ends = HeldOut((3,), [], patience), []
    for step, expected in enumerate(waited, start=1):
        held_out.measure(None, step)
        assert held_out.waited == expected
        ends += [step] if held_out.exhausted else []
    assert held_out.best_step == best_step and (ends[0] if ends else None) == ends_after


def test_which_views_are_held_out():
    scene = memory_scene(6, train=(0, 1))  # tested on view 5
    assert held_out_views(scene, [4, 2]) == (4, 2)
    for named, expected in (
        ([1, 3], "--val_scene: view 1 is a training view"), ([5], "--val_scene: view 5 is a test view"),
        ([6], r"--val_scene: found view 6, expected 0\.\.5"), ([2, 2], "--val_scene: view 2 is named twice"),
        (None, "--i_val: memory has no validation views, expected --val_scene to name some"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=expected):
            held_out_views(scene, named)


def test_a_run_ends_keeps_its_best_and_goes_on_with_more_patience(blender, tmp_path, capsys, monkeypatch):
    extra = ["--N_iters", "20", "--i_val", "2", "--i_weights", "5", "--keep_checkpoints", "2"]
    command = options(blender, tmp_path, *extra)
    these_psnrs(monkeypatch, 10, 12, 11, 11.5)
    assert main([*command, "--patience", "2"]) == 0
    said, run = capsys.readouterr().out, f"{tmp_path}/logs/run"
    assert f"held-out PSNR was best, 12.00, at step 4; to evaluate that one: python evaluate.py {run} --step 4" in said
    assert f"done: 8 steps, stopped early, {run}" in said
    assert steps_saved(tmp_path) == [4, 5, 8]
    assert main([*command, "--patience", "2"]) == 0
    said = capsys.readouterr().out
    assert "nothing to do: step 8 of N_iters 20 is reached, where the training was stopped early" in said
    assert "best, 12.00, at step 4" in said
    these_psnrs(monkeypatch, 13, 9, 9, 9)
    assert main([*command, "--patience", "3"]) == 0
    assert "held-out PSNR was best, 13.00, at step 10" in capsys.readouterr().out
    assert steps_saved(tmp_path) == [10, 15, 16]


def test_another_run_starts_with_nothing_measured(blender, tmp_path, capsys, monkeypatch):
    """--ft_path: what another run reached, of another scene perhaps, is no bar."""
    measured = ["--i_val", "1", "--patience", "2"]
    these_psnrs(monkeypatch, 30, 29, 28, 10, 9, 8)
    assert main(options(blender, tmp_path, "--N_iters", "9", *measured)) == 0
    start = ["--ft_path", str(tmp_path / "logs/run/000003.tar")]
    assert main(options(blender, tmp_path, "--N_iters", "9", *measured, *start, name="other")) == 0
    assert "held-out PSNR was best, 10.00, at step 4" in capsys.readouterr().out
    assert contents(tmp_path, 6, "other")["held_out"] == {"views": [4], "best": 10, "best_step": 4, "waited": 2}


@pytest.mark.parametrize("psnr", [math.nan, 12.0])
def test_the_best_is_only_told_where_it_is(blender, tmp_path, capsys, monkeypatch, psnr):
    command = options(blender, tmp_path, "--N_iters", "2", "--i_val", "1")
    these_psnrs(monkeypatch, psnr, psnr)
    assert main(command) == 0
    (tmp_path / "logs/run/000001.tar").unlink(missing_ok=True)
    capsys.readouterr()
    assert main(command) == 0
    lost = "best, 12.00, at step 1; its checkpoint is not there"
    said = capsys.readouterr().out
    assert (lost in said) if psnr == 12.0 else ("held-out PSNR was" not in said)


def test_a_measurement_reads_no_photograph(blender, tmp_path, monkeypatch):
    """Not for the visual hull either: what happens to the files while it trains does not end a training."""
    train_step = run_nerf.Trainer.train_step

    def spoiling(trainer):
        for path in blender.glob("*/*.png"):
            path.write_bytes(b"not an image")
        return train_step(trainer)

    monkeypatch.setattr(run_nerf.Trainer, "train_step", spoiling)
    extra = ["--skip_empty", "--visual_hull", "--N_iters", "3", "--i_val", "2", "--patience", "1"]
    assert main(options(blender, tmp_path, *extra)) == 0
    assert contents(tmp_path, 3)["held_out"]["best_step"] == 2
    assert contents(tmp_path, 3)["held_out"]["waited"] == 0


def test_measuring_leaves_training_alone_and_resumes_exactly(blender, tmp_path):
    extra = ["--no_batching", "--skip_empty", "--ema_decay", "0.5"]
    measured = ["--i_val", "2", "--patience", "9"]
    assert main(options(blender, tmp_path, *extra, "--N_iters", "7", name="plain")) == 0
    assert main(options(blender, tmp_path, *extra, *measured, "--N_iters", "7", name="whole")) == 0
    assert main(options(blender, tmp_path, *extra, *measured, "--N_iters", "3")) == 0
    assert main(options(blender, tmp_path, *extra, *measured, "--N_iters", "7")) == 0
    plain, whole, run = (contents(tmp_path, 7, name) for name in ("plain", "whole", "run"))
    assert whole["held_out"]["best_step"] in (2, 4, 6) and "held_out" not in plain
    for key in plain.keys() - {"options", "checksum"}:
        assert same(plain[key], whole[key]), key
    for key in whole.keys() - {"options", "checksum"}:
        assert same(whole[key], run[key]), key


def test_it_is_what_evaluate_shows_of_the_validation_views(blender, tmp_path, capsys):
    extra = ["--no_batching", "--ema_decay", "0.9", "--lrate", "0.01", "--density_bias", "0.5", "--testskip", "2"]
    assert main(options(blender, tmp_path, *extra, "--N_iters", "4", "--i_val", "4")) == 0
    psnr = re.search(r"step 4  held-out psnr (\S+)\n", capsys.readouterr().out)[1]
    logged = scalars(tmp_path / "logs/run")["psnr/held_out"]
    assert {step: f"{value:.2f}" for step, value in logged.items()} == {4: psnr}
    run = str(tmp_path / "logs/run")
    assert evaluate.main([run, "--split", "val", "--rays", str(HELD_OUT_RAYS), "--device", "cpu"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[1:4] == ["4", "4", psnr]


def test_no_test_image_is_read(tmp_path, blender, capsys):
    for path in blender.glob("test/*.png"):
        path.write_bytes(b"not an image")
    assert main(options(blender, tmp_path, "--N_iters", "2", "--i_val", "1", "--patience", "5")) == 0
    scan = write_dtu(tmp_path / "scan")
    views = ["--train_scene", "0", "3", "--test_scene", "1", "2"]
    (scan / "image/000001.png").write_bytes(b"not an image")
    command = options(scan, tmp_path, *views, "--N_iters", "1", "--i_val", "1", kind="dtu", name="scan")
    assert main(command) == 2 and not (tmp_path / "logs/scan").exists()
    assert "--val_scene" in capsys.readouterr().err
    assert main([*command, "--val_scene", "4", "5"]) == 0
    assert contents(tmp_path, 1, "scan")["held_out"]["views"] == [4, 5]


def test_the_best_of_other_views_is_forgotten(monkeypatch):
    these_psnrs(monkeypatch, 20.0)
    before = HeldOut((2, 3), [], 2)
    before.measure(None, 100)
    same_views, others = HeldOut((2, 3), [], 2), HeldOut((2, 4), [], 2)
    same_views.load_state_dict(before.state_dict())
    others.load_state_dict(before.state_dict())
    assert (same_views.best, same_views.best_step) == (20.0, 100) and others == HeldOut((2, 4), [], 2)


@pytest.mark.parametrize("state", [{"views": [4]}, {"views": [4], "best": "high", "best_step": 1, "waited": 0},
                                   {"views": [4], "best": 1, "best_step": math.inf, "waited": 0}, 3])
def test_a_state_that_is_none_is_one_line(blender, tmp_path, capsys, state):
    command = options(blender, tmp_path, "--i_val", "1")
    assert main([*command, "--N_iters", "1"]) == 0
    path = tmp_path / "logs/run/000001.tar"
    content = contents(tmp_path, 1) | {"held_out": state}
    del content["checksum"]
    torch.save(content, path)
    assert main([*command, "--N_iters", "2"]) == 2
    assert f"{path}: held_out" in capsys.readouterr().err


def test_an_evaluation_stands_whatever_training_measures(blender, tmp_path):
    command = options(blender, tmp_path, "--N_iters", "1", "--i_testset", "1")
    assert main(command) == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "logs/run/testset_000001").glob("*.png")}
    assert main([*command, "--eval_only", "--i_val", "5", "--val_scene", "4", "--patience", "3"]) == 0
    assert files and files == {path: path.stat().st_mtime_ns for path in files}
