"""train.sh --slurm, with stand-ins for SLURM's programs. With the real ones: tests/robustness/slurm.sh."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infonerf.batch import main

# sbatch keeps what it is given, and numbers jobs from 7; squeue says what the file `queue` holds.
PROGRAMS = {
    "sbatch": 'if [ -e refusal ]; then cat refusal >&2; exit 1; fi; n=$(($(ls | grep -c "^script") + 7)); '
              'printf "%s\\n" "$@" > arguments; cat > script_$n; echo "$n;cluster"',
    "squeue": '[ -z "${SQUEUE_PARTITION:-}" ] && cat queue',
    "scancel": 'echo "$@" > cancelled',
}  # fmt: skip
# A stand-in for run_nerf.py. What it does depends on expname.
FAKE = """
import os, signal, sys, time
sys.path.insert(0, os.getcwd())
from infonerf.command_line import parse_options
config, _ = parse_options(sys.argv[1:])
name = config.run.folder.name
print(name, "runs with", *sys.argv[3:], end="", flush=True)
if name == "fails":
    sys.exit(3)
def stop(*_):
    (config.run.folder / "000005.tar").touch()
    sys.exit(143)
if name == "waits":
    signal.signal(signal.SIGTERM, stop)
    (config.run.folder / "started").touch()
    time.sleep(30)
if name != "early":
    (config.run.folder / f"{config.stopping.N_iters:06d}.tar").touch()
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of the stand-ins, which are all that is found of SLURM."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "queue").touch()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\ncd {shlex.quote(str(folder))}; {text}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_PARTITION", "another")
    monkeypatch.chdir(tmp_path)
    return folder


def configs(tmp_path, *names, text=""):
    (tmp_path / "configs").mkdir(exist_ok=True)
    for name in names:
        where = f"expname = {name}\nbasedir = {tmp_path / 'logs'}\ndatadir = d\ndataset_type = blender\n"
        (tmp_path / f"configs/{name}.txt").write_text(f"{where}N_iters = 20\n{text}")


def ask(capsys, *options, given="--time 1:00"):
    """Ask train.sh --slurm: name of a config -> state, steps, PSNR, minutes."""
    assert main(["--slurm", given, "configs", "--", *options], [sys.executable, os.path.abspath("fake.py")]) == 0
    text = capsys.readouterr().out
    lines = text[text.rindex("config  ") :].splitlines()[1:]
    return {Path(cells[0]).stem: cells[1:] for cells in (re.split(r"\s{2,}", line) for line in lines)}


def task_process(cluster, job, index, **environment):
    """A task of the array, as SLURM runs it: in a folder of its own choice, in a process group of its own."""
    given = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": index, "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": 3}
    return subprocess.Popen(["bash", cluster / f"script_{job}"], cwd="/", start_new_session=True,
                            env=os.environ | {name: str(value) for name, value in (given | environment).items()})


def memory(tmp_path, name):
    return json.loads((tmp_path / f"logs/{name}/slurm.json").read_text())["job"]


def log_of(tmp_path, name):
    return (tmp_path / f"logs/{name}/train.log").read_text()


def test_one_array_job_is_submitted_and_never_a_second_time(tmp_path, cluster, capsys):
    configs(tmp_path, "a", "b", "c", "reached")
    (tmp_path / "logs/reached").mkdir(parents=True)
    (tmp_path / "logs/reached/000020.tar").touch()
    rows = ask(capsys, given="--partition gpu --comment 'a b'")
    assert rows.pop("reached") == ["done", "20 of 20", "-", "-"]
    assert rows == {name: ["submitted", "0 of 20", "-", "-"] for name in "abc"}
    arguments = (cluster / "arguments").read_text().splitlines()
    assert arguments[-5:] == ["--partition", "gpu", "--comment", "a b", "--array=0-2"]
    assert {"--parsable", "--requeue", "--signal=B:USR1@60"} <= set(arguments)
    assert [memory(tmp_path, name) for name in "abc"] == ["7_0", "7_1", "7_2"]
    (cluster / "queue").write_text("7_0 RUNNING\n7_1 PENDING\n7_2 COMPLETING\n7_3 RUNNING\n8 PENDING\n")
    states = {name: cells[0] for name, cells in ask(capsys).items()}
    assert states == {"a": "running", "b": "queued", "c": "completing", "reached": "done"}
    assert not (cluster / "script_8").exists()


def test_what_became_of_the_runs_and_what_is_submitted_again(tmp_path, cluster, capsys):
    configs(tmp_path, "a", "early", "fails", "never_ran")
    ask(capsys, "--seed", "3")
    assert [task_process(cluster, 7, index).wait() for index in range(3)] == [0, 0, 3]
    log = log_of(tmp_path, "a").splitlines()
    assert re.fullmatch(r"== .* job 7_0 on n1: .*fake.py --config .*/configs/a.txt --seed 3", log[0])
    assert re.fullmatch(r"a runs with --seed 3== .* job 7_0 ended: status 0 after \d+ s", log[1])
    states = ask(capsys, "--seed", "3")
    assert {name: cells[0] for name, cells in states.items()} == {
        "a": "done", "early": "done", "fails": "failed (3), submitted again", "never_ran": "cut off, submitted again"
    }  # fmt: skip
    assert re.fullmatch(r"0\.[01]", states["a"][3])
    assert [memory(tmp_path, name) for name in ("a", "fails", "never_ran")] == ["7_0", "8_0", "8_1"]
    (cluster / "queue").write_text("8_0 PENDING\n8_1 PENDING\n")
    states = ask(capsys, "--seed", "3", "--N_iters", "30")  # more is wanted now
    assert {name: cells[0] for name, cells in states.items()} == {
        "a": "submitted", "early": "submitted", "fails": "queued", "never_ran": "queued"
    }  # fmt: skip


