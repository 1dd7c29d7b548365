"""Views that are rendered and not measured: test poses without photographs, and photographs that cannot be read."""

import csv
import json
import shutil

import numpy as np
import pytest

import evaluate
import report
import run_nerf
from infonerf.evaluation.record import Record
from support.runs import options, scalars
from support.scenes import cut, spoil, write_blender, write_depth

FEW = ("--no_batching", "--N_iters", "1", "--testskip", "1")


def record_of(logdir, step=1, kind="testset"):
    return json.loads((logdir / f"{kind}_{step:06d}" / "metrics.json").read_text())


def pictures(folder):
    return sorted(path.name for path in folder.glob("test_r_?.png"))


@pytest.fixture
def scene(tmp_path):
    return write_blender(tmp_path / "scene", counts=(3, 1, 3))


def test_test_poses_without_pictures(scene, tmp_path, capsys):
    """As Blender add-ons export them: no val file, no test pictures. Trained, rendered, reported; not measured."""
    shutil.rmtree(scene / "test")
    (scene / "transforms_val.json").unlink()
    command = options(scene, tmp_path, *FEW, "--i_testset", "1", "--i_img", "1")
    assert run_nerf.main(command) == 0
    out = capsys.readouterr().out
    assert "0 to test on, 3 to render without measuring (no photograph); there is nothing to measure" in out
    assert "WARNING: step" not in out
    logdir = tmp_path / "logs/run"
    names = ["test/r_0", "test/r_1", "test/r_2"]
    record = record_of(logdir)
    assert record["views"] == {} and record["mean"] == {}
    assert record["unmeasured"] == dict.fromkeys(names, "it has no photograph")
    assert pictures(logdir / "testset_000001") == ["test_r_0.png", "test_r_1.png", "test_r_2.png"]
    assert not (tmp_path / "logs/results.csv").exists()

    assert evaluate.main([str(logdir)]) == 0
    out = capsys.readouterr().out
    assert "3 views in" in out and "3 of them from before" in out
    assert "3 of them (test/r_0 test/r_1 test/r_2) are not measured, and not in the means" in out
    assert "0 of 3" in out
    for kind in ("--render_test", "--render_train"):
        assert run_nerf.main([*command, "--render_only", kind]) == 0
    assert pictures(logdir / "renderonly_test_000001") == ["test_r_0.png", "test_r_1.png", "test_r_2.png"]
    assert len(record_of(logdir, kind="renderonly_train")["views"]) == 3
    assert report.main([str(logdir), "--output", str(tmp_path / "page.html")]) == 0
    assert "3 views are rendered, not measured (test/r_0: it has no photograph" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert evaluate.main([str(logdir), "--rays", "10"]) == 2
    assert capsys.readouterr().err.endswith("--split test: scene scene has no such views with photographs, expected "
                                            "some\n")  # fmt: skip


def test_a_scene_without_test_views(scene, tmp_path, capsys):
    (scene / "transforms_test.json").unlink()
    assert run_nerf.main(options(scene, tmp_path, *FEW, "--i_testset", "1", "--i_img", "1", "--entropy")) == 0
    out = capsys.readouterr().out
    assert "0 to test on; there is nothing to measure" in out and "there are no test views" in out
    assert not (tmp_path / "logs/run/testset_000001").exists()
    assert evaluate.main([str(tmp_path / "logs/run")]) == 2
    assert capsys.readouterr().err.endswith("error: --split test: scene scene has no such views, expected some\n")
    assert evaluate.main([str(tmp_path / "logs/run"), "--split", "val"]) == 0
    (scene / "transforms_val.json").unlink()
    assert run_nerf.main(options(scene, tmp_path, *FEW, "--i_img", "1", name="another")) == 0
    assert run_nerf.main(options(scene, tmp_path, *FEW, "--i_val", "1", name="third")) == 2
    assert "--i_val: scene has no validation views" in capsys.readouterr().err


@pytest.mark.parametrize(("damage", "reason"), [
    (spoil, "cannot be read as an image"),
    (cut, "cannot be read as an image"),
    (lambda path: path.unlink(), "it has no photograph"),
])  # fmt: skip
def test_an_evaluation_goes_on_past_a_view_that_cannot_be_read(scene, tmp_path, capsys, damage, reason):
    assert run_nerf.main(options(scene, tmp_path, *FEW, "--i_testset", "1")) == 0
    logdir, path = tmp_path / "logs/run", scene / "test/r_1.png"
    whole, content = record_of(logdir), path.read_bytes()
    shutil.rmtree(logdir / "testset_000001")
    damage(path)
    capsys.readouterr()
    assert evaluate.main([str(logdir)]) == 0
    out = capsys.readouterr().out
    assert "test/r_1: not measured: " in out and reason in out
    assert "1 of them (test/r_1) are not measured, and not in the means" in out and "2 of 3" in out
    record = record_of(logdir)
    assert record["views"] == {name: whole["views"][name] for name in ("test/r_0", "test/r_2")}
    assert record["mean"]["mse"] == pytest.approx(np.mean([view["mse"] for view in record["views"].values()]))
    assert list(record["unmeasured"]) == ["test/r_1"] and reason in record["unmeasured"]["test/r_1"]
    assert pictures(logdir / "testset_000001") == ["test_r_0.png", "test_r_1.png", "test_r_2.png"]
    assert Record.read(logdir / "testset_000001/metrics.json").shown_views() == "2 of 3"
    with (tmp_path / "logs/results.csv").open(newline="") as file:
        assert [row["views"] for row in csv.DictReader(file)] == ["3", "2"]

    path.write_bytes(content)  # mended: measured now, the others are from before
    assert evaluate.main([str(logdir)]) == 0
    assert "2 of them from before" in capsys.readouterr().out
    assert record_of(logdir)["views"] == whole["views"] and "unmeasured" not in record_of(logdir)


def test_training_goes_on_past_test_views_that_cannot_be_read(scene, tmp_path, capsys):
    """Said before the training; each time the others are measured."""
    write_depth(scene)
    cut(scene / "test/r_0_depth.png", 50)
    spoil(scene / "test/r_2.png")
    assert run_nerf.main(options(scene, tmp_path, *FEW, "--i_testset", "1")) == 0
    out = capsys.readouterr().out
    assert out.index("test/r_2.png: cannot be read as an image") < out.index("step 1  loss")
    assert list(record_of(tmp_path / "logs/run")["views"]) == ["test/r_1"]
    assert "test/psnr" in scalars(tmp_path / "logs/run")
