"""The paper's table on NeRF synthetic, 4 views: `bash benchmarks/paper.sh [--scenes lego,chair] [-- OPTION ...]`.

Trains configs/infonerf/synthetic/SCENE.txt and configs/nerf/synthetic/SCENE.txt, as they are, for each of the 8 scenes
that has both and its data; evaluates the test views of testskip (25 of 200) at full size; prints the table. The same
command goes on where it was stopped. The configs of the other scenes than lego are made by duplicate_config.py. OPTION:
an option of run_nerf.py, for each run, with which it is no longer the paper's protocol: -- --N_iters 1000.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from duplicate_config import SYNTHETIC  # noqa: E402
from infonerf import batch  # noqa: E402
from infonerf.evaluation.metrics import METRICS  # noqa: E402
from infonerf.evaluation.record import Record  # noqa: E402
from infonerf.jobs import Job, create_jobs, with_absolute_paths  # noqa: E402
from infonerf.system.arguments import ScriptParser  # noqa: E402
from infonerf.system.errors import InputError, exit_status  # noqa: E402
from infonerf.system.logs import text_table  # noqa: E402
from infonerf.system.picture_folders import PictureFolder  # noqa: E402

METHODS = {"nerf": "NeRF", "infonerf": "InfoNeRF"}
SHOWN = ("psnr", "ssim", "lpips")
# The paper's means of the 8 scenes, as far as we know them (docs/lab/lego.md).
PAPER = {"nerf": {"psnr": 15.93}, "infonerf": {"psnr": 18.65, "ssim": 0.811}}


def config_of(method: str, scene: str) -> str:
    return f"configs/{method}/synthetic/{scene}.txt"


def scenes_with_data(names: list[str], options: list[str]) -> dict[str, dict[str, Job]]:
    """Scene -> method -> job, of the scenes that have configs and data; the others are said."""
    found = {}
    for scene in names:
        configs = {method: config_of(method, scene) for method in METHODS}
        missing = [config for config in configs.values() if not (ROOT / config).is_file()]
        if missing:
            source = missing[0].replace(scene, "lego")
            print(f"{scene}: left out, no {missing[0]} (python duplicate_config.py {source})")
            continue
        files = [(config, ROOT / config) for config in configs.values()]
        jobs = dict(zip(METHODS, create_jobs(files, options), strict=True))
        data = ROOT / jobs["nerf"].config.data.datadir
        if not data.is_dir():
            print(f"{scene}: left out, no {os.path.relpath(data, ROOT)}")
            continue
        found[scene] = jobs
    return found


def record_of(job: Job) -> Record | None:
    """Of all test views of a finished run; None where they are not measured yet."""
    pictures = PictureFolder("testset", job.step, max(job.config.looking.render_factor, 1))
    try:
        record = Record.read(job.folder / pictures.name / "metrics.json")
    except InputError:  # none, or one that is damaged
        return None
    return record if job.finished and not record.views_missing else None


def table(records: Mapping[str, Mapping[str, Record | None]]) -> str:
    """Scene -> method -> record, as text: a line each, then the means of ours and of the paper."""

    def row(scene: str, method: str, steps: str, views: str, mean: Mapping[str, float | None]) -> list[str]:
        return [scene, METHODS[method], steps, views, *(METRICS[name].shown(mean.get(name)) for name in SHOWN)]

    rows = [["scene", "method", "steps", "test views", *(METRICS[name].heading for name in SHOWN)]]
    for scene, runs in records.items():
        for method, record in runs.items():
            width, height = record.render_size if record else (0, 0)
            views = f"{len(record.views)} of {width} x {height}" if record else "-"
            rows.append(row(scene, method, str(record.step) if record else "-", views, record.mean if record else {}))
    for method in METHODS:
        done = [runs[method] for runs in records.values() if runs[method]]
        rows.append(row(f"mean of {len(done)}", method, "", "", mean_of(done)))
    rows += [row(f"paper, mean of {len(SYNTHETIC)}", method, "", "", PAPER[method]) for method in METHODS]
    return f"{text_table(rows)}\n- : not measured, or of the paper not known here, nor are its figures scene by scene"


def mean_of(records: Sequence[Record]) -> dict[str, float]:
    """Of each metric that all of them have."""
    values = {name: [record.mean.get(name) for record in records] for name in SHOWN}
    return {name: sum(given) / len(given) for name, given in values.items() if given and None not in given}


def parse_arguments(argv: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Scenes, what train.sh is told beside the configs, and options for each run."""
    words, options = batch.split_arguments(argv)
    parser = ScriptParser(prog="paper.sh", description=__doc__, allow_abbrev=False,
                          formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--scenes", default=",".join(SYNTHETIC), help="some of the 8, such as lego,chair")
    parser.add_argument("--gpus", metavar="0,1", help="one run on each of these GPUs at a time")
    given = parser.parse_args(words)
    scenes = given.scenes.split(",")
    for scene in scenes:
        if scene not in SYNTHETIC or scenes.count(scene) > 1:
            raise InputError(f"--scenes: found {scene!r}, expected different ones of {', '.join(SYNTHETIC)}")
    return scenes, [] if given.gpus is None else [f"--gpus={given.gpus}"], with_absolute_paths(options, Path.cwd())


def run() -> int:
    scenes, where, options = parse_arguments(sys.argv[1:])
    found = scenes_with_data(scenes, options)
    if not found:
        raise InputError("--scenes: found none with both configs and data, expected NeRF synthetic in "
                         "data/nerf_synthetic")
    jobs = [job for runs in found.values() for job in runs.values()]
    create_jobs([(job.shown, job.path) for job in jobs], [*options, "--eval_only"])  # fails now rather than in a day
    status = batch.run([*where, *(os.path.relpath(job.path) for job in jobs), "--", *options], batch.RUN_NERF)
    unmeasured = [os.path.relpath(job.path) for job in jobs if job.finished and not record_of(job)]
    if unmeasured and status < 128:
        print("\nThe test views")
        status |= batch.run([*where, *unmeasured, "--", *options, "--eval_only"], batch.RUN_NERF)
    records = {scene: {method: record_of(job) for method, job in runs.items()} for scene, runs in found.items()}
    print(f"\n{table(records)}")
    return status


if __name__ == "__main__":
    sys.exit(exit_status("paper.py", run))
