"""Kill one rank, the first rank, or torchrun, at random moments; start the same command again until it is done, and
compare what it leaves with an undisturbed run: `python tests/robustness/ranks.py --rounds 30` (Linux; 30 of each).

The last attempt of every third round is of three ranks instead of two, and then equal to rounding only.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/
sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

import torch
from tqdm import tqdm

from support import ranks
from support.runs import LOSSES, ROOT, contents, options, same
from support.scenes import write_blender

STEPS, I_WEIGHTS = 60, 7
TIMEOUT = 90.0  # seconds until all processes have ended after a kill: 30 where they had not met yet, else a few
VICTIMS = ("rank 1", "rank 0", "torchrun")


def command(folder: Path, name: str) -> list[str]:
    extra = ["--N_iters", str(STEPS), "--i_weights", str(I_WEIGHTS), "--i_testset", str(STEPS)]
    extra += ["--no_batching", "--precision", "fp32", "--density_bias", "0.5", *LOSSES]
    return options(folder / "scene", folder, *extra, name=name)


def trained(folder: Path, name: str, size: int) -> None:
    """Start `size` ranks, and wait until all have done their work."""
    ended = ranks.statuses(ranks.start_script(size, "run_nerf", command(folder, name), folder / "printed"))
    assert ended == [0] * size, (name, ended, ranks.printed(folder / "printed", "err"))


def disturbed(folder: Path, name: str, victim: str, delay: float) -> bool:
    """Start two ranks and kill the victim after `delay` seconds. Whether it struck; all processes have ended then."""
    if victim == "torchrun":
        return torchrun_killed(folder, name, delay)
    shutil.rmtree(folder / "printed")
    children = ranks.start_script(2, "run_nerf", command(folder, name), folder / "printed", ranks.meet_soon)
    time.sleep(delay)
    number = int(victim[-1])
    struck = children[number].is_alive()
    if struck:
        os.kill(children[number].pid, signal.SIGKILL)
    ended = ranks.statuses(children, TIMEOUT)
    said = "".join(ranks.printed(folder / "printed", "err"))
    assert None not in ended and "Traceback" not in said, (name, ended, said)
    return struck


def torchrun_killed(folder: Path, name: str, delay: float) -> bool:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(ROOT / "run_nerf.py")]
    log = folder / f"{name}.log"
    with log.open("w") as out:
        run = subprocess.Popen([*words, *command(folder, name)], stdout=out, stderr=out)
        while "step 1 " not in log.read_text() and run.poll() is None:  # 10 seconds of imports are not of interest
            time.sleep(0.05)
        time.sleep(delay)
        struck, started = run.poll() is None, children_of(run.pid)
        run.kill()
        run.wait()
    until = time.monotonic() + TIMEOUT
    while alive := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, f"{name}: torchrun was killed, its ranks {alive} stay\n{log.read_text()}"
        time.sleep(0.1)
    return struck


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def left(folder: Path, name: str) -> dict:
    """What a finished run leaves, without what says which run it is."""
    return {key: value for key, value in contents(folder, STEPS, name).items() if key not in ("options", "checksum")}


def close(a, b) -> bool:
    """Equal to rounding, where another number of ranks adds in another order."""
    keys = ("network_fn_state_dict", "network_fine_state_dict")
    pairs = [(a[key][name], b[key][name]) for key in keys for name in a[key]]
    return all(torch.allclose(one, other, rtol=1e-2, atol=1e-4) for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--rounds", type=int, default=30, help="runs for each kind of process that is killed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    struck = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_blender(folder / "scene", counts=(4, 1, 4))
        trained(folder, "whole", 2)
        start = time.monotonic()
        trained(folder, "again", 2)
        seconds, expected = time.monotonic() - start, left(folder, "whole")
        assert same(left(folder, "again"), expected)
        for number in tqdm(range(len(VICTIMS) * args.rounds), desc="rounds", disable=not sys.stderr.isatty()):
            victim, run = VICTIMS[number % len(VICTIMS)], f"round_{number}"
            for _ in range(1 if victim == "torchrun" else 3):
                struck[victim] += disturbed(folder, run, victim, random.uniform(0, seconds))
            size = 3 if number // len(VICTIMS) % 3 == 2 else 2
            trained(folder, run, size)
            alike = same if size == 2 else close
            assert alike(left(folder, run), expected), f"{run}: other weights than those of the undisturbed run"
            assert not list((folder / "logs" / run).glob("*.tmp")), f"{run}: a half-written file"
    for victim, count in struck.items():
        print(f"{count:5}  {victim} killed")
    print(f"{args.rounds} rounds of each: all ended with the weights of the undisturbed run")


if __name__ == "__main__":
    main()
