"""Image and depth quality. Images are h w 3 arrays in 0..1, masks h w bool, depths h w z-depths.

A masked metric averages over the mask's pixels only; the image is never blackened outside it. For a depth metric
what is empty lies at `far`, as in `render.unit_depth`: of a rendering `depth + (1 - acc) * far`, acc being its
opacity (h w), and of the truth the pixels of depth 0.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_msssim
import torch
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5  # of the SSIM of Wang et al., IEEE Transactions on Image Processing, 2004
FLOATER = 0.05  # of near..far: what is farther in front of the true surface than this does not belong to it


def psnr_of_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for values in 0..1; infinite for equal images, NaN for NaN."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def mse(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared error over all pixels, or over those of the mask. NaN where the mask is empty."""
    error = (np.asarray(image, float) - np.asarray(truth, float)) ** 2
    if mask is not None:
        error = error[mask]
    return float(error.mean()) if error.size else math.nan


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """PSNR in dB over all pixels, or over those of the mask. NaN where the mask is empty."""
    return psnr_of_mse(mse(image, truth, mask))


def ssim(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Structural similarity; with a mask, the mean of the SSIM map weighted by it.

    NaN where the image is smaller than the 11 x 11 window, or the mask empty within the map.
    """
    if min(truth.shape[:2]) < WINDOW:
        return math.nan
    pair = [torch.as_tensor(np.asarray(x, np.float64)).movedim(-1, 0)[None] for x in (image, truth)]
    if mask is None:
        return float(pytorch_msssim.ssim(*pair, data_range=1.0, win_size=WINDOW, win_sigma=SIGMA))
    edge = WINDOW // 2
    inside = np.asarray(mask)[edge:-edge, edge:-edge]
    return float(ssim_map(*pair).numpy()[inside].mean()) if inside.any() else math.nan


def ssim_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(1 3 h w) twice -> SSIM of each full window, averaged over channels: h-10 w-10. Its mean is
    `pytorch_msssim.ssim`, which does not give the map."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = torch.outer(window, window) / window.sum() ** 2

    def blur(image):
        return functional.conv2d(image, window.expand(3, 1, WINDOW, WINDOW), groups=3)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * cov + c2) / (var_x + var_y + c2)).mean(1)[0]


def depth_gap(depth: np.ndarray, acc: np.ndarray, true_depth: np.ndarray, far: float) -> np.ndarray:
    """h w, true minus rendered depth, what is empty counting as far."""
    rendered = np.asarray(depth, float) + (1 - np.asarray(acc, float)) * far
    return to_far(true_depth, far) - rendered


def to_far(true_depth: np.ndarray, far: float) -> np.ndarray:
    """h w, the true depth with `far` where there is no surface."""
    return np.where(true_depth > 0, np.asarray(true_depth, float), far)


def depth_error(depth: np.ndarray, acc: np.ndarray, true_depth: np.ndarray, far: float) -> float:
    """mean |depth + (1 - acc) far - true| over all pixels, in the scene's units; true is `far` where it is empty."""
    return float(np.abs(depth_gap(depth, acc, true_depth, far)).mean())


def floaters(depth: np.ndarray, acc: np.ndarray, true_depth: np.ndarray, near: float, far: float) -> float:
    """The share of pixels, 0..1, with depth + (1 - acc) far < true - 0.05 (far - near): something, or fog, hangs in
    front of the true surface, or of the empty background. NaN where the rendering is not finite."""
    gap = depth_gap(depth, acc, true_depth, far)
    return float((gap > FLOATER * (far - near)).mean()) if np.isfinite(gap).all() else math.nan


def load_lpips(device: torch.device) -> tuple[Callable | None, str | None]:
    """LPIPS (VGG), on the device, as a function of two images, or None and the reason. Never downloads anything."""
    try:
        import lpips
    except ImportError:
        return None, "the lpips package is not installed"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "vgg16-397923af.pth"
    if not weights.is_file():
        return None, f"the weights of VGG-16 are not at {weights}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="vgg", verbose=False).eval().to(device)

    @torch.no_grad()
    def distance(image: np.ndarray, truth: np.ndarray) -> float:
        pair = (torch.as_tensor(np.asarray(x, np.float32)).to(device) for x in (image, truth))
        return float(model(*(x.movedim(-1, 0)[None] * 2 - 1 for x in pair)))

    return distance, None
