"""Where half of a ray's light is stopped."""

import math

import pytest
import torch

from infonerf.export.half_light import half_depths, half_points, random_rays
from infonerf.export.mesh import threshold_of
from infonerf.rendering.compositing import composite
from infonerf.scene.cameras import Rays
from infonerf.system.errors import InputError
from support.scenes import memory_scene
from support.solids import STEEP, boxed_scene, renderer_of, sphere


def seen(density, z, directions):
    return composite(None, density, z, directions)


def test_of_a_constant_density():
    directions = torch.tensor([[0.0, 0, -1], [0, 2, 0], [0, 0, -1]], dtype=torch.float64)
    z = torch.linspace(1, 5, 9, dtype=torch.float64).expand(3, -1)
    density = torch.where(z < 2, 0, torch.tensor([[0.4], [0.4], [0.01]], dtype=torch.float64))
    depths = half_depths(seen(density, z, directions), directions)
    assert depths[:2].tolist() == pytest.approx([2 + math.log(2) / 0.4, 2 + math.log(2) / 0.8])
    assert depths[2] == torch.inf  # what the last sample stops is at infinity


def test_as_much_light_passes_as_the_weights_say():
    generator = torch.Generator().manual_seed(2)
    density = 3 * torch.rand(50, 20, generator=generator, dtype=torch.float64)
    z = torch.rand(50, 20, generator=generator, dtype=torch.float64).sort(dim=-1).values
    directions = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    found = seen(density, z, directions)
    depths, before = half_depths(found, directions), found.weights.cumsum(-1)
    for i in range(50):
        passed = 1 - torch.cat([before.new_zeros(1), before[i]])[:-1]  # at each sample
        if depths[i].isfinite():
            k = int((z[i] <= depths[i]).sum())
            assert passed[k - 1] >= 0.5 >= passed[min(k, 19)] - 1e-9
        else:
            assert passed[-1] > 0.5


def test_points_and_colours_without_the_background():
    renderer = renderer_of(sphere())
    renderer.white_background = True
    rays = Rays(torch.tensor([[0.0, 0, 4], [0, 1.5, 4]]), torch.tensor([[0.0, 0, -1]]).expand(2, 3), 2.0, 6.0)
    points, colours = half_points(renderer, rays, colour=True)
    assert len(points) == 1 and points[0].tolist() == pytest.approx([0, 0, 1 - math.sqrt(2 * math.log(2) / STEEP)],
                                                                    abs=0.01)  # fmt: skip
    torch.testing.assert_close(colours, torch.tensor([[0.0, 0, -4]]).sigmoid(), atol=1e-3, rtol=0)


def test_random_rays_are_those_of_all_pixels():
    cameras = memory_scene(sizes=[(1, 2)] * 3 + [(3, 1)] * 3).cameras
    rays, every = random_rays(cameras, 400), torch.cat([cameras.image_rays(i).directions for i in range(6)])
    drawn = {tuple(direction) for direction in rays.directions.tolist()}
    assert drawn == {tuple(direction) for direction in every.tolist()}
    assert torch.equal(random_rays(cameras, 400).directions, rays.directions)


def test_the_threshold_is_the_density_where_half_is_stopped():
    """On a ray that meets the sphere at an angle of cosine c, the density is about STEEP c s at depth s: half of the
    light is left where STEEP c s^2 / 2 = ln 2. Of parallel rays, the lower quartile of c^2 is 1/4."""
    expected = math.sqrt(2 * STEEP * 0.25**0.5 * math.log(2))
    assert threshold_of(renderer_of(sphere(), 512), boxed_scene()) == pytest.approx(expected, rel=0.1)


def test_nothing_to_see_has_no_threshold():
    with pytest.raises(InputError, match="no ray of the training views of memory of which half"):
        threshold_of(renderer_of(sphere(radius=-1.0)), boxed_scene())
