"""A training step in tensors of fixed shapes: all that a GPU does of it can be captured as CUDA graphs, and ranks can
share it. Its gradients are those of the plain step (Trainer.attempt_step in run_nerf.py).

A step is three stretches of work. The first evaluates all samples, composites them, and finds the gradient of the
losses by what the networks said of each sample. The second goes through the samples where it is not 0, block by block,
for the gradient by the weights. The third updates these. Between the first two the host has to know how many blocks
there are; for nothing else does it wait. A small step has all samples in one stretch, and waits for nothing.

Where a step's gradient is not finite, the GPU leaves its update out; the host hears of it later.
"""

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch
from torch import Tensor

from infonerf.fields.average import WeightAverage
from infonerf.fields.field import CoarseFine
from infonerf.rendering.compositing import Rendering
from infonerf.rendering.fixed import ActivePoints, FixedQuery, add_to, block_rows
from infonerf.rendering.groups import SEEN
from infonerf.rendering.renderer import Draws, Renderer
from infonerf.scene.cameras import Rays
from infonerf.system.devices import to_device
from infonerf.system.errors import out_of_memory
from infonerf.system.graphs import Capture, Captured, Host, Work, at_once, at_once_watched
from infonerf.system.logs import say
from infonerf.system.ranks import Ranks
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import Loss, StepView, Terms, loss_terms, total_loss, weights_at

SMALL = 1e10  # multiplications of a first pass: up to so many, starting work costs a GPU more than doing it
TOLERANCE = 0.01  # relative, of a captured step's gradient: many times what rounding in another order changes


@dataclass
class FixedStepper:
    """Steps of fixed shapes, captured where `capture` is given.

    dtype: of the hidden layers; None for the networks' own. block: points at a time, at most.
    skipped, in_a_row: updates that were not made, in all and since the last one that was; on the device.
    """

    networks: CoarseFine
    renderer: Renderer
    losses: Sequence[Loss]
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    dtype: torch.dtype | None
    block: int
    capture: Capture | None = None
    ranks: Ranks = field(default_factory=Ranks.alone)

    def __post_init__(self):
        device = self.networks.device
        self.copies = self.networks.in_precision(self.dtype)
        self.skipped, self.in_a_row = (torch.zeros((), dtype=torch.long, device=device) for _ in range(2))
        self.block, self.key, self.current = block_rows(self.networks, self.block), None, None
        self.small = SMALL

    def step(self, batch: RayBatch, draws: Sequence[Draws], number: int) -> tuple[Terms, dict[str, Rendering]]:
        """Make update `number`; the terms of its loss and the renderings that it was made from, which the next step
        overwrites."""
        if self.copies is not self.networks:
            self.copies.set_step(number)
        weights, rays, occupancy = weights_at(self.losses, number), batch.groups[SEEN], self.renderer.query.occupancy
        kept = self.average.kept(number) if self.average else 1.0
        numbers = torch.tensor([rays.near, rays.far, 1 - kept, *weights.values()], dtype=batch.target.dtype)
        inputs = [*to_device([numbers], batch.target.device), *tensors_of(batch, draws)]
        key = (
            tuple(batch.groups), tuple(weights), tuple(tensor.shape for tensor in inputs),
            occupancy is not None and occupancy.in_use, tuple(network.phase for network in self.networks),
        )  # fmt: skip
        while True:
            if key != self.key:
                self.key, self.current = None, None
                gc.collect()  # its graphs, which hold memory
                self.key, self.current = key, FixedStep(self, inputs, batch, draws, tuple(weights))
            try:
                self.current.run(inputs)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.block == 1 or self.ranks.size > 1 or self.current.updating:
                    raise
            self.key, self.small, self.block = None, 0, self.block // 2
            say(f"out of memory: a step evaluates {self.block} points at a time from now on (netchunk)")
        terms = {name: (weights.get(name, weight), value) for name, (weight, value) in self.current.terms.items()}
        return terms, self.current.renderings

    def captured(self, work: Work, beside: Captured | None = None) -> Captured | None:
        """What does the work again; None where it is not to be captured, or cannot be."""
        if self.capture is None:
            return None
        try:
            return self.capture(work, beside)
        except RuntimeError as error:
            first = error.__context__ or error  # of the end of a capture, which fails after it
            self.capture_nothing(str(first).strip().split("\n")[0])
            return None

    def capture_nothing(self, reason: str) -> None:
        """From now on."""
        self.capture = None
        say(f"WARNING: a step cannot be captured as a CUDA graph ({reason}): going on without, which is slower")


