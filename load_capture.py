"""Captures: photographs with cameras in transforms.json or a COLMAP model -> Scene."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from infonerf.config import DataConfig
from infonerf.scene import normalise
from infonerf.scene.cameras import Cameras
from infonerf.scene.capture import (
    Capture,
    CapturePhotographs,
    depths_of_files,
    depths_of_points,
    fit_to_files,
    seen_depths,
    view_names,
)
from infonerf.scene.checks import require_folder
from infonerf.scene.colmap import model_folder, read_colmap
from infonerf.scene.photographs import copies_note
from infonerf.scene.poses import through_cameras
from infonerf.scene.scene import Photographs, Scene, Split
from infonerf.scene.splits import check_views, choose_views, unseen_pool
from infonerf.scene.transforms import OF_SPLITS, ONE, read_transforms
from infonerf.system.errors import InputError

FEWEST = 5  # photographs of which some are held out


def load_capture(data: DataConfig) -> Scene:
    """Load photographs with cameras (docs/method.md, Captures).

    `train_scene` and `test_scene` number the photographs in the order of their names. Raises InputError where a file or
    option cannot be used.
    """
    if data.maskdir:
        raise InputError("--maskdir: not for captures, whose masks are named in transforms.json")
    folder = require_folder(data.datadir, "datadir")
    capture = read_capture(folder, data.allow_outside)
    capture = replace(capture, views=tuple(sorted(capture.views, key=lambda view: view.name)))
    capture = fit_to_files(capture, data.image_scale)
    views, notes = capture.views, list(capture.notes)
    split, split_notes = split_views(capture, data)
    notes += split_notes

    poses, points, depths = np.stack([view.pose for view in views]), capture.points, seen_depths(capture)
    world = np.eye(4)
    if data.normalize:
        middles = None if depths is None else np.array([np.median(found) if len(found) else np.nan for found in depths])
        world = normalise.similarity(poses, points if depths else points[:0], middles)
        poses, points = normalise.moved_poses(world, poses), normalise.moved_points(world, points)
    scale = normalise.scale_of(world)
    in_world = None if depths is None else [scale * found for found in depths]
    near, far, bounds = normalise.extent(poses, points, in_world)
    if depths is None:
        notes.append(f"no view sees sparse points: near and far, {near:.3g} and {far:.3g}, are guesses from how far "
                     "the cameras are from what they look at")

    files = CapturePhotographs(views, data.longest_side, data.half_res, data.white_bkgd, data.drop_alpha)
    has_alpha = files.pixels(split.train[0]).shape[-1] == 4
    if data.white_bkgd and not has_alpha:
        notes.append(f"{views[split.train[0]].image}: RGB without alpha; such images are taken as opaque")
    if data.pixel_center != 0.5:
        notes.append(f"pixel_center {data.pixel_center:g}: the cameras of captures are of pixel centres, 0.5")
    notes += copies_note([view.image for view in views], poses, split.train, split.test)
    masks = sum(view.mask is not None for view in views)
    if masks and masks < len(views):
        notes.append(f"{masks} of {len(views)} views have a mask: masks are left out, expected one for each view")
    known = depths_of_files if data.depth_prior == "files" else depths_of_points
    return Scene(
        name=folder.resolve().name,
        view_names=view_names([view.name for view in views]),
        cameras=Cameras.of_arrays(poses, np.stack([lens.intrinsics for lens in files.lenses]),
                                  [files.size(view) for view in range(len(views))], near, far, data.pixel_center),
        split=split,
        photographs=Photographs(
            image=files.image,
            alpha=files.alpha if has_alpha else None,
            mask=files.mask if masks == len(views) else None,
        ),
        white_background=data.white_bkgd,
        bounds=bounds if has_alpha else None,  # around an object there is more to see, which may have no points
        path=through_cameras(poses[list(split.train)]),
        known_depths=known(capture, files.lenses, split.train, scale),
        world=world if data.normalize else None,
        notes=tuple(notes),
    )  # fmt: skip


def read_capture(folder: Path, allow_outside: bool) -> Capture:
    if any((folder / name).is_file() for name in (ONE, OF_SPLITS["train"])):
        return read_transforms(folder, allow_outside)
    if model_folder(folder):
        return read_colmap(folder)
    raise InputError(f"--datadir {folder}: found no {ONE}, {OF_SPLITS['train']} nor COLMAP model in sparse/0, expected "
                     "the cameras of the photographs in one of them")


def split_views(capture: Capture, data: DataConfig) -> tuple[Split, list[str]]:
    """By the lists of the files; without these, every `testskip`-th photograph is held out for testing, where there are
    FEWEST. Options go before both."""
    names, notes, n = [view.name for view in capture.views], [], len(capture.views)
    named = () if data.test_scene in (None, [], [-1]) else tuple(data.test_scene)
    check_views(list(named), n, "test_scene")
    if capture.splits:
        candidates, val, held_out = (tuple(i for i in range(n) if names[i] in capture.splits.get(kind, ()))
                                     for kind in ("train", "val", "test"))  # fmt: skip
        held_out = held_out or val
    else:
        held_out = tuple(range(0, n, data.testskip)) if data.testskip and n >= FEWEST and not named else ()
        candidates, val = tuple(view for view in range(n) if view not in held_out), held_out
    candidates = tuple(view for view in candidates if view not in named)
    if not candidates and named:
        raise InputError(f"--test_scene: found all {n} photographs named, expected some to train on")
    if not candidates:
        raise InputError(f"{capture.source}: found no photograph to train on of {n} (testskip {data.testskip}), "
                         "expected at least one")
    places = choose_views(n if data.train_scene else len(candidates), data.train_scene, data.fewshot, data.fewshot_seed,
                          data.fewshot_choice)  # fmt: skip
    train = places if data.train_scene else tuple(candidates[place] for place in places)
    if both := sorted(set(train) & set(named)):
        raise InputError(f"--test_scene: view {both[0]} is also a training view, expected other views")
    others = tuple(view for view in range(n) if view not in train)
    if named:
        test = named
    elif data.test_scene:
        test = others
    else:
        test = tuple(view for view in held_out if view not in train) or (others if data.train_scene else ())
    if test and not capture.splits and not data.test_scene:
        listed = " ".join(f"{view} ({names[view]})" for view in test[:5]) + (" ..." if len(test) > 5 else "")
        notes.append(f"held out for testing: {listed}")
    elif not test:
        notes.append("no photograph is held out for testing")
    val = tuple(view for view in val if view not in train) or test
    return Split(train, val, test, unseen_pool(n, train, test, data.unseen_poses)), notes
