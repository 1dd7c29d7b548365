"""PSNR of random rays, against whole pictures."""

import math

import numpy as np
import pytest
import torch

from infonerf.evaluation import estimates
from infonerf.evaluation.estimates import colour_corrected, draw_rays, psnr_of_rays
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.renderer import Renderer, Sampling
from support.draws import rand
from support.scenes import HEIGHT, WIDTH, memory_scene, small_networks, with_photographs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def renderer():
    networks = small_networks(3, True, torch.float32)
    return Renderer(networks, Sampling(4, 3), query=DenseQuery(), chunk=7)


def centred_scene(**readers):
    """memory_scene with rays through the centres of pixels, and readers of its own."""
    return with_photographs(memory_scene(pixel_center=0.5), **readers)


def picture_of(renderer, scene, view):
    """A view as it is rendered whole, rgb h w 3."""
    return renderer.image(scene.cameras.at([view])).rgb.double().numpy()


def pixels_of(drawn, scene, view):
    """Which pixel each drawn ray belongs to."""
    rays = scene.cameras.at([view]).to(CPU).image_rays()
    same = (drawn.rays.directions[:, None] == rays.directions).all(-1)
    assert (same.sum(1) == 1).all()
    assert (drawn.rays.origins == rays.origins[0]).all()
    return same.int().argmax(1).numpy()


def test_rays_are_those_of_the_pictures(renderer):
    seen, index = {}, np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    scene = centred_scene(mask=lambda view: index % (view + 2) == 0)
    drawn, views = draw_rays(scene, (2, 5), 61, CPU), (2, 5)
    for part, view in zip(drawn, views, strict=True):
        chosen = pixels_of(part, scene, view)
        assert len(chosen) == 30
        assert len(set(chosen)) > 20  # drawn over the whole picture
        truth = scene.photographs.image(view).reshape(-1, 3)[chosen]
        mask = scene.photographs.mask(view).flatten()[chosen]
        assert (part.truth.numpy() == truth).all()
        assert (part.mask.numpy() == mask).all()
        picture = picture_of(renderer, scene, view).reshape(-1, 3)[chosen]
        error = ((picture - truth) ** 2).mean(-1)
        seen[view] = error.mean(), error[mask].mean()
    psnr = [[-10 * math.log10(mse) for mse in seen[view]] for view in views]
    progress = []
    found = psnr_of_rays(renderer, drawn, progress.append)
    assert found["psnr"] == pytest.approx((psnr[0][0] + psnr[1][0]) / 2, abs=1e-4)
    assert found["psnr_masked"] == pytest.approx((psnr[0][1] + psnr[1][1]) / 2, abs=1e-4)
    assert found["psnr_pooled"] == pytest.approx(-10 * math.log10((seen[2][0] + seen[5][0]) / 2), abs=1e-4)
    assert sum(progress) == 60


def test_a_draw_is_the_same_again_and_masks_may_be_missing_or_empty(renderer):
    scene = centred_scene()
    first, again = (draw_rays(scene, (0, 1, 2), 2, CPU) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert len(a.rays) == 1
        assert (a.rays.directions == b.rays.directions).all()
        assert a.mask is None
    assert "psnr_masked" not in psnr_of_rays(renderer, first)
    masked = centred_scene(mask=lambda view: np.full((HEIGHT, WIDTH), view == 1))
    drawn = draw_rays(masked, (0, 1), 40, CPU)
    assert psnr_of_rays(renderer, drawn)["psnr_masked"] == psnr_of_rays(renderer, drawn[1:])["psnr"]


def test_colour_correction_is_the_best_gain_and_offset():
    """Against numpy's line through the points, channel by channel; a channel that is constant gets the mean."""
    rgb, truth = rand(50, 3), rand(50, 3, seed=1)
    rgb[:, 1] = 0.25
    corrected = colour_corrected(rgb, truth)
    for channel in (0, 2):
        expected = np.polyval(np.polyfit(rgb[:, channel], truth[:, channel], 1), rgb[:, channel])
        np.testing.assert_allclose(corrected[:, channel], expected, atol=1e-12)
    torch.testing.assert_close(corrected[:, 1], truth[:, 1].mean().expand(50))


def test_colour_correction_undoes_an_exposure():
    """A photograph at a third of the light, with a veil, is matched but where that would leave 0..1."""
    rgb = rand(40, 3)
    torch.testing.assert_close(colour_corrected(rgb, rgb / 3 + 0.1), rgb / 3 + 0.1)
    assert colour_corrected(rgb, 3 * rgb - 1).min() == 0
    assert colour_corrected(rgb, 3 * rgb - 1).max() == 1


def test_corrected_psnr_is_of_each_view_and_of_its_mask(renderer, monkeypatch):
    index = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    drawn = draw_rays(centred_scene(mask=lambda view: index % (view + 2) == 0), (2, 5), 61, CPU)
    monkeypatch.setattr(estimates, "ENOUGH", 5)
    errors = []
    for rays, truth, mask in drawn:
        rgb = renderer.last_pass(rays).rgb.double()
        errors.append([(colour_corrected(rgb[part], truth[part].double()) - truth[part]).square().mean()
                       for part in (torch.ones(30, dtype=torch.bool), mask)])  # fmt: skip
    psnr = -10 * np.log10(np.array(errors)).mean(0)
    found = psnr_of_rays(renderer, drawn, colour_correct=True)
    assert [found["psnr_corrected"], found["psnr_corrected_masked"]] == pytest.approx(psnr, abs=1e-6)
    plain = psnr_of_rays(renderer, drawn)
    assert plain.items() < found.items()
    assert found["psnr_corrected"] > plain["psnr"]


def test_few_rays_are_not_corrected(renderer):
    """Two rays are fitted exactly, which says nothing."""
    drawn = draw_rays(centred_scene(), (0, 1), 98, CPU) + draw_rays(centred_scene(), (2,), 50, CPU)
    assert [len(part.rays) for part in drawn] == [49, 49, 50]
    alone = psnr_of_rays(renderer, drawn[2:], colour_correct=True)["psnr_corrected"]
    assert psnr_of_rays(renderer, drawn, colour_correct=True)["psnr_corrected"] == alone
    assert "psnr_corrected" not in psnr_of_rays(renderer, drawn[:2], colour_correct=True)
