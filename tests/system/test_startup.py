"""What is set before torch is loaded."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def said(code, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "MALLOC"))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept | environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("script", ["run_nerf", "evaluate"])
def test_it_comes_before_torch(script):
    names = "names = list(sys.modules); print(names.index('infonerf.system.startup') < names.index('torch'))"
    code = f"import sys, {script}; {names}"
    assert said(code) == "True"


@pytest.mark.parametrize(("given", "expected"), [
    ({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None"),
], ids=str)  # fmt: skip
def test_the_users_value_stands(given, expected):
    code = "import os; from infonerf.system import startup; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert said(code, **given) == expected


CALLS = """
import ctypes, sys
class Library:
    def __init__(self, name): pass
    def mallopt(self, name, value):
        print(name, value)
        return value <= LIMIT
ctypes.CDLL = Library
sys.platform = "linux"
from infonerf.system import startup
"""


TRIM = "-1 2147483647"


@pytest.mark.parametrize(("given", "limit", "expected"), [
    ({}, 2**40, f"-3 1073741824\n{TRIM}"),
    ({}, 2**25, f"-3 1073741824\n-3 33554432\n{TRIM}"),
    ({}, 0, "-3 1073741824\n-3 33554432"),
    ({"MALLOC_ARENA_MAX": "2"}, 0, ""),
    ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, 0, ""),
], ids=["ours", "an older library", "a library that refuses", "the user's", "the user's tunables"])  # fmt: skip
def test_memory(given, limit, expected):
    assert said(CALLS.replace("LIMIT", str(limit)), **given) == expected


SCRIPTS = ("run_nerf.py", "evaluate.py", "report.py", "export_mesh.py", "infonerf/batch.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_interrupt_while_importing_is_one_line(script):
    command = [sys.executable, "-X", "importtime", script]  # says what is imported when it has been
    run = subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."},
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # not ignored
    for line in run.stderr:
        if line.endswith("infonerf.system.startup\n"):
            break
    run.send_signal(signal.SIGINT)
    said = [line for line in run.communicate(timeout=60)[1].splitlines() if not line.startswith("import time:")]
    assert run.returncode == 130
    assert said == [f"{Path(script).name}: stopped"]


def test_an_interrupt_is_no_affair_of_a_program_that_imports_us():
    code = "import signal, evaluate; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert said(f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}") == "True"
