"""A capture: photographs with cameras and what else their files know, as the readers of its formats give it; and its
photographs as images of pinhole cameras, made smaller.

Places in images are cols and rows in pixels, (0, 0) being the outer corner of the first pixel. Axes: n points or
pixels.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from infonerf.scene.distortion import Lens, pinhole_of, undistorted
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.photographs import composited, decoded, image_size, read_depth, read_pixels
from infonerf.scene.poses import normalised
from infonerf.system.errors import InputError


class View(NamedTuple):
    """A photograph. name: its path in the capture. pose: 3 4, OpenGL, in the files' world. lens: of the file's size.

    pixels, points: n 2 and n, where sparse points are seen in it, and which ones; None where that is not known."""

    name: str
    image: Path
    pose: np.ndarray
    lens: Lens
    mask: Path | None = None
    depth: Path | None = None
    depth_scale: float = 0.001  # of a step of the depth image's values, in the files' world
    pixels: np.ndarray | None = None
    points: np.ndarray | None = None


@dataclass(frozen=True)
class Capture:
    """What the files say. source: the file or folder to name in errors. points: n 3 sparse ones, may be none.
    errors: n, of their reprojection, in pixels. splits: the names of views for train, val and test, where the files
    have such lists."""

    source: Path
    views: tuple[View, ...]
    points: np.ndarray
    errors: np.ndarray | None = None
    splits: dict[str, set[str]] | None = None
    notes: tuple[str, ...] = ()


def view_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names for views from the paths of their photographs: without the folders that all have in common, and without
    ending, unless two would then be the same."""
    parts = [PurePosixPath(path).parts for path in paths]
    common = 0
    while all(len(part) > common + 1 and part[common] == parts[0][common] for part in parts):
        common += 1
    full = ["/".join(part[common:]) for part in parts]
    short = [re.sub(r"\.\w+$", "", name) for name in full]
    return tuple(short if len(set(short)) == len(short) else full)


def existing(source: Path, views: Sequence[View]) -> tuple[list[View], list[str]]:
    """The views whose photograph is there, and a note on the others. Raises InputError where none is."""
    there = [view for view in views if os.path.isfile(view.image)]
    missing = [view.name for view in views if not os.path.isfile(view.image)]
    if not there:
        first = f", such as {missing[0]}" if missing else ""
        raise InputError(f"{source}: found {len(views)} views, none with a photograph{first}; expected their files")
    if not missing:
        return there, []
    named = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return there, [f"{len(missing)} of {len(views)} views have no image file and are left out: {named}"]


def fitted(view: View) -> tuple[View, bool]:
    """The view with the lens of its file's size, which may be another one by a factor; and whether it was one.

    Raises InputError where the file has another shape."""
    height, width = image_size(view.image)
    lens = view.lens
    if (lens.height, lens.width) == (height, width):
        return view, False
    if abs(width * lens.height - height * lens.width) > max(lens.width, lens.height):
        turned = "; the photograph was turned after its camera was found" if width == lens.height else ""
        raise InputError(f"{view.image}: the image is {width} x {height}, expected the shape of {lens.width} x "
                         f"{lens.height}, as its camera has it{turned}")
    pixels = None if view.pixels is None else view.pixels * [width / lens.width, height / lens.height]
    return view._replace(lens=lens.resized(width, height), pixels=pixels), True


def of_larger_images(view: View, factor: float) -> View:
    """The view whose intrinsics and places are of an image `factor` times as large."""
    lens = view.lens
    lens = replace(lens, fx=lens.fx / factor, fy=lens.fy / factor, cx=lens.cx / factor, cy=lens.cy / factor)
    return view._replace(lens=lens, pixels=None if view.pixels is None else view.pixels / factor)


def fit_to_files(capture: Capture, image_scale: float = 1.0) -> Capture:
    """The capture whose lenses are those of the files; `image_scale`: the option. Raises InputError for a file of
    another shape, or a lens that cannot be undistorted."""
    pairs = [fitted(of_larger_images(view, image_scale)) for view in capture.views]
    views, notes = tuple(view for view, _ in pairs), list(capture.notes)
    for view in views:
        if pinhole_of(view.lens) is None:
            raise InputError(f"{capture.source}: the camera of {view.name} has a distortion that folds its image over "
                             f"itself, {view.lens}, expected coefficients of its model")
    if n := sum(changed for _, changed in pairs):
        first = next(view for view, changed in pairs if changed)
        notes.append(f"{n} photographs have another size than their cameras (such as {first.name}, {first.lens.width} "
                     f"x {first.lens.height}); intrinsics are scaled to it")
    if n := sum(not view.lens.is_pinhole for view in views):
        notes.append(f"{n} photographs are undistorted")
    return replace(capture, views=views, notes=tuple(notes))


