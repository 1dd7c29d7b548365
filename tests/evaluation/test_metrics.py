"""Metrics against plain loops and against the library."""

import math

import numpy as np
import pytest
import pytorch_msssim
import torch

from infonerf.evaluation.metrics import depth_error, floaters, mse, psnr, psnr_of_mse, ssim, ssim_map


def pair(seed=0, height=17, width=20, noise=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width, 3))
    return np.clip(truth + noise * rng.standard_normal(truth.shape), 0, 1), truth


def half_mask(height=17, width=20):
    mask = np.zeros((height, width), bool)
    mask[4:13, 7:19] = True
    return mask


def plain_ssim(x, y, row, col):
    """SSIM of the 11 x 11 window around a pixel, averaged over channels, in loops (Wang et al., 2004)."""
    total = 0.0
    for channel in range(3):
        sums, weights = np.zeros(5), 0.0
        for i in range(-5, 6):
            for j in range(-5, 6):
                weight = math.exp(-(i * i + j * j) / (2 * 1.5**2))
                a, b = x[row + i, col + j, channel], y[row + i, col + j, channel]
                sums += weight * np.array([a, b, a * a, b * b, a * b])
                weights += weight
        ma, mb, aa, bb, ab = sums / weights
        luminance = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        total += luminance * (2 * (ab - ma * mb) + 9e-4) / (aa - ma**2 + bb - mb**2 + 9e-4)
    return total / 3


def test_psnr():
    assert math.isnan(psnr_of_mse(math.nan))
    assert psnr_of_mse(0.01) == pytest.approx(20)
    assert psnr_of_mse(0.0) == math.inf
    image, truth = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    image[0, 0] = 0.2
    assert psnr(image, truth) == pytest.approx(20)
    assert mse(image, truth) == pytest.approx(0.01)


def test_psnr_within_a_mask():
    image, truth = pair()
    mask = half_mask()
    inside = [(i, j) for i in range(17) for j in range(20) if mask[i, j]]
    error = [(image[i, j, c] - truth[i, j, c]) ** 2 for i, j in inside for c in range(3)]
    assert mse(image, truth, mask) == pytest.approx(sum(error) / len(error))
    assert psnr(image, truth, mask) == pytest.approx(-10 * math.log10(sum(error) / len(error)))
    assert math.isnan(psnr(image, truth, np.zeros((17, 20), bool)))


def test_ssim_is_the_librarys_and_the_map_agrees_with_loops():
    image, truth = pair()
    tensors = [torch.from_numpy(x).movedim(-1, 0)[None] for x in (image, truth)]
    library = float(pytorch_msssim.ssim(*tensors, data_range=1.0))
    found = ssim_map(*tensors)
    assert found.shape == (7, 10)
    assert ssim(image, truth) == pytest.approx(library)
    assert float(found.mean()) == pytest.approx(library, rel=1e-6)
    for row, col in ((5, 5), (11, 14), (8, 9)):
        assert float(found[row - 5, col - 5]) == pytest.approx(plain_ssim(image, truth, row, col))
    assert ssim(truth, truth) == pytest.approx(1)


def test_masked_ssim_weighs_the_map_and_does_not_blacken():
    image, truth = pair()
    mask = half_mask()
    inside = [(row, col) for row in range(5, 12) for col in range(5, 15) if mask[row, col]]
    expected = np.mean([plain_ssim(image, truth, row, col) for row, col in inside])
    assert ssim(image, truth, mask) == pytest.approx(expected)
    blackened = ssim(image * mask[..., None], truth * mask[..., None])
    assert abs(blackened - expected) > 0.01


def test_ssim_of_what_is_too_small():
    image, truth = pair(height=10)
    assert math.isnan(ssim(image, truth))
    image, truth = pair()
    corner = np.zeros((17, 20), bool)
    corner[0, 0] = True  # no full window lies there
    assert math.isnan(ssim(image, truth, corner))


def test_depth_by_hand():
    """near 2, far 6: a surface hit, one missed by 0.3, fog in front of one, an empty pixel seen as such, a floater
    before an empty pixel, and a surface not seen at all."""
    depth = np.array([[3.0, 4.3, 1.5], [0.0, 2.5, 0.0]])
    acc = np.array([[1.0, 1.0, 0.5], [0.0, 1.0, 0.0]])
    true = np.array([[3.0, 4.0, 5.0], [0.0, 0.0, 4.0]], np.float32)
    # Rendered, empty counting as far: 3, 4.3, 4.5, 6, 2.5, 6. True: 3, 4, 5, 6, 6, 4.
    assert depth_error(depth, acc, true, 6.0) == pytest.approx((0 + 0.3 + 0.5 + 0 + 3.5 + 2) / 6)
    assert floaters(depth, acc, true, 2.0, 6.0) == pytest.approx(2 / 6)  # more than 0.2 in front: fog and floater


def test_floaters_begin_beyond_a_twentieth_of_the_range():
    true, acc = np.array([[4.0, 4.0, 4.0]]), np.ones((1, 3))
    assert floaters(np.array([[3.5, 3.51, 4.6]]), acc, true, 0.0, 10.0) == 0  # 0.5 in front, which is not more
    assert floaters(np.array([[3.49, 3.0, 5.0]]), acc, true, 0.0, 10.0) == pytest.approx(2 / 3)


def test_depth_against_a_loop():
    rng = np.random.default_rng(3)
    acc, true = rng.random((7, 9)).astype(np.float32), rng.uniform(2, 6, (7, 9)).astype(np.float32)
    depth, true[rng.random((7, 9)) < 0.4] = (acc * rng.uniform(2, 6, (7, 9))).astype(np.float32), 0
    total, count = 0.0, 0
    for row in range(7):
        for col in range(9):
            rendered = float(depth[row, col]) + (1 - float(acc[row, col])) * 6.0
            surface = float(true[row, col]) or 6.0
            total += abs(rendered - surface)
            count += surface - rendered > 0.05 * 4.0
    assert depth_error(depth, acc, true, 6.0) == pytest.approx(total / 63, rel=1e-6)
    assert floaters(depth, acc, true, 2.0, 6.0) == pytest.approx(count / 63)
    assert 0 < count < 63


def test_depth_that_is_not_finite_has_no_metrics():
    depth, ones = np.array([[math.nan, 3.0]]), np.ones((1, 2))
    assert math.isnan(depth_error(depth, ones, 3 * ones, 6.0)) and math.isnan(floaters(depth, ones, 3 * ones, 2.0, 6.0))
