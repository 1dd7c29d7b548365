"""What the folders of runs hold, for the page of report.py. Images are uint8."""

import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from infonerf.config import SECTION_OF, Config, DataConfig
from infonerf.evaluation.metrics import to_far
from infonerf.evaluation.record import Record
from infonerf.evaluation.views import image_stem
from infonerf.export.files import page_glb, require_packages
from infonerf.export.mesh import inverse_similarity
from infonerf.rendering.pictures import depth_colours, entropy_colours, entropy_picture
from infonerf.rendering.renderer import Renderer
from infonerf.report.events import read_scalars
from infonerf.report.page import Model, Picture, RunRow, RunView, SceneRuns, View
from infonerf.scene.photographs import nearest, read_pixels
from infonerf.scene.scene import Scene
from infonerf.scene.swept_depths import PLANE_SWEEP
from infonerf.system.errors import InputError
from infonerf.system.picture_folders import parse_picture_folder
from infonerf.training import checkpoint

MOST_VIEWS, MOST_POINTS = 25, 120
LONGEST_SIDE, OF_PHOTOGRAPHS, OF_SWEPT = 256, 360, 900  # of maps, of photographs and renderings, of swept depths
QUALITY, LOSSLESS = 85, 101  # qualities of WebP, as OpenCV counts
LARGEST_EXACT = 40_000
ERROR_RANGE = 0.5  # the mean absolute difference of the colours that is brightest in the error map


@dataclass(frozen=True)
class Source:
    """A run to report on: its folder, its options, what its losses beside colour are called, what loads its scene, and
    what opens its checkpoint of a step (None: the newest)."""

    logdir: Path
    config: Config
    regularizers: list[str]
    load_scene: Callable[[], Scene]
    open_run: Callable[[int | None], tuple[Renderer, Scene]]


# What a run's folder holds.


def step_folders(logdir: Path, kinds: Sequence[str], needed: Sequence[str]) -> list[Path]:
    """The folders KIND_STEP or, after them, KIND_STEP_factorN that have any of the needed files, the newest
    step first."""
    found = []
    for folder in logdir.iterdir():
        parsed = parse_picture_folder(folder.name)
        if parsed and parsed.kind in kinds and any((folder / name).is_file() for name in needed):
            found.append((parsed.step, -parsed.factor, folder))
    return [folder for *_, folder in sorted(found, reverse=True)]


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


def read_swept(logdir: Path) -> Picture | None:
    """The picture of a plane sweep's depths, where there is one."""
    picture = read_image(logdir / f"{PLANE_SWEEP}.jpg")
    return None if picture is None else encoded((picture * 255).round().astype(np.uint8), side=OF_SWEPT)


