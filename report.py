"""One HTML page on runs, for someone who would rather look than read: `python report.py LOGDIR [LOGDIR ...]`.

This file collects what the runs' folders hold and writes the page, `report_page.py` makes it. Images are uint8.
"""

from infonerf.system import startup  # noqa: F401  # isort: skip  # before torch
import argparse
import io
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import run_nerf_helpers as build
from evaluate import METRICS, Parser, run_options, shown_views
from infonerf.command_line import COUNT
from infonerf.evaluation.metrics import to_far
from infonerf.rendering.pictures import depth_colours
from infonerf.report.page import Group, Picture, Run, RunView, View, make_page
from infonerf.scene.photographs import nearest, read_pixels
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError, exit_status
from infonerf.system.files import atomic_file
from infonerf.system.logs import say
from infonerf.training import checkpoint
from infonerf.version import VERSION

MOST_VIEWS, MOST_POINTS = 25, 120
LONGEST_SIDE, QUALITY, LOSSLESS = 256, 85, 101  # qualities of WebP, as OpenCV counts
LARGEST_EXACT = 40_000
ERROR_RANGE = 0.5  # the mean absolute difference of the colours that is brightest in the error map
LOSSES = {"entropy": "ray entropy", "smoothing": "KL smoothness"}
SCENE_OPTIONS = (
    "dataset_type", "datadir", "maskdir", "half_res", "testskip", "white_bkgd", "train_scene", "test_scene", "fewshot",
    "fewshot_seed", "unseen_poses", "dtu_intrinsics", "allow_outside", "near", "far",
)  # fmt: skip
NOT_OPTIONS = ("config", "basedir", "expname", "ft_path", "no_reload")  # of a call, or in the run's name already


# What a run's folder holds.


def step_folders(logdir: Path, kinds: Sequence[str], needed: Sequence[str]) -> list[Path]:
    """The folders KIND_STEP or, after them, KIND_STEP_factorN that have any of the needed files, the newest
    step first."""
    found = []
    for folder in logdir.iterdir():
        match = re.fullmatch(r"([a-z_]+)_(\d+)(?:_factor(\d+))?", folder.name)
        if match and match[1] in kinds and any((folder / name).is_file() for name in needed):
            found.append((int(match[2]), -int(match[3] or 1), folder))
    return [folder for *_, folder in sorted(found, reverse=True)]


