"""Photographs or a video -> the folder of a scene, whole or not at all."""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from infonerf.capture.dataset import Model, write_dataset
from infonerf.capture.photographs import HEIF, Photograph, find_photographs, names, prepare
from infonerf.capture.picture import draw
from infonerf.capture.reconstruct import (
    ATTEMPTS,
    FEW,
    GUESSED_FOCAL,
    HELP,
    MOST_EXHAUSTIVE,
    Job,
    Outcome,
    reconstruct,
    require_pycolmap,
)
from infonerf.capture.videos import write_frames
from infonerf.scene.photographs import ENDINGS
from infonerf.system.errors import InputError
from infonerf.system.files import flush_files, flush_folder
from infonerf.system.logs import progress_bar, say
from infonerf.version import VERSION

HIDDEN = ".make_scene."  # begins the name of what a run that was killed leaves
LARGE_CHANGE = 0.3  # of an image's sides by undistorting it, above which the distortion is doubtful
SMALL_ANGLE = 2.0  # degrees between two rays to a point, under which its depth is hardly known
LARGE_ERROR = 1.5  # pixels, above which cameras are doubtful


@dataclass(frozen=True)
class Request:
    """source: a folder of photographs, or a video. output: the folder to make. frames: of a video. fov (degrees, along
    the longer side) or focal (pixels) of all the photographs, instead of what their EXIF says."""

    source: Path
    output: Path
    frames: int = 40
    fov: float | None = None
    focal: float | None = None


def make_scene(request: Request) -> None:
    """Make the scene's folder, and say what was found. Raises InputError where that cannot be done."""
    started = time.monotonic()
    is_video = check_source(request.source)
    check_output(request.output)
    with new_folder(request.output) as (folder, work):
        images = work / "images"
        images.mkdir()
        paths = video_frames(request, work) if is_video else find_photographs(request.source)
        photographs = with_focal(read(paths, images), request)
        say_focal(photographs, request)
        outcome = reconstruct(Job(images, work, photographs, is_video and len(photographs) > MOST_EXHAUSTIVE))
        with progress_bar(desc="images", total=outcome.models[0], leave=False) as bar:
            model = write_dataset(work / "model", photographs, folder, bar.update)
        record = record_of(request, photographs, outcome, model) | {"seconds": round(time.monotonic() - started, 1)}
        (folder / "make_scene.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        registered = f"{len(model.names)} of {len(photographs)} photographs"
        title = f"{registered}, {len(model.points)} points, {model.error:.2f} px"
        (folder / "cameras.png").write_bytes(cv2.imencode(".png", draw(model, title))[1].tobytes())
    report(photographs, outcome, model, request.output)


# Before and after COLMAP.


def check_source(source: Path) -> bool:
    """Whether it is a video: what is no folder is taken for one."""
    if source.is_dir():
        return False
    if not source.is_file():
        raise InputError(f"{source}: found nothing there, expected a folder of photographs or a video")
    if source.suffix.lower() in ENDINGS + HEIF:
        raise InputError(f"{source}: found one photograph, expected a folder of two or more, or a video")
    return True


def check_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output}: found something there, expected a new folder; nothing is overwritten")


