"""Evaluating networks only where it has an effect on a step or a picture. The gradients are those of DenseQuery.

What is saved, and why nothing changes:
- A sample whose raw density + noise is not above 0 has alpha 0 and weight 0: on a CPU its colour is not computed.
- Rays that are compared by opacity alone (unseen, neighbours) have no colour at all.
- The forward pass keeps no activations. The losses, computed from all samples' raw outputs, say by which of them
  their gradient is not exactly 0; only those are evaluated again, with a graph. That leaves out empty samples (the
  ReLU), masked rays, and the coarse pass of unseen rays, which has no part in any loss.
- With a grid, where the points left fit into one block per worker, most have a gradient: the first pass keeps its
  graph, and there is no second.
- Both passes work in blocks of points, so that a block's activations are all that is in memory; per sample there
  are only its point and what the networks say of it.

Axes: r rays, s samples along a ray; n points, flat.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.occupancy import Occupancy, nonzero_indices
from infonerf.scene.cameras import Rays
from infonerf.system.devices import autocast_to
from infonerf.system.workers import n_workers, share_out

PICTURE_BLOCKS = 8  # times the block: of a picture on a GPU, which else waits for the host most of the time


@dataclass(frozen=True)
class SparseQuery:
    """Raw colour and density of samples (a Query, see dense.py), `block` points at a time.

    On a CPU, the raw colour of a sample without density is left at 0.
    dtype: of the networks' hidden layers (autocast); None for the networks' own, with which alone the gradients are
    those of DenseQuery.
    occupancy: says where there may be density; elsewhere the raw density is -inf. None: anywhere.
    copies: for pictures, what to compute with instead of a field: its weights in `dtype`.
    """

    block: int
    dtype: torch.dtype | None = None
    occupancy: Occupancy | None = None
    copies: dict[Field, Field] = dataclasses.field(default_factory=dict)

    def __call__(self, field: Field, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        field = self.copies.get(field, field)
        points = (rays.origins[:, None] + rays.directions[:, None] * z[..., None]).flatten(0, 1)
        noise = None if noise is None else noise.flatten()
        encoded = field.encode_directions(rays.viewdirs) if colour else None
        if self.occupancy is None:
            indices = torch.arange(len(points), device=z.device)
        else:
            indices = nonzero_indices(self.occupancy.occupied(points))
            points, noise = points[indices], None if noise is None else noise[indices]
        samples = Samples(field, points, indices // z.shape[1], encoded, noise)
        few = len(points) <= self.block * self.workers(points, field)
        keep_graph = torch.is_grad_enabled() and self.occupancy is not None and few
        rgb, density = Evaluate.apply(self, samples, keep_graph, *field.parameters())
        if self.occupancy is not None:
            density = density.new_full(z.shape, -torch.inf).flatten().index_copy(0, indices, density)
            rgb = None if rgb is None else rgb.new_zeros(z.numel(), 3).index_copy(0, indices, rgb)
        return None if rgb is None else rgb.unflatten(0, z.shape), density.unflatten(0, z.shape)

    def for_pictures(self, networks: CoarseFine) -> "SparseQuery":
        occupancy = None if self.occupancy is None else self.occupancy.filled(networks)
        copies = dict(zip(networks, networks.in_precision(self.dtype), strict=True))
        block = self.block * (PICTURE_BLOCKS if networks.device.type == "cuda" else 1)
        return replace(self, block=block, occupancy=occupancy, copies=copies)

    def smaller(self) -> "SparseQuery | None":
        return replace(self, block=self.block // 2) if self.block > 1 else None

    def workers(self, points: Tensor, field: Field) -> int:
        """How many threads evaluate the points. A multiplication in bfloat16 counts as half a one."""
        return n_workers(points.device, len(points) * field.multiplications / (2 if self.dtype else 1))

    def multiple(self, device: torch.device) -> int:
        """Rows of a block come in multiples of this. On a CPU, oneDNN compiles a new kernel, for up to a millisecond in
        float32 and two in bfloat16, for every number of rows that it has not seen; so blocks are padded."""
        return min(512 if self.dtype else 128, self.block) if device.type == "cpu" else 1

    def blocks(self, indices: Tensor, workers: int) -> list["Block"]:
        """Points in padded blocks, small enough that each of `workers` threads has some."""
        multiple = self.multiple(indices.device)
        most, size = self.block - self.block % multiple, -(-len(indices) // workers)
        size = min(most, size + -size % multiple)
        return [Block(padded(part, multiple), len(part)) for part in indices.split(max(size, 1))]


Outputs = tuple[Tensor | None, Tensor]  # raw colour, None where it is not wanted, and raw density


class Block(NamedTuple):
    """Points that are evaluated together. indices: theirs, those after the first n being padding. outputs: of these
    points with their graph, where it was kept."""

    indices: Tensor
    n: int
    outputs: Outputs | None = None


@dataclass(frozen=True)
class Samples:
    """What a field is asked: points n 3; the number of each point's ray, n; the rays' encoded viewing directions
    r d, None where no colour is wanted; noise on the density, n."""

    field: Field
    points: Tensor
    ray: Tensor
    encoded: Tensor | None
    noise: Tensor | None

    def raw(self, indices: Tensor) -> Outputs:
        """Raw colour (m 3) and density (m) of the points at `indices` (m)."""
        features = self.field.features(self.points[indices])
        colour = None if self.encoded is None else self.field.colour(features, self.encoded[self.ray[indices]])
        return colour, self.field.density(features)

    def with_graph(self, block: Block, query: SparseQuery) -> Block:
        """A block with its outputs, differentiable, in the query's precision."""
        if block.outputs is not None:
            return block
        with torch.enable_grad(), autocast_to(query.dtype, block.indices.device):
            return block._replace(outputs=self.raw(block.indices))

    def empty_outputs(self) -> Outputs:
        """Raw colour and density of all points, the colours 0, the densities yet to be written."""
        colour = None if self.encoded is None else self.points.new_zeros(len(self.points), 3)
        return colour, self.points.new_empty(len(self.points))

    def indices(self) -> Tensor:
        """Of all points, n."""
        return torch.arange(len(self.points), device=self.points.device)


