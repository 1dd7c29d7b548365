"""Depths along a ray (docs/method.md, Depths along a ray). Axes: r rays, s samples along a ray.

Depths z are multiples of the un-normalised ray direction.
"""

import torch
from torch import Tensor

from infonerf.scene.cameras import Rays


def coarse_depths(rays: Rays, n_samples: int, lindisp: bool = False, u: Tensor | None = None) -> Tensor:
    """r s depths from near to far, evenly spaced in depth or disparity.

    With u (r s, in 0..1), one in each interval between the midpoints; the first and last interval end at
    near and far.
    """
    t = torch.linspace(0, 1, n_samples, dtype=rays.origins.dtype, device=rays.origins.device)
    if lindisp:
        z = 1 / ((1 - t) / rays.near + t / rays.far)
    else:
        z = rays.near * (1 - t) + rays.far * t
    z = z.expand(len(rays), n_samples)
    if u is None:
        return z
    middle = (z[:, 1:] + z[:, :-1]) / 2
    lower, upper = torch.cat([z[:, :1], middle], dim=-1), torch.cat([middle, z[:, -1:]], dim=-1)
    return lower + (upper - lower) * u


def sample_pdf(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-transform sampling of a piecewise constant density.

    edges r b+1, weights r b (not normalised), u r n in 0..1 -> r n positions.
    """
    weights = weights + 1e-5
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=-1)
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[-1] - 1)
    cdf_below, edge_below = cdf.gather(-1, below), edges.gather(-1, below)
    mass = cdf.gather(-1, above) - cdf_below
    mass = torch.where(mass < 1e-5, torch.ones_like(mass), mass)
    return edge_below + (u - cdf_below) / mass * (edges.gather(-1, above) - edge_below)


def fine_depths(z: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Coarse depths and weights (r s), u (r n) -> sorted union of z and n new depths, r s+n. No gradient."""
    middle = (z[:, 1:] + z[:, :-1]) / 2
    return torch.cat([z, sample_pdf(middle, weights[:, 1:-1], u)], dim=-1).sort(dim=-1).values.detach()
