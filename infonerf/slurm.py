"""Runs as one array job of SLURM: what `bash train.sh --slurm "SBATCH OPTIONS"` submits, and what became of it.

A run's folder remembers its job in slurm.json. squeue says what waits or runs; how a job has ended is a line that it
adds to the run's train.log.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infonerf.command_line import as_text
from infonerf.jobs import ROOT, Job
from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file
from infonerf.system.logs import say

MEMORY = "slurm.json"
# Those with which sbatch would submit something else, elsewhere, or wait.
NOT_TAKEN = re.compile("-[aMW].*|--(array|clusters|test-only|wait|wrap)(=.*)?")
# Preempted jobs are queued again. USR1, a minute before the time is up, reaches only the script.
SBATCH = ("sbatch", "--parsable", "--job-name=infonerf", "--requeue", "--signal=B:USR1@60", "--output=/dev/null")
SCRIPT = r"""#!/usr/bin/env bash
# Each task of this array is one run of train.sh --slurm.
run() {  # FOLDER COMMAND ...
    local folder=$1 job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID status
    shift
    mkdir -p "$folder" && exec >> "$folder/train.log" 2>&1 || exit 1
    echo "== $(date '+%F %T') job $job on $SLURMD_NODENAME:$(printf ' %q' "$@")"
    "$@" & run=$!
    trap 'kill -TERM $run' USR1
    trap : TERM  # the run has got it, too: stay to say how it ends
    while wait $run; status=$?; kill -0 $run 2> /dev/null; do :; done
    echo "== $(date '+%F %T') job $job ended: status $status after $SECONDS s"
    exit $status
}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}
"""


def run_on_slurm(jobs: list[Job], given: str, command: Sequence[str], options: list[str]) -> None:
    """Submit every job that is not finished, queued or running, and note the state of each.

    given: what sbatch is told beside; raises InputError where it refuses, and then nothing is submitted or written.
    """
    words, queue, wanted = sbatch_options(given), queued(), []
    for job in jobs:
        task, submitted_with = recall(job.folder)
        status, job.seconds = ending(job.folder, task)
        if task in queue:
            job.state = queue[task]
        elif job.finished or (status == 0 and submitted_with == as_text(job.config)):
            job.state = "done"
        else:
            again = task is not None and status != 0  # else it is new, or more is wanted of it now
            job.state = f"{said(status)}, submitted again" if again else "submitted"
            wanted.append(job)
    if not wanted:
        return
    number = submit(wanted, words, command, options)
    try:
        for index, job in enumerate(wanted):
            remember(job, f"{number}_{index}")
    except BaseException:
        ask("scancel", number)
        raise
    for index, job in enumerate(wanted):
        say(f"== {job.shown}: {job.state}, job {number}_{index}, from step {job.step} of {job.n_steps}, "
            f"log {job.folder / 'train.log'}")  # fmt: skip


def sbatch_options(given: str) -> list[str]:
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise InputError(f"--slurm: found {given!r} ({error}), expected options of sbatch") from error
    for word in words:
        if NOT_TAKEN.fullmatch(word):
            raise InputError(f"--slurm: found {word!r}, expected options of sbatch that leave one array job, here")
    return words


def said(status: int | None) -> str:
    """How a job has ended, by the exit status of the run; None where it left none."""
    if status is None:
        return "cut off"
    return "stopped" if status in (130, 143) else f"failed ({status})"


# What a run's folder knows of its job.


def remember(job: Job, task: str) -> None:
    """task: the array's number _ the index in it. The options say later what it was that has been done."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(job.folder / MEMORY) as file:
        file.write(json.dumps({"job": task, "options": as_text(job.config)}, indent=1).encode())


def recall(folder: Path) -> tuple[str | None, str | None]:
    """The newest task, and the options it was submitted with; None for both where there is none."""
    try:
        content = json.loads((folder / MEMORY).read_bytes())
        return str(content["job"]), content["options"]
    except (OSError, ValueError, LookupError, TypeError):
        return None, None


def ending(folder: Path, task: str | None) -> tuple[int | None, float | None]:
    """Exit status and seconds of the last attempt that ended in good order; None for both where there is none."""
    log = folder / "train.log"
    if task is None or not log.is_file():
        return None, None
    found = re.findall(rb"job %s ended: status (\d+) after (\d+) s\n" % re.escape(task.encode()), log.read_bytes())
    return (int(found[-1][0]), float(found[-1][1])) if found else (None, None)


# SLURM's programs.


def ask(*command: str, text: str = "") -> str:
    """What a program prints. Raises InputError, in one line, where it is not there or fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(command, input=text, capture_output=True, env=environment, encoding="utf-8",
                              errors="surrogateescape")  # fmt: skip
    except FileNotFoundError as error:
        raise InputError(f"--slurm: found no {command[0]}, expected the programs of SLURM on this machine") from error
    if done.returncode:
        lines = [line.removeprefix(f"{command[0]}: error: ").strip() for line in done.stderr.splitlines()]
        raise InputError(f"--slurm: {command[0]}: {'; '.join(lines) or f'exit status {done.returncode}'}")
    return done.stdout


def queued() -> dict[str, str]:
    """Task -> queued, running, completing ..., of all of the user's tasks that have not ended."""
    lines = ask("squeue", "--me", "--noheader", "--array", "--format=%i %T").splitlines()
    states = dict(line.split() for line in lines)
    return {task: "queued" if state == "PENDING" else state.lower() for task, state in states.items()}


def submit(jobs: list[Job], words: list[str], command: Sequence[str], options: list[str]) -> str:
    """Submit a task a job; returns the number of the array."""
    script = [f"{SCRIPT}cd {shlex.quote(str(ROOT))} || exit", "case $SLURM_ARRAY_TASK_ID in"]
    for index, job in enumerate(jobs):
        line = shlex.join([str(job.folder), *command, "--config", str(job.path), *options])
        # With a GPU, auto must not become the CPU.
        device = " ${SLURM_JOB_GPUS:+--device cuda}" if job.config.run.device == "auto" else ""
        script.append(f"{index}) run {line}{device} ;;")
    answer = ask(*SBATCH, *words, f"--array=0-{len(jobs) - 1}", text="\n".join([*script, "esac", ""]))
    number = re.match(r"\d+", answer)
    if not number:
        raise InputError(f"--slurm: sbatch: found {answer.strip()!r}, expected the number of a job")
    return number[0]
