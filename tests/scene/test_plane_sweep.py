"""Multi-view stereo of made photographs: a wall of random texture and one that is plain, whose depths are known."""

import math

import numpy as np
import pytest
import torch

from infonerf.scene import plane_sweep
from infonerf.scene.plane_sweep import Pair, Planes, View, Window, planes_of, sample
from infonerf.scene.trusted_depths import DepthMap, agreement, filled, supported, trusted
from support.walls import ANGLES, DISTANCE, FOCAL, NORMAL, photograph


@pytest.fixture(scope="module")
def walls() -> list[tuple[View, np.ndarray]]:
    return [photograph(angle) for angle in ANGLES]


def true_planes(depth: np.ndarray) -> Planes:
    inverse = torch.from_numpy(1 / depth).float()
    return Planes(inverse, *(torch.full_like(inverse, NORMAL[i] / DISTANCE / FOCAL) for i in (0, 1)))


def test_a_plane_takes_pixels_to_where_the_wall_is_in_the_source(walls):
    (view, depth), (source, _) = walls[:2]
    found = Pair.of(view, source).sampled(torch.from_numpy(1 / depth).float())
    inside = found.isfinite()
    assert 0.5 < inside.float().mean() < 1
    assert (found - view.grey)[inside].abs().mean() < 0.02


def test_sample_is_bilinear_between_centres():
    image = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    cols, rows = torch.tensor([[0.5, 1.0, 2.5, 3.1, -0.1]]), torch.tensor([[0.5, 1.0, 1.5, 1.0, 1.0]])
    [found] = sample(image, cols, rows)
    torch.testing.assert_close(found[:3], torch.tensor([0.0, 2.0, 5.0]))
    assert found[3:].isnan().all()


def test_correlation_against_a_slow_reference(walls):
    """ZNCC of one window, pixel by pixel, by the homography K_s (R + t n'/d) K^-1 of the true plane."""
    (view, depth), (source, _) = walls[:2]
    window = Window.of(view.grey, reach=2, stride=1)
    planes = true_planes(depth)
    planes = Planes(*(part * 1.02 for part in planes))
    found = window.correlation(Pair.of(view, source), planes)
    k, rotation, translation = (part.double().numpy() for part in (source.k, source.rotation, source.translation))
    homography = k @ (rotation + np.outer(translation, NORMAL / DISTANCE * 1.02)) @ np.linalg.inv(k)
    for row, col in ((30, 40), (50, 20), (36, 60)):
        here, there, weights = [], [], []
        for d_row in range(-2, 3):
            for d_col in range(-2, 3):
                x, y, z = homography @ [col + d_col + 0.5, row + d_row + 0.5, 1]
                value = float(sample(source.grey.double(), torch.tensor([[x / z]]), torch.tensor([[y / z]])))
                grey = float(view.grey[row + d_row, col + d_col])
                there.append(value)
                here.append(grey)
                same = math.exp(-(((grey - float(view.grey[row, col])) / plane_sweep.SAME_COLOUR) ** 2) / 2)
                weights.append(same * math.exp(-(d_row**2 + d_col**2) / 2))
        here, there, weights = (np.array(part) for part in (here, there, weights))
        weights /= weights.sum()
        here, there = here - weights @ here, there - weights @ there
        expected = weights @ (here * there) / math.sqrt((weights @ here**2) * (weights @ there**2))
        assert float(found[row, col]) == pytest.approx(expected, abs=2e-3)


def test_correlation_does_not_depend_on_the_exposure(walls):
    (view, depth), (source, _) = walls[:2]
    window, planes = Window.of(view.grey), true_planes(depth)
    darker = View(0.6 * source.grey + 0.1, source.k, source.rotation, source.translation)
    found = [window.correlation(Pair.of(view, one), planes) for one in (source, darker)]
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)


def test_the_planes_of_a_slanted_wall_are_found(walls):
    views = [view for view, _ in walls]
    planes, score = planes_of(views[0], views[1:], nearest=1 / 1.8, farthest=1 / 6)
    error = (planes.inverse * torch.from_numpy(walls[0][1]).float() - 1).abs()
    good = score > 0.8
    assert good.float().mean() > 0.85
    assert error[good].median() < 0.003 and error[good].quantile(0.95) < 0.02
    slope = planes.per_col[good].median() * FOCAL
    assert float(slope) == pytest.approx(NORMAL[0] / DISTANCE, abs=0.02)
    again, _ = planes_of(views[0], views[1:], nearest=1 / 1.8, farthest=1 / 6)
    assert torch.equal(planes.inverse, again.inverse)


def test_what_is_trusted_is_right_and_gaps_within_a_plane_are_filled():
    walls = [photograph(angle, plain=True) for angle in ANGLES]
    views = [view for view, _ in walls]
    others = [[1, 2], [0, 2], [0, 1]]
    found = [planes_of(view, [views[i] for i in its], 1 / 1.8, 1 / 6) for view, its in zip(views, others, strict=True)]
    maps = trusted(views, [1 / planes.inverse for planes, _ in found], [score for _, score in found], others)
    for (_, depth), one in zip(walls, maps, strict=True):
        kept = one.confidence > 0
        error = (one.depth / torch.from_numpy(depth).float() - 1).abs()
        assert kept.float().mean() > 0.6
        assert error[kept].quantile(0.98) < 0.02
        assert ((one.confidence == 0.5) & kept).any()


def test_agreement_refuses_what_the_other_view_contradicts(walls):
    (view, depth), (other, its_depth) = walls[:2]
    depth, its_depth = (torch.from_numpy(one).float() for one in (depth, its_depth))
    assert agreement(view, depth, [(other, its_depth)]).float().mean() > 0.5
    assert not agreement(view, depth * 1.03, [(other, its_depth)]).any()
    assert not agreement(view, depth, [(other, its_depth * 1.03)]).any()
    assert not agreement(view, depth, []).any()


def test_lone_pixels_are_not_supported():
    inverse, among = torch.full((20, 20), 0.5), torch.zeros(20, 20, dtype=torch.bool)
    among[4, 4] = True
    among[10:15, 10:15] = True
    inverse[12, 12] = 0.6
    kept = supported(inverse, among)
    assert not kept[4, 4] and not kept[12, 12] and kept[11, 13]
    assert kept.sum() == 24


def test_filling_keeps_what_is_known_and_never_bridges_a_step():
    cols = torch.arange(60.0).expand(40, 60)
    depth = 1 / (0.3 + 0.001 * cols)
    depth = torch.where(cols >= 40, 1 / 0.6, depth)  # a step
    confidence = torch.full((40, 60), 0.9)
    confidence[15:20, 10:16] = 0  # a gap within the plane
    confidence[:, 36:44] = 0  # one over the step
    result = filled(DepthMap(torch.where(confidence > 0, depth, 9.0), confidence))
    assert (result.confidence[15:20, 10:16] == 0.5).all()
    torch.testing.assert_close(result.depth[15:20, 10:16], depth[15:20, 10:16], rtol=1e-3, atol=0)
    assert (result.confidence[:, 38:42] == 0).all()
    assert torch.equal(result.depth[confidence > 0], depth[confidence > 0])
