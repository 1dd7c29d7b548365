"""Neighbours of rays for KL smoothness (docs/method.md, Losses).

A neighbourhood maps the rays that a step has drawn, part by part (one part a group), to one neighbour for each ray.
All draws take a CPU generator, so that the same seed draws the same neighbours on every device.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from infonerf.scene.cameras import Cameras, Pixels, Rays
from infonerf.system.devices import to_device
from infonerf.training.generators import random_integer


class Drawn(NamedTuple):
    """Rays in the world, and the pixels and cameras that they were made from."""

    rays: Rays
    pixels: Pixels
    cameras: Cameras


class Neighbourhood(Protocol):
    """RotatedPose, MovedPose or NearPixel."""

    def neighbours(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        """A neighbour for each ray of each part."""


@dataclass(frozen=True)
class RotatedPose:
    """`near_pose`: the same pixel from a camera turned about the world's origin, position and all,
    by up to `degrees` about each axis; one draw per pose."""

    degrees: float

    def neighbours(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        return [self.turned(part, generator) for part in parts]

    def turned(self, part: Drawn, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        uniform = torch.rand(len(cameras), 3, generator=generator, dtype=torch.float64)
        turn = rotation_matrices((2 * uniform - 1) * math.radians(self.degrees))
        [turn] = to_device([turn.to(rays.origins.dtype)], rays.origins.device)
        turn = turn[pixels.camera]
        origins, directions = ((turn * vector[:, None]).sum(-1) for vector in (rays.origins, rays.directions))
        return cameras.in_ndc(Rays(origins, directions, rays.near, rays.far))


@dataclass(frozen=True)
class MovedPose:
    """`random_pos`: the same pixel from a camera moved by `scale` N(0, 1) along each axis; one draw per pose."""

    scale: float

    def neighbours(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        return [self.moved(part, generator) for part in parts]

    def moved(self, part: Drawn, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        normal = torch.randn(len(cameras), 3, generator=generator)
        [move] = to_device([(self.scale * normal).to(rays.origins.dtype)], rays.origins.device)
        return cameras.in_ndc(Rays(rays.origins + move[pixels.camera], rays.directions, rays.near, rays.far))


@dataclass(frozen=True)
class NearPixel:
    """`near_pixel`: from the same camera, a pixel at a Manhattan distance of 1..reach. The distance is
    one draw, its split over the axes and the signs are one per ray; the pixel may leave the image."""

    reach: int

    def neighbours(self, parts: list[Drawn], generator: torch.Generator) -> list[Rays]:
        distance = random_integer(1, self.reach + 1, generator)
        return [self.stepped(part, distance, generator) for part in parts]

    def stepped(self, part: Drawn, distance: int, generator: torch.Generator) -> Rays:
        rays, pixels, cameras = part
        split = torch.randint(0, distance + 1, (len(rays),), generator=generator)
        signs = 2 * torch.randint(0, 2, (2, len(rays)), generator=generator) - 1
        [steps] = to_device([signs * torch.stack([split, distance - split])], pixels.rows.device)
        return cameras.rays(Pixels(pixels.camera, pixels.rows + steps[0], pixels.cols + steps[1]))


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
