"""The Renderer: fields and how they are rendered, in training and for pictures.

Axes: r rays, s samples along a ray, h w pixels. Randomness is a torch.Generator argument; None means deterministic.
Results lie on the device of the rays.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.compositing import Composite, Rendering, cat_composites, composite, split_composite
from infonerf.rendering.dense import DenseQuery, Query
from infonerf.rendering.depths import coarse_depths, fine_depths
from infonerf.rendering.groups import SEEN
from infonerf.scene.cameras import Cameras, Rays, cat_rays
from infonerf.system.errors import out_of_memory
from infonerf.system.logs import say


class Draws(NamedTuple):
    """The random numbers of some rays, in the order in which they are drawn; None for what is not random.

    coarse, fine: in 0..1, for each sample where in its share of the ray it lies, r s; the noise that is added to the
    density of each sample of a pass, r s.
    """

    coarse: Tensor | None = None
    coarse_noise: Tensor | None = None
    fine: Tensor | None = None
    fine_noise: Tensor | None = None


@dataclass(frozen=True)
class Sampling:
    """How rays are sampled: numbers of coarse and fine samples, and the training-time randomness."""

    n_samples: int
    n_importance: int
    lindisp: bool = False
    perturb: bool = True  # only with a generator, as the noise
    noise_std: float = 0.0

    def draws(self, rays: Rays, generator: torch.Generator | None) -> Draws:
        """For rays whose device is the generator's; nothing is random without one."""
        if generator is None:
            return Draws()

        def draw(source: Callable[..., Tensor], n_samples: int) -> Tensor:
            like = rays.origins
            return source((len(rays), n_samples), generator=generator, dtype=like.dtype, device=like.device)

        def passes() -> Iterator[Tensor | None]:
            for n_new, n_all in ((self.n_samples, 0), (self.n_importance, self.n_samples)):
                if n_new:
                    yield draw(torch.rand, n_new) if self.perturb else None
                    yield self.noise_std * draw(torch.randn, n_all + n_new) if self.noise_std > 0 else None

        return Draws(*passes())


class RenderedRays(NamedTuple):
    """What is seen along rays: rgb r 3; depth (z-depth), acc (accumulated opacity) r."""

    rgb: Tensor
    depth: Tensor
    acc: Tensor


class Image(NamedTuple):
    """A rendered view: rgb h w 3; depth (z-depth), acc h w."""

    rgb: Tensor
    depth: Tensor
    acc: Tensor


