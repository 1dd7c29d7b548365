"""docs/extending.md: its examples, put where it says, train, are measured and resumed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from support.runs import ROOT, scalars
from support.scenes import poses_around

BLOCK = re.compile(r'<!-- (\S+): (new|before|instead of)(?: ("[^\n]*"))? -->\n```python\n(.*?)```', re.DOTALL)
TINY = ["--N_rand", "64", "--N_samples", "8", "--N_importance", "8", "--N_entropy", "16", "--i_print", "10",
        "--i_img", "0", "--netdepth", "2", "--netwidth", "16", "--netdepth_fine", "2",
        "--netwidth_fine", "16", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the code with every example of the page in it."""
    copy = tmp_path_factory.mktemp("extended")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, copy)
    shutil.copytree(ROOT / "infonerf", copy / "infonerf", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
    assert len(blocks) == (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").count("```python")
    for name, how, place, code in blocks:
        path = copy / name
        if how == "new":
            path.write_text(code)
            continue
        text, line = path.read_text(), ast.literal_eval(place)
        assert text.count(line) == 1, f"{name}: {line!r} is there {text.count(line)} times"
        path.write_text(text.replace(line, code.rstrip("\n") if how == "instead of" else code + line))
    return copy


def run(copy, script, *words):
    """A script of the extended code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *map(str, words)], cwd=copy, env=environment, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_field_a_loss_and_a_metric(extended, tmp_path):
    """A grid of voxels on the sample scene: it learns, with its own learning rate and penalty, and resumes exactly."""
    data = ["--datadir", ROOT / "data/sample", "--dataset_type", "blender", "--fewshot", "4", "--white_bkgd",
            "--testskip", "24", "--basedir", tmp_path]  # fmt: skip
    words = [*data, *TINY, "--field", "voxels", "--voxels", "24", "--opacity_lambda", "0.001", "--precision", "fp32",
             "--no_batching", "--skip_empty", "--i_video", "0", "--i_weights", "100"]  # fmt: skip
    said = run(extended, "run_nerf.py", *words, "--expname", "whole", "--N_iters", "200", "--i_testset", "200",
               "--render_factor", "4")  # fmt: skip
    assert "colour + opacity" in said
    logged = scalars(tmp_path / "whole")
    assert {"loss/opacity", "loss_weighted/opacity", "loss/tv_fine", "loss/tv_coarse"} <= logged.keys()
    assert logged["learning_rate"][10] == pytest.approx(100 * 5e-4, rel=1e-3)
    assert logged["psnr/fine"][200] > logged["psnr/fine"][10] + 2
    for value, weighted in zip(logged["loss/tv_fine"].values(), logged["loss_weighted/tv_fine"].values(), strict=True):
        assert weighted == pytest.approx(0.01 * value)
    record = json.loads((tmp_path / "whole" / "testset_000200_factor4" / "metrics.json").read_text())
    assert 0 < record["mean"]["mae"] < 0.5
    assert " mae " in said
    assert "mae" in (tmp_path / "results.csv").read_text().splitlines()[0].split(",")

    for steps in ("100", "200"):
        run(extended, "run_nerf.py", *words, "--expname", "parts", "--N_iters", steps, "--i_testset", "0")
    states = [torch.load(tmp_path / name / "000200.tar", weights_only=True) for name in ("whole", "parts")]
    assert torch.equal(*(state["network_fine_state_dict"]["grid"] for state in states))
    assert "PSNR" in run(extended, "evaluate.py", tmp_path / "parts", "--rays", "50").upper()


def test_a_data_set(extended, tmp_path):
    poses = np.stack(poses_around(10))
    images = np.random.default_rng(0).random((10, 20, 24, 3), np.float32)
    np.savez(tmp_path / "tiny.npz", images=images, poses=poses, focal=np.float64(30.0))
    said = run(extended, "run_nerf.py", "--dataset_type", "tiny", "--datadir", tmp_path / "tiny.npz", "--expname", "t",
               "--basedir", tmp_path, "--fewshot", "3", *TINY, "--N_iters", "3", "--i_testset", "3")  # fmt: skip
    assert "tiny (tiny), 24 x 20" in said
    assert "3 to train on" in said
    assert "psnr" in said
