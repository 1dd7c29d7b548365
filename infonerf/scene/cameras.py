"""Cameras, and the rays through their pixels (docs/method.md, Cameras and rays; NDC).

Axes: v views, r rays, h w pixels. Cameras are OpenGL: x right, y up, the camera looks along -z.
Depths are z-depths: multiples of the un-normalised direction. In NDC they are 0 at the near plane, 1 at infinity.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEEPEST = -1e-3  # z of the directions of rays in NDC, at most


@dataclass(frozen=True, eq=False)
class Rays:
    """origins, directions (un-normalised): r 3. near, far: depths, the scene's. in_world: the directions in the world,
    r 3, where those are others, as the rays are in NDC."""

    origins: Tensor
    directions: Tensor
    near: float
    far: float
    in_world: Tensor | None = None

    @property
    def viewdirs(self) -> Tensor:
        """Unit directions in the world, r 3."""
        directions = self.directions if self.in_world is None else self.in_world
        return directions / directions.norm(dim=-1, keepdim=True)

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, indices: Tensor) -> "Rays":
        """The rays at `indices` (n)."""
        in_world = None if self.in_world is None else self.in_world[indices]
        return Rays(self.origins[indices], self.directions[indices], self.near, self.far, in_world)

    def split(self, size: int) -> list["Rays"]:
        """Chunks of at most `size` rays."""
        origins, directions = self.origins.split(size), self.directions.split(size)
        in_world = [None] * len(origins) if self.in_world is None else self.in_world.split(size)
        parts = zip(origins, directions, in_world, strict=True)
        return [Rays(origins, directions, self.near, self.far, in_world) for origins, directions, in_world in parts]


def cat_rays(parts: Iterable[Rays]) -> Rays:
    """All rays of one scene in a row."""
    parts = list(parts)
    origins, directions = (torch.cat([getattr(rays, name) for rays in parts]) for name in ("origins", "directions"))
    in_world = None if parts[0].in_world is None else torch.cat([rays.in_world for rays in parts])
    return Rays(origins, directions, parts[0].near, parts[0].far, in_world)


class Pixels(NamedTuple):
    """Pixels of images, each r. camera: an index into the Cameras that they are drawn from; rows, cols: in pixels."""

    camera: Tensor
    rows: Tensor
    cols: Tensor


class NDC(NamedTuple):
    """Normalised device coordinates of a world whose cameras look along about -z: its points (x, y, z), z <= -1, are
    projected to (-x_scale x / z, -y_scale y / z, 1 + 2 / z). All that a camera with these scales sees from the world's
    origin fills the cube from -1 to 1, the near plane z = -1 being its one end, infinity the other.

    x_scale, y_scale: focal length over half the image's width, and over half its height.
    """

    x_scale: float
    y_scale: float

    def project(self, points: Tensor) -> Tensor:
        """Points of the world, ... 3 -> NDC."""
        x, y, z = points.unbind(-1)
        return torch.stack([-self.x_scale * x / z, -self.y_scale * y / z, 1 + 2 / z], dim=-1)

    def unproject(self, points: Tensor) -> Tensor:
        """Points of NDC, ... 3, before infinity -> of the world."""
        x, y, z = points.unbind(-1)
        z = 2 / (z - 1)
        return torch.stack([-x * z / self.x_scale, -y * z / self.y_scale, z], dim=-1)

    def rays(self, rays: Rays) -> Rays:
        """Rays of the world -> of NDC, where depth 0 is at the near plane, or at an origin that lies beyond it, and
        depth 1 at infinity. What does not look ahead is bent until it does (STEEPEST), as it has no place in NDC."""
        directions = torch.cat([rays.directions[:, :2], rays.directions[:, 2:].clamp_max(STEEPEST)], dim=-1)
        start = (-1 - rays.origins[:, 2:]) / directions[:, 2:]
        origins = self.project(rays.origins + start.clamp_min(0) * directions)
        x, y, z = directions.unbind(-1)
        at_infinity = torch.stack([-self.x_scale * x / z, -self.y_scale * y / z, torch.ones_like(z)], dim=-1)
        return Rays(origins, at_infinity - origins, rays.near, rays.far, rays.directions)


@dataclass(frozen=True, eq=False)
class Cameras:
    """A pool of cameras, which may differ in size and intrinsics.

    poses: v 3 4, camera to world. intrinsics: v 4, fx fy cx cy, in pixels. sizes: height and width of each view's
    image. near, far: depths between which rays are sampled.
    pixel_center: where in its pixel a ray passes: 0 the corner, as released, 0.5 the centre.
    ndc: the coordinates of the rays, where these are not the world's, as poses are.
    """

    poses: Tensor
    intrinsics: Tensor
    sizes: tuple[tuple[int, int], ...]
    near: float
    far: float
    pixel_center: float = 0.0
    ndc: NDC | None = None

    @classmethod
    def of_arrays(cls, poses: np.ndarray, intrinsics: np.ndarray, sizes: Sequence[tuple[int, int]], near: float,
                  far: float, pixel_center: float = 0.0, ndc: NDC | None = None) -> "Cameras":
        """From float64 arrays, as files of data sets give them."""
        tensors = (torch.from_numpy(np.array(array, np.float64)) for array in (poses, intrinsics))
        return cls(*tensors, tuple((int(h), int(w)) for h, w in sizes), near, far, pixel_center, ndc)

    def __len__(self) -> int:
        return len(self.poses)

    def at(self, views: Iterable[int]) -> "Cameras":
        """The cameras numbered `views`."""
        views = list(views)
        sizes = tuple(self.sizes[view] for view in views)
        return replace(self, poses=self.poses[views], intrinsics=self.intrinsics[views], sizes=sizes)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Cameras":
        """The same cameras on a device, by default in the precision in which rays are computed."""
        return replace(self, poses=self.poses.to(device, dtype), intrinsics=self.intrinsics.to(device, dtype))

    def narrowed(self, fraction: float) -> "Cameras":
        """The same cameras, whose rays have but a fraction (0..1) of near..far, about its middle."""
        cut = (1 - fraction) * (self.far - self.near) / 2
        return replace(self, near=self.near + cut, far=self.far - cut)

    def scaled(self, factor: int) -> "Cameras":
        """The cameras of images of 1/factor of the height and width, at least a pixel each."""
        sizes = tuple((max(height // factor, 1), max(width // factor, 1)) for height, width in self.sizes)
        scales = [[w / width, h / height] * 2 for (h, w), (height, width) in zip(sizes, self.sizes, strict=True)]
        return replace(self, intrinsics=self.intrinsics * self.intrinsics.new_tensor(scales), sizes=sizes)

    def rays(self, pixels: Pixels) -> Rays:
        """The rays through `pixels`, which may lie outside the image."""
        return self.in_ndc(self.world_rays(pixels))

    def in_ndc(self, rays: Rays) -> Rays:
        """Rays of the world in the coordinates of `rays`."""
        return rays if self.ndc is None else self.ndc.rays(rays)

    def sample_depths(self, pixels: Pixels, z: Tensor) -> Tensor:
        """Where on the rays through `pixels` surfaces of these z-depths lie, both r: the depths of samples. In NDC,
        what lies before the near plane or behind has none between 0 and 1."""
        if self.ndc is None:
            return z
        rays = self.world_rays(pixels)
        height = rays.origins[:, 2]
        return 1 - height.clamp_max(-1) / (height + z * rays.directions[:, 2].clamp_max(STEEPEST))

    def world_rays(self, pixels: Pixels) -> Rays:
        """The same rays in the world, the coordinates of poses."""
        poses = self.poses[pixels.camera]
        fx, fy, cx, cy = self.intrinsics[pixels.camera].unbind(-1)
        x = (pixels.cols - (cx - self.pixel_center)) / fx
        y = -(pixels.rows - (cy - self.pixel_center)) / fy
        in_camera = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
        directions = (poses[:, :, :3] * in_camera[:, None, :]).sum(-1)
        return Rays(poses[:, :, 3], directions, self.near, self.far)

    def image_rays(self, view: int = 0) -> Rays:
        """All h*w rays of one camera, row by row."""
        height, width = self.sizes[view]
        index = torch.arange(height * width, device=self.poses.device)
        return self.rays(Pixels(torch.full_like(index, view), index // width, index % width))