def labels_of(logdirs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, of equal length, that tell them apart."""
    parts = [logdir.resolve().parts for logdir in logdirs]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(logdir for i, logdir in enumerate(logdirs) if parts[i] in parts[:i])
    raise InputError(f"{twice}: this run is named twice, expected every run once")


def options_as_text(config: Config) -> dict[str, str]:
    """The options of a run but those that are in its name already."""
    given = {name: value for name, value in config.values().items() if SECTION_OF[name] != "run" and value is not None}
    return {name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in given.items()}


def read_run(number: int, label: str, source: Source) -> RunRow:
    """Everything of a run but its pictures of test views."""
    logdir = source.logdir
    evaluations = step_folders(logdir, ("testset",), ("metrics.json",))
    record, damage = read_record(evaluations[0]) if evaluations else (None, [])
    scalars, faults = read_scalars(logdir)
    row = RunRow(
        number=number,
        label=label,
        folder=str(logdir),
        losses=" + ".join(["colour", *source.regularizers]),
        options=options_as_text(source.config),
        record=record,
        pictures=evaluations[0] if record else None,
        curves={tag: thinned(points, MOST_POINTS) for tag, points in scalars.items()},
        loops=read_loops(logdir),
        swept=read_swept(logdir),
    )
    row.notes.extend((fault, None) for fault in damage + faults)
    row.notes.extend(evaluation_notes(logdir, record))
    if not row.curves:
        row.notes.append(("no TensorBoard events of losses in its folder, hence no curves", None))
    return row


def read_record(folder: Path) -> tuple[Record | None, list[str]]:
    """The record of an evaluation's folder, or what is wrong with it."""
    try:
        return Record.read(folder / "metrics.json"), []
    except InputError as error:
        return None, [str(error)]


def evaluation_command(folder: str, factor: int = 0) -> str:
    """The command that evaluates a run, or goes on with an evaluation at 1/factor of the size."""
    return f"python evaluate.py {shlex.quote(folder)}" + (f" --render_factor {factor}" if factor > 1 else "")


def evaluation_notes(logdir: Path, record: Record | None) -> list[tuple[str, str | None]]:
    """What is not measured yet, and how to measure it."""
    newest = checkpoint.newest(logdir)
    command = evaluation_command(str(logdir))
    if record is None:
        return [("not evaluated yet; to evaluate it", command)]
    notes = []
    if newest and int(newest.stem) > record.step:
        notes.append((f"its newest checkpoint, step {int(newest.stem)}, is not evaluated yet; to evaluate it", command))
    if record.views_missing:
        again = evaluation_command(str(logdir), int(record.options.get("render_factor") or 0))
        notes.append((f"{record.shown_views()} test views are measured; to go on", again))
    if record.unmeasured:
        named = "; ".join(f"{name}: {why}" for name, why in [*record.unmeasured.items()][:3])
        more = ", ..." if len(record.unmeasured) > 3 else ""
        notes.append((f"{len(record.unmeasured)} views are rendered, not measured ({named}{more})", None))
    if record.lpips_missing and record.mean.get("lpips") is None:
        notes.append((f"no LPIPS: {record.lpips_missing}", None))
    return notes


# What is rendered for the page.

Entropy = Callable[[torch.Tensor], torch.Tensor]


class Rendered:
    """A run, opened at the step that its record is of, where something of it is `wanted`. What cannot be made is a note
    of its row."""

    def __init__(self, row: RunRow, source: Source, entropy_of: Entropy | None, wanted: bool):
        self.notes, self.entropy_of = row.notes, entropy_of
        self.opened: tuple[Renderer, Scene] | None = None
        if wanted:
            try:
                self.opened = source.open_run(row.record.step if row.record else None)
            except InputError as error:
                self.notes.append((f"nothing is rendered for this page: {error}", None))

    def model(self) -> Model | None:
        """Its mesh, seen from the first training camera; upright as these are on average."""
        if self.opened is None:
            return None
        try:
            require_packages()
            glb = page_glb(*self.opened)
        except InputError as error:
            self.notes.append((f"no mesh: {error}", None))
            return None
        scene = self.opened[1]
        poses = inverse_similarity(scene)[:3, :3] @ scene.poses[list(scene.split.train)][:, :, :3]
        return Model(glb, tuple(poses[:, :, 1].mean(0)), tuple(poses[0, :, 2]))

    def entropy(self, name: str) -> Picture | None:
        """That of a view's rays, in colours."""
        if self.opened is None or self.entropy_of is None or name not in self.opened[1].view_names:
            return None
        renderer, scene = self.opened
        view = scene.view_names.index(name)
        camera = scene.cameras.at([view]).scaled(-(-max(scene.size(view)) // LONGEST_SIDE))
        return encoded(entropy_colours(entropy_picture(renderer, camera, self.entropy_of)), exact=True)


# Pictures of test views.


class GroundTruth:
    """The photographs and true depth of a scene's views; `missing` says why where there is none.

    load: makes the scene, or raises InputError.
    """

    def __init__(self, load: Callable[[], Scene]):
        self.scene: Scene | None = None
        self.missing: str | None = None
        self.decoded: dict = {}
        try:
            self.scene = load()
        except InputError as error:
            self.missing = f"no ground truth, no error maps: {error}"

    def image(self, name: str, size: tuple[int, int]) -> np.ndarray | None:
        """A view in 0..1 reduced to `size` (width, height) by averaging areas; None where it is not there."""
        if self.scene is None or name not in self.scene.view_names:
            return None
        view = self.scene.view_names.index(name)
        height, width = self.scene.size(view)
        if size[0] > width or size[1] > height:
            return None
        if (name, size) not in self.decoded:
            try:
                truth = self.scene.photographs.image(view)
            except InputError as error:
                self.missing = f"not all of its ground truth can be read: {error}"
                return None
            self.decoded = {(name, size): cv2.resize(truth, size, interpolation=cv2.INTER_AREA)}  # the newest only
        return self.decoded[name, size]

    def depth(self, name: str, size: tuple[int, int]) -> np.ndarray | None:
        """A view's true depth in the colours of a rendered one, h w 3 uint8; None where it is not there."""
        if self.scene is None or self.scene.photographs.depth is None:
            return None
        try:
            true = self.scene.photographs.depth(self.scene.view_names.index(name))
        except InputError as error:
            self.missing = f"not all of its true depth can be read: {error}"
            return None
        if true is None:
            return None
        near, far = self.scene.near, self.scene.far
        depth = to_far(nearest(true, *reversed(size), self.scene.cameras.pixel_center), far)
        return depth_colours(np.clip((depth - near) / (far - near), 0, 1))


def error_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """h w, the absolute difference of two images h w 3 in 0..1, averaged over the colours."""
    return np.abs(np.asarray(image, float) - np.asarray(truth, float)).mean(-1)


def error_colours(error: np.ndarray) -> np.ndarray:
    """h w -> h w 3 uint8; no error is dark, ERROR_RANGE and more is bright."""
    fraction = np.clip(error / ERROR_RANGE, 0, 1)
    return cv2.applyColorMap(np.round(fraction * 255).astype(np.uint8), cv2.COLORMAP_CIVIDIS)[..., ::-1]


def as_uint8(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def encoded(image: np.ndarray, exact: bool = False, side: int = LONGEST_SIDE) -> Picture:
    """h w 3 uint8, shrunk to `side` pixels across, as WebP, or as PNG where that is smaller. `exact` keeps every
    pixel, up to LARGEST_EXACT bytes: the colours of a map stand for numbers, and most compress well."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
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


def read_view(
    row: RunRow, name: str, rgb: np.ndarray | None, truth: np.ndarray | None, entropy: Picture | None
) -> RunView:
    """A run's pictures of a view, and its metrics. rgb: the rendering, h w 3; truth: the photograph at its size."""
    depth = read_image(row.pictures / f"{image_stem(name)}_depth_color.png")
    error = None
    if rgb is not None and truth is not None:
        error = encoded(error_colours(error_map(rgb, truth)), exact=True)
    return RunView(
        metrics=row.record.views.get(name, {}),
        rgb=None if rgb is None else encoded(as_uint8(rgb), side=OF_PHOTOGRAPHS),
        depth=None if depth is None else encoded(as_uint8(depth), exact=True),
        error=error,
        entropy=entropy,
    )


def truth_pictures(truth: GroundTruth, name: str, size: tuple[int, int]) -> dict[str, Picture]:
    """The photograph of a view and, where there is one, its true depth; empty without a photograph."""
    photograph, depth = truth.image(name, size), truth.depth(name, size)
    if photograph is None:
        return {}
    pictures = {"ground truth": encoded(as_uint8(photograph), side=OF_PHOTOGRAPHS)}
    if depth is not None:
        pictures["true depth"] = encoded(depth, exact=True)
    return pictures


def chosen(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spread."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / max(most - 1, 1))] for i in range(most)]


def read_views(
    rows: Sequence[RunRow], truths: dict[str, GroundTruth], rendered: dict[str, Rendered], most: int
) -> tuple[list[View], int]:
    """The views to show of a scene's runs, and how many views there are."""
    evaluated = [row for row in rows if row.record]
    names = list(dict.fromkeys(name for row in evaluated for name in row.record.all_views))
    views = []
    for name in chosen(names, most):
        found, pictures = {}, {}
        for row in evaluated:
            if name in row.record.all_views:
                rgb = read_image(row.pictures / f"{image_stem(name)}.png")
                size = row.record.render_size if rgb is None else (rgb.shape[1], rgb.shape[0])
                pictures = pictures or truth_pictures(truths[row.label], name, size)
                truth, entropy = truths[row.label].image(name, size), rendered[row.label].entropy(name)
                found[row.label] = read_view(row, name, rgb, truth, entropy)
        views.append(View(name, pictures, found))
    return views, len(names)


# The runs of each scene.


def scene_key(row: RunRow, data: DataConfig) -> tuple:
    """Runs of equal key are compared: they have the same ground truth."""
    scene = row.record.scene if row.record else Path(data.datadir).resolve().name
    return scene, data.dataset_type, data.white_bkgd, data.drop_alpha


def read_scene(
    key: tuple, rows: list[RunRow], sources: dict[str, Source], rendered: dict[str, Rendered], most: int
) -> SceneRuns:
    """A scene's runs and their pictures. Runs of the same photographs share what they decode."""
    known: list[tuple[DataConfig, GroundTruth]] = []
    truths = {}
    for row in rows:
        data = sources[row.label].config.data
        found = next((truth for other, truth in known if other == data), None)
        if found is None:
            found = GroundTruth(sources[row.label].load_scene)
            known.append((data, found))
        truths[row.label] = found
    views, n_views = read_views(rows, truths, rendered, most)
    for row in rows:
        if row.record and truths[row.label].missing:
            row.notes.append((truths[row.label].missing, None))
    records = [row.record for row in rows if row.record]
    return SceneRuns(
        name=key[0],
        facts=facts(key, records, n_views),
        runs=rows,
        views=views,
        n_views=n_views,
        comparable=len({(record.render_size, frozenset(record.views)) for record in records}) <= 1,
        ramps=ramps(),
    )


def facts(key: tuple, records: Sequence[Record], n_views: int) -> str:
    """What a scene's runs have in common, in words."""
    _, kind, white, _ = key
    words = [f"Blender, {'white' if white else 'black'} background" if kind == "blender" else kind.upper()]
    sizes = sorted({record.render_size for record in records})
    if sizes:
        pixels = " and ".join(f"{width} \N{MULTIPLICATION SIGN} {height}" for width, height in sizes)
        words.append(f"{n_views} test views at {pixels}")
    return ", ".join(words)


def ramps() -> dict[str, Picture]:
    """The colours of depth, error and entropy from 0 to 1, as bars."""
    bar = np.linspace(0, 1, 64)[None].repeat(8, axis=0)
    colours = {"depth": depth_colours(bar), "error": error_colours(bar * ERROR_RANGE), "entropy": entropy_colours(bar)}
    return {name: encoded(image, exact=True) for name, image in colours.items()}


def read_scenes(
    sources: Sequence[Source], most: int, mesh: bool = False, entropy: Entropy | None = None
) -> list[SceneRuns]:
    """All runs, by scene. mesh: make theirs. entropy: alphas r s -> bits r, to render that of their test views."""
    labels = labels_of([source.logdir for source in sources])
    by_label = dict(zip(labels, sources, strict=True))
    scenes: dict[tuple, list[RunRow]] = {}
    rendered: dict[str, Rendered] = {}
    for number, (label, source) in enumerate(by_label.items()):
        row = read_run(number, label, source)
        rendered[label] = Rendered(row, source, entropy, wanted=mesh or entropy is not None)
        if mesh:
            row = replace(row, model=rendered[label].model())
        scenes.setdefault(scene_key(row, source.config.data), []).append(row)
    return [read_scene(key, rows, by_label, rendered, most) for key, rows in scenes.items()]
