"""The benchmarks start, and what cannot be measured is one line. Their numbers are nobody's test."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infonerf.command_line import parse_options
from infonerf.evaluation.record import Record

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    """benchmarks/NAME.py, whose name may be that of a module of ours."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DENSE = ["--skip_empty", "False", "--visual_hull", "False"]


@pytest.mark.parametrize("given", [
    [], ["--skip_empty"], ["--skip_empty", "--visual_hull"], ["--precision", "bf16"], ["--exact_dense"],
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["step", "render"])
def test_every_variant_can_be_whatever_the_config_says(name, given):
    benchmark, found = load(name), set()
    for variant in benchmark.VARIANTS.values():
        words = ["--config", str(ROOT / "configs/infonerf/sample.txt"), *DENSE, *given]
        changes = variant[0] if name == "step" else variant
        rendering = parse_options(words)[0].replace(**benchmark.PLAIN | changes).rendering
        found.add((rendering.exact_dense, rendering.precision, rendering.skip_empty))
    assert found == {(True, "fp32", False), *((False, p, skip) for p in ("fp32", "bf16") for skip in (False, True))}


@pytest.mark.parametrize(("name", "words", "expected"), [
    ("step", ["--checkpoint", "none.tar"], "none.tar: no such checkpoint"),
    ("step", ["--repeats", "0"], "argument --repeats: found '0', expected an integer >= 1"),
    ("time_to_quality", ["--run", "a", "--config none.txt"], "--config none.txt: cannot be read"),
    ("time_to_quality", ["--run", "a", "b", "--steps", "0"], "--steps: found '0', expected an integer >= 1"),
    ("render", ["no_such_run"], "no_such_run: found no args.txt"),
    ("render", ["no_such_run", "--every", "0"], "argument --every: found '0', expected an integer >= 1"),
    ("gpu", ["--minutes", "0"], "argument --minutes: found '0', expected a number > 0"),
    ("viewer", ["nowhere"], "nowhere"),
    ("gpu", ["--device", "tpu"], "--device tpu: expected auto, cpu"),
    ("gpu", ["--device", "cpu", "--datadir", "none"], "none: found no such folder"),
    ("paper", ["--scenes", "lego,house"], "--scenes: found 'house', expected different ones of chair, drums"),
    ("paper", ["--scenes", "lego,lego"], "--scenes: found 'lego', expected different ones of chair, drums"),
    ("paper", ["--steps", "3"], "unrecognized arguments: --steps 3"),
], ids=str)  # fmt: skip
def test_bad_input_is_one_line(name, words, expected):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}.py: error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


# The figures of a GPU, tried on the CPU.


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Runs benchmarks/gpu.py: words -> exit status, and the JSON that it writes."""
    module = load("gpu")

    def run(*words):
        output = tmp_path / "gpu.json"
        given = ["--device", "cpu", "--tiny", "--datadir", str(ROOT / "data/sample"), "--output", str(output), *words]
        monkeypatch.setattr(sys, "argv", ["gpu.py", *given])
        return module.run(), json.loads(output.read_text())

    run.module = module
    return run


def test_a_gpus_figures(gpu, capsys):
    parts = [part for part in gpu.module.PARTS if part != "the first step"]
    status, found = gpu("--parts", *parts)
    rows = {row["name"]: row for row in found["rows"]}
    text = capsys.readouterr().out
    assert all(name in text for name in rows)
    assert {name for name, row in rows.items() if row["value"] is None} == {"idle", "the first step"}
    assert status == 0
    assert rows["gradient, fp32, to exact_dense"]["value"] < 1e-5
    assert 0 < rows["gradient, bf16, to exact_dense"]["value"] < 0.05
    for weights in ("mid-training", "initial"):
        for variant in gpu.module.VARIANTS:
            assert rows[f"lego, {weights}: {variant}"]["value"] > 0
    assert rows["lego, mid-training: captured"]["detail"].endswith("x, fixed, NOT captured")
    assert rows["lego, mid-training: not captured"]["detail"].endswith("x, plain")


def test_what_fails_and_what_there_is_no_time_for_is_said(gpu, monkeypatch):
    def out_of_memory(bench):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setitem(gpu.module.PARTS, "training", (0, out_of_memory))
    status, found = gpu("--parts", "training", "steps in mid-training", "sample", "--minutes", "10")
    details = {row["name"]: row["detail"] for row in found["rows"]}
    assert status == 1
    assert details["correctness"] == "not measured: --parts leaves it out"
    assert details["training"] == "failed: RuntimeError: out of memory"
    assert details["steps in mid-training"] == "not measured: there are no weights of mid-training (part: training)"
    assert "steps/s" in {row["unit"] for row in found["rows"]}
    _, found = gpu("--minutes", "0.01")
    assert {row["detail"].rsplit(":", 1)[0] for row in found["rows"]} <= {"not measured", "failed: RuntimeError"}


# The paper's table.


def record(step=20, n_views=2, missing=0, **metrics):
    views = {f"r_{view}": {"mse": 0.01, **metrics} for view in range(n_views)}
    return Record(step, "testset", {}, "lego", (800, 800), "0", {}, views=views, views_missing=missing)


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """benchmarks/paper.py in a repository with the configs of lego and chair, those of NeRF of ship, and all data
    but chair's."""
    module = load("paper")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    names = ("nerf/lego", "infonerf/lego", "nerf/chair", "infonerf/chair", "nerf/ship")
    for method, scene in (name.split("/") for name in names):
        path = tmp_path / f"configs/{method}/synthetic/{scene}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"dataset_type = blender\ndatadir = data/nerf_synthetic/{scene}\nN_iters = 20\n"
                        f"basedir = {tmp_path}/logs\nexpname = {method}/{scene}\n")  # fmt: skip
    for scene in ("lego", "ship"):
        (tmp_path / "data/nerf_synthetic" / scene).mkdir(parents=True)
    return module


