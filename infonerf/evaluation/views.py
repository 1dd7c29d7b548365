"""Render views, write them as images, and measure them into a Record."""

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from infonerf.evaluation.metrics import METRICS, Comparison, metrics_of
from infonerf.evaluation.perceptual import Lpips, lpips_if_there
from infonerf.evaluation.record import Record
from infonerf.fields.field import CoarseFine
from infonerf.rendering.pictures import images, write_images
from infonerf.rendering.renderer import Image, Renderer
from infonerf.scene.photographs import nearest
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError
from infonerf.system.files import free_path
from infonerf.system.interrupt import Interrupt
from infonerf.system.logs import progress_bar, say
from infonerf.system.ranks import Ranks

Looked = TypeVar("Looked")
Metrics = dict[str, float | None]


def evaluate_views(
    renderer: Renderer, scene: Scene, views: Sequence[int], folder: Path, *, step: int, kind: str, options: dict,
    factor: int = 1, interrupt: Interrupt | None = None, lpips: Lpips | None = None,
) -> tuple[Record, int]:
    """Render views at 1/factor of their size, measure them, and write images and metrics.json to `folder`. A view whose
    files cannot be read is rendered, and named in the record, as are those without photographs.

    Where a record of the same pictures is there, its views are not rendered again, so that an evaluation that was
    stopped goes on; a record of other pictures (of another testskip, say) is kept as metrics_1.json. Of several ranks
    (those of `interrupt`) all render, and the first measures and writes, as the others may be on another machine.
    lpips: by default that of VGG, where it is there. Returns the record, and how many views were rendered.
    """
    interrupt = interrupt or Interrupt()
    lpips, lpips_missing = (lpips, None) if lpips else lpips_if_there()
    ranks, device = interrupt.ranks, renderer.networks.device
    cameras = scene.cameras.at(views).to(device).scaled(factor)
    height, width = cameras.sizes[0]
    wanted = Record(
        step=step,
        kind=kind,
        options=options,
        scene=scene.name,
        render_size=(width, height),
        weights=checksum_of(renderer.networks),
        depth_png={"0": scene.near, "65535": scene.far, "empty": "far"},
        true_depth=scene.photographs.depth is not None,  # a record from before there were metrics of it is begun anew
        device=str(device),
        lpips_net=lpips.net if lpips else None,
    )
    path = folder / "metrics.json"
    record = ranks.of_first(lambda: begun_record(folder, wanted))
    record.lpips_missing = lpips_missing
    if lpips:
        lpips.to(device)
    for name in {*record.unmeasured} - {scene.view_names[view] for view in scene.split.unmeasured}:
        del record.unmeasured[name]  # its file may have been mended
    todo = [i for i, view in enumerate(views) if scene.view_names[view] not in record.all_views]
    record.views_missing = len(todo)
    if not todo:  # one that was damaged, or of views that are no longer asked for
        ranks.of_first(lambda: record.write(path))
    n_rays = sum(h * w for h, w in (cameras.sizes[i] for i in todo))
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, desc="rendering", leave=False) as bar:
        start, seconds, taken = time.perf_counter(), record.seconds, {}

        def look(view: int, image: Image) -> Metrics | str:
            name = scene.view_names[view]
            write_images(folder, image_stem(name), image, scene.near, scene.far)
            found = measured_or_why_not(image, scene, view, factor, lpips)
            note_view(record, name, found)
            record.seconds = seconds + time.perf_counter() - start
            if ranks.size == 1:
                record.timing[name] = (image.acc.numel(), taken[view])
            record.views_missing -= 1
            record.write(path)
            return found

        pictures = images(renderer, cameras.at(todo), interrupt, bar.update)
        rendered = timed([views[i] for i in todo], pictures, taken)
        for view, found in looked_at(rendered, look, ranks, beside=device.type == "cuda"):
            name = scene.view_names[view]
            note_view(record, name, found)  # of another rank
            say(f"{name}: " + (f"not measured: {found}" if isinstance(found, str) else shown(found)))
    record.views_missing = 0
    return record, len(todo)


def timed(views: Sequence[int], pictures: Iterator[Image], taken: dict[int, float]) -> Iterator[tuple[int, Image]]:
    """Each view with its picture; `taken` then has the seconds that it took."""
    start = time.perf_counter()
    for view, image in zip(views, pictures, strict=True):
        image.acc[-1, -1].item()  # waits for the device
        taken[view] = time.perf_counter() - start
        yield view, image
        start = time.perf_counter()


