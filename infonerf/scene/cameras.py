"""Cameras, and the rays through their pixels (docs/method.md, Cameras and rays).

Axes: v views, r rays, h w pixels. Cameras are OpenGL: x right, y up, the camera looks along -z.
Depths are z-depths: multiples of the un-normalised direction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
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

    def at(self, indices: Tensor) -> "Rays":
        """The rays at `indices` (n)."""
        return Rays(self.origins[indices], self.directions[indices], self.near, self.far)

    def split(self, size: int) -> list["Rays"]:
        """Chunks of at most `size` rays."""
        pairs = zip(self.origins.split(size), self.directions.split(size), strict=True)
        return [Rays(origins, directions, self.near, self.far) for origins, directions in pairs]


def cat_rays(parts: Iterable[Rays]) -> Rays:
    """All rays of one scene in a row."""
    parts = list(parts)
    origins = torch.cat([rays.origins for rays in parts])
    return Rays(origins, torch.cat([rays.directions for rays in parts]), parts[0].near, parts[0].far)


class Pixels(NamedTuple):
    """Pixels of images, each r. camera: an index into the Cameras that they are drawn from; rows, cols: in pixels."""

    camera: Tensor
    rows: Tensor
    cols: Tensor


@dataclass(frozen=True, eq=False)
class Cameras:
    """A pool of cameras, which may differ in size and intrinsics.

    poses: v 3 4, camera to world. intrinsics: v 4, fx fy cx cy, in pixels. sizes: height and width of each view's
    image. near, far: z-depths between which rays are sampled.
    pixel_center: where in its pixel a ray passes: 0 the corner, as released, 0.5 the centre.
    """

    poses: Tensor
    intrinsics: Tensor
    sizes: tuple[tuple[int, int], ...]
    near: float
    far: float
    pixel_center: float = 0.0

    @classmethod
    def of_arrays(cls, poses: np.ndarray, intrinsics: np.ndarray, sizes: Sequence[tuple[int, int]], near: float,
                  far: float, pixel_center: float = 0.0) -> "Cameras":
        """From float64 arrays, as files of data sets give them."""
        tensors = (torch.from_numpy(np.array(array, np.float64)) for array in (poses, intrinsics))
        return cls(*tensors, tuple((int(h), int(w)) for h, w in sizes), near, far, pixel_center)

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
        poses = self.poses[pixels.camera]
        fx, fy, cx, cy = self.intrinsics[pixels.camera].unbind(-1)
        x = (pixels.cols - (cx - self.pixel_center)) / fx
        y = -(pixels.rows - (cy - self.pixel_center)) / fy
        in_camera = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
        directions = (poses[:, :, :3] * in_camera[:, None, :]).sum(-1)
        return Rays(poses[:, :, 3], directions, self.near, self.far)

    def sample_depths(self, pixels: Pixels, z: Tensor) -> Tensor:
        """Where on the rays of `pixels` their points of z-depth z (r) lie, as multiples of the directions."""
        return z

    def image_rays(self, view: int = 0) -> Rays:
        """All h*w rays of one camera, row by row."""
        height, width = self.sizes[view]
        index = torch.arange(height * width, device=self.poses.device)
        return self.rays(Pixels(torch.full_like(index, view), index // width, index % width))
