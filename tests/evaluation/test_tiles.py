"""SSIM and PSNR of tiles, against whole pictures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.evaluation.estimates import EDGE, SIDE, draw_tiles, measure_tiles, rendered_pixels, spans
from infonerf.evaluation.metrics import WINDOW, finite, means, mse, psnr_of_mse, ssim_map
from infonerf.evaluation.views import measure_view
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.renderer import Renderer, Sampling
from support.draws import seeded
from support.scenes import memory_scene, refused, small_networks, with_photographs

H, W, VIEWS = 27, 38, (2, 5)
ALL = 10**6


@pytest.fixture(scope="module")
def renderer():
    networks = small_networks(3, True, torch.float32)
    return Renderer(networks, Sampling(4, 3), query=DenseQuery(), chunk=50)


def wide_scene(mask=None, height=H, width=W):
    """memory_scene's cameras, with pictures large enough for SSIM, of random pixels."""
    scene = memory_scene(pixel_center=0.5, sizes=[(height, width)] * 6)
    pictures = {view: torch.rand(height, width, 3, generator=seeded(view)).numpy() for view in VIEWS}
    return with_photographs(scene, image=pictures.__getitem__, mask=mask)


def rendered(renderer, scene, view):
    """The whole picture of a view."""
    return renderer.image(scene.cameras.at([view]))


def half(view):
    """A mask that leaves some tiles out."""
    return np.add.outer(np.arange(H), np.arange(W)) % 31 < 9 + view


def metrics_of_tiles(renderer, scene, views, drawn, progress=lambda n: None):
    """The means over the views, without what no view has."""
    pairs = zip(views, drawn, strict=True)
    mean = means({view: finite(measure_tiles(renderer, scene, view, centres, progress)) for view, centres in pairs})
    return {name: value for name, value in mean.items() if name != "mse" and value is not None}


def means_of_whole_pictures(renderer, scene):
    views = [measure_view(rendered(renderer, scene, view), scene, view, 1, None) for view in VIEWS]
    pooled = psnr_of_mse(np.mean([one["mse"] for one in views]))
    names = [name for name in views[0] if name != "mse" and views[0][name] is not None]
    return {name: np.mean([one[name] for one in views]) for name in names} | {"psnr_pooled": pooled}


@pytest.mark.parametrize("mask", [None, half])
def test_all_tiles_are_the_whole_pictures(renderer, mask):
    scene, progress = wide_scene(mask), []
    drawn = draw_tiles(scene, VIEWS, ALL)
    found = metrics_of_tiles(renderer, scene, VIEWS, drawn, progress.append)
    assert found == pytest.approx(means_of_whole_pictures(renderer, scene), abs=1e-6)
    assert len(found) == (3 if mask is None else 5)
    assert sum(progress) == 2 * H * W


def test_few_tiles_are_those_parts_of_the_whole_pictures(renderer):
    scene = wide_scene(half)
    drawn = draw_tiles(scene, VIEWS, 4)
    found, expected = metrics_of_tiles(renderer, scene, VIEWS, drawn), {}
    for view, centres in zip(VIEWS, drawn, strict=True):
        assert 0.2 < centres[EDGE:-EDGE, EDGE:-EDGE].mean() < 0.7
        rgb = rendered(renderer, scene, view).rgb.double().numpy()
        truth = scene.photographs.image(view).astype(float)
        similar = np.full((H, W), np.nan)
        similar[EDGE:-EDGE, EDGE:-EDGE] = ssim_map(*(torch.from_numpy(x).movedim(-1, 0)[None] for x in (rgb, truth)))
        own = np.zeros((H, W), bool)  # pixel by pixel: the tile of the nearest centre of any window
        for row, col in np.ndindex(H, W):
            own[row, col] = centres[min(max(row, EDGE), H - EDGE - 1), min(max(col, EDGE), W - EDGE - 1)]
        for suffix, part in (("", np.ones((H, W), bool)), ("_masked", half(view))):
            expected.setdefault(f"ssim{suffix}", []).append(similar[centres & part].mean())
            expected.setdefault(f"psnr{suffix}", []).append(psnr_of_mse(mse(rgb, truth, own & part)))
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), abs=1e-5)
    whole = means_of_whole_pictures(renderer, scene)
    assert abs(found["ssim"] - whole["ssim"]) > 1e-5


def test_only_the_pixels_of_the_tiles_windows_are_rendered(renderer):
    centres = draw_tiles(wide_scene(), VIEWS, 2)[0]
    pixels, expected = rendered_pixels(centres), np.zeros((H, W), bool)
    for row, col in zip(*centres.nonzero(), strict=True):
        expected[row - EDGE : row + EDGE + 1, col - EDGE : col + EDGE + 1] = True
    assert (pixels == expected).all()
    assert not pixels.all()
    progress = []
    metrics_of_tiles(renderer, wide_scene(), VIEWS[:1], [centres], progress.append)
    assert sum(progress) == pixels.sum()


def test_tiles_are_spread_over_each_view_and_the_same_again():
    """One of each run of tiles; no tile is larger than it may be."""
    scene = wide_scene(height=100, width=110)
    numbers = np.full((100, 110), -1)
    grid = [(rows, cols) for rows in spans(100) for cols in spans(110)]
    for number, tile in enumerate(grid):
        assert (numbers[tile] == -1).all()
        numbers[tile] = number
        assert max(numbers[tile].shape) <= SIDE
    assert (numbers[EDGE:-EDGE, EDGE:-EDGE] >= 0).all()
    assert (numbers == -1).sum() == 100 * 110 - 90 * 100
    first, again = (draw_tiles(scene, (0, 1, 2), 31) for _ in range(2))
    runs = np.array_split(np.arange(len(grid)), 10)
    for centres, same in zip(first, again, strict=True):
        assert (centres == same).all()
        assert [np.isin(run, numbers[centres]).sum() for run in runs] == [1] * 10
    assert (first[0] != first[1]).any()
    assert len(np.unique(numbers[draw_tiles(scene, (0, 1), 1)[1]])) == 1  # at least one


def test_a_view_outside_of_its_mask_has_no_part_in_the_masked_ones(renderer):
    """Nor is there a value where no view has one."""
    scene = wide_scene(lambda view: np.full((H, W), view == 5))
    drawn = draw_tiles(scene, VIEWS, 4)
    found = metrics_of_tiles(renderer, scene, VIEWS, drawn)
    alone = metrics_of_tiles(renderer, scene, VIEWS[1:], drawn[1:])
    assert found["psnr_masked"] == alone["psnr"]
    assert found["ssim_masked"] == pytest.approx(alone["ssim"])
    without = metrics_of_tiles(renderer, scene, VIEWS[:1], drawn[:1])
    assert without.keys() == {"psnr", "ssim", "psnr_pooled"}
    assert not any(map(math.isnan, without.values()))


def test_a_rendering_that_is_not_finite_has_no_means(renderer):
    """It is not passed over, as if its view were not there."""
    scene, broken = wide_scene(), small_networks(3, True, torch.float32)
    with torch.no_grad():
        broken.fine.rgb_linear.bias.fill_(math.nan)
    drawn = draw_tiles(scene, VIEWS, 4)
    assert metrics_of_tiles(replace(renderer, networks=broken), scene, VIEWS, drawn) == {}


def test_pictures_smaller_than_a_window():
    with refused("--tiles: view v_2 of memory has 38 x 10 pixels, expected 11 x 11 at least"):
        draw_tiles(wide_scene(height=WINDOW - 1), VIEWS, 4)
    assert draw_tiles(wide_scene(height=WINDOW, width=WINDOW), (2,), 4)[0].sum() == 1