def test_scenes_with_configs_and_data_are_found_and_the_others_said(paper, capsys):
    found = paper.scenes_with_data(["chair", "lego", "mic", "ship"], ["--seed", "3"])
    assert {scene: list(jobs) for scene, jobs in found.items()} == {"lego": ["nerf", "infonerf"]}
    assert found["lego"]["infonerf"].config.values()["seed"] == 3
    make = "python duplicate_config.py configs"
    assert capsys.readouterr().out.splitlines() == [
        "chair: left out, no data/nerf_synthetic/chair",
        f"mic: left out, no configs/nerf/synthetic/mic.txt ({make}/nerf/synthetic/lego.txt)",
        f"ship: left out, no configs/infonerf/synthetic/ship.txt ({make}/infonerf/synthetic/lego.txt)",
    ]


@pytest.mark.parametrize(("step", "content", "known"), [
    (20, record(), True), (30, record(), False), (20, record(missing=1), False), (19, record(19), False),
    (20, None, False), (20, "{", False),
], ids=["whole", "of an earlier step", "stopped", "of a run that goes on", "none", "damaged"])  # fmt: skip
def test_a_run_is_measured_when_it_is_done_and_all_views_are(paper, tmp_path, step, content, known):
    job = paper.scenes_with_data(["lego"], [])["lego"]["nerf"]
    folder = tmp_path / f"logs/nerf/lego/testset_{content.step if isinstance(content, Record) else step:06d}"
    folder.mkdir(parents=True)
    (folder.parent / f"{step:06d}.tar").touch()
    if isinstance(content, Record):
        content.write(folder / "metrics.json")
    elif content:
        (folder / "metrics.json").write_text(content)
    found = paper.record_of(job)
    assert (found and found.mean) == (content.mean if known else None)


def test_the_papers_table(paper):
    records = {
        "chair": {"nerf": record(psnr=12.0, ssim=0.7), "infonerf": record(psnr=20.0, ssim=0.9, lpips=0.2)},
        "lego": {"nerf": None, "infonerf": record(psnr=19.0, ssim=0.8)},
    }
    lines = [re.split(r"\s{2,}", line) for line in paper.table(records).splitlines()]
    assert lines == [
        ["scene", "method", "steps", "test views", "PSNR", "SSIM", "LPIPS"],
        ["chair", "NeRF", "20", "2 of 800 x 800", "12.00", "0.7000", "-"],
        ["chair", "InfoNeRF", "20", "2 of 800 x 800", "20.00", "0.9000", "0.2000"],
        ["lego", "NeRF", "-", "-", "-", "-", "-"],
        ["lego", "InfoNeRF", "20", "2 of 800 x 800", "19.00", "0.8000", "-"],
        ["mean of 1", "NeRF", "12.00", "0.7000", "-"],
        ["mean of 2", "InfoNeRF", "19.50", "0.8500", "-"],
        ["paper, mean of 8", "NeRF", "15.93", "-", "-"],
        ["paper, mean of 8", "InfoNeRF", "18.65", "0.8110", "-"],
        ["- : not measured, or of the paper not known here, nor are its figures scene by scene"],
    ]


@pytest.mark.parametrize("config", load("launches").CONFIGS)
def test_launches_of_a_captured_step(config):
    """Few operations are left to the host, and it waits once at most; without CUDA graphs, what there was before."""
    launches = load("launches")
    options = ["--config", str(ROOT / f"configs/{config}.txt"), *launches.ALWAYS]
    captured, plain = (launches.step_counts(options, wanted) for wanted in (True, False))
    assert 0 < sum(captured.operations.values()) <= 200 < 600 < sum(plain.operations.values())
    assert captured.waits <= 1 < plain.waits
    assert captured.graphs <= 5
    assert captured.in_graphs > 300
    assert captured.launches < plain.launches
