"""Render views of finished or running runs, write them as images, measure them: `python evaluate.py LOGDIR ...`.

One code path for this script, for `--eval_only` and `--render_only`, and for evaluations during training.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import argparse
import csv
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch

import run_nerf_helpers as build
from infonerf.command_line import COUNT, POSITIVE, parse_options
from infonerf.evaluation.metrics import depth_error, floaters, load_lpips, mse, psnr, psnr_of_mse, ssim
from infonerf.evaluation.ray_psnr import draw_rays, psnr_of_rays
from infonerf.evaluation.tiles import draw_tiles, measure_tiles, rendered_pixels
from infonerf.fields.nerf import Image, Networks
from infonerf.rendering.pictures import Renderer, make_renderer, render_path, write_images
from infonerf.scene.photographs import nearest
from infonerf.scene.scene import Scene, check_views
from infonerf.system.errors import InputError, Parser, exit_status
from infonerf.system.files import atomic_file, free_path, make_folder
from infonerf.system.interrupt import Interrupt
from infonerf.system.logs import progress_bar, say
from infonerf.training import checkpoint
from infonerf.version import VERSION

METRICS = ("psnr", "psnr_pooled", "ssim", "lpips", "psnr_masked", "ssim_masked", "depth_error", "floaters")
RAY_METRICS = ("psnr_corrected", "psnr_corrected_masked")  # of random rays alone


# One view.


def measure(rendered: Image, scene: Scene, view: int, renderer: Renderer, lpips: Callable | None) -> dict:
    """Metrics of a rendering against the photograph (reduced likewise), within the object's mask where the scene
    has masks, and of its depth where the scene has true depth. None for what cannot be computed."""
    factor = renderer.factor
    rgb, truth = rendered.rgb.cpu().numpy(), reduced(scene.image(view), factor)
    result = {"mse": mse(rgb, truth), "psnr": psnr(rgb, truth), "ssim": ssim(rgb, truth)}
    result["lpips"] = lpips(rgb, truth) if lpips else None
    if scene.mask:
        mask = reduced(scene.mask(view).astype(np.float32), factor) >= 0.5
        result |= {"psnr_masked": psnr(rgb, truth, mask), "ssim_masked": ssim(rgb, truth, mask)}
    if scene.depth:
        result |= measure_depth(rendered, scene, view, renderer.pixel_center)
    return finite(result)


def finite(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """None for what is not finite."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}


def measure_depth(rendered: Image, scene: Scene, view: int, pixel_center: float) -> dict[str, float | None]:
    """Metrics of a rendering's depth; None where this view has no true depth."""
    true = scene.depth(view)
    if true is None:
        return {"depth_error": None, "floaters": None}
    depth, acc = rendered.depth.cpu().numpy(), rendered.acc.cpu().numpy()
    true = nearest(true, *depth.shape, pixel_center)
    return {
        "depth_error": depth_error(depth, acc, true, scene.far),
        "floaters": floaters(depth, acc, true, scene.near, scene.far),
    }


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink by averaging areas."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = (max(width // factor, 1), max(height // factor, 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


# Many views, and the record of their metrics.


def evaluate_views(renderer: Renderer, scene: Scene, views: Sequence[int], folder: Path, facts: dict) -> dict:
    """Render and measure views, and write their images and metrics.json to `folder`.

    facts: what the record says of the run beside its metrics; where a record of equal facts is there,
    views in it are not rendered again, so that an evaluation that was stopped goes on. A record of other facts (of
    another testskip, say) is kept as metrics_1.json. Returns the record.
    """
    height, width = renderer.size(scene)
    facts = facts | {
        "scene": scene.name,
        "render_size": [width, height],
        "weights": fingerprint(renderer.networks),
        "depth_png": {"0": scene.near, "65535": scene.far, "empty": "far"},
        "version": VERSION,
    }
    if scene.depth:
        facts["true_depth"] = True  # a record from before there were metrics of depth is begun anew
    record = read_record(folder, facts)
    if record is None:
        set_aside(folder / "metrics.json")
        record = facts | {"seconds": 0.0, "device": str(renderer.device), "views": {}}
    lpips, record["lpips_missing"] = load_lpips(renderer.device)
    todo = [view for view in views if scene.view_names[view] not in record["views"]]
    record["mean"], record["views_missing"], record["rendered_now"] = means(record["views"]), len(todo), len(todo)
    if not todo:  # one that was damaged, or of views that are no longer asked for
        write_record(folder, record)
    n_rays = len(todo) * height * width
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, desc="rendering", leave=False) as bar:
        for number, view in enumerate(todo, 1):
            start, name = time.perf_counter(), scene.view_names[view]
            rendered = renderer.view(scene, view, bar.update)
            write_images(folder, name.replace("/", "_"), rendered, scene)
            record["views"][name] = measure(rendered, scene, view, renderer, lpips)
            record["seconds"] += time.perf_counter() - start
            record["mean"], record["views_missing"] = means(record["views"]), len(todo) - number
            write_record(folder, record)
            values = ((metric, value) for metric, value in record["views"][name].items() if metric in METRICS)
            say(f"{name}: " + "  ".join(f"{metric} {shown(metric, value)}" for metric, value in values))
    return record


