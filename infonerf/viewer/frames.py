"""Pictures for an eye that moves: coarse at once, then sharper, a few rays at a time, so that others have their turn.

Axes: h w pixels, r rays.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from infonerf.rendering.dense import Query
from infonerf.rendering.renderer import Renderer
from infonerf.scene.cameras import Cameras, Rays

FIRST = 0.1  # seconds that the rays of a first picture may take; encoding and sending come on top
CHUNK = 0.03  # seconds of a chunk of rays, after which others have their turn
FEWEST = 128  # rays of a chunk
SHARPER = 2  # times the height and width from one picture to the next
PIXEL_CENTER = 0.5  # where in its pixel a ray passes: in the middle, whatever the data set has


@dataclass(frozen=True, eq=False)
class Wish:
    """What an eye wants to see.

    pose: 3 4, camera to world, OpenGL axes. fov: vertical, in radians. size: height and width of the sharpest picture.
    near, far: depths between which rays are sampled; None: the scene's. box: 2 3, outside of which nothing is shown, or
    None. share: of the width, what the first of two renderers has.
    """

    pose: np.ndarray
    fov: float
    size: tuple[int, int]
    near: float | None = None
    far: float | None = None
    box: np.ndarray | None = None
    share: float = 1.0

    def same_as(self, other: "Wish") -> bool:
        """Whether both ask for the same picture, to a millionth."""
        boxes = [wish.box for wish in (self, other)]
        return (
            (self.size, self.near, self.far, self.share) == (other.size, other.near, other.far, other.share)
            and abs(self.fov - other.fov) < 1e-6
            and np.allclose(self.pose, other.pose, 1e-6, 1e-6)
            and (boxes[0] is boxes[1] or (all(box is not None for box in boxes) and np.array_equal(*boxes)))
        )


class Source(NamedTuple):
    """A renderer, and the cameras of its scene, which say where its rays begin and end, and in what coordinates."""

    renderer: Renderer
    cameras: Cameras


class Picture(NamedTuple):
    """What is seen, float32: rgb h w 3; depth (z-depth), acc (accumulated opacity), entropy (of the ray, in bits)
    h w."""

    rgb: np.ndarray
    depth: np.ndarray
    acc: np.ndarray
    entropy: np.ndarray


@dataclass(frozen=True)
class Clipped:
    """A query without density outside a box (2 3)."""

    query: Query
    box: Tensor

    def __call__(self, field, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        rgb, density = self.query(field, rays, z, noise, colour)
        points = rays.origins[:, None] + rays.directions[:, None] * z[..., None]
        inside = ((points >= self.box[0]) & (points <= self.box[1])).all(-1)
        return rgb, torch.where(inside, density, -torch.inf)


class Pace:
    """How fast rays are rendered: the slowest of the last few pictures, in rays a second."""

    def __init__(self, rate: float = 5000.0):
        self.rates = deque([rate], maxlen=4)

    @property
    def rate(self) -> float:
        return min(self.rates)

    def measured(self, n_rays: int, seconds: float) -> None:
        if n_rays >= FEWEST:
            self.rates.append(n_rays / max(seconds, 1e-6))

    def chunk(self, most: int) -> int:
        """Rays at a time, at most `most`."""
        return min(max(int(self.rate * CHUNK), FEWEST), most)

    def sizes(self, full: tuple[int, int], seconds: float = FIRST) -> list[tuple[int, int]]:
        """Heights and widths from a picture that takes `seconds` to the full one."""
        height, width = full
        scale = min(1.0, (self.rate * seconds / (height * width)) ** 0.5)
        found = []
        while scale < 1 / 1.2:  # one that is hardly smaller than the full one is left out
            found.append((max(round(height * scale), 1), max(round(width * scale), 1)))
            scale *= SHARPER
        return [*found, full]


def camera_of(wish: Wish, size: tuple[int, int], like: Cameras) -> Cameras:
    """The wish's camera for a picture of a height and width, in the coordinates of the scene's cameras."""
    height, width = size
    focal = wish.size[0] / 2 / np.tan(wish.fov / 2)
    fxfycxcy = [[focal * width / wish.size[1], focal * height / wish.size[0], width / 2, height / 2]]
    near = like.near if wish.near is None else wish.near
    far = like.far if wish.far is None else wish.far
    return Cameras.of_arrays(wish.pose[None], np.array(fxfycxcy), [size], near, far, PIXEL_CENTER, like.ndc)


def paint(
    sources: Sequence[Source], wish: Wish, size: tuple[int, int], pace: Pace, entropy: Callable[[Tensor], Tensor],
    clock: Callable[[], float] = perf_counter,
) -> Generator[None, None, Picture]:
    """Render a picture of a height and width, and yield after each chunk of rays. entropy: alpha r s -> r.

    Of two sources the first has the left part of the width, the second what is right of it."""
    height, width = size
    edge = width if len(sources) == 1 else round(wish.share * width)
    flat, spent = np.zeros((height * width, 6), np.float32), 0.0
    pixels = np.arange(height * width).reshape(height, width)
    for source, part in zip(sources, (pixels[:, :edge], pixels[:, edge:]), strict=False):
        if not part.size:
            continue
        device, chosen, at = source.renderer.networks.device, part.reshape(-1), 0
        renderer = clipped(source.renderer, wish.box)
        rays = camera_of(wish, size, source.cameras).to(device).image_rays().at(torch.from_numpy(chosen).to(device))
        for chunk in rays.split(pace.chunk(renderer.chunk)):
            start = clock()
            flat[chosen[at : at + len(chunk)]] = columns(renderer, chunk, entropy)
            at, spent = at + len(chunk), spent + clock() - start
            yield
    pace.measured(len(flat), spent)
    whole = flat.reshape(height, width, 6)
    return Picture(whole[..., :3], whole[..., 3], whole[..., 4], whole[..., 5])


def clipped(renderer: Renderer, box: np.ndarray | None) -> Renderer:
    if box is None:
        return renderer
    corners = torch.as_tensor(box, dtype=torch.float32, device=renderer.networks.device)
    return replace(renderer, query=Clipped(renderer.query, corners))


@torch.no_grad()
def columns(renderer: Renderer, rays: Rays, entropy: Callable[[Tensor], Tensor]) -> np.ndarray:
    """r 6: colour, depth, accumulated opacity and entropy along rays; nothing is random."""
    seen = renderer.rays(rays, coarse_colour=False).fine
    parts = [seen.rgb, seen.depth[:, None], seen.acc[:, None], entropy(seen.alpha)[:, None]]
    return torch.cat(parts, dim=1).float().cpu().numpy()
