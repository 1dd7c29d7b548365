"""The NeRF: positional encoding, MLP, depths along rays, compositing, rendering.

Axes: r rays, s samples along a ray, c colour. Depths z are multiples of the un-normalised ray
direction. Randomness is a torch.Generator argument; None means deterministic. Nothing here knows
options, data sets or devices: results lie where the rays lie.
Source: NeRF (Mildenhall et al., ECCV 2020), as in the released InfoNeRF (CVPR 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from infonerf.training.sampler import SEEN, Rays, cat_rays

SKIP = 4  # the encoded point joins the input of the layer after this one


def positional_encoding(x: Tensor, n_freqs: int | None) -> Tensor:
    """... 3 -> ... 3+6L: x, sin x, cos x, sin 2x, cos 2x, sin 4x, ... (no pi). None leaves x as it is."""
    if n_freqs is None:
        return x
    repeated = x.index_select(-1, torch.arange(3, device=x.device).repeat(n_freqs))  # faster than an inner axis of 3
    angles = repeated * (2.0 ** torch.arange(n_freqs, device=x.device, dtype=x.dtype)).repeat_interleave(3)
    waves = torch.stack([part.unflatten(-1, (n_freqs, 3)) for part in (angles.sin(), angles.cos())], dim=-2)
    return torch.cat([x, waves.flatten(-3)], dim=-1)


def encoded_size(n_freqs: int | None) -> int:
    return 3 if n_freqs is None else 3 + 6 * n_freqs


@dataclass(frozen=True)
class Annealing:
    """Frequency annealing (FreeNeRF: Yang, Pavone, Wang, CVPR 2023): the points' frequencies beyond the first `start`
    are let in linearly until step `end`; those of the viewing directions in the same share of their own number."""

    start: int
    end: int

    def share(self, step: int, multires: int) -> float:
        """Of the frequencies, how many are in, 0..1."""
        return (self.start + (multires - self.start) * min(step / self.end, 1.0)) / multires


def band_weights(n_freqs: int, shown: float) -> list[float]:
    """A weight for each number of a positional encoding of which `shown` of `n_freqs` frequencies are in, the last
    of them in part. The raw input always is."""
    return [1.0] * 3 + [min(max(shown - k, 0.0), 1.0) for k in range(n_freqs) for _ in range(6)]


Layer = Callable[..., Tensor]  # of an nn.Linear and its inputs


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """... i, one or more -> ... and the sum of the i."""
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=-1)


def linear_relu(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """A hidden layer of inputs side by side, in the plainest way; fused.py has a faster one."""
    return layer(side_by_side(inputs)).relu_()


def output(layer: nn.Linear, h: Tensor) -> Tensor:
    """A layer whose results are outputs, in the precision of its weights also where autocast is on."""
    if h.dtype == layer.weight.dtype:
        return layer(h)
    with torch.autocast(h.device.type, enabled=False):
        return layer(h.to(layer.weight.dtype))


class NeRF(nn.Module):
    """The MLP: points and viewing directions -> raw colour and raw density.

    Layer names and their order are those of nerf-pytorch, so that weights and optimizer states
    interchange; for the same reason `views_linears` exists (unused) without viewing directions.
    A depth of 5 or less has no skip connection. PyTorch's default initialisation of linear layers,
    drawn on the CPU from `generator`, so that a seed gives the same weights on every device.

    multires, multires_views: numbers of frequencies, None for no encoding.
    output_ch: outputs without viewing directions; the first four are colour and density.
    density_bias: added to the initial raw density, which is almost constant over space: where it is below 0,
    as it is for half of all draws, there is no density anywhere, and hence no gradient.
    multi_input: the encoded point joins the input of every layer after the first (mi-MLP: Zhu et al., "Vanilla MLP in
    Neural Radiance Field Is Enough for Few-shot View Synthesis", CVPR 2024).
    annealing: of the frequencies, which are then those of the step that `set_step` names; 0 at first.
    """

    def __init__(self, depth: int = 8, width: int = 256, multires: int | None = 10, multires_views: int | None = 4,
                 use_viewdirs: bool = True, output_ch: int = 4, generator: torch.Generator | None = None,
                 device: torch.device | None = None, density_bias: float = 0.0, annealing: Annealing | None = None,
                 multi_input: bool = False):
        super().__init__()

        def linear(n_in: int, n_out: int) -> nn.Linear:
            return make_linear(n_in, n_out, generator, device)

        self.multires, self.multires_views, self.use_viewdirs = multires, multires_views, use_viewdirs
        point, view = encoded_size(multires), encoded_size(multires_views) if use_viewdirs else 0
        self.joined = range(1, depth) if multi_input else range(SKIP + 1, SKIP + 2)  # layers
        self.pts_linears = nn.ModuleList(
            linear(point if i == 0 else width + point * (i in self.joined), width) for i in range(depth)
        )
        self.views_linears = nn.ModuleList([linear(width + view, width // 2)])
        if use_viewdirs:
            self.feature_linear = linear(width, width)
            self.alpha_linear = linear(width, 1)
            self.rgb_linear = linear(width // 2, 3)
        else:
            self.output_linear = linear(width, output_ch)
        with torch.no_grad():
            (self.alpha_linear.bias if use_viewdirs else self.output_linear.bias[3:4]).add_(density_bias)
        self.annealing = annealing
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Show the frequencies of a training step; of its checkpoint, those that it was trained with last."""
        self.point_mask = self.view_mask = None
        if self.annealing and step < self.annealing.end:
            share, like = self.annealing.share(step, self.multires), next(self.parameters())
            self.point_mask, self.view_mask = (
                torch.tensor(band_weights(n, share * n), dtype=torch.float64).to(like.dtype).to(like.device)
                for n in (self.multires, self.multires_views)
            )

    def forward(self, points: Tensor, viewdirs: Tensor) -> tuple[Tensor, Tensor]:
        """points r s 3, viewdirs r 3 -> raw colour r s 3, raw density r s."""
        h = self.features(points)
        views = self.encoded_views(viewdirs)[:, None].expand(*points.shape[:2], -1)
        return self.colour(h, views), self.density(h)

    def features(self, points: Tensor, hidden: Layer = linear_relu) -> Tensor:
        """points ... 3 -> ... width: what density and colour are read from. `hidden` computes a layer with its ReLU."""
        encoded = positional_encoding(points, self.multires)
        if self.point_mask is not None:
            encoded = encoded * self.point_mask
        h = hidden(self.pts_linears[0], encoded)
        encoded = encoded.to(h.dtype)
        for i, layer in enumerate(self.pts_linears[1:], start=1):
            h = hidden(layer, encoded, h) if i in self.joined else hidden(layer, h)
        return h

    def density(self, h: Tensor) -> Tensor:
        """features ... width -> raw density ..."""
        return output(self.alpha_linear, h)[..., 0] if self.use_viewdirs else output(self.output_linear, h)[..., 3]

    def encoded_views(self, viewdirs: Tensor) -> Tensor:
        """... 3 -> what `colour` takes of the viewing directions; nothing (... 0) where they have no part."""
        if not self.use_viewdirs:
            return viewdirs[..., :0]
        encoded = positional_encoding(viewdirs, self.multires_views)
        return encoded if self.view_mask is None else encoded * self.view_mask

    def colour(self, h: Tensor, views: Tensor, hidden: Layer = linear_relu) -> Tensor:
        """features ... width, encoded viewing directions -> raw colour ... 3."""
        if not self.use_viewdirs:
            return output(self.output_linear, h)[..., :3]
        features = self.feature_linear(h)
        return output(self.rgb_linear, hidden(self.views_linears[0], features, views.to(features.dtype)))


def make_linear(n_in: int, n_out: int, generator: torch.Generator | None, device) -> nn.Linear:
    """nn.Linear with PyTorch's default initialisation, which is uniform within 1/sqrt(n_in)."""
    layer = nn.Linear(n_in, n_out, device="meta")  # draws nothing from the global generator
    for name, parameter in list(layer.named_parameters()):
        values = torch.empty(parameter.shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
        setattr(layer, name, nn.Parameter(values.to(device)))
    return layer


# Depths along a ray (section 5 of the method).


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)


def coarse_depths(rays: Rays, n_samples: int, lindisp: bool = False, u: Tensor | None = None) -> Tensor:
    """r s depths from near to far, evenly spaced in depth or disparity.

    With u (r s, in 0..1), one in each interval between the midpoints; the first and last interval end at
    near and far.
    """
    t = torch.linspace(0, 1, n_samples, dtype=rays.origins.dtype, device=rays.origins.device)
    if lindisp:
        z = 1 / ((1 - t) / rays.near + t / rays.far)
    else:
        z = rays.near * (1 - t) + rays.far * t
    z = z.expand(len(rays), n_samples)
    if u is None:
        return z
    middle = (z[:, 1:] + z[:, :-1]) / 2
    lower, upper = torch.cat([z[:, :1], middle], dim=-1), torch.cat([middle, z[:, -1:]], dim=-1)
    return lower + (upper - lower) * u


def sample_pdf(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-transform sampling of a piecewise constant density.

    edges r b+1, weights r b (not normalised), u r n in 0..1 -> r n positions.
    """
    weights = weights + 1e-5
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=-1)
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[-1] - 1)
    cdf_below, edge_below = cdf.gather(-1, below), edges.gather(-1, below)
    mass = cdf.gather(-1, above) - cdf_below
    mass = torch.where(mass < 1e-5, torch.ones_like(mass), mass)
    return edge_below + (u - cdf_below) / mass * (edges.gather(-1, above) - edge_below)


def fine_depths(z: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Coarse depths and weights (r s), u (r n) -> sorted union of z and n new depths, r s+n. No gradient."""
    middle = (z[:, 1:] + z[:, :-1]) / 2
    return torch.cat([z, sample_pdf(middle, weights[:, 1:-1], u)], dim=-1).sort(dim=-1).values.detach()


# Compositing (section 6 of the method).


class Composite(NamedTuple):
    """What one pass sees along each ray: rgb r 3, None where nobody asked for colour; depth (z-depth), acc
    (accumulated opacity), disparity r; weights and alpha r s; of the same samples the density, noise included and not
    below 0, and the depths z."""

    rgb: Tensor | None
    depth: Tensor
    acc: Tensor
    disparity: Tensor
    weights: Tensor
    alpha: Tensor
    density: Tensor
    z: Tensor


class Rendering(NamedTuple):
    """Both passes. `fine` is the last one; without importance sampling the only one, and `coarse` None."""

    coarse: Composite | None
    fine: Composite


def composite(
    raw_rgb: Tensor | None, raw_density: Tensor, z: Tensor, directions: Tensor,
    noise: Tensor | None = None, white_background: bool = False,
) -> Composite:
    """Volume rendering: raw colour r s 3, raw density r s, depths r s, directions r 3, noise on the density r s."""
    delta = torch.cat([z[:, 1:] - z[:, :-1], torch.full_like(z[:, :1], 1e10)], dim=-1)
    delta = delta * directions.norm(dim=-1, keepdim=True)
    density = (raw_density if noise is None else raw_density + noise).relu()
    alpha = 1 - torch.exp(-density * delta)
    through = torch.cumprod(1 - alpha + 1e-10, dim=-1)
    weights = alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=-1)
    acc = weights.sum(-1)
    depth = (weights * z).sum(-1)
    rgb = None
    if raw_rgb is not None:
        rgb = (weights[..., None] * raw_rgb.sigmoid()).sum(-2)
        if white_background:
            rgb = rgb + (1 - acc[:, None])
    seen = torch.where(acc > 0, acc, 1)  # 1 instead of 0/0, in the gradient too
    disparity = torch.where(acc > 0, 1 / (depth / seen).clamp_min(1e-10), 0)
    return Composite(rgb, depth, acc, disparity, weights, alpha, density, z)


# Rendering.


@dataclass(frozen=True)
class Sampling:
    """How rays are sampled: numbers of coarse and fine samples, and the training-time randomness."""

    n_samples: int
    n_importance: int
    lindisp: bool = False
    white_background: bool = False
    perturb: bool = True  # only with a generator, as the noise
    noise_std: float = 0.0


class Networks(NamedTuple):
    """The two NeRFs. Without importance sampling there is no fine one."""

    coarse: NeRF
    fine: NeRF | None

    def parameters(self) -> list[nn.Parameter]:
        """In the order of the released optimizer: coarse, then fine."""
        return [parameter for network in self if network is not None for parameter in network.parameters()]

    def set_step(self, step: int) -> None:
        """Show the frequencies of a step, where they are annealed."""
        for network in self:
            if network is not None:
                network.set_step(step)


class Query(Protocol):
    """How a network is evaluated: DenseQuery here, SparseQuery in sparse.py."""

    def __call__(
        self, network: NeRF, rays: Rays, z: Tensor, noise: Tensor | None, colour: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Raw colour r s 3 and density r s at depths z (r s). `noise` (r s) is what compositing adds to the
        density; without `colour` the raw colour may be None."""


@dataclass(frozen=True)
class DenseQuery:
    """Evaluates colour and density at every sample, about `netchunk` points at a time: the reference."""

    netchunk: int = 65536

    def __call__(self, network: NeRF, rays: Rays, z: Tensor, noise: Tensor | None = None, colour: bool = True):
        block = max(1, self.netchunk // z.shape[1])
        parts = [
            network(part.origins[:, None] + part.directions[:, None] * depths[..., None], part.viewdirs)
            for part, depths in zip(rays.split(block), z.split(block), strict=True)
        ]
        raw_rgb, raw_density = zip(*parts, strict=True)
        return torch.cat(raw_rgb), torch.cat(raw_density)


def render_pass(
    network: NeRF, rays: Rays, z: Tensor, sampling: Sampling, query: Query, generator, colour: bool
) -> Composite:
    """One network along the rays at depths z (r s)."""
    noise = None
    if generator is not None and sampling.noise_std > 0:
        noise = sampling.noise_std * torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    raw_rgb, raw_density = query(network, rays, z, noise, colour)
    return composite(raw_rgb, raw_density, z, rays.directions, noise, sampling.white_background)


def render_rays(
    networks: Networks, rays: Rays, sampling: Sampling,
    generator: torch.Generator | None = None, query: Query = DenseQuery(), colour: bool = True,
    coarse_colour: bool = True,
) -> Rendering:
    """Coarse pass, resampling, fine pass. The generator, on the rays' device, makes it random: draws are
    made in the order coarse depths, coarse noise, fine depths, fine noise. Without `coarse_colour`, only the last
    pass has colour."""
    random = generator is not None and sampling.perturb
    n, like = len(rays), rays.origins
    u = uniform((n, sampling.n_samples), like, generator) if random else None
    z = coarse_depths(rays, sampling.n_samples, sampling.lindisp, u)
    wanted = colour and (coarse_colour or not sampling.n_importance)
    coarse = render_pass(networks.coarse, rays, z, sampling, query, generator, wanted)
    if not sampling.n_importance:
        return Rendering(None, coarse)
    if random:
        u = uniform((n, sampling.n_importance), like, generator)
    else:
        u = torch.linspace(0, 1, sampling.n_importance, dtype=like.dtype, device=like.device).expand(n, -1)
    z = fine_depths(z, coarse.weights.detach(), u)
    return Rendering(coarse, render_pass(networks.fine, rays, z, sampling, query, generator, colour))


def render_groups(
    networks: Networks, groups: dict[str, Rays], sampling: Sampling,
    generator: torch.Generator | None, chunk: int, query: Query,
) -> dict[str, Rendering]:
    """Render every group of a step: the seen rays, whose colours are compared, then all others together,
    for which opacity is enough; `chunk` rays at a time."""
    renderings = {}
    for colour in (True, False):
        part = {group: rays for group, rays in groups.items() if (group == SEEN) == colour}
        if part:
            blocks = cat_rays(part.values()).split(chunk)
            passes = [render_rays(networks, block, sampling, generator, query, colour) for block in blocks]
            sizes = [len(rays) for rays in part.values()]
            coarse, fine = (divide(join(list(composites)), sizes) for composites in zip(*passes, strict=True))
            renderings |= {group: Rendering(*both) for group, *both in zip(part, coarse, fine, strict=True)}
    return renderings


def join(parts: list[Composite | None]) -> Composite | None:
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    fields = zip(*parts, strict=True)
    return Composite(*(None if field[0] is None else torch.cat(field) for field in fields))


def divide(whole: Composite | None, sizes: list[int]) -> list[Composite | None]:
    if whole is None:
        return [None] * len(sizes)
    fields = [[None] * len(sizes) if field is None else field.split(sizes) for field in whole]
    return [Composite(*part) for part in zip(*fields, strict=True)]


class Image(NamedTuple):
    """A rendered view: rgb h w 3; depth (z-depth), acc, disparity h w."""

    rgb: Tensor
    depth: Tensor
    acc: Tensor
    disparity: Tensor


@torch.no_grad()
def render_image(
    networks: Networks, rays: Rays, height: int, width: int, sampling: Sampling,
    chunk: int, query: Query, progress: Callable[[int], None] = lambda n: None,
) -> Image:
    """Render height*width rays, `chunk` at a time; `progress` hears how many rays each chunk had."""
    parts = []
    for block in rays.split(chunk):
        fine = render_rays(networks, block, sampling, None, query, coarse_colour=False).fine
        parts.append((fine.rgb, fine.depth, fine.acc, fine.disparity))
        progress(len(block))
    return Image(*(torch.cat(field).unflatten(0, (height, width)) for field in zip(*parts, strict=True)))
