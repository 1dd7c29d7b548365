"""The occupancy grid: what it lets pass, how it learns, and rendering and training with it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering import occupancy
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.occupancy import CELLS, EMPTY, EVERY, POINTS, WARM_UP, Occupancy
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.scene import bounds_of
from run_nerf import create_trainer
from support.draws import seeded
from support.scenes import HEIGHT, WIDTH, memory_scene, small_networks

BOUNDS = torch.tensor([[-1.0, -2.0, -4.0], [1.0, 2.0, 4.0]])


class Ball(Field):
    """Density 20 in a ball of radius 0.7 around the origin, raw density -5 elsewhere."""

    radius = 0.7

    def features(self, points):
        return points

    def density(self, features):
        return torch.where(features.norm(dim=-1) < self.radius, 20.0, -5.0).to(features.dtype)

    def colour(self, features, encoded):
        return features


def random_points(n=20000):
    return 10 * torch.rand(n, 3, generator=seeded()) - 5


def inside(points):
    return ((points >= BOUNDS[0]) & (points < BOUNDS[1])).all(-1)


def test_the_bounds_count_from_the_start():
    points = random_points()
    assert 0 < inside(points).float().mean() < 1
    assert torch.equal(Occupancy(BOUNDS).occupied(points), inside(points))


def test_cells():
    """A cell lets pass exactly the points within it."""
    grid, points = Occupancy(BOUNDS), random_points()
    grid.in_use = True
    grid.density.zero_()
    number = torch.tensor([40, 33, 31])
    grid.density[(40 * CELLS + 33) * CELLS + 31] = 1
    size = (BOUNDS[1] - BOUNDS[0]) / CELLS
    points = torch.cat([points, BOUNDS[0] + (number + torch.rand(50, 3, generator=seeded())) * size])
    expected = (torch.floor((points - BOUNDS[0]) / size) == number).all(-1)
    assert int(expected.sum()) >= 50
    assert torch.equal(grid.occupied(points), expected)


def test_it_learns_where_the_density_is():
    """Cells that a ball fills are occupied; those far from it are empty once they were looked at; before the end of
    the warm-up nothing is cut off."""
    grid, ball, generator = Occupancy(BOUNDS), CoarseFine(Ball(), None), seeded()
    points = random_points()
    points = points[inside(points)]
    for step in range(1, WARM_UP + 40 * EVERY):
        if step < WARM_UP:
            assert not grid.in_use
        grid.update(step, ball, generator)
    occupied, r = grid.occupied(points), points.norm(dim=-1)
    cell = float(((BOUNDS[1] - BOUNDS[0]) / CELLS).norm())
    assert occupied[r < Ball.radius - cell].all()
    assert int((r < Ball.radius - cell).sum()) > 5
    assert occupied[r > Ball.radius + cell].float().mean() < 0.1


def test_either_network_counts():
    empty = small_networks(0, True, torch.float32).coarse
    with torch.no_grad():
        empty.alpha_linear.bias.fill_(-100)
    for networks in (CoarseFine(empty, Ball()), CoarseFine(Ball(), empty)):
        grid = Occupancy(BOUNDS).filled(networks)
        assert bool(grid.occupied(torch.zeros(1, 3)))
        assert not grid.occupied(torch.tensor([[0.9, 1.9, 3.9]]))


def test_what_disappears_is_forgotten():
    """A value decays with each visit, and a new greater one counts at once."""
    grid, cells = Occupancy(BOUNDS), torch.tensor([5, 5, 9])
    solid, nothing = (CoarseFine(small_networks(0, True, torch.float32).coarse, None) for _ in range(2))
    with torch.no_grad():
        solid.coarse.alpha_linear.bias.fill_(50)
        nothing.coarse.alpha_linear.bias.fill_(-50)
    grid.visit(cells, solid, seeded())
    first = grid.density[[5, 9]].clone()
    assert (first > 30).all()
    assert math.isinf(grid.density[6])
    visits = 0
    while (grid.density[[5, 9]] > EMPTY).any():
        grid.visit(cells, nothing, seeded())
        visits += 1
        torch.testing.assert_close(grid.density[[5, 9]], first * occupancy.DECAY**visits)
    grid.visit(cells, solid, seeded())
    assert (grid.density[[5, 9]] > 30).all()


def test_a_filled_grid_sees_the_neighbours_of_what_is_dense():
    """And the grid that it is made from stays as it was."""
    unused = Occupancy(BOUNDS)
    grid = unused.filled(CoarseFine(Ball(), None))
    assert not unused.in_use
    assert unused.density.isinf().all()
    points = random_points()
    r, cell = points.norm(dim=-1), (BOUNDS[1] - BOUNDS[0]) / CELLS
    assert grid.occupied(points[r < Ball.radius]).all()
    assert not grid.occupied(points[r > Ball.radius + 2 * float(cell.norm())]).any()


@pytest.mark.parametrize("n_importance", [0, 6])
def test_rendering_with_a_filled_grid(n_importance):
    """The picture of all samples, from few of them."""
    asked = []

    class Counted(Ball):
        def features(self, points):
            asked.append(len(points))
            return points

    rays = memory_scene().cameras.to("cpu").image_rays(2)
    networks = CoarseFine(Counted(), Counted() if n_importance else None)
    grid = Occupancy(BOUNDS).filled(networks)
    renderer = Renderer(networks, Sampling(24, n_importance), True, SparseQuery(64, None, grid), 1000)
    asked.clear()
    ours, n_asked = renderer.last_pass(rays), sum(asked)
    dense = replace(renderer, query=DenseQuery()).last_pass(rays)
    torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-6)
    assert float(dense.acc.max()) > 0.9
    assert 0 < n_asked < 0.35 * HEIGHT * WIDTH * (24 + (24 + n_importance) * (n_importance > 0))


def test_bounds_of_a_scene_without_any():
    """The box holds what the training cameras see, and touches it."""
    scene = memory_scene()
    low, high = bounds_of(scene)
    points = []
    for view in scene.split.train:
        for row in (0, HEIGHT):
            for col in (0, WIDTH):
                fx, fy, cx, cy = scene.cameras.intrinsics[view].tolist()
                direction = scene.poses[view][:, :3] @ [(col - cx) / fx, -(row - cy) / fy, -1]
                points += [scene.poses[view][:, 3] + z * direction for z in (scene.near, scene.far)]
    np.testing.assert_allclose([low, high], [np.min(points, 0), np.max(points, 0)], rtol=1e-12)


TINY = ["--expname", "t", "--datadir", "d", "--dataset_type", "blender", "--netwidth", "8", "--netwidth_fine", "8",
        "--N_rand", "6", "--N_entropy", "4", "--N_samples", "4", "--N_importance", "3", "--entropy",
        "--entropy_ray_zvals_lambda", "0.1", "--no_batching", "--skip_empty", "--density_bias", "1"]  # fmt: skip


def test_training_uses_it(monkeypatch):
    """After the warm-up a step asks only about what may be dense, even if that is nothing."""
    monkeypatch.setattr(occupancy, "WARM_UP", 2 * EVERY)
    config, _ = parse_options(TINY)
    trainer = create_trainer(config, memory_scene(), torch.device("cpu"))
    for _ in range(2 * EVERY):
        trainer.train_step()
    assert trainer.occupancy.in_use
    assert int(trainer.occupancy.density.isfinite().sum()) > POINTS // 2
    assert all(parameter.grad.any() for parameter in trainer.networks.parameters() if parameter.grad is not None)
    trainer.occupancy.density.zero_()
    _, renderings = trainer.train_step()
    assert not any(rendering.fine.acc.any() for rendering in renderings.values())
    assert not any(parameter.grad.any() for parameter in trainer.networks.parameters() if parameter.grad is not None)
