"""The benchmarks start, and what cannot be measured is one line. Their numbers are nobody's test."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from infonerf.command_line import parse_options

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
], ids=str)  # fmt: skip
def test_bad_input_is_one_line(name, words, expected):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}.py: error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