class FixedStep:
    """The step of some groups of rays and losses. inputs, batch, draws: of the shapes that all such steps have."""

    def __init__(self, stepper: FixedStepper, inputs: Sequence[Tensor], batch: RayBatch, draws: Sequence[Draws],
                 names: Sequence[str]):
        self.stepper = stepper
        self.inputs = [tensor.clone() for tensor in inputs]
        numbers, *tensors = self.inputs
        near, far, self.average_share, *weights = numbers.unbind()
        self.weights = dict(zip(names, weights, strict=True))
        self.batch, self.draws = with_tensors(batch, draws, near, far, tensors)
        self.runs, self.again, self.small = 0, None, self.is_small()
        self.updating = False  # then the step cannot be done again; when it is captured, its update needs no memory
        self.totals: dict[Tensor, Tensor] = {}  # gradients by the parameters that are computed with
        self.terms: Terms = {}
        self.renderings: dict[str, Rendering] = {}
        self.active: list[tuple[ActivePoints, Callable[[int], None]]] = []
        self.blocks: Captured | None = None  # of the first of these; all use its memory
        for parameter in stepper.networks.parameters():
            parameter.grad = None

    def is_small(self) -> bool:
        """Whether all samples fit into one stretch of work."""
        networks, sampling = self.stepper.networks, self.stepper.renderer.sampling
        work = sampling.n_samples * networks.coarse.multiplications
        if networks.fine is not None:
            work += (sampling.n_samples + sampling.n_importance) * networks.fine.multiplications
        n_rays = sum(len(rays) for rays in self.batch.groups.values())
        return self.stepper.ranks.size == 1 and n_rays * work <= self.stepper.small

    def run(self, inputs: Sequence[Tensor]) -> None:
        """Do the step with these inputs: the first time as it is, then captured."""
        torch._foreach_copy_(self.inputs, inputs)
        self.updating = False
        if self.again:
            self.again()
        elif self.runs == 0 and self.stepper.capture:
            asks = at_once_watched(self.work)
            if asks:  # and would leave CUDA in disorder, were it captured
                self.stepper.capture_nothing(f"{asks} asks for values of a tensor")
        elif self.runs == 1 and self.stepper.capture:
            self.begin_captured()
        else:
            at_once(self.work)
        self.runs += 1

    def begin_captured(self) -> None:
        """Capture the step, and do it. Its gradient must be the one that is found without."""
        at_once(self.gradients)
        expected = self.found()
        for total in self.totals.values():
            total.zero_()
        self.again = self.stepper.captured(self.work)
        if not self.again:
            at_once(self.work)
            return
        self.updating = False  # which capturing the update has set
        self.again()
        if not alike(self.found(), expected):
            self.again = None
            self.stepper.capture_nothing("its gradient is another one")

    def found(self) -> Tensor:
        """The gradients by all parameters, in a row."""
        parts = [*self.totals.values(), *(gradient for gradient in self.direct.values() if gradient is not None)]
        return torch.cat([part.flatten() for part in parts])

    def work(self, host: Host) -> None:
        """The three stretches."""
        self.gradients(host)
        self.updating = True
        self.update()

    def gradients(self, host: Host) -> None:
        """The first two."""
        self.find_gradients(host)
        if not self.small:
            counts = torch.stack([active.count for active, _ in self.active])
            host(lambda: self.add_blocks(counts))

    def find_gradients(self, host: Host) -> None:
        """Evaluate, composite, and differentiate the loss by the raw outputs, or at once by the parameters."""
        stepper, totals = self.stepper, self.totals
        if stepper.copies is not stepper.networks:
            with torch.no_grad():
                torch._foreach_copy_(stepper.copies.parameters(), stepper.networks.parameters())
        if totals:
            torch._foreach_zero_(list(totals.values()))
        copies = dict(zip(stepper.networks, stepper.copies, strict=True))
        query = FixedQuery(copies, stepper.block, stepper.dtype, stepper.renderer.query.occupancy, host, stepper.ranks,
                           keep_graph=self.small)  # fmt: skip
        renderings = replace(stepper.renderer, query=query).groups_passes(self.batch.groups, self.draws)
        view = StepView.of(renderings, self.batch, stepper.networks)
        terms = loss_terms(view, stepper.losses, 0, self.weights)
        loss = total_loss(terms)
        # Losses and penalties may also read the networks' parameters, in their own precision.
        by_outputs = [output for one in query.passes for output in one.outputs if output is not None]
        own = [parameter for parameter in stepper.networks.parameters() if parameter.requires_grad]
        copied = []
        if self.small and stepper.copies is not stepper.networks:
            copied = [parameter for parameter in stepper.copies.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, [*by_outputs, *own, *copied], allow_unused=True)
        # No graph may outlive the stretch: its nodes at the parameters belong to this stream, and would be used again
        # by the next one, under capture.
        self.loss = loss.detach()
        by_output = dict(zip(by_outputs, gradients, strict=False))
        self.direct = dict(zip(own, gradients[len(by_outputs) :], strict=False))
        add_to(totals, zip(copied, gradients[len(by_outputs) + len(own) :], strict=True))
        self.active = []
        for one in query.passes:
            found = [None if output is None else by_output[output] for output in one.outputs]
            if any(gradient is not None for gradient in found):
                own_rows = [None if gradient is None else gradient[one.rays].flatten(0, 1) for gradient in found]
                self.add_active(ActivePoints(one.points, own_rows, stepper.block))
        self.terms = {name: (weight, value.detach()) for name, (weight, value) in terms.items()}
        self.renderings = {group: rendering.detach() for group, rendering in renderings.items()}

    def add_active(self, active: ActivePoints) -> None:
        """Points whose blocks, once the step itself is captured, are captured, too: one of each size."""

        def do(size: int) -> None:
            def block(host: Host) -> None:
                active.add_gradients(self.totals, size)

            if self.again and size not in again:
                captured = self.stepper.captured(block, beside=self.blocks)
                self.blocks = self.blocks or captured
                again[size] = captured or partial(at_once, block)
            again.get(size, partial(at_once, block))()

        again: dict[int, Callable[[], None]] = {}
        self.active.append((active, do))

    def add_blocks(self, counts: Tensor) -> None:
        """Add the gradients of each pass, block by block of its active points: of one at least, so that every gradient
        is there. Then those of all ranks."""
        for (active, do), count in zip(self.active, numbers(counts), strict=True):
            for first, size in active.blocks(count):
                active.first.fill_(first)
                do(size)
        self.stepper.ranks.sum_(list(self.totals.values()))

    @torch.no_grad()
    def update(self) -> None:
        """Update the weights and their average, unless loss or gradient is not finite."""
        stepper = self.stepper
        for parameter, copy in zip(stepper.networks.parameters(), stepper.copies.parameters(), strict=True):
            parts = [part for part in (self.totals.get(copy), self.direct.get(parameter)) if part is not None]
            parameter.grad = reduce(torch.add, parts).to(parameter.dtype) if parts else None
        gradients = [parameter.grad for parameter in stepper.networks.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(self.loss + norm)
        stepper.skipped.add_(bad)
        stepper.in_a_row.add_(1).mul_(bad)
        stepper.optimizer.found_inf = bad.float()
        with warnings.catch_warnings():  # the first step is not captured
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            stepper.optimizer.step()
        if stepper.average:
            stepper.average.take(stepper.networks, self.average_share * ~bad)


def numbers(counts: Tensor) -> list[int]:
    """The values of a tensor, for which the host waits."""
    return counts.tolist()


def alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two gradients are the same but for rounding; one that is not finite says nothing."""
    return not expected.isfinite().all() or bool((found - expected).norm() <= TOLERANCE * expected.norm())


def tensors_of(batch: RayBatch, draws: Sequence[Draws]) -> Iterator[Tensor]:
    """All that a step is made of but its scalars."""
    for rays in batch.groups.values():
        yield from (rays.origins, rays.directions, *(() if rays.in_world is None else (rays.in_world,)))
    drawn = (batch.target, batch.alpha, batch.background, batch.known_depths, batch.known_weights)
    for tensor in (*drawn, *(tensor for part in draws for tensor in part)):
        if tensor is not None:
            yield tensor


def with_tensors(
    batch: RayBatch, draws: Sequence[Draws], near: Tensor, far: Tensor, tensors: Iterable[Tensor]
) -> tuple[RayBatch, list[Draws]]:
    """A batch and draws with other tensors, in the order of tensors_of, and other ends of the rays."""
    places = iter(tensors)

    def other(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else next(places)

    groups = {
        group: Rays(next(places), next(places), near, far, other(rays.in_world)) for group, rays in batch.groups.items()
    }
    names = ("target", "alpha", "background", "known_depths", "known_weights")
    batch = batch._replace(groups=groups, **{name: other(getattr(batch, name)) for name in names})
    return batch, [Draws(*map(other, part)) for part in draws]