def note_view(record: Record, name: str, found: Metrics | str) -> None:
    if isinstance(found, str):
        record.unmeasured[name] = found
    else:
        record.unmeasured.pop(name, None)
        record.views[name] = found


def shown(metrics: Metrics) -> str:
    return "  ".join(f"{name} {METRICS[name].shown(value)}" for name, value in metrics.items() if name in METRICS)


def looked_at(
    rendered: Iterable[tuple[int, Image]], look: Callable[[int, Image], Looked], ranks: Ranks, beside: bool
) -> Iterator[tuple[int, Looked]]:
    """Each view with what the first rank says of it. beside: a single process looks at a view in a thread of its own,
    while a GPU renders the next one."""
    if ranks.size > 1 or not beside:
        for view, image in rendered:
            yield view, ranks.of_first(partial(look, view, image))
        return
    with ThreadPoolExecutor(1) as thread:
        earlier = None
        for view, image in rendered:
            if earlier:
                yield earlier[0], earlier[1].result()
            earlier = view, thread.submit(look, view, Image(*(part.cpu() for part in image)))
        if earlier:
            yield earlier[0], earlier[1].result()


def image_stem(view_name: str) -> str:
    """The name of a view's image files, without ending."""
    return view_name.replace("/", "_")


def measured_or_why_not(
    rendered: Image, scene: Scene, view: int, factor: int, lpips: Lpips | None
) -> Metrics | str:
    if view in scene.split.unmeasured:
        return "it has no photograph"
    try:
        return measure_view(rendered, scene, view, factor, lpips)
    except InputError as error:
        return str(error)


def measure_view(rendered: Image, scene: Scene, view: int, factor: int, lpips: Lpips | None) -> Metrics:
    """Metrics of a rendering against the photograph, its mask and its true depth, where it has such, reduced likewise.

    None for what cannot be computed."""
    photographs, mask, true_depth = scene.photographs, None, None
    if photographs.mask:
        mask = reduced(photographs.mask(view).astype(np.float32), factor) >= 0.5
    depth, acc = rendered.depth.cpu().numpy(), rendered.acc.cpu().numpy()
    if photographs.depth and (full := photographs.depth(view)) is not None:
        true_depth = nearest(full, *depth.shape, scene.cameras.pixel_center)
    compared = Comparison(
        rgb=rendered.rgb.cpu().numpy(),
        truth=reduced(photographs.image(view), factor),
        depth=depth,
        acc=acc,
        near=scene.near,
        far=scene.far,
        mask=mask,
        true_depth=true_depth,
        lpips=lpips,
    )
    known = {"lpips"} | ({"mask"} if photographs.mask else set()) | ({"true_depth"} if photographs.depth else set())
    return metrics_of(compared, known)


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink by averaging areas."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = (max(width // factor, 1), max(height // factor, 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def checksum_of(networks: CoarseFine) -> str:
    """Of the weights: a record of other weights of the same step is no record of these."""
    crc = 0
    for parameter in networks.parameters():
        crc = zlib.crc32(parameter.detach().cpu().numpy().tobytes(), crc)
    return f"{crc:08x}"


def begun_record(folder: Path, wanted: Record) -> Record:
    """The record to add to: the earlier one, else a new one, for which one of other pictures makes room."""
    record = earlier_record(folder, wanted)
    if record is None:
        keep_aside(folder / "metrics.json")
    return record or wanted


def earlier_record(folder: Path, wanted: Record) -> Record | None:
    """A record of the same pictures, which are there; None where there is none, or it is damaged."""
    try:
        record = Record.read(folder / "metrics.json")
    except InputError:
        return None
    if not pictures_are_there(folder, record) or not record.is_of_the_same(wanted):
        return None
    return replace(record, options=wanted.options, device=wanted.device)


def pictures_are_there(folder: Path, record: Record) -> bool:
    """Of all views that a record names."""
    return all(os.path.isfile(folder / f"{image_stem(name)}.png") for name in record.all_views)


def keep_aside(path: Path) -> None:
    """Give a file that would be overwritten, if there is one, the name with the first number that is free."""
    if path.is_file():
        say(f"the metrics of another evaluation are now in {path.rename(free_path(path))}")