class Evaluate(torch.autograd.Function):
    """Samples -> raw colour n 3 and density n, differentiable by the field's parameters."""

    @staticmethod
    def forward(ctx, query: SparseQuery, samples: Samples, keep_graph: bool, *parameters: Tensor):
        ctx.set_materialize_grads(False)
        ctx.query, ctx.samples, ctx.kept = query, samples, []
        ctx.save_for_backward(*parameters)  # where they have changed since, autograd refuses
        if not keep_graph:
            return evaluate(samples, query)
        rgb, density, ctx.kept = evaluate_with_graph(samples, query)
        return rgb, density

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_rgb: Tensor | None, d_density: Tensor | None):
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        parameters = ctx.saved_tensors
        gradients = [None] * len(parameters)
        found = gradients_of(ctx.samples, [parameters[i] for i in needed], (d_rgb, d_density), ctx.query, ctx.kept)
        for i, gradient in zip(needed, found, strict=True):
            gradients[i] = gradient
        return None, None, None, *gradients


def padded(indices: Tensor, multiple: int) -> Tensor:
    """Indices, the last of them repeated until there is a multiple of `multiple`."""
    missing = -len(indices) % multiple
    return torch.cat([indices, indices[-1:].expand(missing)]) if missing else indices


def evaluate(samples: Samples, query: SparseQuery) -> Outputs:
    """Density everywhere; colour where the density with its noise is above 0."""
    points, field, encoded = samples.points, samples.field, samples.encoded
    rgb, density = samples.empty_outputs()

    @torch.no_grad()
    def work(blocks: Sequence[Block]) -> None:
        with autocast_to(query.dtype, points.device):
            for indices, n, _ in blocks:
                features = field.features(points[indices])
                raw = field.density(features).to(density.dtype)
                density[indices[:n]] = raw[:n]
                if rgb is None:
                    continue
                if points.device.type != "cpu":  # elsewhere, waiting to hear which points are dense costs more
                    rgb[indices] = field.colour(features, encoded[samples.ray[indices]]).to(rgb.dtype)
                    continue
                noisy = raw if samples.noise is None else raw + samples.noise[indices]
                dense = nonzero_indices(noisy[:n] > 0)
                rows = padded(dense, query.multiple(points.device))
                colour = field.colour(features[rows], encoded[samples.ray[indices[rows]]])
                rgb[indices[dense]] = colour[: len(dense)].to(rgb.dtype)

    workers = query.workers(points, field)
    share_out(work, query.blocks(samples.indices(), workers), workers)
    return rgb, density


def evaluate_with_graph(samples: Samples, query: SparseQuery) -> tuple[Tensor | None, Tensor, list[Block]]:
    """Density and colour everywhere, and the blocks with their graphs."""
    rgb, density = samples.empty_outputs()

    def work(blocks: Sequence[Block]) -> list[Block]:
        kept = [samples.with_graph(block, query) for block in blocks]
        for indices, n, outputs in kept:
            for whole, part in zip((rgb, density), outputs, strict=True):
                if whole is not None:
                    whole[indices[:n]] = part.detach()[:n].to(whole.dtype)
        return kept

    workers = query.workers(samples.points, samples.field)
    kept = share_out(work, query.blocks(samples.indices(), workers), workers)
    return rgb, density, list(itertools.chain.from_iterable(kept))


def gradients_of(
    samples: Samples, parameters: list[Tensor], d_outputs: Outputs, query: SparseQuery, kept: list[Block]
) -> list[Tensor | None]:
    """Gradients by the parameters, summed over the blocks that were kept; where none was, over the points at which
    one of the outputs has a gradient.

    None for parameters that the outputs do not depend on; 0 where no point is left."""
    active = [d.ne(0) if d.ndim == 1 else d.ne(0).any(-1) for d in d_outputs if d is not None]
    if not active:
        return [None] * len(parameters)

    def work(blocks: Sequence[Block]) -> list[Tensor | None]:
        total = [None] * len(parameters)
        for block in blocks:
            total = add(total, block_gradients(samples.with_graph(block, query), parameters, d_outputs))
        return total

    indices = samples.indices() if kept else nonzero_indices(torch.stack(active).any(0))
    workers = query.workers(indices, samples.field)
    return functools.reduce(add, share_out(work, kept or query.blocks(indices, workers), workers))


def block_gradients(block: Block, parameters: list[Tensor], d_outputs: Outputs) -> Sequence[Tensor | None]:
    """Gradients by the parameters of a block's outputs."""
    outputs, gradients = [], []
    for output, gradient in zip(block.outputs, d_outputs, strict=True):
        if output is not None and gradient is not None:
            outputs.append(output)
            gradients.append(unpadded(gradient, block).to(output.dtype))
    return torch.autograd.grad(outputs, parameters, gradients, allow_unused=True)


def unpadded(gradient: Tensor, block: Block) -> Tensor:
    """The gradient at a block's points, 0 for its padding."""
    chosen = gradient[block.indices]
    chosen[block.n :] = 0
    return chosen


def add(total: list[Tensor | None], new: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients by each parameter, None for none; `total` is used up."""
    result = []
    for one, other in zip(total, new, strict=True):
        if one is None or other is None:
            result.append(other if one is None else one)
        else:
            result.append(one.add_(other))
    return result
