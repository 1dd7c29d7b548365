"""Progressive pictures: sizes by speed, the same pixels as a whole rendering, interruption, several eyes, jobs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.viewer.frames import FEWEST, Pace, Source, Wish, camera_of, clipped, paint
from infonerf.viewer.painter import Painter
from loss import ray_entropy
from support.scenes import forward_scene, memory_scene, small_networks


@pytest.fixture
def scene():
    return memory_scene(pixel_center=0.5)


@pytest.fixture
def source(scene):
    return source_of(scene)


def source_of(scene, seed=0):
    networks = small_networks(3, True, torch.float32)
    return Source(Renderer(networks, Sampling(4, 3), scene.white_background), scene.cameras)


def wish_of(scene, view=0, size=(24, 30), **more):
    return Wish(scene.poses[view], 0.7, size, **more)


def finished(painting):
    try:
        while True:
            next(painting)
    except StopIteration as end:
        return end.value


class Clock:
    """A clock on which each look takes so many seconds."""

    def __init__(self, seconds=0.01):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        self.now += self.seconds
        return self.now


def painter_of(source, shown, clock=None, **more):
    faults = []
    painter = Painter(lambda: [source], ray_entropy, lambda *what: shown.append(what), faults.append,
                      clock=clock or Clock(), **more)  # fmt: skip
    painter.faults = faults
    return painter


def test_the_first_picture_has_as_many_rays_as_the_speed_allows_and_the_last_is_whole():
    sizes = Pace(10_000).sizes((400, 400), seconds=0.1)
    assert sizes[0] == (32, 32) and sizes[-1] == (400, 400)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(sizes))
    assert Pace(1e9).sizes((400, 400)) == [(400, 400)]
    assert Pace(1.0).sizes((400, 400))[0] == (1, 1)


def test_the_slowest_of_the_last_pictures_counts_and_is_forgotten():
    pace = Pace(1000)
    pace.measured(4000, 1.0)
    assert pace.rate == 1000
    for _ in range(4):
        pace.measured(8000, 1.0)
    assert pace.rate == 8000
    pace.measured(FEWEST - 1, 100.0)  # too few to tell
    assert pace.rate == 8000


@pytest.mark.parametrize("make", [memory_scene, forward_scene])
def test_a_picture_in_chunks_is_that_of_the_renderer(make):
    scene = make()
    source, wish = source_of(scene), wish_of(scene)
    camera = camera_of(wish, wish.size, scene.cameras)
    whole = source.renderer.image(camera)
    picture = finished(paint([source], wish, wish.size, Pace(100), ray_entropy))
    for name in ("rgb", "depth", "acc"):
        np.testing.assert_allclose(getattr(picture, name), getattr(whole, name).numpy(), atol=1e-5)
    assert picture.entropy.shape == wish.size and (picture.entropy >= -1e-5).all()


def test_a_coarse_picture_shows_what_the_whole_one_does(scene):
    wish = wish_of(scene, size=(24, 30))
    small, large = (camera_of(wish, size, scene.cameras) for size in ((8, 10), (24, 30)))
    np.testing.assert_allclose(small.intrinsics * 3, large.intrinsics)
    assert small.near == scene.near and camera_of(replace(wish, near=3.0), (8, 10), scene.cameras).near == 3.0


def test_of_two_runs_each_has_its_part(scene):
    one, other = source_of(scene), source_of(scene)
    with torch.no_grad():
        for parameter in other.renderer.networks.fine.parameters():
            parameter.mul_(-1)
    wish, pace = wish_of(scene, share=0.4), Pace()
    left, right, both = (finished(paint(s, wish, wish.size, pace, ray_entropy)) for s in ([one], [other], [one, other]))
    np.testing.assert_allclose(both.acc[:, :12], left.acc[:, :12], atol=1e-6)
    np.testing.assert_allclose(both.acc[:, 12:], right.acc[:, 12:], atol=1e-6)
    assert np.abs(left.acc - right.acc).max() > 0.01


def test_nothing_is_seen_outside_the_box(scene, source):
    wish = wish_of(scene, box=np.array([[50.0, 50, 50], [51, 51, 51]]))
    assert finished(paint([source], wish, wish.size, Pace(), ray_entropy)).acc.max() == 0
    everything = replace(wish, box=np.array([[-50.0] * 3, [50.0] * 3]))
    free = finished(paint([source], replace(wish, box=None), wish.size, Pace(), ray_entropy))
    np.testing.assert_array_equal(finished(paint([source], everything, wish.size, Pace(), ray_entropy)).rgb, free.rgb)
    assert clipped(source.renderer, None) is source.renderer


def test_pictures_become_sharper(scene, source):
    shown = []
    painter = painter_of(source, shown, first=1e-4)
    painter.wish(0, wish_of(scene))
    assert painter.busy
    painter.work(1e9)
    sizes = [picture.acc.shape for _, _, picture, _ in shown]
    assert len(sizes) > 2 and sizes == sorted(sizes) and sizes[-1] == (24, 30)
    assert [last for *_, last in shown] == [False] * (len(sizes) - 1) + [True]
    assert not painter.busy and not painter.work_a_bit()


def test_what_would_take_too_long_is_left_out(scene, source):
    shown = []
    painter = painter_of(source, shown, first=0.01, longest=0.05)
    painter.wish("a", wish_of(scene))
    painter.work(1e9)
    sizes = [picture.acc.size for _, _, picture, _ in shown]
    assert len(sizes) > 1 and sizes[-1] <= 250 and shown[-1][-1]


def test_a_movement_interrupts_what_is_sharper_but_not_the_first_picture(scene, source):
    shown = []
    painter = painter_of(source, shown, first=0.2)
    painter.pace.rates.append(1500.0)  # 300 rays, in chunks of FEWEST
    first, second, third = (wish_of(scene, view) for view in range(3))
    painter.wish("a", first)
    painter.work_a_bit()
    painter.wish("a", second)  # while the first picture of the first wish is being made
    while len(shown) < 2:
        painter.work_a_bit()
    assert [wish for _, wish, *_ in shown] == [first, second]
    painter.work_a_bit()  # of a sharper one
    assert painter.eyes["a"].current.level == 1
    painter.wish("a", third)
    while len(shown) < 3:
        painter.work_a_bit()
    assert shown[2][1] is third and shown[2][2].acc.shape == shown[1][2].acc.shape


def test_the_same_wish_again_changes_nothing(scene, source):
    shown = []
    painter = painter_of(source, shown)
    painter.wish("a", wish_of(scene))
    painter.work(1e9)
    count = len(shown)
    painter.wish("a", replace(wish_of(scene), pose=scene.poses[0] + 1e-9))
    assert not painter.busy
    painter.renew()
    painter.work(1e9)
    assert len(shown) > count


def test_every_eye_has_its_first_picture_before_any_sharper_one(scene, source):
    shown = []
    painter = painter_of(source, shown, first=1e-4)
    for who in "abc":
        painter.wish(who, wish_of(scene))
    painter.work(1e9)
    assert [who for who, *_ in shown[:3]] == ["a", "b", "c"]
    painter.wish("a", wish_of(scene, 1))
    painter.forget("a")
    assert not painter.busy


def test_jobs_come_before_sharper_pictures_and_may_fail(scene, source):
    shown, done = [], []

    def job():
        for k in range(3):
            done.append((k, len(shown)))
            yield

    def fails():
        raise ValueError("no")
        yield

    painter = painter_of(source, shown, first=1e-4)
    painter.wish("a", wish_of(scene))
    painter.job(fails())
    painter.job(job())
    painter.work(1e9)
    assert done == [(0, 1), (1, 1), (2, 1)]
    assert [str(fault) for fault in painter.faults] == ["no"]


def test_a_picture_that_fails_is_said_once_and_given_up(scene, source):
    shown = []
    painter = painter_of(source, shown)
    painter.sources = lambda: 1 / 0
    painter.wish("a", wish_of(scene))
    painter.work(1e9)
    assert len(painter.faults) == 1 and not shown and not painter.busy


def test_nothing_random_is_drawn(scene, source):
    before = torch.get_rng_state()
    finished(paint([source], wish_of(scene), (8, 10), Pace(), ray_entropy))
    assert torch.equal(before, torch.get_rng_state())
