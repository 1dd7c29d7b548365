"""Evaluating networks only where it has an effect on a step or a picture. The gradients are those of DenseQuery.

What is saved, and why nothing changes:
- A sample whose raw density + noise is not above 0 has alpha 0 and weight 0: its colour is not computed.
- Rays that are compared by opacity alone (unseen, neighbours) have no colour at all.
- The forward pass keeps no activations. The losses, computed from all samples' raw outputs, say by which of them
  their gradient is not exactly 0; only those are evaluated again, with a graph. That leaves out empty samples (the
  ReLU), masked rays, and the coarse pass of unseen rays, which has no part in any loss.
- Where a grid has left out what is empty, and one block holds the rest, most of that is active: it is evaluated once.
- Both passes work in blocks of points, so that a block's activations are all that is in memory; per sample there
  are only its point and what the networks say of it.

Axes: r rays, s samples along a ray; n points, flat.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infonerf.fields.fused import linear_relu
from infonerf.fields.nerf import NeRF
from infonerf.rendering.occupancy import Occupancy, numbers_of, precision
from infonerf.system.workers import n_workers, share_out
from infonerf.training.sampler import Rays


@dataclass(frozen=True)
class SparseQuery:
    """Raw colour and density of samples (a Query, see run_nerf_helpers.py), `block` points at a time.

    Where a sample has no density, its raw colour is left at 0.
    dtype: of the networks' hidden layers (autocast); None for the networks' own, with which alone the gradients are
    those of DenseQuery.
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
        few = len(points) <= self.block * self.workers(points, network)
        once = torch.is_grad_enabled() and self.occupancy is not None and few
        rgb, density = Evaluate.apply(self, samples, once, *network.parameters())
        if self.occupancy is not None:
            density = density.new_full(z.shape, -torch.inf).flatten().index_copy(0, index, density)
            rgb = None if rgb is None else rgb.new_zeros(z.numel(), 3).index_copy(0, index, rgb)
        return None if rgb is None else rgb.unflatten(0, z.shape), density.unflatten(0, z.shape)

    def workers(self, points: Tensor, network: NeRF) -> int:
        """How many threads evaluate the points. A multiplication in bfloat16 counts as half a one."""
        return n_workers(points.device, len(points) * size_of(network) / (2 if self.dtype else 1))

    @property
    def multiple(self) -> int:
        """A block's number of rows is a multiple of this: of a number that it has not met, oneDNN first compiles a
        matrix product, for up to a millisecond in float32, two in bfloat16."""
        return min(512 if self.dtype else 128, self.block)

    def blocks(self, index: Tensor, workers: int) -> list[tuple[Tensor, int]]:
        """Numbers of points in padded blocks, small enough that each of `workers` threads has some; each with how many
        of its numbers are no padding."""
        most, size = self.block - self.block % self.multiple, -(-len(index) // workers)
        size = min(most, size + -size % self.multiple)
        return [(padded(part, self.multiple), len(part)) for part in index.split(max(size, 1))]


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

    def with_graph(self, index: Tensor, query: SparseQuery) -> tuple[Tensor | None, Tensor]:
        """The same, differentiable, in the query's precision."""
        with torch.enable_grad(), precision(query.dtype, index.device):
            return self.raw(index)

    def nothing(self) -> tuple[Tensor | None, Tensor]:
        """Raw colour and density of all points, the colours 0, the densities yet to be written."""
        colour = None if self.views is None else self.points.new_zeros(len(self.points), 3)
        return colour, self.points.new_empty(len(self.points))

    def numbers(self) -> Tensor:
        """Of all points, n."""
        return torch.arange(len(self.points), device=self.points.device)


class Evaluate(torch.autograd.Function):
    """Samples -> raw colour n 3 and density n, differentiable by the network's parameters. once: keep the graph."""

    @staticmethod
    def forward(ctx, query: SparseQuery, samples: Samples, once: bool, *parameters: Tensor):
        ctx.set_materialize_grads(False)
        ctx.query, ctx.samples, ctx.kept = query, samples, []
        ctx.save_for_backward(*parameters)  # where they have changed since, autograd refuses
        if not once:
            return evaluate(samples, query)
        rgb, density, ctx.kept = evaluate_once(samples, query)
        return rgb, density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_rgb: Tensor | None, d_density: Tensor | None):
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        parameters = ctx.saved_tensors
        gradients = [None] * len(parameters)
        found = gradients_of(ctx.samples, [parameters[i] for i in needed], d_rgb, d_density, ctx.query, ctx.kept)
        for i, gradient in zip(needed, found, strict=True):
            gradients[i] = gradient
        return None, None, None, *gradients


