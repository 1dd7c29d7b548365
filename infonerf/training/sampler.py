"""Which rays a training step renders (docs/method.md, Steps). Axes: r rays, v views, p pixels of all views.

All draws take a CPU generator, so that the same seed draws the same pixels on every device.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from infonerf.rendering.groups import KNOWN, NEIGHBOURS, PATCH, SEEN, UNSEEN
from infonerf.scene.cameras import Cameras, Pixels, Rays
from infonerf.system.devices import to_device
from infonerf.training.generators import distinct_integers, random_integer
from infonerf.training.neighbours import Drawn, Neighbourhood


class RayBatch(NamedTuple):
    """What one step renders: rays by the name of their group, and the seen rays' colours (r 3).

    near, far: z-depths, the scene's. Where they are asked for, the alpha of the seen rays' pixels (r) and a background
    colour for each (r 3). Of the known rays (`known`, r) the depths, as multiples of the directions, and how much each
    counts: 0 where the depth lies outside the rays' range.
    """

    groups: dict[str, Rays]
    target: Tensor
    near: float
    far: float
    alpha: Tensor | None = None
    background: Tensor | None = None
    known_depths: Tensor | None = None
    known_weights: Tensor | None = None


@dataclass(frozen=True)
class Crop:
    """Rows top..top+height-1 and columns left..left+width-1."""

    top: int
    left: int
    height: int
    width: int

    def pixel(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel number 0..height*width-1 of the crop -> its row and column in the image."""
        return self.top + index // self.width, self.left + index % self.width

    def __len__(self) -> int:
        return self.height * self.width


