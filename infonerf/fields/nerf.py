"""The NeRF: positional encoding and MLP (docs/method.md, Positional encoding, Network).

Source: NeRF (Mildenhall et al., ECCV 2020), as in the released InfoNeRF (CVPR 2022).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infonerf.fields.field import Field
from infonerf.fields.fused import linear_relu, plain_linear_relu
from infonerf.system.devices import to_device

SKIP = 4  # the encoded point joins the input of the layer after this one
AHEAD = 128  # steps whose annealed frequencies are looked up together


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
    are let in linearly until step `end`; those of the viewing directions in the same fraction of their own number."""

    start: int
    end: int

    def fraction(self, step: int, multires: int) -> float:
        """Of the frequencies, how many are in, 0..1."""
        return (self.start + (multires - self.start) * min(step / self.end, 1.0)) / multires


def band_weights(n_freqs: int, shown: float) -> Tensor:
    """A weight for each number of a positional encoding of which `shown` of `n_freqs` frequencies are in, the last
    of them in part. The raw input always is."""
    frequency = torch.arange(-3, 6 * n_freqs).div(6, rounding_mode="floor")  # -1 for the raw input
    return (shown - frequency.double()).clamp_(0, 1)


Layer = Callable[..., Tensor]  # of an nn.Linear and its inputs


def output_layer(layer: nn.Linear, h: Tensor) -> Tensor:
    """A layer whose results are outputs, in the precision of its weights also where autocast is on."""
    if h.dtype == layer.weight.dtype:
        return layer(h)
    with torch.autocast(h.device.type, enabled=False):
        return layer(h.to(layer.weight.dtype))


class NeRF(Field):
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
            return create_linear(n_in, n_out, generator, device)

        self.multires, self.multires_views, self.use_viewdirs = multires, multires_views, use_viewdirs
        point, view = encoded_size(multires), encoded_size(multires_views) if use_viewdirs else 0
        self.joined = range(1, depth) if multi_input else range(SKIP + 1, SKIP + 2)  # layers
        sizes = [point] + [width + point if i in self.joined else width for i in range(1, depth)]
        self.pts_linears = nn.ModuleList(linear(size, width) for size in sizes)
        self.views_linears = nn.ModuleList([linear(width + view, width // 2)])
        if use_viewdirs:
            self.feature_linear = linear(width, width)
            self.alpha_linear = linear(width, 1)
            self.rgb_linear = linear(width // 2, 3)
        else:
            self.output_linear = linear(width, output_ch)
        with torch.no_grad():
            bias = self.alpha_linear.bias if use_viewdirs else self.output_linear.bias[3:4]
            bias.add_(density_bias)
        self.annealing, self.masks, self.ahead = annealing, None, (-1, [])
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Show the frequencies of a training step; of its checkpoint, those that it was trained with last."""
        if not self.annealing or step >= self.annealing.end:
            self.masks = None
            return
        weights = self.weights_at(step)
        if self.masks is None:
            self.masks = [torch.empty_like(weight) for weight in weights]
        for mask, weight in zip(self.masks, weights, strict=True):  # in place: a captured step reads them there
            mask.copy_(weight)

    def weights_at(self, step: int) -> list[Tensor]:
        """Of the encodings of points and of directions, from a table of AHEAD steps: a transfer to a GPU takes longer
        than to copy them there."""
        like, (first, tables) = next(self.parameters()), self.ahead
        known = tables and (tables[0].dtype, tables[0].device) == (like.dtype, like.device)
        if not known or not 0 <= step - first < AHEAD:
            first, sizes = step, (self.multires, self.multires_views)
            fractions = [self.annealing.fraction(step + i, self.multires) for i in range(AHEAD)]
            tables = [torch.stack([band_weights(n, x * n) for x in fractions]).to(like.dtype) for n in sizes]
            tables = to_device(tables, like.device)
            self.ahead = first, tables
        return [table[step - first] for table in tables]

    @property
    def capturable(self) -> bool:
        return True

    @property
    def phase(self) -> bool:
        return self.masks is None

    def hidden_layers(self) -> list[nn.Module]:
        return [*self.pts_linears, *self.views_linears, *([self.feature_linear] if self.use_viewdirs else [])]

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """points r s 3, unit directions r 3 -> raw colour r s 3, raw density r s, each layer in the plainest way."""
        features = self.features(points, plain_linear_relu)
        encoded = self.encode_directions(directions)[:, None].expand(*points.shape[:2], -1)
        return self.colour(features, encoded, plain_linear_relu), self.density(features)

    def features(self, points: Tensor, hidden: Layer = linear_relu) -> Tensor:
        """points ... 3 -> ... width. `hidden` computes a layer with its ReLU."""
        encoded = positional_encoding(points, self.multires)
        if self.masks:
            encoded = encoded * self.masks[0]
        h = hidden(self.pts_linears[0], encoded)
        encoded = encoded.to(h.dtype)
        for i, layer in enumerate(self.pts_linears[1:], start=1):
            h = hidden(layer, encoded, h) if i in self.joined else hidden(layer, h)
        return h

    def density(self, features: Tensor) -> Tensor:
        if self.use_viewdirs:
            return output_layer(self.alpha_linear, features)[..., 0]
        return output_layer(self.output_linear, features)[..., 3]

    def encode_directions(self, directions: Tensor) -> Tensor:
        """Of width 0 where viewing directions have no part."""
        if not self.use_viewdirs:
            return directions[..., :0]
        encoded = positional_encoding(directions, self.multires_views)
        return encoded * self.masks[1] if self.masks else encoded

    def colour(self, features: Tensor, encoded: Tensor, hidden: Layer = linear_relu) -> Tensor:
        if not self.use_viewdirs:
            return output_layer(self.output_linear, features)[..., :3]
        h = self.feature_linear(features)
        return output_layer(self.rgb_linear, hidden(self.views_linears[0], h, encoded.to(h.dtype)))


def create_linear(n_in: int, n_out: int, generator: torch.Generator | None, device) -> nn.Linear:
    """nn.Linear with PyTorch's default initialisation, which is uniform within 1/sqrt(n_in)."""
    layer = nn.Linear(n_in, n_out, device="meta")  # draws nothing from the global generator
    for name, parameter in list(layer.named_parameters()):
        values = torch.empty(parameter.shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
        setattr(layer, name, nn.Parameter(values.to(device)))
    return layer