def read_record(path: Path) -> dict:
    """metrics.json, with None for numbers that are not finite; InputError where it is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        width, height = record["render_size"]
        if min(width, height) < 1:
            raise ValueError(f"render_size {width} x {height}")
        return {
            "step": int(record["step"]),
            "scene": str(record["scene"]),
            "seconds": float(record["seconds"]),
            "size": (int(width), int(height)),
            "factor": int(record["options"].get("render_factor") or 0),
            "lpips_missing": record.get("lpips_missing"),
            "mean": numbers(record["mean"]),
            "views_missing": int(record.get("views_missing", 0)),
            "views": {str(name): numbers(metrics) for name, metrics in record["views"].items()},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise InputError(f"{path}: found no record of an evaluation ({reason}); run evaluate.py again") from error


def numbers(metrics: dict) -> dict[str, float | None]:
    values = {name: metrics.get(name) for name in METRICS}
    return {name: float(value) if value is not None and math.isfinite(value) else None
            for name, value in values.items()}  # fmt: skip


def read_curves(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """The run's losses (before their weights) and PSNR from its TensorBoard events: tag -> (step, value)
    points. Empty where there are none."""
    from tensorboard.backend.event_processing import event_accumulator as tensorboard  # slow to import

    events = tensorboard.EventAccumulator(str(logdir), size_guidance={tensorboard.SCALARS: 0, tensorboard.IMAGES: 1})
    try:
        events.Reload()
    except OSError:
        return {}
    curves = {}
    for tag in events.Tags()["scalars"]:
        points = [(event.step, event.value) for event in events.Scalars(tag) if math.isfinite(event.value)]
        if points and (tag.startswith(("loss/", "psnr/")) or tag == "test/psnr"):
            curves[tag] = thinned(sorted(points), MOST_POINTS)
    return curves


def thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` points: each the last step and the mean value of its neighbours."""
    size = -(-len(points) // most)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def read_loops(logdir: Path) -> dict[str, Picture]:
    """The newest path's GIFs, rgb and depth, where they can be read."""
    names = {"rgb": "rgb.gif", "depth": "depth.gif"}
    folders = step_folders(logdir, ("path", "renderonly_path"), names.values())
    loops = {}
    for kind, name in names.items() if folders else ():
        try:
            data = (folders[0] / name).read_bytes()
            still = encoded(np.asarray(Image.open(io.BytesIO(data), formats=("GIF",)).convert("RGB")))
        except Exception:  # not there or damaged, in one of many ways
            continue
        loops[kind] = Picture(data, "image/gif", still.width, still.height, still)
    return loops


def labels_of(logdirs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, of equal length, that tell them apart."""
    parts = [logdir.resolve().parts for logdir in logdirs]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(logdir for i, logdir in enumerate(logdirs) if parts[i] in parts[:i])
    raise InputError(f"{twice}: this run is named twice, expected every run once")


def options_of(args: argparse.Namespace) -> dict[str, str]:
    """The options as texts."""
    given = {name: value for name, value in vars(args).items() if name not in NOT_OPTIONS and value is not None}
    return {name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in given.items()}


def read_run(number: int, label: str, logdir: Path, args: argparse.Namespace) -> Run:
    """Everything of a run but its pictures of test views."""
    evaluations = step_folders(logdir, ("testset",), ("metrics.json",))
    record = read_record(evaluations[0] / "metrics.json") if evaluations else None
    run = Run(
        number=number,
        label=label,
        folder=str(logdir),
        losses=" + ".join(["colour", *(text for name, text in LOSSES.items() if getattr(args, name))]),
        options=options_of(args),
        record=record | {"folder": evaluations[0]} if record else None,
        curves=read_curves(logdir),
        loops=read_loops(logdir),
    )
    run.notes.extend(evaluation_notes(logdir, record))
    if not run.curves:
        run.notes.append(("no TensorBoard events of losses in its folder, hence no curves", None))
    return run


def evaluation_command(folder: str, factor: int = 0) -> str:
    """The command that evaluates a run, or goes on with an evaluation at 1/factor of the size."""
    return f"python evaluate.py {shlex.quote(folder)}" + (f" --render_factor {factor}" if factor > 1 else "")


def evaluation_notes(logdir: Path, record: dict | None) -> list[tuple[str, str | None]]:
    """What is not measured yet, and how to measure it."""
    newest = checkpoint.latest(logdir)
    command = evaluation_command(str(logdir))
    if record is None:
        return [("not evaluated yet; to evaluate it", command)]
    notes = []
    if newest and int(newest.stem) > record["step"]:
        notes.append((f"its newest checkpoint, step {int(newest.stem)}, is not evaluated yet; to evaluate it", command))
    if record["views_missing"]:
        again = evaluation_command(str(logdir), record["factor"])
        notes.append((f"{shown_views(record)} test views are measured; to go on", again))
    if record["lpips_missing"] and record["mean"]["lpips"] is None:
        notes.append((f"no LPIPS: {record['lpips_missing']}", None))
    return notes


# Pictures of test views.


class Photographs:
    """The ground truth of a run's views; `missing` says why where there is none."""

    def __init__(self, args: argparse.Namespace):
        self.scene: Scene | None = None
        self.missing: str | None = None
        self.decoded: dict = {}
        try:
            self.scene = build.build_scene(args)
        except InputError as error:
            self.missing = f"no ground truth, no error maps: {error}"

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray | None:
        """A view in 0..1 reduced to `size` (width, height) by averaging areas; None where it is not there."""
        if self.scene is None or name not in self.scene.view_names:
            return None
        if size[0] > self.scene.width or size[1] > self.scene.height:
            return None
        if (name, size) not in self.decoded:
            try:
                truth = self.scene.image(self.scene.view_names.index(name))
            except InputError as error:
                self.missing = f"not all of its ground truth can be read: {error}"
                return None
            self.decoded = {(name, size): cv2.resize(truth, size, interpolation=cv2.INTER_AREA)}  # the newest only
        return self.decoded[name, size]

    def depth(self, name: str, size: tuple[int, int]) -> np.ndarray | None:
        """A view's true depth in the colours of a rendered one, h w 3 uint8; None where it is not there."""
        if self.scene is None or self.scene.depth is None:
            return None
        try:
            true = self.scene.depth(self.scene.view_names.index(name))
        except InputError as error:
            self.missing = f"not all of its true depth can be read: {error}"
            return None
        if true is None:
            return None
        near, far = self.scene.near, self.scene.far
        depth = to_far(nearest(true, *reversed(size), 0.5), far)
        return depth_colours(np.clip((depth - near) / (far - near), 0, 1))


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """h w, the absolute difference of two images h w 3 in 0..1, averaged over the colours."""
    return np.abs(np.asarray(image, float) - np.asarray(truth, float)).mean(-1)


def error_colours(error: np.ndarray) -> np.ndarray:
    """h w -> h w 3 uint8; no error is dark, ERROR_RANGE and more is bright."""
    share = np.clip(error / ERROR_RANGE, 0, 1)
    return cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_CIVIDIS)[..., ::-1]


def eight_bit(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def encoded(image: np.ndarray, exact: bool = False) -> Picture:
    """h w 3 uint8, shrunk to LONGEST_SIDE, as WebP, or as PNG where that is smaller. `exact` keeps every
    pixel, up to LARGEST_EXACT bytes: the colours of a map stand for numbers, and most compress well."""
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(small[..., ::-1])
    if exact:
        data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, LOSSLESS])[1].tobytes()
        if len(data) <= LARGEST_EXACT:
            return Picture(data, "image/webp", *size)
    webp = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()
    png = cv2.imencode(".png", bgr)[1].tobytes()
    data, kind = (png, "image/png") if len(png) <= len(webp) else (webp, "image/webp")
    return Picture(data, kind, *size)


