"""A scene's cameras, looked at before it is trained on: one line for each finding, an InputError where to train on it
would be nonsense, else a note.

Poses are v 3 4, camera to world, OpenGL axes (x right, y up, looking along -z).
"""

from dataclasses import replace

import numpy as np
import torch

from infonerf.scene.cameras import Pixels
from infonerf.scene.checks import have_pose_of, unscaled
from infonerf.scene.poses import Meeting, meeting_of
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError

MEET, MEET_WELL = 0.25, 0.1  # of their distance from a point, by how much the axes of cameras that look at it miss it
FAR_AWAY = 1000.0  # of the scene's size, and of units
FACTORS = (2, 4, 8, 1 / 2, 1 / 4, 1 / 8)
NARROW, WIDE = 12.0, 150.0  # degrees
MOST_COMPARED = 20  # views


def with_checked_cameras(scene: Scene) -> Scene:
    """The scene with its findings as notes. Axes of poses get length 1, and what lies too far from the origin for
    float32 is moved there."""
    scene = near_origin(without_scale(scene))
    check_rays(scene)
    findings = [*findings_of_poses(scene), *findings_of_intrinsics(scene), *findings_of_splits(scene)]
    return replace(scene, notes=(*scene.notes, *findings)) if findings else scene


def check_rays(scene: Scene) -> None:
    """Raise InputError where rays through the corners of a view are not finite in float32."""
    cameras, n = scene.cameras.to("cpu"), len(scene.view_names)
    heights, widths = torch.tensor(cameras.sizes).t()
    corners = [(rows, cols) for rows in (0 * heights, heights) for cols in (0 * widths, widths)]
    bad = torch.zeros(n, dtype=torch.bool)
    for rows, cols in corners:
        rays = cameras.rays(Pixels(torch.arange(n), rows, cols))
        bad |= ~(rays.origins + rays.directions.norm(dim=-1, keepdim=True)).isfinite().all(-1)
    for view in bad.nonzero()[:, 0].tolist():
        place, lens = scene.poses[view, :, 3], scene.cameras.intrinsics[view].tolist()
        raise InputError(f"scene {scene.name}: the rays of view {scene.view_names[view]} are not finite in float32: "
                         f"found it at {' '.join(f'{x:.3g}' for x in place)} with fx fy cx cy "
                         f"{' '.join(f'{x:.3g}' for x in lens)}, expected a camera near the others")


def training_poses(scene: Scene) -> np.ndarray:
    return scene.poses[list(scene.split.train)]


def without_scale(scene: Scene) -> Scene:
    poses, scaled = unscaled(scene.poses)
    if not scaled.any():
        return scene
    note = scale_note(int(scaled.sum()), scene.view_names[scaled.argmax()])
    return replace(scene, cameras=replace(scene.cameras, poses=scene.cameras.poses.new_tensor(poses)),
                   notes=(*scene.notes, note))  # fmt: skip


def scale_note(n: int, name: str) -> str:
    return f"{n} poses ({name}) had axes of another length than 1: only their directions are used"


def near_origin(scene: Scene) -> Scene:
    """The scene, moved to its training cameras where float32 is too coarse for where they are. Raises InputError where
    all of these are at one place."""
    centres = training_poses(scene)[:, :, 3]
    size, distance = np.ptp(centres, axis=0).max(), np.abs(centres).max()
    if len(centres) > 1 and size <= max(1e-6 * scene.far, 1e-9 * distance):
        place = " ".join(f"{x:.3g}" for x in centres[0])
        raise InputError(f"scene {scene.name}: all its training cameras are at {place}, expected different places; are "
                         "the matrices transposed, or world to camera?")
    if distance <= FAR_AWAY * max(size, scene.far):
        return scene
    shift = np.round(centres.mean(0))
    world = np.eye(4)
    world[:3, 3] = -shift
    moved = scene.cameras.poses.clone()
    moved[:, :, 3] -= moved.new_tensor(shift)
    path = None if scene.path is None else np.concatenate([scene.path[:, :, :3], scene.path[:, :, 3:] - shift[:, None]],
                                                          axis=2)  # fmt: skip
    note = f"the cameras are {distance:.3g} from the origin, too far for float32: the scene is moved there"
    return replace(scene, cameras=replace(scene.cameras, poses=moved), path=path, notes=(*scene.notes, note),
                   bounds=None if scene.bounds is None else scene.bounds - shift,
                   world=world if scene.world is None else world @ scene.world)  # fmt: skip


