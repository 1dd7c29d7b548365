"""The Scene: what every loader returns and everything else takes, whatever the data set.

Axes: v views, h w pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from infonerf.scene.cameras import Cameras, Pixels
from infonerf.scene.checks import check_view_names, intrinsics_fault, matrix_fault, rotation_fault
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.made_poses import KINDS, make_poses
from infonerf.system.errors import InputError

MARGIN = 0.01  # of the width of a box in NDC, at each end


@dataclass(frozen=True)
class Photographs:
    """What is known of each view's pixels, decoded when it is asked for. None stands for what a scene does not have.

    Each takes the number of a view, and raises InputError where its file cannot be used.
    """

    image: Callable[[int], np.ndarray]  # h w 3 float32 in 0..1, background applied
    alpha: Callable[[int], np.ndarray] | None = None  # h w float32 in 0..1
    mask: Callable[[int], np.ndarray] | None = None  # h w bool, True on the object
    depth: Callable[[int], np.ndarray | None] | None = None  # z-depth, h w float32, 0 = no surface; or None


@dataclass(frozen=True)
class Split:
    """Numbers of views. train: those whose pixels are trained on. unseen: those whose poses, never pixels, may be
    regularised. unmeasured: test views without photographs, which are rendered with the others, but not measured."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    unseen: tuple[int, ...]
    unmeasured: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scene:
    """Posed photographs of one scene. Views are numbered 0..v-1 over all splits, and may differ in size."""

    name: str
    view_names: tuple[str, ...]  # v, unique, e.g. "train/r_0"; results are named after them
    cameras: Cameras  # of all views, float64 on the CPU
    split: Split
    photographs: Photographs
    white_background: bool
    bounds: np.ndarray | None = None  # 2 3: the corners of a box around what there is to see, where it is known
    made_poses: np.ndarray | None = None  # n 3 4: poses of no view, made to be regularised in place of split.unseen
    path: np.ndarray | None = None  # n 3 4, the poses of its video; None: through the training cameras
    known_depths: KnownDepths | None = None  # for a depth prior
    world: np.ndarray | None = None  # 4 4, a similarity: points of the files' world -> of this scene's; None: the same
    notes: tuple[str, ...] = ()  # what a user should be told about this scene

    def __post_init__(self):
        n, cameras = len(self.view_names), self.cameras
        if cameras.poses.shape != (n, 3, 4) or cameras.intrinsics.shape != (n, 4) or len(cameras.sizes) != n:
            shapes = f"poses {tuple(cameras.poses.shape)}, intrinsics {tuple(cameras.intrinsics.shape)}"
            raise ValueError(f"{n} views, but {shapes} and {len(cameras.sizes)} sizes")
        if not self.split.train:
            raise InputError(f"scene {self.name}: found no training views, expected some")
        check_view_names(self.name, self.view_names)
        for name, pose, fxfycxcy in zip(self.view_names, self.poses, cameras.intrinsics.numpy(), strict=True):
            if fault := matrix_fault(pose):
                raise InputError(f"scene {self.name}: the pose of view {name} is {fault}, expected a camera's")
            if fault := intrinsics_fault(fxfycxcy):
                raise InputError(f"scene {self.name}: the intrinsics of view {name} are {fault}")
        if fault := rotation_fault(self.poses):
            raise InputError(f"scene {self.name}: the pose of view {self.view_names[fault[0]]} is {fault[1]}, expected "
                             "a camera's")
        if not 0 <= self.near < self.far:
            raise InputError(f"scene {self.name}: near {self.near}, far {self.far}: expected 0 <= near < far")
        if cameras.ndc and self.far > 1:
            raise InputError(f"--far {self.far:g}: scene {self.name} is in NDC, expected at most 1, which is infinity "
                             "(--no_ndc: depths in the world's units)")

    @property
    def near(self) -> float:
        return self.cameras.near

    @property
    def far(self) -> float:
        return self.cameras.far

    @property
    def poses(self) -> np.ndarray:
        """v 3 4, float64."""
        return self.cameras.poses.numpy()

    def size(self, view: int) -> tuple[int, int]:
        """Height and width of a view."""
        return self.cameras.sizes[view]

    def cameras_at(self, poses: np.ndarray) -> Cameras:
        """Cameras at other poses (n 3 4), like the first training view's in all else."""
        first = self.split.train[0]
        return replace(self.cameras.at([first] * len(poses)), poses=torch.from_numpy(np.array(poses, np.float64)))

    def unseen_cameras(self) -> Cameras:
        """The unseen pool, whose rays may be regularised."""
        return self.cameras.at(self.split.unseen) if self.made_poses is None else self.cameras_at(self.made_poses)


def bounds_of(scene: Scene) -> np.ndarray:
    """2 3: the scene's bounds; where it has none, the box around all that its training cameras see from near to far.
    In NDC where its rays are; there this box is MARGIN wider, as rays end on its face."""
    if scene.bounds is not None:
        return scene.bounds
    train = scene.cameras.at(scene.split.train)
    if train.ndc:
        ends = np.concatenate([ends_of(train, view) for view in range(len(train))])
        low, high = ends.min(0), ends.max(0)
        return np.stack([low - MARGIN * (high - low), high + MARGIN * (high - low)])
    fx, fy, cx, cy = train.intrinsics.numpy().T
    heights, widths = np.array(train.sizes).T
    corners = [
        np.stack([(col - cx) / fx * z, -(row - cy) / fy * z, np.full_like(fx, -z)], axis=-1)
        for col in (0, widths) for row in (0, heights) for z in (scene.near, scene.far)
    ]  # 8 of v 3, in the cameras' own axes
    rotations, origins = train.poses[:, :, :3].numpy(), train.poses[:, :, 3].numpy()
    points = np.concatenate([np.einsum("vij,vj->vi", rotations, corner) + origins for corner in corners])
    return np.stack([points.min(0), points.max(0)])


def ends_of(cameras: Cameras, view: int) -> np.ndarray:
    """8 3: where the rays through the corners of a camera's image are at near and far."""
    (height, width), shift = cameras.sizes[view], cameras.pixel_center
    rows, cols = np.meshgrid((0.0, height), (0.0, width), indexing="ij")
    rows, cols = (torch.from_numpy(axis.reshape(-1)) - shift for axis in (rows, cols))
    rays = cameras.rays(Pixels(torch.full((4,), view), rows, cols))
    return torch.cat([rays.origins + z * rays.directions for z in (rays.near, rays.far)]).numpy()


def with_depth_range(scene: Scene, near: float | None, far: float | None) -> Scene:
    """The scene seen from z-depth `near` to `far`; None keeps its own."""
    near, far = scene.near if near is None else near, scene.far if far is None else far
    if near >= far:
        raise InputError(f"--near {near:g}: found --far {far:g}, expected near < far (scene {scene.name} has its own "
                         f"{scene.near:g} and {scene.far:g})")
    return replace(scene, cameras=replace(scene.cameras, near=near, far=far))


def with_made_poses(scene: Scene, kind: str) -> Scene:
    """The scene with an unseen pool of poses that are made from those of its training cameras, where `kind` is one of
    made_poses.KINDS; else the scene itself."""
    if kind not in KINDS:
        return scene
    made = make_poses(kind, scene.poses[list(scene.split.train)])
    return replace(scene, split=replace(scene.split, unseen=()), made_poses=made)
