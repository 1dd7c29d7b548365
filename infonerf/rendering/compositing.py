"""Volume rendering (docs/method.md, Compositing). Axes: r rays, s samples along a ray, c colour."""

from typing import NamedTuple

import torch
from torch import Tensor


class Composite(NamedTuple):
    """What one pass sees along each ray: rgb r 3, None where nobody asked for colour; depth (z-depth), acc
    (accumulated opacity) r; weights and alpha r s; of the same samples the density, noise included and not
    below 0, and the depths z."""

    rgb: Tensor | None
    depth: Tensor
    acc: Tensor
    weights: Tensor
    alpha: Tensor
    density: Tensor
    z: Tensor

    @property
    def disparity(self) -> Tensor:
        """r, the inverse of the mean depth of what is seen; 0 on an empty ray. For callers: nothing here reads it."""
        seen = torch.where(self.acc > 0, self.acc, 1)  # 1 instead of 0/0, in the gradient too
        return torch.where(self.acc > 0, 1 / (self.depth / seen).clamp_min(1e-10), 0)


class Rendering(NamedTuple):
    """Both passes. `fine` is the last one; without importance sampling the only one, and `coarse` None."""

    coarse: Composite | None
    fine: Composite

    def detach(self) -> "Rendering":
        """The same without a graph."""
        passes = (one and Composite(*(None if part is None else part.detach() for part in one)) for one in self)
        return Rendering(*passes)


class Transmittance(torch.autograd.Function):
    """What passes sample after sample, r s, all above 0 -> what passes the first, the first two, ... r s.

    torch.cumprod, whose own way back first asks the device whether a factor is 0, and waits for the answer.
    """

    @staticmethod
    def forward(ctx, factors: Tensor) -> Tensor:
        through = torch.cumprod(factors, dim=-1)
        ctx.save_for_backward(factors, through)
        return through

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_through: Tensor) -> Tensor:
        factors, through = ctx.saved_tensors
        return (through * d_through).flip(-1).cumsum(-1).flip(-1).div_(factors)


def composite(
    raw_rgb: Tensor | None, raw_density: Tensor, z: Tensor, directions: Tensor,
    noise: Tensor | None = None, white_background: bool = False,
) -> Composite:
    """Raw colour r s 3, raw density r s, depths r s, directions r 3, noise on the density r s."""
    delta = torch.cat([z[:, 1:] - z[:, :-1], torch.full_like(z[:, :1], 1e10)], dim=-1)
    delta = delta * directions.norm(dim=-1, keepdim=True)
    density = (raw_density if noise is None else raw_density + noise).relu()
    alpha = 1 - torch.exp(-density * delta)
    through = Transmittance.apply(1 - alpha + 1e-10)
    weights = alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=-1)
    acc = weights.sum(-1)
    depth = (weights * z).sum(-1)
    rgb = None
    if raw_rgb is not None:
        rgb = (weights[..., None] * raw_rgb.sigmoid()).sum(-2)
        if white_background:
            rgb = rgb + (1 - acc[:, None])
    return Composite(rgb, depth, acc, weights, alpha, density, z)


def cat_composites(parts: list[Composite | None]) -> Composite | None:
    """The rays of all parts in a row."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    fields = zip(*parts, strict=True)
    return Composite(*(None if field[0] is None else torch.cat(field) for field in fields))


def split_composite(whole: Composite | None, sizes: list[int]) -> list[Composite | None]:
    """Parts of so many rays each."""
    if whole is None:
        return [None] * len(sizes)
    fields = [[None] * len(sizes) if field is None else field.split(sizes) for field in whole]
    return [Composite(*part) for part in zip(*fields, strict=True)]
