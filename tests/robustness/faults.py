"""Kill runs at random and at the worst moments, start them again until they are done, and compare what they leave with
an undisturbed run: weights, metrics, pictures, videos, lines of results.csv. `python tests/robustness/faults.py
--rounds 50`. Or watch the memory of one long run: `--long_run 20000`.

Each attempt is a forked process that trains or evaluates a tiny scene and is killed with SIGKILL: by the clock, or
while a checkpoint is written (in the middle of the file, before it is flushed, before and after it takes its name).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a forked process has no thread pool

import argparse
import csv
import hashlib
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

import torch
import torch.utils.tensorboard  # imported once, for all attempts
from tqdm import tqdm

import evaluate
import run_nerf
from infonerf.evaluation import record
from infonerf.rendering import pictures as pictures_module
from infonerf.system import files
from infonerf.training import checkpoint
from support.scenes import write_blender

STEPS, I_WEIGHTS = 40, 7
PICTURES = ("--i_testset", "20", "--i_video", "40")
WRITING = ("cut", "before fsync", "before rename", "after rename")
RENDERING = {"before a picture": "write_image", "before a video takes its name": "n_frames",
             "before a result": "append_line"}  # fmt: skip


def options(folder: Path, name: str, *extra: str) -> list[str]:
    return [
        *("--expname", name, "--basedir", str(folder / "logs"), "--datadir", str(folder / "scene")),
        *("--dataset_type", "blender", "--device", "cpu", "--use_viewdirs", "--density_bias", "0.5"),
        *("--netdepth", "2", "--netdepth_fine", "2", "--netwidth", "8", "--netwidth_fine", "8", "--chunk", "16"),
        *("--N_rand", "6", "--N_entropy", "4", "--N_samples", "4", "--N_importance", "3"),
        *("--entropy", "--entropy_ray_zvals_lambda", "0.01", "--train_scene", "0", "2"),
        *("--i_print", "1", "--i_img", "0", "--i_testset", "0", "--i_video", "0"),
        *("--i_weights", str(I_WEIGHTS), "--N_iters", str(STEPS), *extra),
    ]


def evaluation(folder: Path, name: str) -> list[str]:
    return [str(folder / "logs" / name), "--device", "cpu", "--split", "val"]


def attempt(run, log: Path, fault: str | None, number: int, delay: float) -> int | None:
    """Fork, and do `run` with its output in `log`. The fault strikes after `delay` seconds or in the write of the
    `number`-th checkpoint, picture or line of results.csv. Returns the exit status, None where it was killed."""
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())  # else shared: an attempt that is killed with it stops all others
        if fault in WRITING:
            plan(fault, number)
        if fault in RENDERING:
            die_at(RENDERING[fault], number)
        status = run()
        sys.stdout.flush()
        os._exit(status)
    if fault == "by the clock":
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None


def die_at(name: str, number: int) -> None:
    """Have this process killed at the `number`-th call of a function that writes pictures or metrics."""
    module, count = record if name == "append_line" else pictures_module, Counter()
    function = getattr(module, name)

    def counted(*given, **further):
        count["calls"] += 1
        if count["calls"] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **further)

    setattr(module, name, counted)


def plan(fault: str, number: int) -> None:
    """Have this process killed at a point of the `number`-th checkpoint that it writes."""
    count, serialised, fsync, replace = Counter(), checkpoint.serialised, os.fsync, os.replace

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(content):
        whole, count["saves"] = serialised(content), count["saves"] + 1
        return whole[: random.randrange(len(whole))] if fault == "cut" and count["saves"] == number else whole

    def at(point, function):
        def wrapped(*arguments):
            if count["saves"] == number and fault in (f"before {point}", {"fsync": "cut"}.get(point)):
                die()
            function(*arguments)
            if count["saves"] == number and fault == f"after {point}":
                die()
        return wrapped

    checkpoint.serialised, files.os.fsync, files.os.replace = counted, at("fsync", fsync), at("rename", replace)


def weights(folder: Path, name: str) -> dict:
    """What a finished run leaves, without what says which run it is."""
    content = checkpoint.read(checkpoint.path_of(folder / "logs" / name, STEPS)).content
    return {key: value for key, value in content.items() if key not in ("options", "checksum")}


def metrics(folder: Path, name: str) -> dict:
    """Folder -> view -> metrics of an evaluated run."""
    records = sorted((folder / "logs" / name).glob("*/metrics.json"))
    return {path.parent.name: json.loads(path.read_text())["views"] for path in records}


def pictures(folder: Path, name: str) -> dict:
    """Every picture and video of a run, and nothing else that lies beside them, by its content."""
    files = [path for path in sorted((folder / "logs" / name).glob("*/*")) if path.name != "metrics.json"]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path, name: str) -> list:
    """Its lines of results.csv, but for when, and how long it took."""
    with (folder / "logs/results.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["expname"] == name]
    varying = ("time", "expname", "seconds")
    return sorted([value for key, value in line.items() if key not in varying] for line in lines)


def train_disturbed(folder: Path, name: str, seconds: float, struck: Counter) -> None:
    """Start a run again and again, each time with a fault, until it is done. Raises AssertionError where a restart
    begins more than I_WEIGHTS steps before where the run was."""
    log, reached, status = folder / f"{name}.log", 0, None
    while status is None:
        fault = random.choice(["by the clock", "by the clock", *WRITING, *RENDERING])
        status = attempt(lambda: run_nerf.main(options(folder, name, *PICTURES)), log, fault, random.randint(1, 3),
                         random.uniform(0, seconds))  # fmt: skip
        text = log.read_text()
        doing = ["starting", *re.findall("(training|rendering|video): ", text)][-1]
        struck[f"{doing}, {fault}"] += status is None
        found = re.search(r"going on from .*, step (\d+)", text)
        trained = [int(step) for step in re.findall(r"^step (\d+) ", text, re.MULTILINE)]
        if found or trained:  # else it was killed before it got so far
            begins = int(found[1]) if found else 0
            assert reached - begins <= I_WEIGHTS, f"reached step {reached}, began again after {begins}\n{text}"
            reached = max([begins, *trained])
    assert status == 0, log.read_text()
    assert not list((folder / "logs" / name).glob("*.tmp"))


def evaluate_disturbed(folder: Path, name: str, seconds: float, struck: Counter) -> None:
    """Likewise for the evaluation of its validation views."""
    status = None
    while status is None:
        status = attempt(lambda: evaluate.main(evaluation(folder, name)),
                         folder / f"{name}.log", "by the clock", 0, random.uniform(0, seconds))  # fmt: skip
        struck["evaluation, by the clock"] += status is None
    assert status == 0, (folder / f"{name}.log").read_text()


def rounds(folder: Path, n: int, seed: int) -> Counter:
    """Do n rounds; returns how often each fault struck."""
    random.seed(seed)
    write_blender(folder / "scene", counts=(4, 4, 32))
    seconds = []
    for run in (lambda: run_nerf.main(options(folder, "whole", *PICTURES)),
                lambda: evaluate.main(evaluation(folder, "whole"))):  # fmt: skip
        start = time.perf_counter()
        assert attempt(run, folder / "whole.log", None, 0, 0) == 0, (folder / "whole.log").read_text()
        seconds.append(time.perf_counter() - start)
    expected, struck = weights(folder, "whole"), Counter()
    left = {"metrics": metrics, "pictures": pictures, "lines of results.csv": results}
    for number in tqdm(range(n), desc="rounds", disable=not sys.stderr.isatty()):
        name = f"round_{number}"
        train_disturbed(folder, name, seconds[0], struck)
        evaluate_disturbed(folder, name, seconds[1], struck)
        assert same(weights(folder, name), expected), f"{name}: other weights than those of the undisturbed run"
        for what, found in left.items():
            assert found(folder, name) == found(folder, "whole"), f"{name}: other {what} than the undisturbed run"
    return struck


def same(a, b) -> bool:
    """Equal bit for bit, through dictionaries, lists and tensors."""
    return list(checkpoint.hashed_parts(a)) == list(checkpoint.hashed_parts(b))


def long_run(folder: Path, steps: int, further: list[str]) -> None:
    """Train with all that keeps a state, and say how much the process's memory and files grow from a tenth of the steps
    on. further: options of run_nerf.py."""
    write_blender(folder / "scene", counts=(4, 1, 2))
    extra = ["--N_iters", str(steps), "--i_weights", str(steps // 20), "--keep_checkpoints", "3"]
    extra += ["--i_print", str(max(steps // 200, 1)), "--i_img", str(max(steps // 20, 1))]
    extra += ["--ema_decay", "0.99", "--skip_empty", "--i_val", str(max(steps // 20, 1)), *further]
    measured, train_step = [], run_nerf.Trainer.train_step

    def watched(trainer):
        if trainer.step % max(steps // 100, 1) == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            measured.append((trainer.step, resident, len(list((folder / "logs").rglob("*")))))
        return train_step(trainer)

    run_nerf.Trainer.train_step = watched
    assert run_nerf.main(options(folder, "long", *extra)) == 0
    late = [entry for entry in measured if entry[0] >= steps // 10]
    (first, before, _), (last, after, n_files) = late[0], late[-1]
    print(f"resident memory {before:.1f} MiB at step {first}, {after:.1f} at {last}: "
          f"{(after - before) / (last - first) * 1000:.3f} MiB per 1000 steps; {n_files} files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--rounds", type=int, default=50, help="runs that are killed and started again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long_run", type=int, metavar="STEPS", help="one long run instead, with options of run_nerf")
    args, further = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.long_run:
            long_run(Path(folder), args.long_run, further)
            return
        struck = rounds(Path(folder), args.rounds, args.seed)
    for fault, count in sorted(struck.items()):
        print(f"{count:5}  {fault}")
    print(f"{args.rounds} rounds: all ended with the weights, metrics and pictures of the undisturbed run")


if __name__ == "__main__":
    main()
