"""Every numeric option with values that are far out: `python tests/robustness/options.py` (Linux, by hand).

Each value is given to a script in a process of its own, whose memory is limited; run_nerf.py trains one step with it.
What may come of it is success, or one line and exit status 2. Anything else, a traceback, another status, a long
silence, is printed at the end.
"""

import argparse
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

import torch

import evaluate
import export_mesh
import make_scene
import report
import run_nerf
from infonerf.command_line import parse_options
from infonerf.config import declared
from infonerf.system.errors import InputError
from support.runs import options
from support.scenes import write_blender

VALUES = ("0", "-1", "1", "2147483648", "9223372036854775808", "1e30", "nan", "inf", "-inf", "1e-30", "1000000000")
LONGEST = 60  # seconds
MEMORY = 6 * 2**30  # bytes of addresses beyond those that a process has at its start
ONE_STEP = ("--N_iters", "1", "--i_print", "0", "--i_testset", "0", "--i_video", "0", "--i_img", "0")
SWITCHES = {  # what an option needs to have an effect
    "smooth_pixel_range": ("--smoothing", "--smooth_sampling_method", "near_pixel"),
    "near_c2w_trans": ("--smoothing", "--near_c2w_type", "random_pos"), "near_c2w_rot": ("--smoothing",),
    "smoothing_": ("--smoothing",), "entropy_": ("--entropy",), "occlusion_samples": ("--occlusion_lambda", "0.1"),
    "planes_": ("--field", "planes"), "distortion_start": ("--distortion_lambda", "0.1"), "patience": ("--i_val", "1"),
    "freq_start": ("--freq_end_iter", "9"), "range_start": ("--range_end_iter", "9"), "precrop": ("--no_batching",),
    "N_depth": ("--depth_prior_lambda", "0.1"), "depth_prior_": ("--depth_prior_lambda", "0.1"),
    "render_factor": ("--i_testset", "1"), "chunk": ("--i_testset", "1"), "netchunk": ("--exact_dense",),
    "factor": ("--dataset_type", "llff"), "longest_side": ("--dataset_type", "capture"),
}  # fmt: skip
OTHERS = {
    evaluate: ("step", "render_factor", "rays", "tiles", "views"),
    export_mesh: ("resolution", "threshold", "simplify", "step"),
    report: ("views",),
    make_scene: ("frames", "fov", "focal"),
}


def limits(parse) -> list[str]:
    """The bounds of an option, from what its parser says of a value that is none, and what lies just beyond."""
    try:
        parse("nan")
    except argparse.ArgumentTypeError as error:
        found = [(sign, float(number)) for sign, number in re.findall(r"([<>])=? (\S+)", str(error))]
        whole = "an integer" in str(error)
        return [str(int(value + d) if whole else value + d) for sign, value in found
                for d in ((0, 1) if sign == "<" else (-1, 0))]  # fmt: skip
    return []


def numeric() -> dict[str, list[str]]:
    """run_nerf.py's numeric options and the values to try."""
    return {name: [*VALUES, *limits(option.parse)] for _, name, option in declared() if option.parse}


def trainings(scene: Path, folder: Path, pairs: int, seed: int):
    """Script and arguments: each option with each value, and pairs of options of values that are allowed."""
    tried, rng = numeric(), random.Random(seed)

    def training(*given: tuple[str, str]):
        extra = [word for name, value in given for key, words in SWITCHES.items() if name.startswith(key)
                 for word in words]  # fmt: skip
        values = [f"--{name}={value}" for name, value in given]
        return run_nerf, [*options(scene, folder, *ONE_STEP, *extra, *values, "--no_reload")]

    yield from (training((name, value)) for name, values in tried.items() for value in dict.fromkeys(values))
    allowed = {name: [value for value in values if accepted(name, value)] for name, values in tried.items()}
    for _ in range(pairs):
        names = rng.sample(sorted(name for name, values in allowed.items() if values), rng.choice((2, 2, 3)))
        yield training(*((name, rng.choice(allowed[name])) for name in names))


def accepted(name: str, value: str) -> bool:
    parse = next(option.parse for _, other, option in declared() if other == name)
    try:
        parse(value)
    except argparse.ArgumentTypeError:
        return False
    return True


def other_scripts(logdir: Path, folder: Path):
    for script, names in OTHERS.items():
        for name in names:
            for value in VALUES:
                where = ["--output", str(folder / "out.ply"), "--overwrite"] if script is export_mesh else []
                where = ["--output", str(folder / "out.html")] if script is report else where
                where = ["--output", str(folder / "made")] if script is make_scene else where
                kind = ["--rays", "9"] if name == "views" and script is evaluate else []
                yield script, [str(logdir), *where, *kind, f"--{name}={value}"]


def outcome(script, argv: list[str], output: Path) -> tuple[str, float]:
    """What became of it: "done", "refused", or what is wrong, and after how many seconds."""
    start = time.perf_counter()
    if script is run_nerf and at_once(argv):
        return "refused", time.perf_counter() - start
    child = os.fork()
    if child == 0:
        run_limited(script, argv, output)
    deadline = start + LONGEST
    while time.perf_counter() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "too long", LONGEST
    seconds, said = time.perf_counter() - start, output.read_text(errors="replace")
    lines = [line for line in said.splitlines() if "error: " in line]
    code = os.waitstatus_to_exitcode(status)
    if "Traceback" in said or code not in (0, 2) or (code == 2 and len(lines) != 1):
        return f"status {code}: {said[-600:]}", seconds
    if code == 2 and "out of memory" in lines[0]:
        return f"memory: {lines[0]}", seconds
    return ("refused" if code else "done"), seconds


def at_once(argv: list[str]) -> bool:
    """Whether the options are refused before anything else is done, in one line that names an option."""
    try:
        parse_options(argv)
        return False
    except InputError as error:
        return re.search(r"--\w+", str(error)) is not None and str(error).isprintable()


def run_limited(script, argv: list[str], output: Path) -> None:
    """Of a child: never returns."""
    code = 99
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            code = script.main(argv)
            sys.stdout.flush(), sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=300, help="random pairs and triples of options")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many")
    parser.add_argument("--only", nargs="+", help="options of run_nerf.py; no pairs, no other script")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts, wrong, slowest = Counter(), {}, (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        scene = write_blender(folder / "scene", counts=(2, 1, 1))
        command = [sys.executable, "-c", "import sys, run_nerf; sys.exit(run_nerf.main(sys.argv[1:]))"]
        subprocess.run([*command, *options(scene, folder, *ONE_STEP, name="kept")], check=True, capture_output=True,
                       cwd=Path(__file__).parents[2])  # fmt: skip
        tried = list(trainings(scene, folder, given.pairs, given.seed))
        if given.only:
            tried = [(script, argv) for script, argv in tried if argv[-2].split("=")[0][2:] in given.only]
        else:
            tried += other_scripts(folder / "logs/kept", folder)
        for script, argv in tqdm(tried[given.skip :], mininterval=30, file=sys.stdout):
            result, seconds = outcome(script, argv, folder / "said.txt")
            command = f"{script.__name__} {' '.join(argv[-4:])}"
            slowest = max(slowest, (seconds, command))
            kind = result.split(":")[0]
            counts[kind] += 1
            if kind not in ("done", "refused"):
                wrong[command] = result
                print(f"{command}\n    {result}", flush=True)
    print(dict(counts), f"slowest {slowest[0]:.1f} s: {slowest[1]}")
    return 1 if any(not result.startswith("memory") for result in wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