def central_crop(height: int, width: int, fraction: float) -> Crop:
    """The middle `fraction` of the height and width, at least one pixel."""
    half_h = max(int(height // 2 * fraction), min(1, height // 2))
    half_w = max(int(width // 2 * fraction), min(1, width // 2))
    return Crop(height // 2 - half_h, width // 2 - half_w, max(2 * half_h, 1), max(2 * half_w, 1))


class Epochs:
    """Shuffled passes over 0..n-1: every number once, then again in another order.

    Every batch is full; one that crosses the end of a pass takes the rest from the next.
    """

    def __init__(self, n: int):
        self.n, self.seed, self.cursor, self.order = n, 0, n, None

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        parts = []
        while size:
            if self.cursor == self.n:
                self.shuffle(random_integer(0, 2**62, generator))
            taken = self.order[self.cursor : self.cursor + size]
            self.cursor += len(taken)
            size -= len(taken)
            parts.append(taken)
        return torch.cat(parts).long()

    def shuffle(self, seed: int) -> None:
        dtype = torch.int32 if self.n < 2**31 else torch.int64
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        self.seed, self.cursor, self.order = seed, 0, order

    def state_dict(self) -> dict[str, int]:
        """The pass as its seed and position: a few bytes, however many pixels."""
        return {"n": self.n, "seed": self.seed, "cursor": self.cursor if self.order is not None else -1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in the middle of a saved pass; a pass over another number of pixels starts afresh."""
        if state["n"] == self.n and state["cursor"] >= 0:
            self.shuffle(state["seed"])
            self.cursor = state["cursor"]


@dataclass(frozen=True)
class RangeAnnealing:
    """Sample space annealing (RegNeRF: Niemeyer et al., CVPR 2022): training begins with the fraction `start` of
    near..far, about its middle, where all cameras see the same things, and has the whole from step `end` on. What lies
    close to one camera alone, and could explain its photograph as a wall, comes last."""

    start: float
    end: int

    def fraction(self, step: int) -> float:
        return min(max(step / self.end, self.start), 1.0)


class PixelLayout:
    """The pixels of images of these sizes (height, width) in one row: image by image, row by row."""

    def __init__(self, sizes: Sequence[tuple[int, int]]):
        counts = [height * width for height, width in sizes]
        self.total = sum(counts)
        self.starts = torch.tensor([0, *accumulate(counts[:-1])])
        self.widths = torch.tensor([width for _, width in sizes])

    def __len__(self) -> int:
        return self.total

    def index(self, pixels: Pixels) -> Tensor:
        """Where in the row pixels are, r, on the CPU as they."""
        return self.starts[pixels.camera] + pixels.rows * self.widths[pixels.camera] + pixels.cols

    def pixels(self, index: Tensor) -> Pixels:
        """The pixels at places in the row."""
        camera = torch.searchsorted(self.starts, index, right=True) - 1
        within, width = index - self.starts[camera], self.widths[camera]
        return Pixels(camera, within // width, within % width)


class TrainingColours(NamedTuple):
    """The pixels of the seen views in a PixelLayout, on the device: rgb p 3, and alpha p where it is asked for."""

    rgb: Tensor
    alpha: Tensor | None = None


class KnownPixels(NamedTuple):
    """Places in the seen cameras' images whose depth is known, n, on the CPU. depths: as multiples of their rays'
    directions. weights: how far to trust them."""

    pixels: Pixels
    depths: Tensor
    weights: Tensor


class RaySampler:
    """Draws the rays of a step, group by group; only the pixels drawn get rays.

    pools: the group `seen` or `unseen` -> its Cameras, which may differ in size, and its number of rays.
    colours: of the seen cameras' images. random_background: also draw a colour for each seen ray.
    known: places of known depth, and the number of rays that are drawn through these, each any of them; or None.
    patches: draw the unseen pixels as square patches, row by row, anywhere in the crop or image, of one random view, or
    with batching of one view each.
    neighbourhood: None where no step asks for neighbours. annealing: of the range of depths; None for the whole in
    every step.
    batching: pixels of all views of a pool mixed, in shuffled epochs, and no crop (as released); else all pixels of one
    random view, without replacement, from its middle `crop_fraction` until step `crop_until`.
    """

    def __init__(self, pools: dict[str, tuple[Cameras, int]], colours: TrainingColours, *, batching: bool,
                 neighbourhood: Neighbourhood | None = None, crop_fraction: float = 1.0, crop_until: int = 0,
                 random_background: bool = False, patches: bool = False, annealing: RangeAnnealing | None = None,
                 known: tuple[KnownPixels, int] | None = None):
        self.pools, self.colours, self.neighbourhood, self.annealing = pools, colours, neighbourhood, annealing
        self.known = known
        self.random_background, self.patches = random_background, patches
        self.crop_fraction, self.crop_until, self.device = crop_fraction, crop_until, colours.rgb.device
        self.layouts = {group: PixelLayout(cameras.sizes) for group, (cameras, _) in pools.items()}
        self.batching, self.epochs = batching, {}
        for group, layout in self.layouts.items() if batching else ():
            if group == SEEN or not patches:
                self.epochs[group] = Epochs(len(layout))

    def draw(self, step: int, groups: Iterable[str], generator: torch.Generator) -> RayBatch:
        """The rays of step number `step` (from 1) for the named groups, `seen` always among them."""
        groups, on_cpu, drawn = set(groups), {}, {}
        for group, (cameras, n_rays) in self.pools.items():
            if group == SEEN or groups & {group, NEIGHBOURS[group]}:
                on_cpu[group] = self.draw_pixels(group, cameras.sizes, n_rays, step, generator)
        numbers = [part for pixels in on_cpu.values() for part in pixels]
        index, *numbers = to_device([self.layouts[SEEN].index(on_cpu[SEEN]), *numbers], self.device)
        for group, *pixels in zip(on_cpu, *[iter(numbers)] * 3, strict=True):
            cameras = self.cameras(group, step)
            drawn[group] = Drawn(cameras.world_rays(Pixels(*pixels)), Pixels(*pixels), cameras)
        rays = {group: part.cameras.in_ndc(part.rays) for group, part in drawn.items()}
        paired = [group for group in drawn if NEIGHBOURS[group] in groups]
        if paired:
            near = self.neighbourhood.neighbours([drawn[group] for group in paired], generator)
            rays.update({NEIGHBOURS[group]: part for group, part in zip(paired, near, strict=True)})
        target = self.colours.rgb[index]
        alpha = None if self.colours.alpha is None else self.colours.alpha[index]
        background = None
        if self.random_background:
            [background] = to_device([torch.rand(target.shape, generator=generator)], self.device)
        depths = weights = None
        if self.known and KNOWN in groups:
            rays[KNOWN], depths, weights = self.draw_known(step, generator)
        cameras, _ = self.pools[SEEN]
        return RayBatch(rays, target, cameras.near, cameras.far, alpha, background, depths, weights)

    def cameras(self, group: str, step: int) -> Cameras:
        """Those of a group, with the range of depths that rays have in a step."""
        cameras, _ = self.pools[group]
        return cameras.narrowed(self.annealing.fraction(step)) if self.annealing else cameras

    def draw_known(self, step: int, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor]:
        """Rays through places of known depth, their depths and weights."""
        (pixels, depths, weights), n = self.known
        cameras = self.cameras(SEEN, step)
        index = torch.randint(len(depths), (n,), generator=generator)
        drawn = [part[index].to(cameras.poses.dtype) for part in (pixels.rows, pixels.cols, depths, weights)]
        [camera] = to_device([pixels.camera[index]], self.device)
        rows, cols, depths, weights = to_device(drawn, self.device)
        inside = (depths >= cameras.near) & (depths <= cameras.far)
        return cameras.rays(Pixels(camera, rows, cols)), depths, torch.where(inside, weights, 0)

    def draw_pixels(self, group: str, sizes: Sequence[tuple[int, int]], n: int, step: int,
                    generator: torch.Generator) -> Pixels:
        """n pixels of a group's images, on the CPU."""
        if group == UNSEEN and self.patches:
            return self.draw_patches(sizes, n // PATCH**2, step, generator)
        if self.batching:
            return self.layouts[group].pixels(self.epochs[group].draw(n, generator))
        view = random_integer(0, len(sizes), generator)
        area = self.area(sizes[view], step)
        return Pixels(torch.full((n,), view), *area.pixel(distinct_integers(n, len(area), generator)))

    def area(self, size: tuple[int, int], step: int) -> Crop:
        """Where in an image of this size (height, width) a step draws its pixels."""
        if self.batching or step >= self.crop_until:
            return Crop(0, 0, *size)
        return central_crop(*size, self.crop_fraction)

    def draw_patches(self, sizes: Sequence[tuple[int, int]], n: int, step: int, generator: torch.Generator) -> Pixels:
        """The pixels of n patches, n PATCH PATCH flat."""
        if self.batching:
            views = [random_integer(0, len(sizes), generator) for _ in range(n)]
        else:
            views = [random_integer(0, len(sizes), generator)] * n
        areas = [self.area(sizes[view], step) for view in views]
        top = torch.tensor([area.top + random_integer(0, area.height - PATCH + 1, generator) for area in areas])
        left = torch.tensor([area.left + random_integer(0, area.width - PATCH + 1, generator) for area in areas])
        index = torch.arange(PATCH**2)
        rows, cols = top[:, None] + index // PATCH, left[:, None] + index % PATCH
        return Pixels(torch.tensor(views).repeat_interleave(len(index)), rows.flatten(), cols.flatten())

    def state_dict(self) -> dict:
        """Where the shuffled epochs stand; empty without batching."""
        return {group: epochs.state_dict() for group, epochs in self.epochs.items()}

    def load_state_dict(self, state: dict) -> None:
        for group, epochs in self.epochs.items():
            if group in state:
                epochs.load_state_dict(state[group])