@dataclass
class Renderer:
    """Fields, and all that it takes to render them.

    query: how the fields are evaluated. chunk: rays at a time, halved where the memory does not suffice for a picture.
    """

    networks: CoarseFine
    sampling: Sampling
    white_background: bool = False
    query: Query = field(default_factory=DenseQuery)
    chunk: int = 1024 * 32

    def rays(
        self, rays: Rays, generator: torch.Generator | None = None, colour: bool = True, coarse_colour: bool = True
    ) -> Rendering:
        """Coarse pass, resampling, fine pass; random with a generator. Without `coarse_colour`, only the last pass has
        colour."""
        return self.passes(rays, self.sampling.draws(rays, generator), colour, coarse_colour)

    def passes(self, rays: Rays, draws: Draws, colour: bool, coarse_colour: bool = True) -> Rendering:
        """`rays`, with random numbers that were drawn before."""
        sampling, like = self.sampling, rays.origins
        z = coarse_depths(rays, sampling.n_samples, sampling.lindisp, draws.coarse)
        wanted = colour and (coarse_colour or not sampling.n_importance)
        coarse = self.render_pass(self.networks.coarse, rays, z, draws.coarse_noise, wanted)
        if not sampling.n_importance:
            return Rendering(None, coarse)
        u = draws.fine
        if u is None:
            u = torch.linspace(0, 1, sampling.n_importance, dtype=like.dtype, device=like.device).expand(len(rays), -1)
        z = fine_depths(z, coarse.weights.detach(), u)
        return Rendering(coarse, self.render_pass(self.networks.fine, rays, z, draws.fine_noise, colour))

    def render_pass(self, field: Field, rays: Rays, z: Tensor, noise: Tensor | None, colour: bool) -> Composite:
        """One field along the rays at depths z (r s), with noise on its density."""
        raw_rgb, raw_density = self.query(field, rays, z, noise, colour)
        return composite(raw_rgb, raw_density, z, rays.directions, noise, self.white_background)

    def groups(self, groups: dict[str, Rays], generator: torch.Generator | None) -> dict[str, Rendering]:
        """Render every group of a step: the seen rays, whose colours are compared, then all others together,
        for which opacity is enough; `chunk` rays at a time."""
        return self.groups_passes(groups, self.group_draws(groups, generator))

    def group_draws(self, groups: dict[str, Rays], generator: torch.Generator | None) -> list[Draws]:
        """The random numbers of a step, chunk by chunk."""
        chunks = (chunk for part in together(groups) for chunk in cat_rays(part.values()).split(self.chunk))
        return [self.sampling.draws(chunk, generator) for chunk in chunks]

    def groups_passes(self, groups: dict[str, Rays], draws: Sequence[Draws]) -> dict[str, Rendering]:
        """`groups`, with random numbers that were drawn before."""
        remaining, renderings = iter(draws), {}
        for part in together(groups):
            renderings |= self.render_together(part, remaining, colour=SEEN in part)
        return renderings

    def render_together(self, groups: dict[str, Rays], draws: Iterator[Draws], colour: bool) -> dict[str, Rendering]:
        """Render groups of rays in one row."""
        rays = cat_rays(groups.values())
        chunks = [self.passes(chunk, next(draws), colour) for chunk in rays.split(self.chunk)]
        sizes = [len(rays) for rays in groups.values()]
        coarse = split_composite(cat_composites([chunk.coarse for chunk in chunks]), sizes)
        fine = split_composite(cat_composites([chunk.fine for chunk in chunks]), sizes)
        return {group: Rendering(*passes) for group, *passes in zip(groups, coarse, fine, strict=True)}

    def image(self, cameras: Cameras, progress: Callable[[int], None] = lambda n: None) -> Image:
        """All that the first of `cameras` sees; `progress` hears how many rays were done."""
        height, width = cameras.sizes[0]
        cameras = cameras.at([0]).to(self.networks.device)
        flat = self.last_pass(cameras.image_rays(), progress)
        return Image(*(part.unflatten(0, (height, width)) for part in flat))

    @torch.no_grad()
    def last_pass(self, rays: Rays, progress: Callable[[int], None] = lambda n: None) -> RenderedRays:
        """What the last pass sees along rays that are rendered for a picture."""
        while True:
            parts = []
            try:
                for chunk in rays.split(self.chunk):
                    fine = self.rays(chunk, coarse_colour=False).fine
                    parts.append((fine.rgb, fine.depth, fine.acc))
                    progress(len(chunk))
                return RenderedRays(*(torch.cat(column) for column in zip(*parts, strict=True)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.chunk == 1:
                    raise
            self.chunk = max(min(self.chunk, len(rays)) // 2, 1)
            say(f"out of memory: rendering {self.chunk} rays at a time from now on (chunk)")

    def for_pictures(self, networks: CoarseFine) -> "Renderer":
        """A renderer of `networks` with an occupancy grid, where this one has such, that is made from them alone."""
        return replace(self, networks=networks, query=self.query.for_pictures(networks))


def together(groups: dict[str, Rays]) -> list[dict[str, Rays]]:
    """The groups of a step that are rendered in one row: the seen rays, then all others."""
    seen = {group: rays for group, rays in groups.items() if group == SEEN}
    others = {group: rays for group, rays in groups.items() if group != SEEN}
    return [part for part in (seen, others) if part]
