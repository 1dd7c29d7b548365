"""Train several configs, one after another or one per GPU: what `bash train.sh` runs.

Every run is a process of its own, `python run_nerf.py --config FILE OPTIONS`, so that one that fails takes no other
with it. Finished runs are skipped, stopped ones go on, and a table at the end says what became of each.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import argparse
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from infonerf.command_line import parse_options
from infonerf.config import PATHS, Config
from infonerf.evaluation.record import Record
from infonerf.system.arguments import ScriptParser
from infonerf.system.errors import InputError, exit_status
from infonerf.system.logs import text_table
from infonerf.system.picture_folders import parse_picture_folder
from infonerf.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = "configs/infonerf/synthetic"
RUN_NERF = (sys.executable, "run_nerf.py")
USAGE = "bash train.sh [--gpus 0,1] [FOLDER | FILE ...] [-- OPTION ...]"
POLL_SECONDS = 0.1
# A terminal that is closed stops the runs in good order, too. Absent on Windows.
HANGUP = getattr(signal, "SIGHUP", None)


@dataclass
class Job:
    """A config and what became of it. shown: its path as given. label: its name before lines of its output."""

    shown: str
    path: Path
    config: Config
    label: str = ""
    state: str = "not started"
    seconds: float | None = None

    @property
    def folder(self) -> Path:
        """basedir/expname, where run_nerf.py, run from the repository's root, writes."""
        return ROOT / self.config.run.folder

    @property
    def step(self) -> int:
        """Of the newest checkpoint, by its name; 0 where there is none."""
        newest = checkpoint.newest(self.folder)
        return int(newest.stem) if newest else 0

    @property
    def finished(self) -> bool:
        """Whether N_iters is reached. (A run that patience stopped is started, and finds nothing to do.)"""
        other_work = self.config.run.no_reload or self.config.looking.instead_of_training
        return not other_work and self.step >= self.n_steps

    @property
    def n_steps(self) -> int:
        return self.config.stopping.N_iters


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
    paths: list[str]


def parse_arguments(words: list[str]) -> Arguments:
    parser = ScriptParser(prog="train.sh", usage=USAGE, description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--gpus", type=gpu_list, metavar="0,1",
                        help="train one config on each of these GPUs at a time, by nvidia-smi's numbers")
    parser.add_argument("paths", nargs="*", metavar="FOLDER | FILE",
                        help="configs, or folders of them (*.txt); by default configs/infonerf/synthetic")
    parser.epilog = "OPTION: an option of run_nerf.py, for each run, such as -- --N_iters 1000"
    args, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}, expected --gpus; options for each run stand after --")
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


def config_files(given: str, caller: Path) -> list[tuple[str, Path]]:
    """The configs that an argument stands for: each as shown to the user, and its absolute path."""
    path = caller / given
    if not given or not path.exists():
        raise InputError(f"{given or repr(given)}: no such file or folder, expected a config or a folder of configs")
    if not path.is_dir():
        return [(given, path)]
    found = sorted(file for file in path.glob("*.txt") if not file.name.startswith(".") and not file.is_dir())
    if not found:
        raise InputError(f"{given}: found no *.txt in it, expected a folder of configs")
    return [(os.path.join(given, file.name), file) for file in found]


def with_absolute_paths(options: list[str], caller: Path) -> list[str]:
    """Options for each run, which runs in the repository's root, with the paths that the caller meant."""
    if any(word.partition("=")[0] == "--config" for word in options):
        raise InputError("--config: found among the options for each run, expected configs before the --")
    names = [f"--{name}" for name in PATHS]
    words = []
    for word in options:
        name, equals, value = word.partition("=")
        if words and words[-1] in names and not word.startswith("--"):
            word = os.path.join(caller, word)
        elif name in names and equals:
            word = f"{name}={os.path.join(caller, value)}"
        words.append(word)
    return words


def create_jobs(files: list[tuple[str, Path]], options: list[str]) -> list[Job]:
    """A job a config, all of them checked as run_nerf.py would."""
    jobs, runs = [], {}
    for shown, path in files:
        try:
            config, _ = parse_options(["--config", str(path), *options])
        except InputError as error:
            message = str(error) if str(path) in str(error) else f"{shown}: {error}"
            raise InputError(message.replace(str(path), shown)) from error
        job = Job(shown, path, config)
        other = runs.setdefault(os.path.realpath(job.folder), job)
        if other is not job:
            place = f"basedir {config.run.basedir} and expname {config.run.expname}"
            raise InputError(f"{shown}: found the {place} of {other.shown}, expected a run folder of its own")
        jobs.append(job)
    names = Counter(job.path.stem for job in jobs)
    for job in jobs:
        job.label = job.path.stem if names[job.path.stem] == 1 else job.shown
    return jobs


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
    return b"".join(b"%s | %s\n" % (label.encode(), line) for line in lines if line.strip())


def to_terminal(data: bytes) -> None:
    with suppress(OSError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def print_line(text: str) -> None:
    with suppress(OSError):
        print(text, flush=True)


# The runs.


class Signals:
    """While installed, SIGINT, SIGTERM and SIGHUP are collected instead of obeyed."""

    def __init__(self):
        self.received, self.first = [], None

    def __enter__(self):
        numbers = [signal.SIGINT, signal.SIGTERM]
        if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:  # as under nohup
            numbers.append(HANGUP)
        self.previous = {number: signal.signal(number, self.receive) for number in numbers}
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
                run.process.send_signal(signal.SIGTERM if signum == HANGUP else signum)


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


# The table.


def newest_psnr(job: Job) -> float | None:
    """The mean of the newest evaluation, None where there is none that can be read, or it was stopped half-way.
    An evaluation later than the newest checkpoint is one of a run that was started over."""
    steps = {}
    for folder in job.folder.glob("testset_*"):
        pictures = parse_picture_folder(folder.name)
        if pictures and pictures.factor == 1 and pictures.step <= (job.step or math.inf):
            steps[pictures.step] = folder
    if not steps:
        return None
    try:
        record = Record.read(steps[max(steps)] / "metrics.json")
    except InputError:
        return None
    return None if record.views_missing else record.mean.get("psnr")


def jobs_table(jobs: list[Job]) -> str:
    """A line a job."""
    rows = [("config", "state", "steps", "PSNR", "minutes")]
    for job in jobs:
        psnr = newest_psnr(job)
        minutes = "-" if job.seconds is None else f"{job.seconds / 60:.1f}"
        steps = f"{job.step} of {job.n_steps}"
        rows.append((job.shown, job.state, steps, "-" if psnr is None else f"{psnr:.2f}", minutes))
    return text_table(rows)


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
    signum = run_all(jobs, args.gpus, command, options)
    print_line(f"\n{jobs_table(jobs)}")
    if signum:
        return 128 + signum
    return 1 if any(job.state.startswith("failed") for job in jobs) else 0


def main(argv: list[str] | None = None, command: Sequence[str] = RUN_NERF) -> int:
    """Exit status: 0 every run is done; 1 one has failed; 2 a file or option that cannot be used, and nothing
    was started; 130, 143 or 129 stopped by Ctrl-C, SIGTERM or SIGHUP.

    command: what trains a config, before its --config.
    """
    return exit_status("train.sh", lambda: run(sys.argv[1:] if argv is None else argv, command))


if __name__ == "__main__":
    sys.exit(main())
