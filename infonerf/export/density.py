"""The density of a field on a grid, plane by plane: what is in memory is a slab of it.

Axes: n points; x y z samples along the axes of the grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from infonerf.fields.field import Field
from infonerf.rendering.occupancy import Occupancy, nonzero_indices

SLAB = 2**23  # samples that are in memory together, or two planes of the grid where those are more
CPU_BLOCK, GPU_BLOCK = 2**13, 2**18  # points at a time


def block_size(device: torch.device) -> int:
    """How many points a field takes at a time."""
    return CPU_BLOCK if device.type == "cpu" else GPU_BLOCK


@dataclass(frozen=True, eq=False)
class Grid:
    """Samples of a box, on its faces too, in cells that are cubes as nearly as the box allows.

    low: the box's least corner, step: the size of a cell, both 3, float64. shape: numbers of samples x y z.
    """

    low: np.ndarray
    step: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def over(cls, bounds: np.ndarray, resolution: int) -> "Grid":
        """bounds: 2 3. resolution: cells along the box's longest side."""
        size = np.asarray(bounds[1] - bounds[0], np.float64)
        cells = np.ceil(resolution * size / size.max() - 1e-6).clip(2).astype(int)
        return cls(np.asarray(bounds[0], np.float64), size / cells, tuple((cells + 1).tolist()))

    def points(self, places: np.ndarray) -> np.ndarray:
        """Places n 3, in cells from the least corner -> points n 3, float64."""
        return self.low + places * self.step

    def inner_plane(self, x: int, device: torch.device) -> Tensor:
        """The samples number `x` along the first axis that lie on no face of the box: y-2 z-2 3, float32."""
        axes = [low + step * np.arange(1, n - 1) for low, step, n in zip(self.low, self.step, self.shape, strict=True)]
        axes = [torch.from_numpy(axis).to(device, torch.float32) for axis in (axes[0][x - 1 : x], *axes[1:])]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[0]


@torch.no_grad()
def raw_density(field: Field, points: Tensor) -> Tensor:
    """points n 3 -> n; what is not finite counts as no density."""
    blocks = points.split(block_size(points.device))
    return torch.cat([field.density(field.features(block)).float() for block in blocks]).nan_to_num_(0, 0, 0)


def plane_of(field: Field, grid: Grid, x: int, occupancy: Occupancy | None, device: torch.device) -> np.ndarray:
    """y z, float32: the raw density of a plane. 0 on the faces of the box, so that every surface is closed, and where
    the occupancy grid knows that there is none."""
    plane = np.zeros(grid.shape[1:], np.float32)
    if 0 < x < grid.shape[0] - 1:
        points = grid.inner_plane(x, device)
        flat = points.flatten(0, 1)
        everywhere = torch.ones(len(flat), dtype=torch.bool, device=device)
        chosen = nonzero_indices(everywhere if occupancy is None else occupancy.occupied(flat))
        values = flat.new_zeros(len(flat))
        if len(chosen):
            values[chosen] = raw_density(field, flat[chosen])
        plane[1:-1, 1:-1] = values.view(points.shape[:2]).cpu().numpy()
    return plane


def density_slabs(
    field: Field, grid: Grid, occupancy: Occupancy | None, device: torch.device,
    progress: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Slabs of the grid in turn, each of which begins with the plane that the one before ended with: the number of its
    first plane, and its raw densities x y z, float32. `progress` hears how many planes were done."""
    thickness = max(SLAB // (grid.shape[1] * grid.shape[2]), 2)
    planes = [plane_of(field, grid, 0, occupancy, device)]
    progress(1)
    for x in range(1, grid.shape[0]):
        planes.append(plane_of(field, grid, x, occupancy, device))
        progress(1)
        if len(planes) == thickness or x == grid.shape[0] - 1:
            yield x + 1 - len(planes), np.stack(planes)
            planes = planes[-1:]
