"""Wall-clock against quality: `python benchmarks/time_to_quality.py --run NAME "OPTIONS" ... --output FILE`.

Trains each run, one after the other, each in a process of its own, until its time is up, and measures the PSNR of the
same random rays of the test views (or, to choose between recipes, of the validation views: --split val) as it goes. The
clock starts with the process, so that start-up counts; measuring does not count. --steps ends a run at a step instead.
Writes FILE.json and, where matplotlib is installed, FILE.png. For example:

    python benchmarks/time_to_quality.py --minutes 3 --output quality \\
        --run dense "--config configs/infonerf/sample.txt --exact_dense --visual_hull False --skip_empty False" \\
        --run sparse "--config configs/infonerf/sample.txt"
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from infonerf.command_line import parse_options  # noqa: E402
from infonerf.system.arguments import ABOVE_ZERO, POSITIVE, ScriptParser  # noqa: E402
from infonerf.system.errors import exit_status  # noqa: E402

RAYS, GROWTH = 6000, 1.15  # rays measured; each measurement is this much later than the last


def child(started: float, minutes: float, steps: int, split: str, options: list[str]) -> int:
    """Train, and print a line of JSON for each measurement."""
    from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch

    from infonerf.evaluation.estimates import draw_rays, psnr_of_rays
    from infonerf.system.devices import find_device
    from run_nerf import create_trainer
    from run_nerf_helpers import load_scene, views_of

    config = parse_options([*options, "--expname", "benchmark"])[0]
    device, scene = find_device(config.run.device), load_scene(config.data)
    trainer = create_trainer(config, scene, device)
    drawn = draw_rays(scene, views_of(scene, f"{split}set"), RAYS, device)

    def psnr() -> float:
        return psnr_of_rays(trainer.picture_renderer(), drawn)["psnr"]

    due, aside = 10.0, 0.0  # aside: the seconds spent on measuring
    while (clock := time.time() - started - aside) < 60 * minutes and trainer.step < steps:
        if clock >= due:
            begun = time.time()
            print(json.dumps({"seconds": round(clock, 2), "step": trainer.step, "psnr": round(psnr(), 3)}), flush=True)
            aside += time.time() - begun
            due = max(due * GROWTH, clock)
        trainer.train_step()
    print(json.dumps({"seconds": round(clock, 2), "step": trainer.step, "psnr": round(psnr(), 3)}), flush=True)
    return 0


def measure_run(name: str, options: str, given: argparse.Namespace) -> list[dict]:
    """One run's measurements, shown as they come."""
    limits = [str(given.minutes), str(given.steps), given.split]
    command = [sys.executable, __file__, "--child", str(time.time()), *limits, *shlex.split(options)]
    points = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stdout:
            points.append(json.loads(line))
            print(f"{name:16}{points[-1]['seconds']:8.1f} s  step {points[-1]['step']:6}  {points[-1]['psnr']:.2f} dB",
                  flush=True)
    if process.returncode:
        sys.exit(process.returncode)  # it has said why
    return points


def table(runs: dict[str, list[dict]]) -> str:
    """Seconds until each run first reached each half decibel."""
    values = [point["psnr"] for points in runs.values() for point in points]
    levels = [level / 2 for level in range(math.floor(2 * min(values)) + 1, math.floor(2 * max(values)) + 1)]
    lines = ["PSNR, dB" + "".join(f"{name:>16}" for name in runs)]
    for level in levels:
        reached = [[point["seconds"] for point in points if point["psnr"] >= level] for points in runs.values()]
        lines.append(f"{level:8.1f}" + "".join(f"{f'{times[0]:.0f} s' if times else '-':>16}" for times in reached))
    return "\n".join(lines)


def plot(runs: dict[str, list[dict]], path: Path, split: str) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no matplotlib, hence no plot")
        return
    for name, points in runs.items():
        pyplot.plot([point["seconds"] for point in points], [point["psnr"] for point in points], label=name)
    pyplot.xscale("log")
    pyplot.xlabel("seconds, start-up included")
    pyplot.ylabel(f"PSNR of {split} rays, dB")
    pyplot.legend()
    pyplot.grid(alpha=0.3)
    pyplot.savefig(path, dpi=120)


def run() -> int:
    if sys.argv[1:2] == ["--child"]:
        started, minutes, steps, split, *options = sys.argv[2:]
        return child(float(started), float(minutes), int(steps), split, options)
    parser = ScriptParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, action="append", required=True, metavar=("NAME", "OPTIONS"))
    parser.add_argument("--minutes", type=ABOVE_ZERO, default=5, help="of each run")
    parser.add_argument("--steps", type=POSITIVE, default=10**9, help="of each run, at most")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="views that are measured")
    parser.add_argument("--output", type=Path, default=Path("time_to_quality"), help="files to write, without suffix")
    given = parser.parse_args()
    runs = {name: measure_run(name, options, given) for name, options in given.run}
    content = {"options": dict(given.run), "points": runs}
    given.output.with_suffix(".json").write_text(json.dumps(content, indent=1))
    plot(runs, given.output.with_suffix(".png"), given.split)
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("time_to_quality.py", run))