def padded(index: Tensor, multiple: int) -> Tensor:
    """Numbers, the last of them repeated until there is a multiple of `multiple`."""
    missing = -len(index) % multiple
    return torch.cat([index, index[-1:].expand(missing)]) if missing else index


def evaluate(samples: Samples, query: SparseQuery) -> tuple[Tensor | None, Tensor]:
    """Density everywhere; colour where the density with its noise is above 0."""
    points, network, views = samples.points, samples.network, samples.views
    rgb, density = samples.nothing()

    @torch.no_grad()
    def work(blocks: Sequence[tuple[Tensor, int]]) -> None:
        with precision(query.dtype, points.device):
            for index, n in blocks:
                h = network.features(points[index], linear_relu)
                raw = network.density(h).to(density.dtype)
                density[index[:n]] = raw[:n]
                if rgb is None:
                    continue
                noisy = raw if samples.noise is None else raw + samples.noise[index]
                dense = numbers_of(noisy[:n] > 0)
                rows = padded(dense, query.multiple)
                colour = network.colour(h[rows], views[samples.ray[index[rows]]], linear_relu)
                rgb[index[dense]] = colour[: len(dense)].to(rgb.dtype)

    workers = query.workers(points, network)
    share_out(work, query.blocks(samples.numbers(), workers), workers)
    return rgb, density


Kept = tuple[Tensor, int, tuple[Tensor | None, Tensor]]  # a block, and its raw colour and density with the graph


def evaluate_once(samples: Samples, query: SparseQuery) -> tuple[Tensor | None, Tensor, list[Kept]]:
    """Density and colour everywhere, and the blocks with their graphs."""
    rgb, density = samples.nothing()

    def work(blocks: Sequence[tuple[Tensor, int]]) -> list[Kept]:
        kept = [(index, n, samples.with_graph(index, query)) for index, n in blocks]
        for index, n, outputs in kept:
            for whole, part in zip((rgb, density), outputs, strict=True):
                if whole is not None:
                    whole[index[:n]] = part.detach()[:n].to(whole.dtype)
        return kept

    workers = query.workers(samples.points, samples.network)
    kept = share_out(work, query.blocks(samples.numbers(), workers), workers)
    return rgb, density, list(itertools.chain.from_iterable(kept))


def gradients_of(
    samples: Samples, parameters: list[Tensor], d_rgb: Tensor | None, d_density: Tensor | None, query: SparseQuery,
    kept: list[Kept],
) -> list[Tensor | None]:
    """Gradients by the parameters, summed over the blocks that were kept; where none was, over the points at which
    one of the outputs has a gradient.

    None for parameters that the outputs do not depend on; 0 where no point is left."""
    raw_gradients = (d_rgb, d_density)
    matters = [d.ne(0) if d.ndim == 1 else d.ne(0).any(-1) for d in raw_gradients if d is not None]
    if not matters:
        return [None] * len(parameters)

    def work(blocks: Sequence[tuple[Tensor, int] | Kept]) -> list[Tensor | None]:
        total = [None] * len(parameters)
        for block in blocks:
            index, n, outputs = block if kept else (*block, samples.with_graph(block[0], query))
            outputs, given = zip(*[(out, part(d, index, n).to(out.dtype))
                                   for out, d in zip(outputs, raw_gradients, strict=True)
                                   if out is not None and d is not None], strict=True)  # fmt: skip
            total = add(total, torch.autograd.grad(outputs, parameters, given, allow_unused=True))
        return total

    index = samples.numbers() if kept else numbers_of(torch.stack(matters).any(0))
    workers = query.workers(index, samples.network)
    return functools.reduce(add, share_out(work, kept or query.blocks(index, workers), workers))


def size_of(network: NeRF) -> int:
    """Number of parameters, about as many as there are multiplications for a point."""
    return sum(parameter.numel() for parameter in network.parameters())


def part(gradient: Tensor, index: Tensor, n: int) -> Tensor:
    """The gradient at the points numbered `index`; that of all after the first n, which pad the block, is 0."""
    chosen = gradient[index]
    chosen[n:] = 0
    return chosen


def add(total: list[Tensor | None], new: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients by each parameter, None for none; `total` is used up."""
    return [b if a is None else a if b is None else a.add_(b) for a, b in zip(total, new, strict=True)]