def fingerprint(networks: Networks) -> str:
    """A checksum of the weights: a record of other weights of the same step is no record of these."""
    crc = 0
    for parameter in networks.parameters():
        crc = zlib.crc32(parameter.detach().cpu().numpy().tobytes(), crc)
    return f"{crc:08x}"


def means(views: dict[str, dict]) -> dict[str, float | None]:
    """Means over the views; `psnr_pooled` is the PSNR of the mean squared error.

    A view without a value (an empty mask, say) is left out of that mean; but a rendering that is not finite
    is not passed over: then there are no means.
    """
    result, broken = {}, any(metrics["mse"] is None for metrics in views.values())
    for name in dict.fromkeys(name for metrics in views.values() for name in metrics):
        values = [metrics[name] for metrics in views.values() if metrics.get(name) is not None]
        result[name] = math.fsum(values) / len(values) if values and not broken else None
    if result.get("mse"):
        result["psnr_pooled"] = psnr_of_mse(result["mse"])
    return result


def read_record(folder: Path, facts: dict) -> dict | None:
    """An earlier record of the same facts whose images are there; None where there is none, or it is damaged."""
    try:
        record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        same = all(record[name] == value for name, value in facts.items())
        complete = all((folder / f"{name.replace('/', '_')}.png").is_file() for name in record["views"])
        record["seconds"] = float(record["seconds"])
        means(record["views"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return record if same and complete else None


def set_aside(path: Path) -> None:
    """Give a file that would be overwritten, if there is one, the name with the first number that is free."""
    if path.is_file():
        say(f"the metrics of another evaluation are now in {path.rename(free_path(path))}")


def write_record(folder: Path, record: dict) -> None:
    with atomic_file(folder / "metrics.json") as file:
        kept = {name: value for name, value in record.items() if name != "rendered_now"}
        file.write(json.dumps(kept, indent=1).encode())


def append_result(path: Path, expname: str, record: dict) -> None:
    """One line of results.csv. What columns a file of an earlier version lacks are added to its header; its lines
    stay as they are, and are shorter."""
    row = {"time": datetime.now().isoformat(timespec="seconds"), "expname": expname}
    row |= {name: record[name] for name in ("scene", "step", "kind", "seconds", "device", "version")}
    row |= {"views": len(record["views"]), "width": record["render_size"][0]}
    row |= {name: record["mean"].get(name) for name in METRICS}
    header, _, lines = path.read_bytes().partition(b"\n") if path.is_file() else (b"", b"", b"")
    try:
        columns = next(csv.reader([header.decode("latin-1")]), [])
    except csv.Error as error:
        raise InputError(f"{path}: cannot be added to ({error}), expected a table with a header") from error
    new = [name for name in row if name not in columns]
    if columns and new:
        with atomic_file(path) as file:
            file.write(b",".join([header.rstrip(b"\r"), *map(str.encode, new)]) + b"\r\n" + lines)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns + new)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def evaluate_run(
    args: argparse.Namespace, networks: Networks, scene: Scene, step: int, views: Sequence[int], kind: str
) -> dict:
    """Evaluate views of a run in basedir/expname/KIND_STEP, and add a line to basedir/results.csv.

    kind: testset, valset, renderonly_test or renderonly_train. Returns the record.
    """
    renderer = make_renderer(args, networks, scene)
    folder = make_folder(picture_folder(args, kind, step))
    options = {name: value for name, value in vars(args).items() if name not in EVALUATION_OPTIONS}
    options["precision"] = "bf16" if build.matmul_dtype(args, renderer.device) else "fp32"  # what auto is here
    record = evaluate_views(renderer, scene, views, folder, {"step": step, "kind": kind, "options": options})
    if record["rendered_now"]:
        append_result(Path(args.basedir) / "results.csv", args.expname, record)
    say(f"{len(views)} views in {folder}, {len(views) - record['rendered_now']} of them from before")
    return record


def picture_folder(args: argparse.Namespace, kind: str, step: int) -> Path:
    """basedir/expname/KIND_STEP; pictures of 1/n of the size have a folder of their own."""
    suffix = f"_factor{args.render_factor}" if args.render_factor > 1 else ""
    return build.run_folder(args) / f"{kind}_{step:06d}{suffix}"


def render_run_path(args: argparse.Namespace, networks: Networks, scene: Scene, step: int, kind: str) -> None:
    """The video of a run's path in basedir/expname/KIND_STEP."""
    folder = make_folder(picture_folder(args, kind, step))
    render_path(make_renderer(args, networks, scene), scene, folder)


# Options that say how a run is looked at, not what it is.
EVALUATION_OPTIONS = (
    "config", "basedir", "expname", "datadir", "maskdir", "device", "render_only", "eval_only", "render_test",
    "render_train", "ckpt_render_iter", "ft_path", "no_reload", "chunk", "netchunk", "N_iters", "wandb",
    "i_print", "i_weights", "keep_checkpoints", "i_testset", "i_wandb", "i_img", "i_video",
    "i_val", "val_scene", "patience", "allow_outside",
)  # fmt: skip


def table(records: dict[str, dict]) -> str:
    """Run -> record, as text: a line a run, a column a metric that any run has."""
    measured = {name for record in records.values() for name, value in record["mean"].items() if value is not None}
    names = [name for name in METRICS + RAY_METRICS if name in measured]
    rows = [["run", "step", "views", *names]]
    for run, record in records.items():
        numbers = [shown(name, record["mean"].get(name)) for name in names]
        rows.append([run, str(record["step"]), shown_views(record), *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def shown(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if metric.startswith("psnr") else f"{value:.4f}"


def shown_views(record: dict) -> str:
    """How many views are measured, and of how many where an evaluation was stopped: "12 of 25"."""
    measured, missing = len(record["views"]), record.get("views_missing", 0)
    return f"{measured} of {measured + missing}" if missing else str(measured)


# The script.


def load_run(args: argparse.Namespace) -> tuple[Scene, Networks, int]:
    """A run's scene, the networks of its checkpoint, with averaged weights where it has them, and their step."""
    device = build.build_device(args.device)
    scene = build.build_scene(args)
    found = build.find_checkpoint(args)
    if found is None:
        raise InputError(f"{build.run_folder(args)}: found no checkpoint to render, expected those of a trained run")
    networks = build.build_networks(args, device, torch.Generator().manual_seed(args.seed))
    checkpoint.load_networks(found, networks, averaged=args.ema_decay > 0)
    networks.set_step(found.step)
    for change in build.changed_options(found, args):
        say(change)
    say(f"rendering {found.path}, step {found.step}, on {device}")
    return scene, networks, found.step


def views_of(scene: Scene, kind: str) -> tuple[int, ...]:
    """The views of a kind of evaluation."""
    views = {"testset": scene.test, "valset": scene.val, "renderonly_test": scene.test, "renderonly_train": scene.train}
    if not views[kind]:
        raise InputError(f"--split {kind.removesuffix('set')}: scene {scene.name} has no such views, expected some")
    return views[kind]


def evaluate_checkpoint(args: argparse.Namespace, kinds: Sequence[str]) -> dict[str, dict]:
    """Evaluate a run's checkpoint without training it, or changing anything of it: kind -> record."""
    scene, networks, step = load_run(args)
    views = {kind: views_of(scene, kind) for kind in kinds if kind != "renderonly_path"}
    with Interrupt():
        if "renderonly_path" in kinds:
            render_run_path(args, networks, scene, step, "renderonly_path")
        return {kind: evaluate_run(args, networks, scene, step, views[kind], kind) for kind in views}


def estimate(args: argparse.Namespace, kind: str, given: argparse.Namespace) -> dict:
    """Measure random rays or tiles of a run's views, or of the chosen ones, and write nothing: a record of their
    means. given: this script's own options."""
    scene, networks, step = load_run(args)
    if given.views:
        check_views(given.views, len(scene.poses), "views")
    views = given.views or views_of(scene, kind)
    renderer = make_renderer(args, networks, scene)
    mean = (means_of_rays if given.rays else means_of_tiles)(renderer, scene, views, given)
    return {"step": step, "views": views, "mean": mean}


def means_of_rays(renderer: Renderer, scene: Scene, views: Sequence[int], given: argparse.Namespace) -> dict:
    drawn = draw_rays(scene, views, given.rays, renderer.pixel_center, renderer.device)
    with progress_bar(total=sum(len(part.rays) for part in drawn), unit="ray", unit_scale=True, leave=False) as bar:
        return psnr_of_rays(renderer, drawn, bar.update, given.colour_correct)


def means_of_tiles(renderer: Renderer, scene: Scene, views: Sequence[int], given: argparse.Namespace) -> dict:
    drawn = dict(zip(views, draw_tiles(scene, views, given.tiles), strict=True))
    n_rays = sum(int(rendered_pixels(centres).sum()) for centres in drawn.values())
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, leave=False) as bar:
        return means({view: finite(measure_tiles(renderer, scene, view, centres, bar.update))
                      for view, centres in drawn.items()})  # fmt: skip


def run_options(logdir: Path, extra: list[str]) -> argparse.Namespace:
    """The options that a run was trained with, from its folder, wherever that lies now."""
    path = logdir / "args.txt"
    if not os.path.isfile(path):
        raise InputError(f"{logdir}: found no args.txt, expected the folder of a run of run_nerf.py")
    args, _ = parse_options(["--config", str(path), "--ft_path", "", "--no_reload", "False", *extra])
    if build.run_folder(args).resolve() != logdir.resolve():
        there = Path(os.path.abspath(logdir))  # of ".", too, there is a parent and a name
        args.basedir, args.expname = str(there.parent), there.name
    return args


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Evaluate runs on unseen views: images, metrics.json, results.csv, a table.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--split", choices=("test", "val"), default="test",
                        help="the test views, or those by which to choose between recipes (DTU has but test views)")
    parser.add_argument("--step", type=POSITIVE, help="the checkpoint of this step, instead of the newest")
    parser.add_argument("--render_factor", type=COUNT, default=0, help="render at 1/n of the size")
    few = parser.add_mutually_exclusive_group()
    few.add_argument("--rays", type=POSITIVE, help="only the PSNR of so many random rays, at full size, of all the "
                     "views together; nothing is written")
    few.add_argument("--tiles", type=POSITIVE, help="only PSNR and SSIM of so many random tiles of 22 x 22 "
                     "pixels, at full size, of all the views together; nothing is written")
    parser.add_argument("--views", type=COUNT, nargs="+", help="rays, tiles: of these views, by number, instead of a "
                        "split's")
    parser.add_argument("--colour_correct", action="store_true", help="rays: also the PSNR of each view's "
                        "channels with the gain and offset that fit best, for photographs of another exposure (of "
                        "views with at least 50 rays)")
    parser.add_argument("--datadir", help="where the scene is now, if it has moved")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    given = parser.parse_args(argv)
    if given.views and not (given.rays or given.tiles):
        parser.error("--views: needs --rays or --tiles")
    if given.colour_correct and not given.rays:
        parser.error("--colour_correct: needs --rays")
    for option in ("rays", "tiles"):
        if getattr(given, option) and given.render_factor > 1:
            parser.error(f"--render_factor: {option} are of full size, expected no --{option} beside it")
    return given


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    extra = ["--eval_only", "--device", given.device, "--render_factor", str(given.render_factor)]
    extra += ["--datadir", given.datadir] if given.datadir else []
    extra += ["--ckpt_render_iter", str(given.step)] if given.step else []
    runs = {str(logdir): run_options(logdir, extra) for logdir in given.logdir}
    kind = f"{given.split}set"
    if given.rays or given.tiles:
        records = {name: estimate(args, kind, given) for name, args in runs.items()}
    else:
        records = {name: evaluate_checkpoint(args, [kind])[kind] for name, args in runs.items()}
    print(table(records))
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("evaluate.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
