"""Empty-space skipping: a grid over the scene's bounds that says where there may be density.

Training keeps the grid up to date from both networks' own densities at random points; a picture is rendered with a
grid made anew from the networks. Outside the bounds, and in cells known to be empty, density counts as 0 and the
networks are not asked. This changes the result a little; docs/performance.md says how much.
After the occupancy grids of Instant NGP (Mueller et al., SIGGRAPH 2022) and NerfAcc (Li et al., ICCV 2023).

Axes: n points; cells are flat, CELLS**3 of them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from infonerf.fields.field import CoarseFine
from infonerf.system.devices import autocast_to

CELLS = 64  # a side
EMPTY = 0.1  # a cell is empty below this density, per unit of length
WARM_UP = 500  # steps before a cell counts as empty: what is cut off before there is a shape never grows
EVERY = 16  # steps between two updates
POINTS = 2**14  # of an update: half of them anywhere, half in cells that are not empty
DECAY = 0.7  # of a cell's value at each visit
BLOCK = 2**14  # points at a time


def nonzero_indices(mask: Tensor) -> Tensor:
    """The indices at which a mask (n) is True."""
    return mask.nonzero()[:, 0]


class Occupancy:
    """bounds: 2 3, the least and the greatest corner of a box around the scene.
    carved: per cell, whether it is known to be empty whatever the networks say; None: of no cell.

    `density`: per cell, the greatest density seen there, decaying; infinite where nobody has looked yet.
    """

    def __init__(self, bounds: Tensor, dtype: torch.dtype | None = None, carved: Tensor | None = None):
        self.bounds, self.lower, self.size = bounds, bounds[0], bounds[1] - bounds[0]
        self.carved = torch.zeros(CELLS**3, dtype=torch.bool, device=bounds.device) if carved is None else carved
        self.cells = nonzero_indices(~self.carved)
        self.density = torch.where(self.carved, 0, torch.inf)
        self.dtype, self.in_use = dtype, False

    def occupied(self, points: Tensor) -> Tensor:
        """n 3 -> n bool: whether there may be density. The bounds and what is carved count from the start, the
        densities once in use."""
        unit = (points - self.lower) / self.size
        inside = ((unit >= 0) & (unit < 1)).all(-1)
        x, y, z = (unit * CELLS).long().clamp_(0, CELLS - 1).unbind(-1)
        maybe = self.density > EMPTY if self.in_use else ~self.carved
        return inside & maybe[(x * CELLS + y) * CELLS + z]

    def update(self, step: int, networks: CoarseFine, generator: torch.Generator) -> None:
        """After training step number `step`."""
        if step % EVERY:
            return
        self.in_use = step >= WARM_UP
        device = self.density.device
        visited = self.cells[torch.randint(len(self.cells), (POINTS // 2,), generator=generator, device=device)]
        full = nonzero_indices(self.density > EMPTY)
        if len(full):
            chosen = torch.randint(len(full), (POINTS // 2,), generator=generator, device=device)
            visited = torch.cat([visited, full[chosen]])
        self.visit(visited, networks, generator)

    def visit(self, cells: Tensor, networks: CoarseFine, generator: torch.Generator | None) -> None:
        """Take in the density at one point of each of `cells`, at random with a generator, else at their centres."""
        found = self.densities_in(cells, networks, generator)
        old = self.density[cells]
        decayed = torch.where(old.isinf(), 0, old * DECAY)
        seen = torch.zeros_like(self.density).scatter_reduce_(0, cells, torch.maximum(found, decayed), "amax")
        self.density[cells] = seen[cells]  # a cell may be visited twice

    @torch.no_grad()
    def densities_in(self, cells: Tensor, networks: CoarseFine, generator: torch.Generator | None) -> Tensor:
        """The greater of both networks' densities at a point of each cell, n."""
        corners = torch.stack([cells // CELLS**2, cells // CELLS % CELLS, cells % CELLS], dim=-1)
        shift = 0.5
        if generator is not None:
            shift = torch.rand(corners.shape, generator=generator, device=cells.device)
        points = self.lower + (corners + shift) / CELLS * self.size
        with autocast_to(self.dtype, cells.device):
            return torch.cat([networks.density_at(block) for block in points.split(BLOCK)])

    def filled(self, networks: CoarseFine) -> "Occupancy":
        """A grid of the networks alone, to render pictures with: cells next to density count as occupied too."""
        filled = Occupancy(self.bounds, self.dtype, self.carved)
        found = torch.zeros_like(self.density).index_copy(0, self.cells, self.densities_in(self.cells, networks, None))
        grid = found.view(1, 1, CELLS, CELLS, CELLS)
        filled.density = functional.max_pool3d(grid, 3, stride=1, padding=1).flatten().masked_fill(self.carved, 0)
        filled.in_use = True
        return filled

    def state_dict(self) -> dict:
        return {"density": self.density, "in_use": self.in_use}

    def load_state_dict(self, state: dict) -> None:
        self.density.copy_(state["density"]).masked_fill_(self.carved, 0)
        self.in_use = state["in_use"]
