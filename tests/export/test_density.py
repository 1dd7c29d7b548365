"""Densities on a grid."""

import numpy as np
import torch

from infonerf.export import density
from infonerf.export.density import Grid, density_slabs
from infonerf.rendering.occupancy import CELLS, Occupancy
from support.solids import STEEP, Solid, sphere

CPU = torch.device("cpu")


def whole(slabs):
    return np.concatenate([values[first > 0 :] for first, values in slabs])


def test_the_grid_fills_the_box():
    grid = Grid.over(np.array([[-1.0, 0.0, 2.0], [1.0, 0.5, 3.1]]), 10)
    assert grid.shape == (11, 4, 7)
    np.testing.assert_allclose(grid.points(np.array(grid.shape) - 1), [1.0, 0.5, 3.1])
    assert grid.step.max() <= 0.2 + 1e-12


def test_slabs_are_bounded_and_make_the_whole(monkeypatch):
    grid, field = Grid.over(np.array([[-1.0] * 3, [1.0] * 3]), 12), Solid(sphere(radius=0.8))
    done = []
    at_once = list(density_slabs(field, grid, None, CPU, done.append))
    monkeypatch.setattr(density, "SLAB", 4 * 13 * 13)
    slabs = list(density_slabs(field, grid, None, CPU))
    assert len(at_once) == 1 and sum(done) == 13
    assert [first for first, _ in slabs] == [0, 3, 6, 9] and {len(values) for _, values in slabs} == {4}
    np.testing.assert_array_equal(whole(slabs), at_once[0][1])
    places = np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), axis=-1)
    expected = STEEP * (0.8 - np.linalg.norm(grid.points(places), axis=-1))
    inner = np.s_[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(whole(slabs)[inner], expected[inner], atol=1e-3)
    outer = np.ones((13, 13, 13), bool)
    outer[inner] = False
    assert not whole(slabs)[outer].any()


def test_the_field_is_not_asked_where_space_is_empty():
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    carved = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.bool)
    carved[CELLS // 2 :] = True  # x > 0
    asked = []

    def shape(points):
        asked.append(points)
        return sphere(radius=0.93)(points)

    grid = Grid.over(bounds.numpy(), 10)
    values = whole(density_slabs(Solid(shape), grid, Occupancy(bounds, carved=carved.flatten()), CPU))
    assert torch.cat(asked)[:, 0].max() < 0
    assert not values[5:].any() and values[1:5, 1:-1, 1:-1].all()


def test_what_is_not_finite_is_no_density():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
    wrong = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    assert density.raw_density(Solid(lambda p: wrong), points).tolist() == [0, 0, 0, STEEP]
