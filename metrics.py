"""Image quality. Images are h w 3 arrays in 0..1, masks h w bool."""

import math

import numpy as np


def psnr_of_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for values in 0..1; infinite for equal images."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """PSNR in dB over all pixels, or over those of the mask. NaN where the mask is empty."""
    error = (np.asarray(image, float) - np.asarray(truth, float)) ** 2
    if mask is not None:
        error = error[mask]
    return psnr_of_mse(error.mean()) if error.size else math.nan
