"""Kill runs at random and at the worst moments, start them again until they are done, and compare what they leave with
an undisturbed run: `python tests/robustness/faults.py --rounds 50`. Or watch the memory of one long run: `--long_run
20000`.

Each attempt is a forked process that trains or evaluates a tiny scene and is killed with SIGKILL: by the clock, or
while a checkpoint is written (in the middle of the file, before it is flushed, before and after it takes its name).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a forked process has no thread pool

import argparse
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
from infonerf.system import files
from infonerf.training import checkpoint
from support.scenes import write_blender

STEPS, I_WEIGHTS = 40, 7
WRITING = ("cut", "before fsync", "before rename", "after rename")


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


def attempt(run, log: Path, fault: str | None, number: int, delay: float) -> int | None:
    """Fork, and do `run` with its output in `log`. The fault strikes after `delay` seconds or in the write of the
    `number`-th checkpoint. Returns the exit status, None where the process was killed."""
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())  # else shared: an attempt that is killed with it stops all others
        if fault in WRITING:
            plan(fault, number)
        status = run()
        sys.stdout.flush()
        os._exit(status)
    if fault == "by the clock":
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None


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
    """view -> metrics of an evaluated run."""
    return json.loads((folder / "logs" / name / f"testset_{STEPS:06d}" / "metrics.json").read_text())["views"]


def train_disturbed(folder: Path, name: str, seconds: float, struck: Counter) -> None:
    """Start a run again and again, each time with a fault, until it is done. Raises AssertionError where a restart
    begins more than I_WEIGHTS steps before where the run was."""
    log, reached, status = folder / f"{name}.log", 0, None
    while status is None:
        fault = random.choice(["by the clock", *WRITING])
        status = attempt(lambda: run_nerf.main(options(folder, name)), log, fault, random.randint(1, 3),
                         random.uniform(0, seconds))  # fmt: skip
        struck[f"training, {fault}"] += status is None
        text = log.read_text()
        found = re.search(r"going on from .*, step (\d+)", text)
        trained = [int(step) for step in re.findall(r"^step (\d+) ", text, re.MULTILINE)]
        if found or trained:  # else it was killed before it got so far
            begins = int(found[1]) if found else 0
            assert reached - begins <= I_WEIGHTS, f"reached step {reached}, began again after {begins}\n{text}"
            reached = max([begins, *trained])
    assert status == 0, log.read_text()
    assert not list((folder / "logs" / name).glob("*.tmp"))


def evaluate_disturbed(folder: Path, name: str, seconds: float, struck: Counter) -> None:
    """Likewise for the evaluation of its test views."""
    status = None
    while status is None:
        status = attempt(lambda: evaluate.main([str(folder / "logs" / name), "--device", "cpu"]),
                         folder / f"{name}.log", "by the clock", 0, random.uniform(0, seconds))  # fmt: skip
        struck["evaluation, by the clock"] += status is None
    assert status == 0, (folder / f"{name}.log").read_text()


def rounds(folder: Path, n: int, seed: int) -> Counter:
    """Do n rounds; returns how often each fault struck."""
    random.seed(seed)
    write_blender(folder / "scene", counts=(4, 1, 32))
    seconds = []
    for run in (lambda: run_nerf.main(options(folder, "whole")),
                lambda: evaluate.main([str(folder / "logs" / "whole"), "--device", "cpu"])):  # fmt: skip
        start = time.perf_counter()
        assert attempt(run, folder / "whole.log", None, 0, 0) == 0, (folder / "whole.log").read_text()
        seconds.append(time.perf_counter() - start)
    expected, struck = (weights(folder, "whole"), metrics(folder, "whole")), Counter()
    for number in tqdm(range(n), desc="rounds", disable=not sys.stderr.isatty()):
        name = f"round_{number}"
        train_disturbed(folder, name, seconds[0], struck)
        evaluate_disturbed(folder, name, seconds[1], struck)
        assert same(weights(folder, name), expected[0]), f"{name}: other weights than those of the undisturbed run"
        assert metrics(folder, name) == expected[1], f"{name}: other metrics than those of the undisturbed run"
    return struck


def same(a, b) -> bool:
    """Equal bit for bit, through dictionaries, lists and tensors."""
    return list(checkpoint.hashed_parts(a)) == list(checkpoint.hashed_parts(b))


def long_run(folder: Path, steps: int) -> None:
    """Train, and say how much the process's memory and files grow from a tenth of the steps on."""
    write_blender(folder / "scene", counts=(4, 1, 2))
    extra = ["--N_iters", str(steps), "--i_weights", str(steps // 20), "--keep_checkpoints", "3"]
    extra += ["--i_print", str(max(steps // 200, 1)), "--i_img", str(max(steps // 20, 1))]
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
    parser.add_argument("--long_run", type=int, metavar="STEPS", help="one long run instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.long_run:
            long_run(Path(folder), args.long_run)
            return
        struck = rounds(Path(folder), args.rounds, args.seed)
    for fault, count in sorted(struck.items()):
        print(f"{count:5}  {fault}")
    print(f"{args.rounds} rounds: all ended with the weights and metrics of the undisturbed run")


if __name__ == "__main__":
    main()