def read_image(path: Path) -> np.ndarray | None:
    """h w 3 in 0..1, or None where it is not there."""
    try:
        return read_pixels(path)[..., :3]
    except (InputError, OSError):
        return None


def read_view(record: dict, name: str, truth: np.ndarray | None) -> RunView:
    """A run's pictures of a view, and its metrics."""
    stem = name.replace("/", "_")
    rgb, depth = (read_image(record["folder"] / f"{stem}{end}.png") for end in ("", "_depth_color"))
    fits = rgb is not None and truth is not None and rgb.shape == truth.shape
    return RunView(
        metrics=record["views"][name],
        rgb=None if rgb is None else encoded(eight_bit(rgb)),
        depth=None if depth is None else encoded(eight_bit(depth), exact=True),
        error=encoded(error_colours(error_map(rgb, truth)), exact=True) if fits else None,
    )


def chosen(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spread."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / max(most - 1, 1))] for i in range(most)]


def read_views(runs: Sequence[Run], photographs: dict[str, Photographs], most: int) -> tuple[list[View], int]:
    """The views to show of a scene's runs, and how many views there are."""
    evaluated = [run for run in runs if run.record]
    names = list(dict.fromkeys(name for run in evaluated for name in run.record["views"]))
    views = []
    for name in chosen(names, most):
        found, truths = {}, {}
        for run in evaluated:
            if name in run.record["views"]:
                truth = photographs[run.label].read(name, run.record["size"])
                if truth is not None and not truths:
                    truths = {"ground truth": encoded(eight_bit(truth))}
                    depth = photographs[run.label].depth(name, run.record["size"])
                    truths |= {} if depth is None else {"true depth": encoded(depth, exact=True)}
                found[run.label] = read_view(run.record, name, truth)
        views.append(View(name, truths, found))
    return views, len(names)


# Groups of runs, and the script.


def group_key(run: Run, args: argparse.Namespace) -> tuple:
    """Runs of equal key are compared: they have the same ground truth."""
    scene = run.record["scene"] if run.record else Path(args.datadir).resolve().name
    return scene, args.dataset_type, args.white_bkgd


def make_group(key: tuple, runs: list[Run], options: dict[str, argparse.Namespace], most: int) -> Group:
    """A scene's runs and their pictures. Runs of equal options share what they decode."""
    known, photographs = {}, {}
    for run in runs:
        args = options[run.label]
        same = tuple(str(getattr(args, name)) for name in SCENE_OPTIONS)
        known[same] = known.get(same) or Photographs(args)
        photographs[run.label] = known[same]
    views, n_views = read_views(runs, photographs, most)
    for run in runs:
        if run.record and photographs[run.label].missing:
            run.notes.append((photographs[run.label].missing, None))
    records = [run.record for run in runs if run.record]
    return Group(
        scene=key[0],
        facts=facts(key, records, n_views),
        runs=runs,
        views=views,
        n_views=n_views,
        comparable=len({(record["size"], frozenset(record["views"])) for record in records}) <= 1,
        ramps=ramps(),
    )


def facts(key: tuple, records: Sequence[dict], n_views: int) -> str:
    """What a group's runs have in common, in words."""
    _, kind, white = key
    words = [f"Blender, {'white' if white else 'black'} background" if kind == "blender" else kind.upper()]
    sizes = sorted({record["size"] for record in records})
    if sizes:
        pixels = " and ".join(f"{width} \N{MULTIPLICATION SIGN} {height}" for width, height in sizes)
        words.append(f"{n_views} test views at {pixels}")
    return ", ".join(words)


def ramps() -> dict[str, Picture]:
    """The colours of depth and error from 0 to 1, as bars."""
    bar = np.linspace(0, 1, 64)[None].repeat(8, axis=0)
    return {"depth": encoded(depth_colours(bar), True), "error": encoded(error_colours(bar * ERROR_RANGE), True)}


def read_groups(logdirs: Sequence[Path], most: int) -> list[Group]:
    labels = labels_of(logdirs)
    options = {label: run_options(logdir, []) for label, logdir in zip(labels, logdirs, strict=True)}
    groups: dict[tuple, list[Run]] = {}
    for number, (label, logdir) in enumerate(zip(labels, logdirs, strict=True)):
        run = read_run(number, label, logdir, options[label])
        groups.setdefault(group_key(run, options[label]), []).append(run)
    return [make_group(key, runs, options, most) for key, runs in groups.items()]


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="One HTML page on runs: their numbers, curves, pictures and options.")
    parser.add_argument("logdir", nargs="+", type=Path, help="folder of a run (basedir/expname)")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--views", type=COUNT, default=MOST_VIEWS, help="at most so many test views of a scene")
    return parser.parse_args(argv)


def check_output(output: Path) -> None:
    """Raise InputError where the page cannot be written, before anything is read."""
    if output.is_dir():
        raise InputError(f"--output {output}: found a folder, expected the name of a file to write")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: found no folder {output.parent}, expected it to exist")
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"--output {output}: cannot write to {output.parent}, expected a writable folder")


def run(argv: list[str]) -> int:
    given = parse_arguments(argv)
    check_output(given.output)
    groups = read_groups(given.logdir, given.views)
    page = make_page(groups, VERSION, MOST_POINTS).encode(errors="replace")
    with atomic_file(given.output) as file:
        file.write(page)
    shown = sum(len(group.views) for group in groups)
    runs = f"{len(given.logdir)} run{'s' * (len(given.logdir) > 1)}"
    say(f"{given.output.resolve()}: {runs}, {shown} test views, {len(page) / 1e6:.1f} MB; open it in a browser")
    return 0


def main(argv: list[str] | None = None) -> int:
    return exit_status("report.py", lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
