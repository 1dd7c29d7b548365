"""Evaluating fields in tensors of fixed shapes, so that a step can be captured as CUDA graphs, and shared by ranks.

As sparse.py does, a first pass evaluates all samples without a graph, and only samples by whose raw outputs the losses
have a gradient that is not 0 are evaluated again, with one. Here the first pass is as large in every step, and the
second one works on blocks of a few sizes; how many samples there are for them is all that the host has to be told.

Axes: r rays, s samples along a ray; n points, flat, of the rays that this rank evaluates.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.occupancy import Occupancy
from infonerf.scene.cameras import Rays
from infonerf.system.devices import autocast_to
from infonerf.system.graphs import Host
from infonerf.system.ranks import Ranks

PARTS = (1, 4, 16)  # blocks are as large as they may be, or these parts of that

Outputs = tuple[Tensor | None, Tensor]  # raw colour, None where it is not wanted, and raw density


@dataclass(frozen=True)
class Points:
    """What a field is asked: points n 3; encoded viewing directions of their rays r d, None where no colour is wanted;
    the number of samples along a ray."""

    field: Field
    points: Tensor
    encoded: Tensor | None
    n_samples: int
    dtype: torch.dtype | None

    def raw(self, rows: Tensor | None = None) -> Outputs:
        """Raw colour and raw density, of all points or of those at `rows`, in float32 or the points' own precision."""
        points, encoded = self.points, self.encoded
        if encoded is not None:
            every = torch.arange(len(points), device=points.device) if rows is None else rows
            encoded = encoded[every.div(self.n_samples, rounding_mode="floor")]
        points = points if rows is None else points[rows]
        with autocast_to(self.dtype, points.device):
            features = self.field.features(points)
            colour = None if encoded is None else self.field.colour(features, encoded).to(points.dtype)
            return colour, self.field.density(features).to(points.dtype)

    @torch.no_grad()
    def raw_in_blocks(self, block: int) -> Outputs:
        """The same of all points, without a graph, `block` points at a time."""
        parts = [self.raw(rows) for rows in torch.arange(len(self.points), device=self.points.device).split(block)]
        colours, densities = zip(*parts, strict=True)
        return None if self.encoded is None else torch.cat(colours), torch.cat(densities)


@dataclass(frozen=True)
class Pass:
    """A pass over some rays: this rank's points, and the raw outputs of all ranks' rays, r s 3 and r s, by which the
    losses are differentiated. rays: which of them are this rank's."""

    points: Points
    outputs: Outputs
    rays: slice


