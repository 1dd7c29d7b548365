"""Known depths of a scene from its training photographs alone (plane_sweep.py, trusted_depths.py). They are kept in a
file, as finding them takes about 10 seconds a view. Axes: h w pixels of a photograph, which may be a reduced one.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from infonerf.scene import plane_sweep, trusted_depths
from infonerf.scene.arrays import read_arrays
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.plane_sweep import View, planes_of
from infonerf.scene.scene import Scene
from infonerf.scene.trusted_depths import DepthMap, trusted
from infonerf.system.files import atomic_file
from infonerf.system.logs import progress_bar, say

SOURCES = 4  # photographs that a view is compared with, at most: those seen from the nearest directions
WIDEST = 75.0  # degrees between the directions of two views that are compared
LEAST_SHIFT = 8.0  # pixels between where a source shows the nearest and the farthest: less tells no depth
LONGEST = 512  # pixels of a photograph's longer side: larger ones are reduced
PLANE_SWEEP = "plane_sweep"  # the name of its files
SOURCE_FILES = (__file__, plane_sweep.__file__, trusted_depths.__file__)  # whose text is a part of a file's key
LARGEST_HEADER = 10_000  # bytes, of an array in its files
SHOWN = 6  # views of a picture


def swept_depths(scene: Scene, folder: Path, device: torch.device | str = "cpu") -> KnownDepths | None:
    """What is trusted of the training views' depths; None where that is nothing. Read from `folder`/KEY.npz, where
    the same photographs and cameras were swept before, else found and written there, if that can be.

    Its picture has a row a view: photograph, depth (near is bright), what is trusted of it.
    """
    train, (nearest, farthest) = scene.split.train, inverse_range(scene)
    images = [torch.from_numpy(scene.photographs.image(view)) for view in train]
    views = [view_of(scene, *pair) for pair in zip(train, images, strict=True)]
    path = folder / f"{key_of(views, nearest, farthest)}.npz"
    maps = read_maps(path, views)
    if maps is None:
        maps = [DepthMap(*(part.cpu() for part in one)) for one in sweep_all(views, nearest, farthest, device)]
        write_maps(path, maps)
    known = known_depths(scene, maps)
    return known and replace(known, picture=picture_of(images, maps, nearest, farthest))


def inverse_range(scene: Scene) -> tuple[float, float]:
    """The inverse z-depths between which surfaces are looked for: the nearest's and the farthest's."""
    if scene.cameras.ndc:  # the near plane is z = -1, the far one infinity
        heights = scene.poses[list(scene.split.train), 2, 3]
        return 1 / max(float((heights + 1).min()), 0.1), 0.0
    return 1 / max(scene.near, 0.02 * scene.far), 1 / scene.far


def view_of(scene: Scene, number: int, image: Tensor) -> View:
    """A view of the scene, its image (h w 3) reduced to LONGEST."""
    height, width = image.shape[:2]
    grey = image @ torch.tensor([0.299, 0.587, 0.114])
    if (longest := max(height, width)) > LONGEST:
        size = [max(round(length * LONGEST / longest), 2) for length in (height, width)]
        grey = functional.interpolate(grey[None, None], size=size, mode="area")[0, 0]
    fx, fy, cx, cy = scene.cameras.intrinsics[number].tolist()
    across, down = grey.shape[1] / width, grey.shape[0] / height
    k = torch.tensor([[fx * across, 0, cx * across], [0, fy * down, cy * down], [0, 0, 1]])
    pose = scene.cameras.poses[number]
    rotation = (pose[:, :3] * pose.new_tensor([1, -1, -1])).t()  # x right, y down, z ahead
    return View(grey, k, rotation.float(), (-rotation @ pose[:, 3]).float())


def sources_of(views: Sequence[View], number: int, depths: float) -> list[int]:
    """The views that one is compared with, nearest direction first; not those from the same place, which tell no depth.
    depths: how much inverse depths differ, from the nearest to the farthest."""
    own = views[number]
    if min(own.grey.shape) < 2:
        return []
    ahead = torch.stack([view.rotation[2] for view in views])
    places = torch.stack([-view.rotation.t() @ view.translation for view in views])
    angles = torch.rad2deg(torch.acos((ahead @ ahead[number]).clamp(-1, 1))).tolist()
    shifts = (own.k[0, 0] * depths * (places - places[number]).norm(dim=-1)).tolist()
    others = [i for i in range(len(views)) if angles[i] <= WIDEST and shifts[i] >= LEAST_SHIFT]
    return sorted(others, key=lambda i: angles[i])[:SOURCES]


def sweep_all(views: Sequence[View], nearest: float, farthest: float, device: torch.device | str) -> list[DepthMap]:
    views = [view.to(device) for view in views]
    others = [sources_of(views, i, nearest - farthest) for i in range(len(views))]
    depths, scores, pairs = [], [], list(zip(views, others, strict=True))
    for view, its_others in progress_bar(iterable=pairs, desc="plane sweep", unit="view"):
        if its_others:
            planes, score = planes_of(view, [views[i] for i in its_others], nearest, farthest)
            depths.append(1 / planes.inverse.clamp_min(max(farthest, 1e-4 * nearest)))
        else:
            depths.append(torch.full_like(view.grey, 1 / nearest))
            score = torch.full_like(view.grey, -1)
        scores.append(score)
    return trusted(views, depths, scores, others)


def known_depths(scene: Scene, maps: Sequence[DepthMap]) -> KnownDepths | None:
    columns = []
    for view, (depth, confidence) in zip(scene.split.train, maps, strict=True):
        rows, cols = (axis.numpy() for axis in confidence.nonzero().unbind(-1))
        (height, width), size = depth.shape, scene.size(view)
        at = (cols + 0.5) * size[1] / width, (rows + 0.5) * size[0] / height
        columns.append((np.full(len(rows), view), *at, depth.numpy()[rows, cols].astype(np.float64),
                        confidence.numpy()[rows, cols].astype(np.float64)))  # fmt: skip
    views, cols, rows, depths, weights = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return KnownDepths(views, cols, rows, depths, weights / weights.mean()) if len(views) else None


# Files.


def key_of(views: Sequence[View], nearest: float, farthest: float) -> str:
    """16 hexadecimal digits of all that the depths depend on."""
    content = hashlib.sha256(repr((nearest, farthest, SOURCES, WIDEST, LEAST_SHIFT)).encode())
    for file in SOURCE_FILES:
        content.update(Path(file).read_bytes())
    for view in views:
        for part in (view.grey, view.k, view.rotation, view.translation):
            content.update(repr(tuple(part.shape)).encode() + part.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def read_maps(path: Path, views: Sequence[View]) -> list[DepthMap] | None:
    """None where there are none of these views."""
    names = [[f"{name}_{i}" for name in DepthMap._fields] for i in range(len(views))]
    largest = max(view.grey.numel() for view in views) * 4 + LARGEST_HEADER
    try:
        arrays = read_arrays(path, set().union(*names).__contains__, largest)
        maps = [DepthMap(*(torch.from_numpy(arrays[name]).float() for name in pair)) for pair in names]
    except Exception:  # not there, or damaged, in one of many ways
        return None
    return maps if all(fits(one, view) for one, view in zip(maps, views, strict=True)) else None


def fits(one: DepthMap, view: View) -> bool:
    """Whether these can be a view's depths and what they are trusted."""
    same = all(part.shape == view.grey.shape and bool(part.isfinite().all()) for part in one)
    return same and bool((one.depth > 0).all() and (one.confidence >= 0).all())


