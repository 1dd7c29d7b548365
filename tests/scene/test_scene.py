"""The choice of views, the unseen pool, the Scene's validation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.scene.splits import choose_views, unseen_pool
from support.scenes import memory_scene, refused, with_photographs


@pytest.mark.parametrize(
    ("n_views", "train_scene", "fewshot", "expected"),
    [
        (100, None, 4, (26, 86, 2, 55)),  # the paper's
        (5, None, 0, (0, 1, 2, 3, 4)),
        (5, [], 0, (0, 1, 2, 3, 4)),
        (5, [4, 0], 0, (4, 0)),
        (5, [4, 0], 2, (4, 0)),
    ],
)
def test_choose_views(n_views, train_scene, fewshot, expected):
    chosen = choose_views(n_views, train_scene, fewshot, fewshot_seed=0)
    assert chosen == expected
    assert all(type(view) is int for view in chosen)


def test_fewshot_seed_decides_the_draw():
    assert choose_views(100, None, 4, 3) == tuple(np.random.RandomState(3).choice(100, 4, replace=False))
    assert sorted(choose_views(7, None, 7, 3)) == list(range(7))


@pytest.mark.parametrize(
    ("n_views", "fewshot", "expected"),
    [(17, 3, (0, 8, 16)), (7, 4, (0, 2, 4, 6)), (6, 3, (0, 2, 5)), (5, 1, (0,)), (5, 5, (0, 1, 2, 3, 4))],
)
def test_even_choice(n_views, fewshot, expected):
    assert choose_views(n_views, None, fewshot, 0, "even") == expected
    assert choose_views(n_views, [2, 1], 0, 0, "even") == (2, 1)


@pytest.mark.parametrize(
    ("train_scene", "fewshot", "message"),
    [
        ([26, 100], 0, r"--train_scene: found view 100, expected 0\.\.99"),
        ([-1], 0, r"--train_scene: found view -1, expected 0\.\.99"),
        ([5, 6, 5], 0, "--train_scene: view 5 is named twice, expected every view once"),
        ([5, 6, 7], 4, "--fewshot 4 contradicts --train_scene, which names 3 views: expected fewshot = 3, or 0"),
        ([5, 6, 7], 2, "--fewshot 2 contradicts --train_scene, which names 3 views: expected fewshot = 3, or 0"),
        (None, 101, r"--fewshot 101: there are 100 views .*expected 0\.\.100"),
        (None, -1, r"--fewshot -1: .*expected 0\.\.100"),
    ],
)
def test_choose_views_refuses(train_scene, fewshot, message):
    with refused(message):
        choose_views(100, train_scene, fewshot, 0)


@pytest.mark.parametrize(
    ("train", "unseen_poses", "expected"),
    [
        ((0, 1), "no_test", (0, 1, 2, 3)),
        ((0, 1), "all", (0, 1, 2, 3, 4, 5)),
        ((3, 0, 1, 2), "no_test", (0, 1, 2, 3, 4, 5)),  # all but the test poses are trained on
        ((3, 0, 1, 2), "all", (0, 1, 2, 3, 4, 5)),
    ],
)
def test_unseen_pool(train, unseen_poses, expected):
    assert unseen_pool(6, train, (4, 5), unseen_poses) == expected


def not_finite(poses):
    poses = poses.clone()
    poses[2, 1, 3] = np.inf
    return poses


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), "scene memory: view a is listed twice, expected .* once"),
        (("a/b", "c", "a_b"), "scene memory: view a/b is listed twice, expected .* once"),
        (("a", "b", "ü" * 101), "view ü+: expected a name of at most 200 bytes"),
    ],
)
def test_scene_refuses_names(names, message):
    scene = memory_scene(3)
    with refused(message):
        replace(scene, view_names=names)


def with_cameras(scene, **changes):
    return replace(scene, cameras=replace(scene.cameras, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda c: {"poses": not_finite(c.poses)}, "scene memory: the pose of view v_2 is not finite"),
        (lambda c: {"poses": c.poses * 1e300}, r"the pose of view v_0 is of numbers up to .*e\+300, expected"),
        (lambda c: {"poses": c.poses * 0}, "the pose of view v_0 is singular, expected a camera's"),
        (lambda c: {"intrinsics": c.intrinsics * np.inf}, r"the intrinsics of view v_0 are \[inf.*finite"),
        (lambda c: {"intrinsics": c.intrinsics * torch.tensor([1, 0, 1, 1])},
         r"the intrinsics of view v_0 are .* above 0"),
        (lambda c: {"near": 6.0}, r"near 6\.0, far 6\.0: expected 0 <= near < far"),
        (lambda c: {"near": -1.0}, r"near -1\.0, far 6\.0: expected 0 <= near < far"),
        (lambda c: {"far": float("nan")}, r"near 2\.0, far nan: expected 0 <= near < far"),
    ],
)  # fmt: skip
def test_scene_refuses_cameras(changes, message):
    scene = memory_scene(3)
    with refused(message):
        with_cameras(scene, **changes(scene.cameras))


@pytest.mark.parametrize("field", ["poses", "intrinsics", "sizes"])
def test_scene_of_another_number_of_cameras_is_a_programming_error(field):
    scene = memory_scene(3)
    with pytest.raises(ValueError, match="3 views, but poses"):
        with_cameras(scene, **{field: getattr(scene.cameras, field)[:2]})


def test_scene_may_start_at_zero():
    assert with_cameras(memory_scene(3), near=0.0).near == 0


def test_images_are_read_when_asked_for():
    read = []
    scene = with_photographs(memory_scene(3), image=lambda view: read.append(view) or "image")
    assert read == []
    assert scene.photographs.image(2) == "image"
    assert read == [2]
    assert scene.photographs.mask is None