# What the training cameras look at.


def inverted(poses: np.ndarray) -> np.ndarray:
    rotations = np.swapaxes(poses[:, :, :3], 1, 2)
    return np.concatenate([rotations, -rotations @ poses[:, :, 3:]], axis=2)


def flipped(poses: np.ndarray) -> np.ndarray:
    return poses * np.array([1, -1, -1, 1])


OPENCV = "with the axes of OpenCV (x right, y down, looking along z)"
MISTAKES = {
    OPENCV: flipped,
    "world to camera": inverted,
    "world to camera with the axes of OpenCV": lambda poses: flipped(inverted(poses)),
}


def likely_mistakes(poses: np.ndarray) -> list[str]:
    """Those without which the cameras would look at a point, the one that explains them best first."""
    meetings = {mistake: meeting_of(mended(poses)) for mistake, mended in MISTAKES.items()}
    found = [mistake for mistake, meeting in meetings.items() if meeting and meeting.within(MEET_WELL)]
    return sorted(found, key=lambda mistake: meetings[mistake].miss)


def findings_of_poses(scene: Scene) -> list[str]:
    """Of what the training cameras look at, and whether they see it."""
    poses = training_poses(scene)
    found = []
    if (farthest := np.abs(poses[:, :, 3]).max()) > FAR_AWAY:
        found.append(f"WARNING: the training cameras are up to {farthest:.3g} from the origin; positional encoding "
                     "expects a scene of a few units (--dataset_type capture brings it to that)")
    if len(poses) < 2 or scene.cameras.ndc:  # near and far are no z-depths there
        return found
    meeting = meeting_of(poses)
    if meeting and meeting.within(MEET):
        return found + findings_of_meeting(scene, meeting)
    seen, near_far = views_in_common(scene), f"near {scene.near:g} and far {scene.far:g}"
    if mistakes := likely_mistakes(poses):
        line = (f"the training cameras do not look at a point in common, but would if their poses were "
                f"{', or '.join(mistakes)}; expected camera to world with the axes of OpenGL (x right, y up, "
                "looking along -z)")
        outwards = OPENCV in mistakes  # as a room may be photographed
        if not seen.any() or (len(poses) > 2 and not outwards):
            raise InputError(f"scene {scene.name}: {line}")
        return [*found, f"WARNING: {line}"]
    if not seen.any():
        found.append(f"WARNING: no two training cameras see a point in common between {near_far}")
    elif not seen.all():
        alone = scene.view_names[scene.split.train[int(seen.argmin())]]
        found.append(f"WARNING: training view {alone} sees nothing between {near_far} that another one sees")
    return found


def findings_of_meeting(scene: Scene, meeting: Meeting) -> list[str]:
    """Whether the point at which all training cameras look is within what is rendered."""
    found, (nearest, farthest) = [], (meeting.depths.min(), meeting.depths.max())
    outside = (meeting.depths < scene.near) | (meeting.depths > scene.far)
    if outside.any():
        found.append(f"WARNING: what the training cameras look at is {nearest:.3g} to {farthest:.3g} in front of them, "
                     f"for {outside.sum()} of {len(outside)} not between near {scene.near:g} and far {scene.far:g}; "
                     f"try --near {nearest / 2:.3g} --far {farthest * 1.5:.3g}")
    if scene.bounds is not None and not ((meeting.point >= scene.bounds[0]) & (meeting.point <= scene.bounds[1])).all():
        (low, high), point = (" ".join(f"{x:.3g}" for x in corner) for corner in scene.bounds), meeting.point
        found.append(f"WARNING: what the training cameras look at, near {' '.join(f'{x:.3g}' for x in point)}, lies "
                     f"outside of the scene's bounds {low} to {high}, where skip_empty leaves space empty")
    return found