@dataclass(frozen=True)
class FixedQuery:
    """Asked as a Query is (see dense.py), by one step.

    copies: the fields to compute with, by the field that is asked for. block: points at a time. keep_graph: evaluate
    all samples with a graph, so that nothing is left to do; for few and small ones. host: see system/graphs.py.
    passes: what was asked, where no graph was kept.
    """

    copies: dict[Field, Field]
    block: int
    dtype: torch.dtype | None
    occupancy: Occupancy | None
    host: Host
    ranks: Ranks
    keep_graph: bool = False
    passes: list[Pass] = field(default_factory=list)

    def __call__(self, field: Field, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        sizes = self.ranks.share(len(rays))
        first = sum(sizes[: self.ranks.rank])
        own = slice(first, first + sizes[self.ranks.rank])
        copy, n_samples = self.copies[field], z.shape[1]
        at = (rays.origins[own, None] + rays.directions[own, None] * z[own, :, None]).flatten(0, 1)
        encoded = copy.encode_directions(rays.viewdirs[own]) if colour else None
        points = Points(copy, at, encoded, n_samples, self.dtype)
        outputs = points.raw() if self.keep_graph else points.raw_in_blocks(self.block)
        if self.occupancy is not None:
            outputs = outputs[0], torch.where(self.occupancy.occupied(at), outputs[1], -torch.inf)
        outputs = tuple(output if output is None else output.unflatten(0, z[own].shape) for output in outputs)
        if not self.keep_graph:
            if self.ranks.size > 1:
                outputs = self.gathered(outputs, sizes)
            outputs = tuple(output if output is None else output.detach().requires_grad_() for output in outputs)
            self.passes.append(Pass(points, outputs, own))
        return outputs

    def gathered(self, outputs: Outputs, sizes: Sequence[int]) -> Outputs:
        """This rank's rays, and those of all others."""
        colour, density = outputs
        own = density[..., None] if colour is None else torch.cat([colour, density[..., None]], dim=-1)
        whole = own.new_empty(sum(sizes), *own.shape[1:])
        self.host(lambda: whole.copy_(self.ranks.gather_rows(own, sizes)))
        return None if colour is None else whole[..., :3], whole[..., -1]


class ActivePoints:
    """The points of a pass by whose raw outputs there is a gradient, and the field's gradient by them, block by block.

    points: of the pass. d_outputs: gradients by them, n 3 and n, None for none. count: how many points are active, on
    the device. `first`: which of them a block begins with, on the device. sizes: of blocks, descending.
    """

    def __init__(self, points: Points, d_outputs: Sequence[Tensor | None], block: int):
        n, device = len(points.points), points.points.device
        self.points, self.d_outputs = points, d_outputs
        self.sizes = sorted({min(max(block // part, 1), n) for part in PARTS}, reverse=True)
        active = torch.zeros(n, dtype=torch.bool, device=device)
        for d in d_outputs:
            if d is not None:
                active |= d.ne(0) if d.ndim == 1 else d.ne(0).any(-1)
        self.count, place = active.sum(), torch.where(active, active.cumsum(0) - 1, n)
        self.order = place.new_zeros(n + 1).scatter_(0, place, torch.arange(n, device=device))  # the last: not active
        self.first = torch.zeros((), dtype=torch.long, device=device)

    def blocks(self, count: int) -> Iterator[tuple[int, int]]:
        """First point and size of blocks that hold `count` points: as large as these fill, the last one of the smallest
        size, which need not be full; one at least."""
        first = 0
        while True:
            left = count - first
            fitting = [size for size in self.sizes if size <= left] or self.sizes[-1:]
            yield first, fitting[0]
            first += fitting[0]
            if first >= count:
                return

    def add_gradients(self, totals: dict[Tensor, Tensor], size: int) -> None:
        """Add the gradients by the field's parameters of the block of this size that begins at `first`. totals: by
        parameter of the field; those that are not there yet begin as 0."""
        place = self.first + torch.arange(size, device=self.first.device)
        rows = self.order[place.clamp_max(len(self.order) - 2)]
        parameters = [parameter for parameter in self.points.field.parameters() if parameter.requires_grad]
        outputs, d_outputs = [], []
        with torch.enable_grad():
            for output, d in zip(self.points.raw(rows), self.d_outputs, strict=True):
                if output is not None and d is not None:
                    outputs.append(output)
                    inside = (place < self.count).view(-1, *[1] * (d.ndim - 1))
                    d_outputs.append(torch.where(inside, d[rows], 0))
            found = torch.autograd.grad(outputs, parameters, d_outputs, allow_unused=True)
        add_to(totals, zip(parameters, found, strict=True))


def add_to(totals: dict[Tensor, Tensor], gradients: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Add gradients to those that there are, in place; None is no gradient."""
    found = {parameter: gradient for parameter, gradient in gradients if gradient is not None}
    new = [torch.empty_like(gradient, dtype=precise(gradient.dtype)) for gradient in found.values()]
    for parameter, like in zip(found, new, strict=True):
        if parameter not in totals:
            totals[parameter] = torch.zeros_like(like)
    if found:
        torch._foreach_copy_(new, list(found.values()))
        torch._foreach_add_([totals[parameter] for parameter in found], new)


def precise(dtype: torch.dtype) -> torch.dtype:
    """In what numbers of a type are summed."""
    return torch.promote_types(dtype, torch.float32)


def block_rows(networks: CoarseFine, most: int) -> int:
    """How many points the networks take at a time: `most`, and no more than a quarter of a GPU's memory holds, at twice
    the outputs of every layer in float32 a point."""
    device = networks.device
    if device.type != "cuda" or not torch.cuda.is_available():
        return most
    total = torch.cuda.get_device_properties(device).total_memory
    outputs = max(sum(parameter.shape[0] for parameter in field.parameters()) for field in networks)  # with the biases
    return max(1, min(most, total // 4 // (4 * outputs)))