@pytest.mark.parametrize("signum", ["USR1", "TERM"])
def test_a_run_saves_before_its_time_is_up_or_it_is_cancelled(tmp_path, cluster, capsys, signum):
    configs(tmp_path, "waits")
    ask(capsys)
    process = task_process(cluster, 7, 0)
    end = time.monotonic() + 30
    while not (tmp_path / "logs/waits/started").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    if signum == "USR1":  # SLURM sends it to the script alone, and SIGTERM to all processes of the job
        process.send_signal(signal.SIGUSR1)
    else:
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert ask(capsys)["waits"][:2] == ["stopped, submitted again", "5 of 20"]


def test_paths_and_options_of_any_characters_reach_the_run(tmp_path, cluster, capsys, monkeypatch):
    odd = tmp_path / "a $HOME; `é` * &"
    (odd / "configs").mkdir(parents=True)
    monkeypatch.chdir(odd)
    (odd / "fake.py").write_text("import os, sys; print(*sys.argv[1:], os.getcwd(), os.environ['OMP_NUM_THREADS'])")
    (odd / "configs/a.txt").write_text("expname = a\ndatadir = d\ndataset_type = blender\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ask(capsys, "--basedir", "o u t", "--wandb_group", "* ? \\ $1")
    assert task_process(cluster, 7, 0).wait() == 0
    root = Path(__file__).resolve().parents[1]
    said = f"--config {odd}/configs/a.txt --basedir {odd}/o u t --wandb_group * ? \\ $1 {root} 3"
    assert (odd / "o u t/a/train.log").read_text().splitlines()[1] == said


@pytest.mark.parametrize(("device", "gpus", "said"), [
    ("auto", "0", "--device auto --device cuda"), ("auto", "", "--device auto"), ("cpu", "0", "--device cpu"),
])  # fmt: skip
def test_a_run_on_a_gpu_never_falls_back_to_the_cpu(tmp_path, cluster, capsys, device, gpus, said):
    configs(tmp_path, "a")
    ask(capsys, "--device", device)
    assert task_process(cluster, 7, 0, SLURM_JOB_GPUS=gpus).wait() == 0
    assert f"a runs with {said}==" in log_of(tmp_path, "a")


@pytest.mark.parametrize("content", ["", "[]", '{"job": 7}', "null", '{"options": 1}'])
def test_a_damaged_memory_is_none(tmp_path, cluster, capsys, content):
    configs(tmp_path, "a")
    (tmp_path / "logs/a").mkdir(parents=True)
    (tmp_path / "logs/a/slurm.json").write_text(content)
    assert ask(capsys)["a"][0] == "submitted"


def test_runs_that_cannot_be_remembered_are_cancelled(tmp_path, cluster, capsys):
    configs(tmp_path, "a")
    (tmp_path / "logs").write_text("a file where a folder should be")
    assert main(["--slurm", "", "configs"]) == 1
    assert capsys.readouterr().err.startswith("train.sh: error: ")
    assert (cluster / "cancelled").read_text() == "7\n"


@pytest.mark.parametrize(("words", "expected"), [
    (["--slurm", "--time=1"], "--slurm: sbatch: no such partition; Batch job submission failed"),
    (["--slurm", "--gres gpu:1", "--gpus", "0"], "argument --gpus: not allowed with argument --slurm"),
    (["--slurm"], "argument --slurm: expected one argument"),
    (["--slurm", "--comment 'a"], "--slurm: found .*No closing quotation.*, expected options of sbatch"),
    *((["--slurm", f"--time 1 {word}"], f"--slurm: found '{word}', expected options of sbatch")
      for word in ("--array=1-2", "-a1", "--wait", "-W", "--wrap=x", "-Mb", "--test-only")),
], ids=str)  # fmt: skip
def test_what_cannot_be_submitted_is_one_line_status_2_and_leaves_nothing(tmp_path, cluster, capsys, words, expected):
    configs(tmp_path, "a")
    (cluster / "refusal").write_text("sbatch: error: no such partition\nsbatch: error: Batch job submission failed\n")
    assert main(["configs", *words]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(f"train.sh: error: .*{expected}.*\n", error)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("missing", "expected"), [
    ("squeue", "found no squeue, expected the programs of SLURM"), ("sbatch", "found no sbatch"), ("", "no controller"),
])  # fmt: skip
def test_a_machine_without_slurm(tmp_path, cluster, capsys, monkeypatch, missing, expected):
    configs(tmp_path, "a")
    monkeypatch.setenv("PATH", str(cluster))
    (cluster / "squeue").write_text("#!/bin/bash\n")
    if missing:
        (cluster / missing).unlink()
    else:
        (cluster / "squeue").write_text("#!/bin/bash\necho 'squeue: error: no controller' >&2; exit 1\n")
    assert main(["--slurm", "", "configs"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "logs").exists()


def test_an_answer_that_is_no_number(tmp_path, cluster, capsys):
    configs(tmp_path, "a")
    (cluster / "sbatch").write_text("#!/bin/bash\necho none\n")
    assert main(["--slurm", "", "configs"]) == 2
    assert "sbatch: found 'none', expected the number of a job" in capsys.readouterr().err
