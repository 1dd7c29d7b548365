"""Evaluating a field at every sample of every ray: the reference for sparse.py."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.occupancy import Occupancy
from infonerf.scene.cameras import Rays


class Query(Protocol):
    """How a field is evaluated: DenseQuery here, SparseQuery in sparse.py. occupancy: the grid that says where space is
    empty, if any."""

    occupancy: Occupancy | None

    def __call__(
        self, field: Field, rays: Rays, z: Tensor, noise: Tensor | None, colour: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Raw colour r s 3 and density r s at depths z (r s). `noise` (r s) is what compositing adds to the
        density; without `colour` the raw colour may be None."""

    def for_pictures(self, networks: CoarseFine) -> "Query":
        """A query with a grid, where this one has such, that is made from these networks alone."""

    def smaller(self) -> "Query | None":
        """The same in half as large blocks; None where these would need as much memory."""


@dataclass(frozen=True)
class DenseQuery:
    """Evaluates colour and density at every sample, about `netchunk` points at a time, whatever noise there is and
    whether or not colour is asked for."""

    netchunk: int = 65536
    occupancy: None = None

    def for_pictures(self, networks: CoarseFine) -> "DenseQuery":
        return self

    def smaller(self) -> None:
        return None  # it keeps the activations of all blocks

    def __call__(self, field: Field, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        n_rays = max(1, self.netchunk // z.shape[1])
        parts = [
            field(part.origins[:, None] + part.directions[:, None] * depths[..., None], part.viewdirs)
            for part, depths in zip(rays.split(n_rays), z.split(n_rays), strict=True)
        ]
        raw_rgb, raw_density = zip(*parts, strict=True)
        return torch.cat(raw_rgb), torch.cat(raw_density)
