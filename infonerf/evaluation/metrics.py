"""Image and depth quality, and METRICS, the list that evaluations, tables, results.csv and the report read.

Images are h w 3 arrays in 0..1, masks h w bool, depths h w z-depths. A masked metric averages over the mask's pixels
only; the image is never blackened outside it. For a depth metric what is empty lies at `far`, as in depth images: of a
rendering `depth + (1 - acc) * far`, acc being its opacity (h w), and of the truth the pixels of depth 0.
"""

import math
from collections.abc import Callable, Container
from dataclasses import dataclass

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
    """The fraction of pixels, 0..1, with depth + (1 - acc) far < true - 0.05 (far - near): something, or fog, hangs in
    front of the true surface, or of the empty background. NaN where the rendering is not finite."""
    gap = depth_gap(depth, acc, true_depth, far)
    return float((gap > FLOATER * (far - near)).mean()) if np.isfinite(gap).all() else math.nan


# The list.


@dataclass(frozen=True)
class Comparison:
    """A rendered view and the truth: rgb, truth h w 3; depth, acc h w; where the view has such, the object's mask h w
    and the true depth h w; the scene's depth range."""

    rgb: np.ndarray
    truth: np.ndarray
    depth: np.ndarray
    acc: np.ndarray
    near: float
    far: float
    mask: np.ndarray | None = None
    true_depth: np.ndarray | None = None
    lpips: Callable | None = None  # rgb, truth and perhaps mask -> LPIPS


@dataclass(frozen=True)
class Metric:
    """What evaluations, tables, results.csv and the report know of a metric.

    of_view: a Comparison -> value; None for what is only known of many views together, or of random rays.
    needs: the parts of a Comparison without which there is no value. decimals: as it is shown.
    in_results: whether results.csv has a column of it. in_report: whether the report has, "always" or where it is
    "measured". per_view: whether the report shows it beside every picture.
    """

    name: str
    heading: str
    higher_is_better: bool
    of_view: Callable[[Comparison], float] | None = None
    needs: tuple[str, ...] = ()
    decimals: int = 4
    in_results: bool = True
    in_report: str | None = None
    per_view: bool = False

    def shown(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.{self.decimals}f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "PSNR", True, lambda c: psnr(c.rgb, c.truth), decimals=2, in_report="always", per_view=True),
        Metric("psnr_pooled", "PSNR of the pooled error", True, decimals=2),
        Metric("ssim", "SSIM", True, lambda c: ssim(c.rgb, c.truth), in_report="always", per_view=True),
        Metric("lpips", "LPIPS", False, lambda c: c.lpips(c.rgb, c.truth), ("lpips",), in_report="always"),
        Metric("psnr_masked", "PSNR in mask", True, lambda c: psnr(c.rgb, c.truth, c.mask), ("mask",),
               decimals=2, in_report="measured"),
        Metric("ssim_masked", "SSIM in mask", True, lambda c: ssim(c.rgb, c.truth, c.mask), ("mask",),
               in_report="measured"),
        Metric("lpips_masked", "LPIPS in mask", False, lambda c: c.lpips(c.rgb, c.truth, c.mask), ("lpips", "mask"),
               in_report="measured"),
        Metric("depth_error", "Depth error", False, lambda c: depth_error(c.depth, c.acc, c.true_depth, c.far),
               ("true_depth",), in_report="measured", per_view=True),
        Metric("floaters", "Floaters", False, lambda c: floaters(c.depth, c.acc, c.true_depth, c.near, c.far),
               ("true_depth",), in_report="measured", per_view=True),
        Metric("psnr_corrected", "PSNR, colours corrected", True, decimals=2, in_results=False),
        Metric("psnr_corrected_masked", "PSNR in mask, colours corrected", True, decimals=2, in_results=False),
    )
}


def metrics_of(compared: Comparison, known: Container[str]) -> dict[str, float | None]:
    """The mean squared error and every metric of one view. None for what is not finite, and for what this view lacks.

    known: the needs that there are; metrics of others are left out.
    """
    result = {"mse": mse(compared.rgb, compared.truth)}
    for metric in METRICS.values():
        if metric.of_view is not None and all(part in known for part in metric.needs):
            lacks = any(getattr(compared, part) is None for part in metric.needs)
            result[metric.name] = None if lacks else metric.of_view(compared)
    return finite(result)


def finite(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """None for what is not finite."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}


def means(views: dict[str, dict]) -> dict[str, float | None]:
    """Means over the views; `psnr_pooled` is the PSNR of the mean squared error.

    A view without a value (an empty mask, say) is left out of that mean; but a rendering that is not finite
    is not passed over: then there are no means.
    """
    result, broken = {}, any(metrics["mse"] is None for metrics in views.values())
    for name in dict.fromkeys(name for metrics in views.values() for name in metrics):
        values = [metrics[name] for metrics in views.values() if metrics.get(name) is not None]
        result[name] = math.fsum(values) / len(values) if values and not broken else None
    if result.get("mse"):
        result["psnr_pooled"] = psnr_of_mse(result["mse"])
    return result
