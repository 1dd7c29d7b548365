"""dataset_type -> loader. The only place that knows all loaders."""

from dataclasses import replace

from infonerf.scene.made_poses import KINDS, make_poses
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError
from load_blender import load_blender
from load_dtu import load_dtu


def load_scene(
    dataset_type: str,
    datadir: str,
    *,
    maskdir: str | None,
    half_res: bool,
    testskip: int,
    white_bkgd: bool,
    train_scene: list[int] | None,
    test_scene: list[int] | None,
    fewshot: int,
    fewshot_seed: int,
    unseen_poses: str,
    dtu_intrinsics: str,
    allow_outside: bool,
    near: float | None,
    far: float | None,
) -> Scene:
    """Load a scene of any supported data set; the options keep their command-line names. `near` and `far` take the
    place of the data set's own where they are not None."""
    common = {
        "half_res": half_res,
        "white_bkgd": white_bkgd,
        "train_scene": train_scene,
        "fewshot": fewshot,
        "fewshot_seed": fewshot_seed,
        "unseen_poses": unseen_poses,
    }
    if dataset_type == "blender":
        if test_scene:
            raise InputError("--test_scene: not for Blender scenes, whose test views come from transforms_test.json")
        if maskdir:
            raise InputError("--maskdir: not for Blender scenes")
        scene = load_blender(datadir, testskip=testskip, allow_outside=allow_outside, **common)
    elif dataset_type == "dtu":
        scene = load_dtu(datadir, maskdir=maskdir, test_scene=test_scene, dtu_intrinsics=dtu_intrinsics, **common)
    else:
        raise InputError(f"--dataset_type {dataset_type}: not supported yet, expected blender or dtu")
    if near is not None or far is not None:
        scene = between(scene, near, far)
    return with_made_poses(scene, unseen_poses) if unseen_poses in KINDS else scene


def between(scene: Scene, near: float | None, far: float | None) -> Scene:
    """The scene seen from z-depth `near` to `far`; None keeps its own."""
    near, far = scene.near if near is None else near, scene.far if far is None else far
    if near >= far:
        raise InputError(f"--near {near:g}: found --far {far:g}, expected near < far (scene {scene.name} has its own "
                         f"{scene.near:g} and {scene.far:g})")
    return replace(scene, near=near, far=far)


def with_made_poses(scene: Scene, kind: str) -> Scene:
    """The scene with an unseen pool of poses that are made from those of its training cameras."""
    return replace(scene, unseen=(), made_poses=make_poses(kind, scene.poses[list(scene.train)]))