def views_in_common(scene: Scene) -> np.ndarray:
    """bool of training views, at most MOST_COMPARED: whether another one sees something that they see between near and
    far."""
    cameras = scene.cameras.at(scene.split.train)
    poses, (fx, fy, cx, cy) = cameras.poses.numpy(), cameras.intrinsics.numpy().T
    heights, widths = np.array(cameras.sizes, float).T
    fractions = np.linspace(0.05, 0.95, 5)
    u, v, t = (axis.ravel() for axis in np.meshgrid(fractions, fractions, np.linspace(0, 1, 9)))
    depths = np.maximum(scene.near + (scene.far - scene.near) * t, 1e-6 * scene.far)
    others = np.arange(len(poses))
    seen = []
    for i in others[:MOST_COMPARED]:
        x, y = (u * widths[i] - cx[i]) / fx[i], -(v * heights[i] - cy[i]) / fy[i]
        points = depths[:, None] * (np.stack([x, y, -np.ones_like(x)], axis=1) @ poses[i, :, :3].T) + poses[i, :, 3]
        x, y, z = np.moveaxis((points - poses[:, None, :, 3]) @ poses[:, :, :3], -1, 0)
        inside = (-z >= scene.near) & (-z <= scene.far) & (z < 0) & (others != i)[:, None]
        z = np.where(inside, z, -1)
        col, row = cx[:, None] - fx[:, None] * x / z, cy[:, None] + fy[:, None] * y / z
        inside &= (col >= 0) & (col <= widths[:, None]) & (row >= 0) & (row <= heights[:, None])
        seen.append(inside.any())
    return np.array(seen)


# Intrinsics, splits.


def findings_of_intrinsics(scene: Scene) -> list[str]:
    """Of principal points and fields of view that do not go with the images' sizes."""
    fx, _, cx, cy = scene.cameras.intrinsics.numpy().T
    heights, widths = np.array(scene.cameras.sizes, float).T
    places = np.stack([cx / widths, cy / heights])
    off = np.abs(places - 0.5).max(0)
    found = []
    view = int(off.argmax())
    if off[view] > 0.2:
        line = (f"the principal point of view {scene.view_names[view]} is {cx[view]:.4g} {cy[view]:.4g} in an image of "
                f"{widths[view]:g} x {heights[view]:g}")
        for factor in FACTORS:
            if np.abs(places[:, view] / factor - 0.5).max() < 0.05:
                line += (f", as if the cameras were of images {factor:g} times as large; --image_scale {factor:g} "
                         "takes them so")
                if factor > 1:
                    raise InputError(f"scene {scene.name}: {line}")
                return [f"WARNING: {line}"]
        if off[view] > 0.5:
            found.append(f"WARNING: {line}")
    angles = np.degrees(2 * np.arctan(widths / (2 * fx)))
    odd = (angles < NARROW) | (angles > WIDE)
    if odd.any():
        view = int(odd.argmax())
        found.append(f"WARNING: the field of view of {scene.view_names[view]} is {angles[view]:.3g} degrees (focal "
                     f"length {fx[view]:.4g}, width {widths[view]:g}); where its cameras are of larger or smaller "
                     "images, --image_scale says of how much larger ones")
    return found


def findings_of_splits(scene: Scene) -> list[str]:
    """Views to measure that are trained on."""
    found, split, train = [], scene.split, training_poses(scene)
    for kind, views in (("test", split.test), ("validation", () if split.val == split.test else split.val)):
        same = have_pose_of(scene.poses[list(views)], train)
        if same.any():
            name = scene.view_names[views[int(same.argmax())]]
            found.append(f"WARNING: {same.sum()} of {len(same)} {kind} views have the pose of a training view "
                         f"({name}): what is measured there says nothing of unseen views")
    return found
