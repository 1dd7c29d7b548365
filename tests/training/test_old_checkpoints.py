"""Runs of an earlier version go on: their checkpoints, args.txt and metrics.json are read, and mean what they meant.

tests/fixtures/old_runs holds, made by commit de03af9 on the scene of `write_blender`, with PyTorch 2.13.0 on a CPU:
step 4 of two runs of 7 steps, their args.txt, the metrics.json of step 4, and in 000007.pt what that commit reached:
each network's parameters in one row, the state of the held-out views, and the densities of the cells the grid knows.
"""

import gzip

import pytest
import torch

import evaluate
import run_nerf
from infonerf.evaluation.record import Record
from infonerf.rendering import occupancy
from support.runs import ROOT, contents
from support.scenes import write_blender

RUNS = ROOT / "tests/fixtures/old_runs"
CLOSE = {"rtol": 1e-5, "atol": 1e-7}  # processors differ; an update changes a weight by about 5e-4


@pytest.fixture(params=["plain", "further"])  # further: skip_empty, ema_decay, i_val
def name(request, tmp_path, monkeypatch):
    """An old run in logs/NAME of the working folder, and its scene."""
    monkeypatch.chdir(tmp_path)
    for constant, value in {"EVERY": 2, "WARM_UP": 2, "POINTS": 256}.items():  # a small file, and the grid in use
        monkeypatch.setattr(occupancy, constant, value)
    write_blender(tmp_path / "scene")
    old, folder = RUNS / request.param, tmp_path / "logs" / request.param
    folder.mkdir(parents=True)
    old_args = (old / "args.txt").read_text()
    (folder / "args.txt").write_text(f"{old_args}\ndrop_alpha = True\n")  # which was the only way then
    (folder / "000004.tar").write_bytes(gzip.decompress((old / "000004.tar.gz").read_bytes()))
    return request.param


def test_training_goes_on_to_the_same_weights(name, tmp_path, capsys):
    assert run_nerf.main(["--config", f"logs/{name}/args.txt"]) == 0
    text, errors = capsys.readouterr()
    assert f"going on from logs/{name}/000004.tar, step 4" in text
    told = "\n".join(line for line in (text + errors).splitlines() if "views have the pose of" not in line)
    for word in ("changed", "WARNING", "holds no", "no effect"):
        assert word not in told
    reached, expected = contents(tmp_path, 7, name), torch.load(RUNS / name / "000007.pt", weights_only=True)
    networks = {key for key in reached if key.startswith("network")}
    assert len(networks) == (4 if name == "further" else 2)
    for key in networks:
        parameters = torch.cat([parameter.flatten() for parameter in reached[key].values()])
        torch.testing.assert_close(parameters, expected[key], **CLOSE)
    if name == "further":
        best = pytest.approx(expected["held_out"]["best"], rel=1e-5)
        assert reached["held_out"] == expected["held_out"] | {"best": best}
        assert reached["occupancy"]["in_use"]
        known = reached["occupancy"]["density"].isfinite().nonzero()[:, 0]
        assert torch.equal(known.int(), expected["known_cells"])
        density = reached["occupancy"]["density"][known]
        torch.testing.assert_close(density, expected["their_density"], rtol=1e-4, atol=1e-6)


def test_an_evaluation_finds_the_same(name, tmp_path, capsys):
    assert evaluate.main([f"logs/{name}", "--device", "cpu"]) == 0
    text, errors = capsys.readouterr()
    assert "changed" not in text + errors
    old = Record.read(RUNS / name / "metrics.json")
    new = Record.read(tmp_path / f"logs/{name}/testset_000004/metrics.json")
    assert (new.step, new.kind, new.scene, new.render_size) == (old.step, old.kind, old.scene, old.render_size)
    assert new.weights == old.weights
    assert list(new.views) == list(old.views) == ["test/r_0", "test/r_8"]
    for view, metrics in new.views.items():
        assert metrics["psnr"] == pytest.approx(old.views[view]["psnr"], rel=1e-4)
    assert new.mean["psnr"] == pytest.approx(old.mean["psnr"], rel=1e-4)


def test_what_has_changed_since_is_said(tmp_path, capsys, name):
    path = tmp_path / "logs" / name / "args.txt"
    path.write_text(path.read_text().replace("drop_alpha = True", ""))
    assert run_nerf.main(["--config", str(path), "--N_iters", "5"]) == 0
    assert "photographs are composited on black; --drop_alpha takes them" in capsys.readouterr().out
