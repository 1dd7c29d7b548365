"""What a field says of the vertices of a surface: normals and colours. Axes: n points."""

from collections.abc import Callable

import torch
from torch import Tensor

from infonerf.export.density import block_size
from infonerf.fields.field import Field

Place = Callable[[Tensor], Tensor]  # points of the scene's world n 3 -> where the field has them


def outward(field: Field, place: Place, points: Tensor, like: Tensor) -> Tensor:
    """n 3: unit normals, against the gradient of the density; those of `like` (n 3) where the two disagree by more
    than a right angle, as they may where the density was cut, or where there is no gradient."""
    gradients = torch.cat([gradient(field, place, block) for block in points.split(block_size(points.device))])
    normals = torch.nn.functional.normalize(-gradients.nan_to_num(), dim=-1)
    like = torch.nn.functional.normalize(like, dim=-1)
    agree = (normals * like).sum(-1, keepdim=True) > 0
    return torch.where(agree, normals, like)


def gradient(field: Field, place: Place, points: Tensor) -> Tensor:
    """n 3: of the raw density."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        density = field.density(field.features(place(points)))
        return torch.autograd.grad(density.sum(), points)[0]


@torch.no_grad()
def seen_along(field: Field, place: Place, points: Tensor, directions: Tensor) -> Tensor:
    """n 3 in 0..1: the colour of points, seen in the unit directions n 3."""
    size, colours = block_size(points.device), []
    for block, looking in zip(points.split(size), directions.split(size), strict=True):
        features = field.features(place(block))
        colours.append(field.colour(features, field.encode_directions(looking)).float().sigmoid())
    return torch.cat(colours).nan_to_num_(0)
