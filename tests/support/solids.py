"""Fields of solid shapes whose surfaces are known, for tests of meshes."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.scene.scene import Scene
from support.scenes import memory_scene

STEEP = 200.0


class Solid(Field):
    """Raw density STEEP times how deep a point is in a shape (points n 3 -> n, negative outside). The colour, before
    the sigmoid, is the viewing direction."""

    def __init__(self, depth):
        super().__init__()
        self.depth, self.weight = depth, nn.Parameter(torch.tensor(STEEP))

    def features(self, points: Tensor) -> Tensor:
        return points

    def density(self, features: Tensor) -> Tensor:
        return self.weight * self.depth(features)

    def colour(self, features: Tensor, encoded: Tensor) -> Tensor:
        return 4 * encoded


def sphere(centre=(0.0, 0.0, 0.0), radius=1.0):
    return lambda points: radius - (points - torch.tensor(centre, device=points.device)).norm(dim=-1)


def torus(points: Tensor, major=0.9, minor=0.35) -> Tensor:
    around = points[..., :2].norm(dim=-1) - major
    return minor - torch.stack([around, points[..., 2]], dim=-1).norm(dim=-1)


def union(*shapes):
    return lambda points: torch.stack([shape(points) for shape in shapes]).amax(0)


def renderer_of(shape, n_samples: int = 256) -> Renderer:
    return Renderer(CoarseFine(Solid(shape), None), Sampling(n_samples, 0))


def boxed_scene(half: float = 1.5, **changes) -> Scene:
    """Views of a box around the origin."""
    return replace(memory_scene(), bounds=np.array([[-half] * 3, [half] * 3]), **changes)
