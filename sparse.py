"""Evaluating networks only where it has an effect on a step or a picture. The gradients are those of DenseQuery.

What is saved, and why nothing changes:
- A sample whose raw density + noise is not above 0 has alpha 0 and weight 0: its colour is not computed.
- Rays that are compared by opacity alone (unseen, neighbours) have no colour at all.
- The forward pass keeps no activations. The losses, computed from all samples' raw outputs, say by which of them
  their gradient is not exactly 0; only those are evaluated again, with a graph. That leaves out empty samples (the
  ReLU), masked rays, and the coarse pass of unseen rays, which has no part in any loss.
- Both passes work in blocks of points, so that a block's activations are all that is in memory; per sample there
  are only its point and what the networks say of it.

Axes: r rays, s samples along a ray; n points, flat.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fused import linear_relu
from occupancy import Occupancy, numbers_of, precision
from rays import Rays
from run_nerf_helpers import NeRF


@dataclass(frozen=True)
class SparseQuery:
    """Raw colour and density of samples (a Query, see run_nerf_helpers.py), `block` points at a time.

    Where a sample has no density, its raw colour is left at 0.
    dtype: of the networks' matrix products (autocast); None for the networks' own.
    occupancy: says where there may be density; elsewhere the raw density is -inf. None: anywhere.
    """

    block: int
    dtype: torch.dtype | None = None
    occupancy: Occupancy | None = None

    def __call__(self, network: NeRF, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        points = (rays.origins[:, None] + rays.directions[:, None] * z[..., None]).flatten(0, 1)
        noise = None if noise is None else noise.flatten()
        views = network.encoded_views(rays.viewdirs) if colour else None
        if self.occupancy is None:
            index = torch.arange(len(points), device=z.device)
        else:
            index = numbers_of(self.occupancy.occupied(points))
            points, noise = points[index], None if noise is None else noise[index]
        samples = Samples(network, points, index // z.shape[1], views, noise)
        rgb, density = Evaluate.apply(self, samples, *network.parameters())
        if self.occupancy is not None:
            density = density.new_full(z.shape, -torch.inf).flatten().index_copy(0, index, density)
            rgb = None if rgb is None else rgb.new_zeros(z.numel(), 3).index_copy(0, index, rgb)
        return None if rgb is None else rgb.unflatten(0, z.shape), density.unflatten(0, z.shape)


@dataclass(frozen=True)
class Samples:
    """What a network is asked: points n 3; the number of each point's ray, n; the rays' encoded viewing directions
    r v, None where no colour is wanted; noise on the density, n."""

    network: NeRF
    points: Tensor
    ray: Tensor
    views: Tensor | None
    noise: Tensor | None

    def raw(self, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Raw colour (m 3) and density (m) of the points numbered `index` (m)."""
        h = self.network.features(self.points[index], linear_relu)
        colour = None if self.views is None else self.network.colour(h, self.views[self.ray[index]], linear_relu)
        return colour, self.network.density(h)


class Evaluate(torch.autograd.Function):
    """Samples -> raw colour n 3 and density n, differentiable by the network's parameters."""

    @staticmethod
    def forward(ctx, query: SparseQuery, samples: Samples, *parameters: Tensor):
        ctx.set_materialize_grads(False)
        ctx.query, ctx.samples = query, samples
        ctx.save_for_backward(*parameters)  # where they have changed since, autograd refuses
        return evaluate(samples, query)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_rgb: Tensor | None, d_density: Tensor | None):
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[2:]) if wanted]
        parameters = ctx.saved_tensors
        gradients = [None] * len(parameters)
        found = gradients_of(ctx.samples, [parameters[i] for i in needed], d_rgb, d_density, ctx.query)
        for i, gradient in zip(needed, found, strict=True):
            gradients[i] = gradient
        return None, None, *gradients


def evaluate(samples: Samples, query: SparseQuery) -> tuple[Tensor | None, Tensor]:
    """Density everywhere; colour where the density with its noise is above 0."""
    points, network, views = samples.points, samples.network, samples.views
    density = points.new_empty(len(points))
    rgb = None if views is None else points.new_zeros(len(points), 3)
    with precision(query.dtype, points.device):
        for start in range(0, len(points), query.block):
            block = slice(start, start + query.block)
            h = network.features(points[block], linear_relu)
            density[block] = network.density(h)
            if rgb is not None:
                noisy = density[block] if samples.noise is None else density[block] + samples.noise[block]
                rows = numbers_of(noisy > 0)
                colour = network.colour(h[rows], views[samples.ray[block][rows]], linear_relu)
                rgb[start + rows] = colour.to(rgb.dtype)
    return rgb, density


def gradients_of(
    samples: Samples, parameters: list[Tensor], d_rgb: Tensor | None, d_density: Tensor | None, query: SparseQuery
) -> list[Tensor | None]:
    """Gradients by the parameters, summed over the points at which one of the outputs has a gradient.

    None for parameters that the outputs do not depend on; 0 where no point is left."""
    total = [None] * len(parameters)
    raw_gradients = (d_rgb, d_density)
    matters = [d.ne(0) if d.ndim == 1 else d.ne(0).any(-1) for d in raw_gradients if d is not None]
    if not matters:
        return total
    index = numbers_of(torch.stack(matters).any(0))
    for block in index.split(query.block):
        with torch.enable_grad(), precision(query.dtype, samples.points.device):
            outputs = samples.raw(block)
        pairs = [(out, d[block].to(out.dtype)) for out, d in zip(outputs, raw_gradients, strict=True)
                 if out is not None and d is not None]  # fmt: skip
        outputs, given = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(outputs, parameters, given, allow_unused=True)
        total = [new if old is None else old if new is None else old.add_(new)
                 for old, new in zip(total, gradients, strict=True)]  # fmt: skip
    return total
