"""Where half of a ray's light is stopped: the surface that a picture shows. From it come the threshold of a mesh, and
the points of a cloud. Axes: r rays, s samples along a ray."""

from collections.abc import Callable

import torch
from torch import Tensor

from infonerf.rendering.compositing import Composite
from infonerf.rendering.renderer import Renderer
from infonerf.scene.cameras import Cameras, Pixels, Rays

HALF = 0.6931471805599453  # the optical depth that half of the light passes, ln 2


def half_depths(seen: Composite, directions: Tensor) -> Tensor:
    """r: the depths at which half of the light is left, inf where more is left at the last sample. As rendering has
    it, the density is constant between two samples. directions: r 3."""
    length = (seen.z[:, 1:] - seen.z[:, :-1]) * directions.norm(dim=-1, keepdim=True)
    after = torch.cumsum(seen.density[:, :-1] * length, dim=-1)
    first = (after < HALF).sum(-1, keepdim=True)  # the interval in which it happens
    reached, first = first < after.shape[1], first.clamp_max(after.shape[1] - 1)
    left = after.gather(1, first) - HALF  # too much, by the end of the interval
    end, density = seen.z.gather(1, first + 1), seen.density.gather(1, first)
    depths = end - left / (density * directions.norm(dim=-1, keepdim=True))
    return torch.where(reached, depths, torch.inf)[:, 0]


@torch.no_grad()
def half_points(
    renderer: Renderer, rays: Rays, colour: bool = False, progress: Callable[[int], None] = lambda n: None
) -> tuple[Tensor, Tensor | None]:
    """The points at which half of the light of rays is stopped, of those where it is: n 3 in the rays' coordinates,
    and their colours n 3 in 0..1 without the background. `progress` hears how many rays were done."""
    points, colours = [rays.origins[:0]], [rays.origins[:0]]
    for chunk in rays.split(renderer.chunk):
        seen = renderer.rays(chunk, colour=colour, coarse_colour=False).fine
        depths = half_depths(seen, chunk.directions)
        hit = depths.isfinite()
        points.append((chunk.origins + depths[:, None] * chunk.directions)[hit])
        if colour:
            acc = seen.acc[hit, None]
            background = 1 - acc if renderer.white_background else 0
            colours.append(((seen.rgb[hit] - background) / acc).clamp(0, 1))
        progress(len(chunk))
    return torch.cat(points), torch.cat(colours) if colour else None


def random_rays(cameras: Cameras, n: int) -> Rays:
    """n pixels' rays, of all cameras together, always the same."""
    counts = torch.tensor([height * width for height, width in cameras.sizes])
    widths, ends = torch.tensor([width for _, width in cameras.sizes]), counts.cumsum(0)
    drawn = torch.randint(int(ends[-1]), (n,), generator=torch.Generator().manual_seed(0))
    camera = torch.searchsorted(ends, drawn, right=True)
    pixel = drawn - (ends - counts)[camera]
    chosen = (camera, pixel // widths[camera], pixel % widths[camera])
    return cameras.rays(Pixels(*(part.to(cameras.poses.device) for part in chosen)))
