"""evaluate.py --nerfstudio_json: the numbers of the record in the shape of ns-eval, and what it does not overwrite."""

import json
import statistics

import pytest

from evaluate import main
from infonerf.evaluation.ns_eval import ns_results
from infonerf.evaluation.record import Record


def record_of(views, timing=()):
    return Record(step=1, kind="testset", options={}, scene="s", render_size=(4, 4), weights="", depth_png={},
                  views=views, timing=dict(timing))  # fmt: skip


def test_results_by_hand():
    views = {"a": {"mse": 0.01, "psnr": 20.0, "ssim": 0.5, "lpips": None}, "b": {"psnr": 22.0, "ssim": None}}
    found = ns_results(record_of(views, {"a": (100, 0.5), "b": (300, 1.0), "gone": (1, 1.0)}))
    assert found == {
        "psnr": 21.0, "psnr_std": pytest.approx(2**0.5), "ssim": 0.5, "num_rays_per_sec": 250.0,
        "num_rays_per_sec_std": pytest.approx(50 * 2**0.5), "fps": 1.5, "fps_std": pytest.approx(0.5**0.5),
    }  # fmt: skip
    assert ns_results(record_of({"a": {"psnr": 20.0}}, {"a": (100, 0.0)})) == {"psnr": 20.0}


def test_the_file(logdir, tmp_path):
    path = tmp_path / "results.json"
    assert main([str(logdir), "--nerfstudio_json", str(path)]) == 0
    record, content = json.loads((logdir / "testset_000002/metrics.json").read_text()), json.loads(path.read_text())
    assert list(content) == ["experiment_name", "method_name", "checkpoint", "results"]
    assert (content["experiment_name"], content["method_name"]) == ("run", "nerf")
    assert content["checkpoint"] == str(logdir / "000002.tar")
    results, values = content["results"], [view["psnr"] for view in record["views"].values()]
    assert results["psnr"] == pytest.approx(record["mean"]["psnr"])
    assert results["psnr_std"] == pytest.approx(statistics.stdev(values))
    assert results["num_rays_per_sec"] == pytest.approx(16 * 20 * results["fps"])
    assert set(record["timing"]) == set(record["views"]) and not any("lpips" in name for name in results)
    assert sum(seconds for _, seconds in record["timing"].values()) <= record["seconds"]

    assert main([str(logdir), "--nerfstudio_json", str(path)]) == 0  # its own is replaced, without rendering
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize("name, content, expected", [
    ("args.txt", b"expname = x", "found another file"), ("list.json", b"[1]", "found another file"),
    ("other.json", b'{"results": 1}', "found another file"), ("none/x.json", None, "found no folder"),
    ("", None, "found a folder"),
])  # fmt: skip
def test_another_file_is_not_overwritten(logdir, tmp_path, capsys, name, content, expected):
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    assert main([str(logdir), "--nerfstudio_json", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--nerfstudio_json" in error and expected in error
    assert not content or path.read_bytes() == content
    assert not list(logdir.glob("testset*"))


@pytest.mark.parametrize("extra, expected", [
    (["--rays", "5", "--nerfstudio_json", "x.json"], "--rays: writes nothing"),
    (["--tiles", "5", "--lpips", "vgg"], "--tiles: writes nothing"),
    (["--lpips", "squeeze"], "--lpips"),
])  # fmt: skip
def test_options_that_do_not_fit(logdir, capsys, extra, expected):
    assert main([str(logdir), *extra]) == 2
    assert expected in capsys.readouterr().err


def test_several_runs_do_not_fit_in_one_file(logdir, capsys):
    assert main([str(logdir), str(logdir), "--nerfstudio_json", "x.json"]) == 2
    assert "found 2 runs, expected one" in capsys.readouterr().err
