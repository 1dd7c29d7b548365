"""Pixels -> rays, neighbouring rays, and the sampler that draws the ray groups of a training step.

Axes: r rays, v views. Depths are z-depths: multiples of the un-normalised direction.
A pixel (row, col) means its corner where `pixel_center` is 0, as released, its centre where 0.5.
All draws take a CPU generator, so that the same seed draws the same pixels on every device.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SEEN, UNSEEN = "seen", "unseen"
PATCH = 8  # pixels a side of the unseen patches, where they are drawn as such
NEAR = {SEEN: "seen_near", UNSEEN: "unseen_near"}  # a group -> the group of its rays' neighbours


@dataclass(frozen=True)
class Rays:
    """origins, directions (un-normalised): r 3. near, far: z-depths, the scene's."""

    origins: Tensor
    directions: Tensor
    near: float
    far: float

    @property
    def viewdirs(self) -> Tensor:
        """Unit directions, r 3."""
        return self.directions / self.directions.norm(dim=-1, keepdim=True)

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, index: Tensor) -> "Rays":
        """The rays numbered `index` (n)."""
        return Rays(self.origins[index], self.directions[index], self.near, self.far)

    def split(self, size: int) -> list["Rays"]:
        """Blocks of at most `size` rays."""
        pairs = zip(self.origins.split(size), self.directions.split(size), strict=True)
        return [Rays(origins, directions, self.near, self.far) for origins, directions in pairs]


def cat_rays(parts: Iterable[Rays]) -> Rays:
    """All rays of one scene in a row."""
    parts = list(parts)
    origins = torch.cat([rays.origins for rays in parts])
    return Rays(origins, torch.cat([rays.directions for rays in parts]), parts[0].near, parts[0].far)


class RayBatch(NamedTuple):
    """What one step renders: rays by the name of their group, and the seen rays' colours (r 3).

    Where they are asked for, the alpha of the seen rays' pixels (r) and a background colour for each (r 3).
    """

    groups: dict[str, Rays]
    target: Tensor
    alpha: Tensor | None = None
    background: Tensor | None = None


class Pixels(NamedTuple):
    """Pixels of views, each r: `pose` numbers the poses of a pool; rows and cols in pixels."""

    pose: Tensor
    rows: Tensor
    cols: Tensor


class Cameras(NamedTuple):
    """A pool of cameras. poses: v 3 4, camera to world. intrinsics: v 4, fx fy cx cy."""

    poses: Tensor
    intrinsics: Tensor
    near: float
    far: float
    pixel_center: float = 0.0

    def narrowed(self, share: float) -> "Cameras":
        """The same cameras, whose rays have but a share (0..1) of near..far, about its middle."""
        cut = (1 - share) * (self.far - self.near) / 2
        return self._replace(near=self.near + cut, far=self.far - cut)

    def rays(self, pixels: Pixels) -> Rays:
        """The rays through `pixels`, which may lie outside the image (section 2 of the method)."""
        poses = self.poses[pixels.pose]
        fx, fy, cx, cy = self.intrinsics[pixels.pose].unbind(-1)
        x = (pixels.cols - (cx - self.pixel_center)) / fx
        y = -(pixels.rows - (cy - self.pixel_center)) / fy
        in_camera = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
        directions = (poses[:, :, :3] * in_camera[:, None, :]).sum(-1)
        return Rays(poses[:, :, 3], directions, self.near, self.far)


def cameras_of(scene, views, pixel_center: float, device, dtype=torch.float32) -> Cameras:
    """The cameras of some views of a Scene, on the device."""
    poses = torch.as_tensor(scene.poses[list(views)]).to(device=device, dtype=dtype)
    intrinsics = torch.as_tensor(scene.intrinsics[list(views)]).to(device=device, dtype=dtype)
    return Cameras(poses, intrinsics, scene.near, scene.far, pixel_center)