class CapturePhotographs:
    """The photographs of views: undistorted, the longer side reduced to at most `longest_side` by averaging areas (0:
    as they are), then halved where `half`. `white`, `drop_alpha`: what becomes of transparent pixels (`composited`).

    lenses: the pinhole cameras of what they become.
    """

    def __init__(self, views: Sequence[View], longest_side: int, half: bool, white: bool, drop_alpha: bool = False):
        self.views, self.white, self.drop_alpha = views, white, drop_alpha
        self.lenses = [smaller(pinhole_of(view.lens), longest_side, half) for view in views]
        self.pixels = lru_cache(maxsize=16)(self.read)

    def read(self, view: int) -> np.ndarray:
        lens = self.views[view].lens
        pixels = read_pixels(self.views[view].image, (lens.height, lens.width))
        has_alpha = pixels.shape[-1] == 4
        if has_alpha:  # what a transparent pixel hides has no part in its neighbours
            pixels = np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)
        pixels = self.resampled(view, pixels)
        if has_alpha:
            pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
        return pixels.clip(0, 1)

    def resampled(self, view: int, pixels: np.ndarray) -> np.ndarray:
        lens, (height, width) = self.views[view].lens, self.size(view)
        pixels = undistorted(lens, pixels)
        if pixels.shape[:2] == (height, width):
            return np.array(pixels)
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    def size(self, view: int) -> tuple[int, int]:
        """Height and width."""
        return self.lenses[view].height, self.lenses[view].width

    def image(self, view: int) -> np.ndarray:
        """Colour, h w 3 float32 in 0..1."""
        return composited(self.pixels(view), self.white, self.drop_alpha)

    def alpha(self, view: int) -> np.ndarray:
        """Opacity, h w float32 in 0..1; that of a photograph without alpha is 1."""
        pixels = self.pixels(view)
        return pixels[..., 3] if pixels.shape[-1] == 4 else np.ones(pixels.shape[:2], np.float32)

    def mask(self, view: int) -> np.ndarray:
        """h w bool: where the view's mask is not black."""
        lens, path = self.views[view].lens, self.views[view].mask
        grey = read_pixels(path, (lens.height, lens.width))[..., :3].mean(-1)
        return self.resampled(view, (grey > 0.5 * grey.max()).astype(np.float32)) >= 0.5


def smaller(lens: Lens, longest_side: int, half: bool) -> Lens:
    """The lens of the image whose longer side has at most `longest_side` pixels (0: any number), then halved."""
    width, height = lens.width, lens.height
    if longest_side and max(width, height) > longest_side:
        factor = longest_side / max(width, height)
        width, height = max(round(width * factor), 1), max(round(height * factor), 1)
    if half:
        if min(height, width) < 2:
            raise InputError(f"--half_res: the images are {width} x {height}, expected at least 2 x 2")
        width, height = width // 2, height // 2
    return lens.resized(width, height)


# Depths that are known.


def z_depths(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """n: how far in front of a camera points (n 3) are, along its axis. (A scaled rotation is mended later.)"""
    return -(points - pose[:, 3]) @ normalised(pose[:, 2])


def seen_depths(capture: Capture) -> list[np.ndarray] | None:
    """For each view, the z-depths of the points that it sees, in the files' world: those that its tracks name, else all
    that lie in front of it within its frame. None where no view sees any."""
    if not len(capture.points):
        return None
    depths = []
    for view in capture.views:
        if view.points is not None:
            found = z_depths(view.pose, capture.points[view.points])
        else:
            places = (capture.points - view.pose[:, 3]) @ view.pose[:, :3] * [1, -1, -1]
            pinhole = pinhole_of(view.lens)
            with np.errstate(all="ignore"):
                pixels = pinhole.project(places[:, :2] / places[:, 2:])
            inside = ((pixels >= 0) & (pixels <= [pinhole.width, pinhole.height])).all(1)
            found = z_depths(view.pose, capture.points[inside])
        depths.append(found[found > 0])
    return depths if any(len(found) for found in depths) else None


def moved(view: View, lens: Lens, pixels: np.ndarray) -> np.ndarray:
    """n 2: where what a file shows at `pixels` is in the image of `lens`, its undistorted and smaller one; NaN outside
    it."""
    found = lens.project(view.lens.unproject(pixels))
    inside = ((found > 0) & (found < [lens.width, lens.height])).all(1)
    return np.where(inside[:, None], found, np.nan)


def depths_of_points(
    capture: Capture, lenses: Sequence[Lens], train: Sequence[int], scale: float
) -> KnownDepths | None:
    """Those of the training views' sparse points, where tracks say which ones they see; a point of reprojection error e
    weighs exp(-(e / mean e)^2). scale: of the scene's world. None where no track does."""
    if capture.errors is None:
        return None
    errors = np.where(np.isfinite(capture.errors) & (capture.errors > 0), capture.errors, 0.0)
    mean = errors.mean() if len(errors) and errors.any() else 1.0
    parts = []
    for number in train:
        view = capture.views[number]
        places = moved(view, lenses[number], view.pixels)
        depths = scale * z_depths(view.pose, capture.points[view.points])
        weights = np.exp(-np.minimum((errors[view.points] / mean) ** 2, 50))
        parts.append((number, places, depths, weights))
    return known(parts)


def depths_of_files(
    capture: Capture, lenses: Sequence[Lens], train: Sequence[int], scale: float
) -> KnownDepths | None:
    """Those of every pixel of the training views' depth images at which there is one. None where there are no such
    images."""
    parts = []
    for number in train:
        view = capture.views[number]
        if view.depth is None:
            continue
        height, width = decoded(view.depth).size[::-1]
        depths = read_depth(view.depth, (height, width), view.depth_scale * scale)
        rows, cols = np.nonzero(depths > 0)
        pixels = np.stack([(cols + 0.5) * view.lens.width / width, (rows + 0.5) * view.lens.height / height], axis=1)
        places = moved(view, lenses[number], pixels)
        parts.append((number, places, depths[rows, cols].astype(float), np.ones(len(rows))))
    return known(parts)


def known(parts: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> KnownDepths | None:
    """Those of all views, from a view's number, places (n 2), depths and weights each; None where there is nothing."""
    if not parts:
        return None
    views = np.concatenate([np.full(len(depths), number) for number, _, depths, _ in parts])
    places, depths, weights = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    good = np.isfinite(places).all(1) & np.isfinite(depths) & (depths > 0)
    if not good.any():
        return None
    weights = weights[good] / weights[good].mean()
    return KnownDepths(views[good], places[good, 0], places[good, 1], depths[good], weights)
