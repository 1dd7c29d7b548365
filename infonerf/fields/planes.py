"""Planes and lines of features, of which a small MLP makes density and colour (docs/method.md, Planes).

After the vector-matrix decomposition of TensoRF (Chen et al., ECCV 2022), at several resolutions at once.
Axes: k the planes xy, xz, yz with the lines z, y, x; c components; n points.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from infonerf.fields.field import Field
from infonerf.fields.fused import linear_relu, plain_linear_relu
from infonerf.fields.nerf import Layer, create_linear, encoded_size, output_layer, positional_encoding

LEVELS = 3  # resolutions, each half of the next
FASTER = 5  # times the learning rate of the MLP: that of planes and lines
DEVIATION = 0.1  # of the initial planes (mean 0) and lines (mean 1)


class Planes(Field):
    """A point's features are plane_kc (interpolated bilinearly) * line_kc (linearly) for all k and c, planes and lines
    being sums over levels; the encoded point joins them as the input of the MLP.

    bounds: 2 3, the box that planes and lines fill, a node at each end; outside of it they are as on its surface.
    resolution: nodes a side of the finest level. components: of each plane. depth, width: of the MLP's hidden layers
    before density and colour. multires, multires_views: frequencies of points and of viewing directions, None for no
    encoding. tv: weight of the total variation. density_bias: added to the initial raw density.
    """

    def __init__(self, bounds: Tensor, resolution: int = 128, components: int = 16, depth: int = 1, width: int = 64,
                 multires: int | None = 4, multires_views: int | None = 2, use_viewdirs: bool = True, tv: float = 0.0,
                 density_bias: float = 0.0, generator: torch.Generator | None = None):
        super().__init__()
        device = bounds.device

        def grid(mean: float, *shape: int) -> nn.Parameter:
            return nn.Parameter((mean + DEVIATION * torch.randn(shape, generator=generator)).to(device))

        def linear(n_in: int, n_out: int) -> nn.Linear:
            return create_linear(n_in, n_out, generator, device)

        sides = [-(-resolution // 2**level) for level in range(LEVELS)]
        self.register_buffer("bounds", bounds)
        self.planes = nn.ParameterList(grid(0, 3, components, side, side) for side in sides)
        self.lines = nn.ParameterList(grid(1, 3, components, side, 1) for side in sides)
        first, view = 3 * components + encoded_size(multires), encoded_size(multires_views) if use_viewdirs else 0
        self.layers = nn.ModuleList(linear(width if i else first, width) for i in range(depth))
        self.density_layer = linear(width, 1)
        self.colour_layers = nn.ModuleList([linear(width + view, width), linear(width, 3)])
        with torch.no_grad():
            self.density_layer.bias.add_(density_bias)
        self.multires, self.multires_views, self.use_viewdirs, self.tv = multires, multires_views, use_viewdirs, tv

    def load_state_dict(self, state_dict, *args, **kwargs):
        """ValueError where its bounds are no box."""
        low, high = state_dict["bounds"]
        if not (low < high).all():
            raise ValueError(f"bounds: found {low.tolist()} to {high.tolist()}, expected the corners of a box")
        return super().load_state_dict(state_dict, *args, **kwargs)

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """points r s 3, unit directions r 3 -> raw colour r s 3, raw density r s, each layer in the plainest way."""
        features = self.features(points, plain_linear_relu)
        encoded = self.encode_directions(directions)[:, None].expand(*points.shape[:2], -1)
        return self.colour(features, encoded, plain_linear_relu), self.density(features)

    def products(self, points: Tensor) -> Tensor:
        """points n 3 -> n 3c, plane times line."""
        low, high = self.bounds
        x, y, z = (2 * (points - low) / (high - low) - 1).unbind(-1)  # -1..1
        zero = torch.zeros_like(x)
        on_planes = torch.stack([torch.stack(axes, -1) for axes in ((y, x), (z, x), (z, y))])[:, :, None]
        on_lines = torch.stack([torch.stack((zero, axis), -1) for axis in (z, y, x)])[:, :, None]
        plane = sum(interpolated(grid, on_planes) for grid in self.planes)
        line = sum(interpolated(grid, on_lines) for grid in self.lines)
        return (plane * line).flatten(0, 1).t()

    def features(self, points: Tensor, hidden: Layer = linear_relu) -> Tensor:
        """points ... 3 -> ... width. `hidden` computes a layer with its ReLU."""
        flat = points.flatten(0, -2)
        inputs = (self.products(flat), positional_encoding(flat, self.multires))
        for layer in self.layers:
            inputs = (hidden(layer, *inputs),)
        return inputs[0].unflatten(0, points.shape[:-1])

    def density(self, features: Tensor) -> Tensor:
        return output_layer(self.density_layer, features)[..., 0]

    def encode_directions(self, directions: Tensor) -> Tensor:
        """Of width 0 where viewing directions have no part."""
        return positional_encoding(directions, self.multires_views) if self.use_viewdirs else directions[..., :0]

    def colour(self, features: Tensor, encoded: Tensor, hidden: Layer = linear_relu) -> Tensor:
        first, last = self.colour_layers
        return output_layer(last, hidden(first, features, encoded.to(features.dtype)))

    def hidden_layers(self) -> list[nn.Linear]:
        return [*self.layers, self.colour_layers[0]]

    def parameter_groups(self, lrate: float) -> list[dict]:
        layers = [*self.layers, self.density_layer, *self.colour_layers]
        return [{"params": [*self.planes, *self.lines], "lr": FASTER * lrate},
                {"params": [parameter for layer in layers for parameter in layer.parameters()], "lr": lrate}]

    def penalties(self) -> dict[str, tuple[float, Tensor]]:
        """Total variation: of each level the mean squared differences of neighbouring nodes."""
        if not self.tv:
            return {}
        planes = sum(variation(grid, axis) for grid in self.planes for axis in (2, 3))
        return {"tv": (self.tv, planes + sum(variation(grid, 2) for grid in self.lines))}

    @property
    def multiplications(self) -> int:
        layers = [*self.layers, self.density_layer, *self.colour_layers]
        return sum(layer.weight.numel() for layer in layers) + LEVELS * 6 * self.planes[0].shape[1] * 3


def interpolated(grid: Tensor, places: Tensor) -> Tensor:
    """grid k c h w at places k n 1 2 (column and row, -1..1 from the first to the last) -> k c n."""
    return functional.grid_sample(grid, places, padding_mode="border", align_corners=True)[..., 0]


def variation(grid: Tensor, axis: int) -> Tensor:
    """Mean squared difference of neighbours along an axis."""
    n = grid.shape[axis] - 1
    return functional.mse_loss(grid.narrow(axis, 1, n), grid.narrow(axis, 0, n))