def image_rays(cameras: Cameras, height: int, width: int) -> Rays:
    """All h*w rays of the first camera, row by row."""
    index = torch.arange(height * width, device=cameras.poses.device)
    return cameras.rays(Pixels(torch.zeros_like(index), index // width, index % width))


# Neighbours (section 7 of the method). A neighbourhood maps the rays that a step has drawn, part by
# part (one part a group), to one neighbour for each ray.


class Drawn(NamedTuple):
    """Rays, and the pixels and cameras that they were made from."""

    rays: Rays
    pixels: Pixels
    cameras: Cameras


def rotation_matrices(angles: Tensor) -> Tensor:
    """Rx(a) Ry(b) Rz(c) for angles (v 3) in radians -> v 3 3."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    one, zero = torch.ones_like(ca), torch.zeros_like(ca)

    def matrix(*entries):
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    rx = matrix(one, zero, zero, zero, ca, -sa, zero, sa, ca)
    ry = matrix(cb, zero, sb, zero, one, zero, -sb, zero, cb)
    rz = matrix(cc, -sc, zero, sc, cc, zero, zero, zero, one)
    return rx @ ry @ rz


@dataclass(frozen=True)
class RotatedPose:
    """`near_pose`: the same pixel from a camera turned about the world's origin, position and all,
    by up to `degrees` about each axis; one draw per pose."""

    degrees: float

    def near(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        return [self.turned(part, generator) for part in parts]

    def turned(self, part: Drawn, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        uniform = torch.rand(len(cameras.poses), 3, generator=generator, dtype=torch.float64)
        turn = rotation_matrices((2 * uniform - 1) * math.radians(self.degrees))
        turn = turn.to(rays.origins)[pixels.pose]
        origins, directions = ((turn * vector[:, None]).sum(-1) for vector in (rays.origins, rays.directions))
        return Rays(origins, directions, rays.near, rays.far)


@dataclass(frozen=True)
class MovedPose:
    """`random_pos`: the same pixel from a camera moved by `scale` N(0, 1) along each axis; one draw per pose."""

    scale: float

    def near(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        return [self.moved(part, generator) for part in parts]

    def moved(self, part: Drawn, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        normal = torch.randn(len(cameras.poses), 3, generator=generator)
        move = (self.scale * normal).to(rays.origins)[pixels.pose]
        return Rays(rays.origins + move, rays.directions, rays.near, rays.far)


@dataclass(frozen=True)
class NearPixel:
    """`near_pixel`: from the same camera, a pixel at a Manhattan distance of 1..reach. The distance is
    one draw, its split over the axes and the signs are one per ray; the pixel may leave the image."""

    reach: int

    def near(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        distance = random_integer(1, self.reach + 1, generator)
        return [self.stepped(part, distance, generator) for part in parts]

    def stepped(self, part: Drawn, distance: int, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        split = torch.randint(0, distance + 1, (len(rays),), generator=generator)
        signs = 2 * torch.randint(0, 2, (2, len(rays)), generator=generator) - 1
        steps = (signs * torch.stack([split, distance - split])).to(pixels.rows.device)
        return cameras.rays(Pixels(pixels.pose, pixels.rows + steps[0], pixels.cols + steps[1]))


# Which pixels a step uses (section 8 of the method).


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


def random_integer(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform on low..high-1."""
    return int(torch.randint(low, high, (1,), generator=generator))


def distinct_integers(n: int, high: int, generator: torch.Generator) -> Tensor:
    """`n` different integers of 0..high-1, uniform and in random order, on the CPU.

    The first n different values of a sequence of uniform draws are such a sample; it costs O(n),
    where a permutation would cost O(high).
    """
    if n > high:
        raise ValueError(f"{n} different integers of {high}")
    if 4 * n > high:
        return torch.randperm(high, generator=generator)[:n]
    values = torch.randint(high, (n,), generator=generator)
    while True:
        ordered, place = torch.sort(values, stable=True)
        again = torch.zeros(len(values), dtype=torch.bool)
        again[place[1:]] = ordered[1:] == ordered[:-1]
        if not again.any():
            return values
        values = torch.cat([values[~again], torch.randint(high, (int(again.sum()),), generator=generator)])


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
    """Sample space annealing (RegNeRF: Niemeyer et al., CVPR 2022): training begins with the share `start` of
    near..far, about its middle, where all cameras see the same things, and has the whole from step `end` on. What lies
    close to one camera alone, and could explain its photograph as a wall, comes last."""

    start: float
    end: int

    def share(self, step: int) -> float:
        return min(max(step / self.end, self.start), 1.0)


class RaySampler:
    """Draws the rays of a step, group by group; only the pixels drawn get rays.

    pools: the group `seen` or `unseen` -> its Cameras and its number of rays.
    images: v h w 3, the pixels of the seen cameras, on the device. alphas: v h w, theirs, where they are asked for.
    random_background: also draw a colour for each seen ray. patches: draw the unseen pixels as square patches, row
    by row, anywhere in the crop or image, of one random pose, or with batching of one pose each.
    neighbourhood: RotatedPose, MovedPose or NearPixel; None where no step asks for neighbours.
    annealing: of the range of depths; None for the whole in every step.
    batching: pixels of all poses of a pool mixed, in shuffled epochs, and no crop (as released);
    else all pixels of one random pose, without replacement, from `crop` until step `crop_until`.
    """

    def __init__(self, pools: dict[str, tuple[Cameras, int]], images: Tensor, *, batching: bool,
                 neighbourhood=None, crop: Crop | None = None, crop_until: int = 0,
                 alphas: Tensor | None = None, random_background: bool = False, patches: bool = False,
                 annealing: RangeAnnealing | None = None):
        self.pools, self.images, self.neighbourhood, self.annealing = pools, images, neighbourhood, annealing
        self.alphas, self.random_background, self.patches = alphas, random_background, patches
        self.whole = Crop(0, 0, *images.shape[1:3])
        self.crop, self.crop_until = crop, crop_until
        self.epochs = None
        if batching:
            self.epochs = {
                group: Epochs(len(cameras.poses) * len(self.whole)) for group, (cameras, _) in pools.items()
                if group == SEEN or not patches
            }

    def draw(self, step: int, groups: Iterable[str], generator: torch.Generator) -> RayBatch:
        """The rays of step number `step` (from 1) for the named groups, `seen` always among them."""
        groups, drawn = set(groups), {}
        for group, (cameras, n_rays) in self.pools.items():
            if group == SEEN or groups & {group, NEAR[group]}:
                if self.annealing:
                    cameras = cameras.narrowed(self.annealing.share(step))
                pixels = self.pixels(group, len(cameras.poses), n_rays, step, generator)
                drawn[group] = Drawn(cameras.rays(pixels), pixels, cameras)
        rays = {group: part.rays for group, part in drawn.items()}
        paired = [group for group in drawn if NEAR[group] in groups]
        if paired:
            near = self.neighbourhood.near([drawn[group] for group in paired], generator)
            rays.update({NEAR[group]: part for group, part in zip(paired, near, strict=True)})
        pixels = drawn[SEEN].pixels
        target = self.images[pixels.pose, pixels.rows, pixels.cols]
        alpha = None if self.alphas is None else self.alphas[pixels.pose, pixels.rows, pixels.cols]
        background = None
        if self.random_background:
            background = torch.rand(target.shape, generator=generator).to(target)
        return RayBatch(rays, target, alpha, background)

    def pixels(self, group: str, n_poses: int, n_rays: int, step: int, generator: torch.Generator) -> Pixels:
        if group == UNSEEN and self.patches:
            return self.patch_pixels(n_poses, n_rays // PATCH**2, step, generator)
        if self.epochs:
            area = self.whole
            index = self.epochs[group].draw(n_rays, generator)
            pose, index = index // len(area), index % len(area)
        else:
            area = self.crop if step < self.crop_until else self.whole
            pose = torch.full((n_rays,), random_integer(0, n_poses, generator))
            index = distinct_integers(n_rays, len(area), generator)
        pose, index = pose.to(self.images.device), index.to(self.images.device)
        return Pixels(pose, *area.pixel(index))

    def patch_pixels(self, n_poses: int, n: int, step: int, generator: torch.Generator) -> Pixels:
        """The pixels of n patches, n PATCH PATCH flat."""
        area = self.whole if self.epochs or step >= self.crop_until else self.crop
        if self.epochs:
            pose = torch.randint(n_poses, (n,), generator=generator)
        else:
            pose = torch.full((n,), random_integer(0, n_poses, generator))
        top = area.top + torch.randint(area.height - PATCH + 1, (n,), generator=generator)
        left = area.left + torch.randint(area.width - PATCH + 1, (n,), generator=generator)
        index = torch.arange(PATCH**2)
        rows, cols = top[:, None] + index // PATCH, left[:, None] + index % PATCH
        pixels = (pose.repeat_interleave(len(index)), rows.flatten(), cols.flatten())
        return Pixels(*(part.to(self.images.device) for part in pixels))

    def state_dict(self) -> dict:
        """Where the shuffled epochs stand; empty without batching."""
        return {group: epochs.state_dict() for group, epochs in (self.epochs or {}).items()}

    def load_state_dict(self, state: dict) -> None:
        for group, epochs in (self.epochs or {}).items():
            if group in state:
                epochs.load_state_dict(state[group])
