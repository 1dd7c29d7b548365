"""A scene's cameras, looked at before it is trained on: which line is said of which fault."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.scene.camera_checks import with_checked_cameras
from infonerf.scene.cameras import Cameras
from infonerf.scene.scene import Photographs, Scene, Split
from support.scenes import forward_scene, look_at_origin, refused

FLIP, CENTRED = np.diag([1.0, -1.0, -1.0, 1.0]), (100.0, 100.0, 50.0, 40.0)


def opencv(pose):
    return pose @ FLIP


def ring(n=4, radius=4.0, at=(0, 0, 0), elevation=20.0):
    poses = [look_at_origin(360 * i / n + 5, elevation + i, radius) for i in range(n)]
    for pose in poses:
        pose[:3, 3] += at
    return poses


def scene_of(poses, near=2.0, far=6.0, intrinsics=CENTRED, size=(80, 100), bounds=None, **split):
    """All of the views are trained on; the split may say otherwise."""
    n = len(poses)
    return Scene(
        name="odd",
        view_names=tuple(f"v_{view}" for view in range(n)),
        cameras=Cameras.of_arrays(np.stack(poses)[:, :3], np.tile(intrinsics, (n, 1)), [size] * n, near, far),
        split=Split(**{"train": tuple(range(n)), "val": (), "test": (), "unseen": ()} | split),
        photographs=Photographs(lambda view: None),
        white_background=False,
        bounds=bounds,
    )


def findings(*args, **kwargs):
    return with_checked_cameras(scene_of(*args, **kwargs)).notes


@pytest.mark.parametrize("poses", [
    ring(), ring(2), ring(100), ring(1), ring(2, elevation=0.0), ring(at=(0.5, -0.3, 0.2)),
    [pose + np.eye(4, k=3) * dx for dx in (0, 0.5, 1) for pose in ring(1)],  # parallel axes
])  # fmt: skip
def test_nothing_is_said_of_cameras_that_see_the_same(poses):
    scene = scene_of(poses, bounds=np.array([[-1.5] * 3, [1.5] * 3]))
    assert with_checked_cameras(scene) is scene


def test_one_place():
    for poses in ([np.eye(4)] * 3, [np.linalg.inv(pose) for pose in ring(elevation=0.0)]):
        with refused("scene odd: all its training cameras are at .*, expected different places; are the matrices"):
            findings(poses)


@pytest.mark.parametrize(("change", "mistake"), [
    (opencv, r"with the axes of OpenCV \(x right, y down, looking along z\)"),
    (np.linalg.inv, "world to camera"),
    (lambda pose: FLIP @ np.linalg.inv(pose), "world to camera with the axes of OpenCV"),
])  # fmt: skip
@pytest.mark.parametrize("n", [4, 7, 100])
def test_cameras_by_another_convention(change, mistake, n):
    poses = [change(pose) for pose in ring(n, at=(0.3, 0.2, 0.4))]
    message = f"the training cameras do not look at a point in common, but would if their poses were {mistake}; "
    if change is opencv and n == 100:  # a room, of which neighbours see the same, may be photographed so
        [note] = findings(poses)
        assert re.match("WARNING: " + message, note)
    else:
        with refused(f"scene odd: {message}expected camera to world"):
            findings(poses)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_of_two_mistakes_that_explain_the_cameras_the_better_is_named_first(n):
    """World to camera, these stand at nearly one place and look outwards, as in a room: that is no error."""
    poses = [np.linalg.inv(look_at_origin(360 * i / (n + 2), 20 + 3 * i, 4 + 0.1 * i)) for i in range(n)]
    [note] = findings(poses, near=0.1)
    assert "would if their poses were world to camera, or with the axes of OpenCV (x right" in note


@pytest.mark.parametrize(("radius", "near", "far", "advice"), [
    (42.7, 2, 6, "42.7 to 42.7 in front of them, for 4 of 4 not between near 2 and far 6; try --near 21.3 --far 64"),
    (4, 2, 3, "try --near 2 --far 6"),
    (1.2, 2, 6, "try --near 0.6 --far 1.8"),
    (4, 5, 9, "try --near 2 --far 6"),
])  # fmt: skip
def test_near_and_far_that_miss_what_the_cameras_look_at(radius, near, far, advice):
    [note] = findings(ring(radius=radius), near=near, far=far)
    assert note.startswith("WARNING: what the training cameras look at is ") and advice in note


def test_nothing_in_common():
    far_apart = [pose + np.eye(4, k=3) * dx for dx in (0, 30) for pose in ring(1)]
    assert findings(far_apart) == ("WARNING: no two training cameras see a point in common between near 2 and far 6",)
    one_alone = [pose + np.eye(4, k=3) * dx for dx in (0, 0.5, 30) for pose in ring(1)]
    [note] = findings(one_alone)
    assert note.startswith("WARNING: training view v_2 sees nothing between near 2 and far 6 that another one sees")


def test_bounds_beside_what_the_cameras_look_at():
    [note] = findings(ring(at=(3, 0, 0)), bounds=np.array([[-1.5] * 3, [1.5] * 3]))
    assert note.startswith("WARNING: what the training cameras look at, near 3") and "-1.5 -1.5 -1.5 to 1.5" in note


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_cameras_far_from_the_origin_are_moved_there(offset):
    at = np.array([offset, -offset, 7.0])
    given = scene_of(ring(at=at), bounds=np.stack([at - 1.5, at + 1.5]))
    given = replace(given, path=given.poses[:2])
    scene = with_checked_cameras(given)
    [note] = scene.notes
    assert "too far for float32: the scene is moved there" in note
    assert np.abs(scene.poses[:, :, 3]).max() < 6
    for before, after in ((given.poses[:, :, 3], scene.poses[:, :, 3]), (given.bounds, scene.bounds),
                          (given.path[:, :, 3], scene.path[:, :, 3])):  # fmt: skip
        there = before @ scene.world[:3, :3].T + scene.world[:3, 3]
        np.testing.assert_allclose(there, after, atol=1e-12 * offset)
    torch.testing.assert_close(given.cameras.poses[:, :, :3], scene.cameras.poses[:, :, :3])
    again = with_checked_cameras(replace(given, world=2 * np.eye(4)))
    np.testing.assert_allclose(again.world, scene.world @ (2 * np.eye(4)))


def test_units_that_are_too_small():
    [note] = findings(ring(radius=4e4), near=2e4, far=6e4)
    assert note.startswith("WARNING: the training cameras are up to 3.7") and "a scene of a few units" in note


def test_scaled_axes_are_normalised():
    poses = ring()
    poses[1] = poses[1] @ np.diag([3.0, 3, 3, 1])
    scene = with_checked_cameras(scene_of(poses))
    assert scene.notes == ("1 poses (v_1) had axes of another length than 1: only their directions are used",)
    np.testing.assert_allclose(scene.poses, np.stack(ring())[:, :3], atol=1e-12)


@pytest.mark.parametrize(("change", "message"), [
    (np.diag([-1.0, 1, 1, 1]), "mirrored"), (np.eye(4) + 0.2 * np.eye(4, k=1), "sheared"),
])  # fmt: skip
def test_mirrored_and_sheared_poses_are_refused(change, message):
    poses = ring()
    poses[2] = poses[2] @ change
    with refused(f"scene odd: the pose of view v_2 is {message}.*expected a camera's"):
        scene_of(poses)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_intrinsics_of_larger_images(factor):
    with refused(rf"principal point of view v_0 is .* in an image of 100 x 80, .* --image_scale {factor} takes"):
        findings(ring(), intrinsics=np.array(CENTRED) * factor)


@pytest.mark.parametrize(("intrinsics", "message"), [
    (np.array(CENTRED) / 2, "WARNING: .* as if the cameras were of images 0.5 times as large"),
    ((100, 100, 130, 40), "WARNING: the principal point of view v_0 is 130 40 in an image of 100 x 80$"),
    ((100, 100, 75, 40), None),
    ((2000, 2000, 50, 40), r"WARNING: the field of view of v_0 is 2\.86 degrees"),
    ((480, 480, 50, 40), r"WARNING: the field of view of v_0 is 11\.9 degrees"),  # 40 degrees, at 4 times the size
    ((5, 5, 50, 40), "WARNING: the field of view of v_0 is 169 degrees"),
])  # fmt: skip
def test_odd_intrinsics(intrinsics, message):
    found = findings(ring(), intrinsics=intrinsics)
    assert len(found) == (message is not None)
    for note in found:
        assert re.match(message, note)


def test_views_to_measure_that_are_trained_on():
    poses = ring(4) + ring(2, elevation=50.0)
    split = {"train": (0, 1, 2), "test": (4, 5), "val": (3,)}
    assert findings(poses, **split) == ()
    poses[5] = poses[1]
    [note] = findings(poses, **split)
    assert note.startswith("WARNING: 1 of 2 test views have the pose of a training view (v_5)")
    poses[3] = poses[1] + 1e-9
    test, val = findings(poses, **split)
    assert test == note and val.startswith("WARNING: 1 of 1 validation views have the pose of a training view (v_3)")


def test_rays_that_are_not_finite():
    """Of a view that is not trained on, too."""
    scene = scene_of(ring(), train=(0, 1, 2), test=(3,))

    def with_lens(*lens):
        intrinsics = scene.cameras.intrinsics.clone()
        intrinsics[3] = torch.tensor(lens)
        return replace(scene, cameras=replace(scene.cameras, intrinsics=intrinsics))

    for lens in ((1e-11, 100, 50, 40), (100, 100, 50, 9e11)):
        with_checked_cameras(with_lens(*lens))
    with refused("the rays of view v_3 are not finite in float32: found it at .* with fx fy cx cy 2e-12 100 9e"):
        with_checked_cameras(with_lens(2e-12, 100, 9e11, 40))


def test_a_camera_that_is_lost_in_ndc():
    scene = forward_scene()
    poses = scene.cameras.poses.clone()
    poses[3, 2, 3] = 1e9
    with refused("the rays of view v_3 are not finite in float32"):
        with_checked_cameras(replace(scene, cameras=replace(scene.cameras, poses=poses)))
    with_checked_cameras(scene)
