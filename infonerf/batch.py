"""Train several configs, one after another, one per GPU, or on a cluster: what `bash train.sh` runs.

Every run is a process of its own, `python run_nerf.py --config FILE OPTIONS`, so that one that fails takes no other
with it. Finished runs are skipped, stopped ones go on, and a table at the end says what became of each.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from infonerf.jobs import ROOT, Job, config_files, create_jobs, jobs_table, with_absolute_paths
from infonerf.slurm import run_on_slurm
from infonerf.system.arguments import ScriptParser
from infonerf.system.errors import InputError, exit_status, stop_signals
from infonerf.system.logs import printable

CONFIGS = "configs/infonerf/synthetic"
RUN_NERF = (sys.executable, "run_nerf.py")
USAGE = "bash train.sh [--gpus 0,1 | --slurm 'SBATCH OPTIONS'] [FOLDER | FILE ...] [-- OPTION ...]"
POLL_SECONDS = 0.1


@dataclass
class RunningJob:
    """A job's process, the thread that passes its output on, and when it began."""

    job: Job
    gpu: str | None
    process: subprocess.Popen
    relay: threading.Thread
    began: float = field(default_factory=time.monotonic)


# What to run.


@dataclass(frozen=True)
class Arguments:
    """What stands before the first --."""

    gpus: list[str] | None
    slurm: str | None
    paths: list[str]


def parse_arguments(words: list[str]) -> Arguments:
    parser = ScriptParser(prog="train.sh", usage=USAGE, description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--gpus", type=gpu_list, metavar="0,1",
                       help="train one config on each of these GPUs at a time, by nvidia-smi's numbers")
    where.add_argument("--slurm", metavar="'SBATCH OPTIONS'",
                       help="submit the configs as an array job with sbatch, and say what becomes of them when asked "
                       "again; such as --slurm '--partition gpu --gres gpu:1 --time 2:00:00'")
    parser.add_argument("paths", nargs="*", metavar="FOLDER | FILE",
                        help="configs, or folders of them (*.txt); by default configs/infonerf/synthetic")
    parser.epilog = "OPTION: an option of run_nerf.py, for each run, such as -- --N_iters 1000"
    if "--slurm" in words[:-1]:  # what follows begins with a dash, and is no option of ours
        at = words.index("--slurm")
        words = [*words[:at], f"--slurm={words[at + 1]}", *words[at + 2 :]]
    args, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}, expected --gpus or --slurm; options for each run stand after "
                         "--")  # fmt: skip
    return Arguments(**vars(args))


def gpu_list(text: str) -> list[str]:
    """What CUDA_VISIBLE_DEVICES takes: numbers or, as nvidia-smi -L gives them, UUIDs."""
    gpus = [gpu.strip() for gpu in text.split(",")]
    if not all(re.fullmatch(r"0|[1-9][0-9]*|(GPU|MIG)-[\w/-]+", gpu) for gpu in gpus) or len(set(gpus)) < len(gpus):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected different GPUs, such as 0,1")
    return gpus