def write_maps(path: Path, maps: Sequence[DepthMap]) -> None:
    arrays = {f"{name}_{i}": part.numpy() for i, one in enumerate(maps) for name, part in one._asdict().items()}
    try:
        path.parent.mkdir(exist_ok=True)
        own = path.with_stem(f"{path.stem}.{os.getpid()}")  # other runs may sweep the same photographs
        with atomic_file(own) as file:
            np.savez_compressed(file, **arrays)
        own.replace(path)
    except OSError as error:
        say(f"note      depths of the plane sweep are not kept for other runs: {path}: {error.strerror}")


def write_picture(known: KnownDepths | None, folder: Path) -> None:
    """The picture of a run's swept depths into its folder; where it has none, an earlier run's is removed."""
    path = folder / f"{PLANE_SWEEP}.jpg"
    if known is None or known.picture is None:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as file:
        Image.fromarray(known.picture).save(file, "JPEG", quality=85)


def picture_of(images: Sequence[Tensor], maps: Sequence[DepthMap], nearest: float, farthest: float) -> np.ndarray:
    rows = []
    for image, (depth, confidence) in zip(images[:SHOWN], maps, strict=False):
        height, width = depth.shape
        photograph = functional.interpolate(image.permute(2, 0, 1)[None], size=(height, width), mode="area")[0]
        near = ((1 / depth - farthest) / (nearest - farthest)).clamp(0, 1).expand(3, -1, -1)
        shown = torch.where(confidence > 0, near, torch.tensor([0.4, 0, 0])[:, None, None])
        row = torch.cat([photograph, near, shown], dim=-1)
        rows.append(functional.interpolate(row[None], size=(round(300 * height / width), 900), mode="area")[0])
    return (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