@contextmanager
def new_folder(path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder that becomes `path` at the end of the block, and one for COLMAP's own files. Both are in a hidden one
    beside `path`, on whose disk there may be more room than on the system's, and which goes away however the block
    ends, unless the process is killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = tempfile.TemporaryDirectory(dir=path.parent, prefix=HIDDEN, ignore_cleanup_errors=True)
    except OSError as error:
        reason = f"cannot write to {path.parent} ({error.strerror}), expected a writable folder"
        raise InputError(f"--output {path}: {reason}") from error
    with hidden as name:
        folder, work = Path(name, "scene"), Path(name, "work")
        folder.mkdir()
        work.mkdir()
        try:
            yield folder, work
            flush_files(folder)
            if path.exists():
                path.rmdir()  # an empty one; any other is not removed
            folder.rename(path)
        except OSError as error:  # a full disk does not name the file
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    flush_folder(path.parent)


def video_frames(request: Request, work: Path) -> list[Path]:
    folder = work / "frames"
    folder.mkdir()
    with progress_bar(desc="frames", unit="frame", leave=False) as bar:
        paths = write_frames(request.source, request.frames, folder, bar.update)
        say(f"{request.source}: {bar.n} frames, of which the sharpest of {len(paths)} equal stretches are taken")
    return paths


def read(paths: Sequence[Path], images: Path) -> list[Photograph]:
    with progress_bar(desc="photographs", total=len(paths), leave=False) as bar:
        photographs = prepare(paths, images, bar.update)
    if len(photographs) < 2:
        found = f"found {len(photographs)} photograph{'s' * (len(photographs) != 1)} that can be read"
        raise InputError(f"{paths[0].parent}: {found}, expected 2 or more")
    return photographs


def with_focal(photographs: Sequence[Photograph], request: Request) -> list[Photograph]:
    """The photographs with the focal length that the user says, if any."""
    if request.focal:
        return [replace(photograph, focal=request.focal) for photograph in photographs]
    if request.fov:
        factor = 0.5 / np.tan(np.radians(request.fov) / 2)
        return [replace(item, focal=float(factor * max(item.width, item.height))) for item in photographs]
    return list(photographs)


def say_focal(photographs: Sequence[Photograph], request: Request) -> None:
    known = [photograph.focal for photograph in photographs if photograph.focal]
    few = len(photographs) <= FEW
    whence = "the command line" if request.focal or request.fov else "the EXIF"
    if known:
        low, high = min(known), max(known)
        values = f"{low:.0f}" + (f" to {high:.0f}" if round(high) > round(low) else "")
        say(f"focal length: {values} px from {whence}, " + ("kept, with so few photographs" if few else "refined"))
    if len(known) < len(photographs):
        doubt = "; so few tell it to 10 % or so: --fov or --focal, if you know it" if few else ""
        say(f"focal length: not in the EXIF of {len(photographs) - len(known)} photographs, estimated from a guess of "
            f"{GUESSED_FOCAL:g} x the longer side{doubt}")  # fmt: skip


def record_of(request: Request, photographs: Sequence[Photograph], outcome: Outcome, model: Model) -> dict:
    """What make_scene.json says."""
    registered = set(model.names)
    return {
        "source": str(request.source),
        "photographs": [photograph.name for photograph in photographs],
        "registered": list(model.names),
        "not_registered": [item.name for item in photographs if item.name not in registered],
        "attempt": outcome.attempt,
        "photographs_of_models": outcome.models,
        "points": len(model.points),
        "reprojection_error_px": round(model.error, 3),
        "median_angle_degrees": round(model.angle, 2),
        "field_of_view_degrees": {name: [round(float(angle), 2) for angle in pair]
                                  for name, pair in zip(model.names, model.fields_of_view, strict=True)},
        "versions": {"make_scene": VERSION, "pycolmap": require_pycolmap(), "opencv": cv2.__version__},
    }  # fmt: skip


def report(photographs: Sequence[Photograph], outcome: Outcome, model: Model, output: Path) -> None:
    """Say what was found, and what is doubtful about it."""
    missing = [photograph.name for photograph in photographs if photograph.name not in set(model.names)]
    say(f"{output}: {len(model.names)} of {len(photographs)} photographs registered ({outcome.attempt})")
    if missing:
        say(f"not registered, and left out: {names(missing, 50)}")
    if len(outcome.models) > 1:
        others = ", ".join(map(str, outcome.models[1:]))
        say(f"the photographs fell into {len(outcome.models)} scenes that are not connected; this is the largest, the "
            f"others have {others}")  # fmt: skip
    fields = sorted({(round(float(x), 1), round(float(y), 1)) for x, y in model.fields_of_view})
    say(f"reprojection error {model.error:.2f} px; {len(model.points)} points, seen under {model.angle:.1f} degrees; "
        f"field of view {', '.join(f'{x} x {y}' for x, y in fields)} degrees")  # fmt: skip
    sizes = {photograph.name: (photograph.height, photograph.width) for photograph in photographs}
    change = np.abs(np.log(model.sizes / np.array([sizes[name] for name in model.names]))).max()
    if change > LARGE_CHANGE:
        say(f"NOTE: undistorting changes the images' size by {change:.0%}: the distortion is doubtful; {HELP}")
    if model.folded:
        say(f"NOTE: undistorting folds {names(model.folded)}: the distortion that was found is wrong; {HELP}")
    if outcome.attempt == ATTEMPTS[-1].name:
        say("NOTE: found only with the lowest thresholds; some cameras may be wrong")
    if model.error > LARGE_ERROR:
        say(f"NOTE: the reprojection error is large: look at cameras.png; {HELP}")
    if model.angle < SMALL_ANGLE:
        say("NOTE: the photographs are taken from nearly one place, which hardly tells depth: walk around the object")
    say(f"look at {output / 'cameras.png'}: are the cameras where you stood?")