def split_arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first --."""
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


# Output: to the terminal and to the run's log.


def relay(source: BinaryIO, log: BinaryIO, label: str | None) -> None:
    """Pass a run's output on until it ends; with a label, in whole lines that begin with it.

    A terminal that is closed or a disk that is full must not block the run: what cannot be written is dropped.
    """
    rest = b""
    with source, log:
        while data := source.read1(1 << 16):
            with suppress(OSError):
                log.write(data)
            if label is None:
                to_terminal(data)
                continue
            *lines, rest = re.split(rb"[\r\n]+", rest + data)
            to_terminal(prefixed(lines, label))
        to_terminal(prefixed([rest], label or ""))


def prefixed(lines: list[bytes], label: str) -> bytes:
    """Without the progress bars' cursor movements, which would go into other runs' lines."""
    lines = [re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", line) for line in lines]
    label = printable(label).encode(errors="backslashreplace")
    return b"".join(b"%s | %s\n" % (label, line) for line in lines if line.strip())


def to_terminal(data: bytes) -> None:
    with suppress(OSError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_line(text: str) -> None:
    with suppress(OSError):
        print(printable(text), flush=True)


def print_table(jobs: list[Job]) -> None:
    for line in ("", *jobs_table(jobs).split("\n")):
        print_line(line)


# The runs.


class Signals:
    """While installed, SIGINT, SIGTERM and SIGHUP are collected instead of obeyed."""

    def __init__(self):
        self.received, self.first = [], None

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.receive) for number in stop_signals()}
        return self

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, signum, frame):
        self.first = self.first or signum
        self.received.append(signum)

    def pass_on(self, runs: list[RunningJob]) -> None:
        """Send what came to every run, once. A run is in a session of its own, where a Ctrl-C does not reach
        it by itself: a second one would keep run_nerf.py from saving."""
        while self.received:
            signum = self.received.pop(0)
            print_line(f"{signal.Signals(signum).name}: waiting for {len(runs)} to save, starting no more")
            for run in runs if os.name == "posix" else ():  # on Windows the console has told them
                run.process.send_signal(signum if signum == signal.SIGINT else signal.SIGTERM)


def run_all(jobs: list[Job], gpus: list[str] | None, command: Sequence[str], options: list[str]) -> int | None:
    """Run every job that is not finished, one on each GPU at a time; returns the signal that stopped them."""
    waiting, running, free = list(jobs), [], list(gpus or [None])
    with Signals() as signals:
        while running or (waiting and not signals.first):
            while waiting and free and not signals.first:
                run = begin(waiting.pop(0), free[0], gpus is not None, command, options)
                if run:
                    running.append(run)
                    free.pop(0)
            signals.pass_on(running)
            time.sleep(POLL_SECONDS)
            for run in [run for run in running if run.process.poll() is not None]:
                end(run, stopping=signals.first is not None)
                running.remove(run)
                free.append(run.gpu)
    return signals.first


def begin(job: Job, gpu: str | None, prefix: bool, command: Sequence[str], options: list[str]) -> RunningJob | None:
    """Start a job, unless it is finished or cannot be started."""
    if job.finished:
        job.state = "skipped"
        print_line(f"== {job.shown}: skipped, step {job.step} of {job.n_steps} is reached")
        return None
    where = "" if gpu is None else f" on GPU {gpu}"
    print_line(f"== {job.shown}: from step {job.step} of {job.n_steps}{where}, log {job.folder / 'train.log'}")
    if gpu is not None and job.config.run.device == "auto":
        options = [*options, "--device", "cuda"]  # auto would be the CPU where there is no such GPU
    try:
        return start(job, gpu, prefix, [*command, "--config", str(job.path), *options])
    except OSError as error:
        job.state = "failed (1)"
        print_line(f"== {job.shown}: {job.state}: {error}")
        return None


def start(job: Job, gpu: str | None, prefix: bool, command: list[str]) -> RunningJob:
    """Start a job's process; its log goes on where an earlier one's ended."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if gpu is not None:
        environment |= {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # counted as nvidia-smi does
    job.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as on_failure:
        log = on_failure.enter_context(open(job.folder / "train.log", "ab", buffering=0))
        log.write(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode(errors="replace"))
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        on_failure.pop_all()
    thread = threading.Thread(target=relay, args=(process.stdout, log, job.label if prefix else None), daemon=True)
    thread.start()
    return RunningJob(job, gpu, process, thread)


def end(run: RunningJob, stopping: bool) -> None:
    """Note how a job ended. The status of a process that a signal killed is what a shell calls it, 128 + signal."""
    run.relay.join(timeout=10)  # a process that the run left behind may hold the pipe
    status = run.process.returncode
    status = 128 - status if status < 0 else status
    stopped = stopping and status in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    run.job.state = "done" if status == 0 else "stopped" if stopped else f"failed ({status})"
    run.job.seconds = time.monotonic() - run.began
    print_line(f"== {run.job.shown}: {run.job.state}")


# The script.


def run(argv: list[str], command: Sequence[str]) -> int:
    words, options = split_arguments(argv)
    args, caller = parse_arguments(words), Path.cwd()
    options = with_absolute_paths(options, caller)
    if args.paths:
        files = [file for given in args.paths for file in config_files(given, caller)]
    else:
        files = config_files(CONFIGS, ROOT)
    jobs = create_jobs(files, options)
    if args.slurm is not None:
        run_on_slurm(jobs, args.slurm, command, options)
        print_table(jobs)
        return 0
    signum = run_all(jobs, args.gpus, command, options)
    print_table(jobs)
    if signum:
        return 128 + signum
    return 1 if any(job.state.startswith("failed") for job in jobs) else 0


def main(argv: list[str] | None = None, command: Sequence[str] = RUN_NERF) -> int:
    """Exit status: 0 every run is done, or with --slurm submitted; 1 one has failed; 2 a file or option that cannot be
    used, and nothing was started; 130, 143 or 129 stopped by Ctrl-C, SIGTERM or SIGHUP.

    command: what trains a config, before its --config.
    """
    return exit_status("train.sh", lambda: run(sys.argv[1:] if argv is None else argv, command))


if __name__ == "__main__":
    sys.exit(main())
