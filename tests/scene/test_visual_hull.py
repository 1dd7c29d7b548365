"""Space carving, against rays and a ball."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import run_nerf_helpers as build
from infonerf.command_line import parse_options
from infonerf.fields.nerf import render_rays
from infonerf.rendering.occupancy import CELLS, Occupancy
from infonerf.rendering.pictures import make_renderer
from infonerf.scene.visual_hull import carved_cells
from infonerf.training.sampler import cameras_of, image_rays
from run_nerf import make_trainer
from support.scenes import HEIGHT, WIDTH, memory_scene, refused

BOUNDS = np.array([[-1.5, -1.2, -1.4], [1.3, 1.5, 1.6]])
N, RADIUS = 16, 0.6
FINE = 12  # the images are this much finer than those of memory_scene, or cells would be smaller than pixels


def rays_of(scene, view, pixel_center):
    rays = image_rays(cameras_of(scene, [view], pixel_center, "cpu"), scene.height, scene.width)
    return rays.origins.double().numpy(), rays.directions.double().numpy()


def ball_scene(pixel_center: float = 0.5, size: int = FINE, train=(0, 1, 2, 3)):
    """Views of a ball of RADIUS around the origin, opaque where a pixel's ray meets it."""
    scene = memory_scene(train=train)
    scene = replace(scene, intrinsics=scene.intrinsics * size, height=HEIGHT * size, width=WIDTH * size)

    def alpha(view):
        origins, directions = rays_of(scene, view, pixel_center)
        nearest = -(origins * directions).sum(-1) / (directions**2).sum(-1)
        distance = np.linalg.norm(origins + nearest[:, None] * directions, axis=-1)
        return (distance < RADIUS).astype(np.float32).reshape(scene.height, scene.width)

    colours = np.full((scene.height, scene.width, 3), 0.5, np.float32)
    return replace(scene, alpha=alpha, image=lambda view: colours)


def cell_of(points):
    """Numbers of the cells (three columns) that hold points n 3, of those within the bounds."""
    unit = (points - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    return np.floor(unit[((unit >= 0) & (unit < 1)).all(-1)] * N).astype(int).T


def test_a_ball_stays_and_what_is_far_from_it_goes():
    carved = carved_cells(ball_scene(), BOUNDS, N, 0.5)
    points = np.random.default_rng(0).uniform(-1.6, 1.7, (50_000, 3))
    r = np.linalg.norm(points, axis=-1)
    assert not carved[tuple(cell_of(points[r < RADIUS]))].any()
    assert 0.5 < carved.mean() < 0.95
    fewer = carved_cells(ball_scene(train=(0, 1)), BOUNDS, N, 0.5)
    assert (carved | ~fewer).all()  # more views carve more
    assert fewer.sum() < carved.sum()


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_no_ray_of_an_opaque_pixel_meets_a_carved_cell(pixel_center):
    """Of random pixels of each view, and of the image's corners."""
    rng, scene = np.random.default_rng(1), ball_scene()
    for view in scene.train:
        opaque = rng.random((scene.height, scene.width)) < 0.003
        opaque[[0, -1], [0, -1]] = True
        carved = carved_cells(replace(scene, train=(view,), alpha=lambda _, a=opaque: a), BOUNDS, N, pixel_center)
        origins, directions = (a[opaque.ravel()] for a in rays_of(scene, view, pixel_center))
        points = origins[:, None] + directions[:, None] * np.linspace(0.5, 9, 4000)[:, None]
        crossed = np.zeros_like(carved)
        crossed[tuple(cell_of(points.reshape(-1, 3)))] = True
        assert not (crossed & carved).any()
        assert crossed.any()
        assert carved.any()


@pytest.mark.parametrize("border", ["transparent", "opaque in one place"])
def test_the_cells_of_one_view_one_by_one(border):
    """Against a slow projection: carved is what lies in front of the camera and has no opaque pixel around it, beyond
    the frame only if the object does not reach it."""
    scene = replace(ball_scene(), train=(1,))
    alpha, reaches = scene.alpha(1).copy(), border != "transparent"
    alpha[-1, 7] = reaches
    carved = carved_cells(replace(scene, alpha=lambda view: alpha), BOUNDS, N, 0.5)
    fx, fy, cx, cy = scene.intrinsics[1]
    size, beyond = (BOUNDS[1] - BOUNDS[0]) / N, 0
    for cell in np.random.default_rng(2).integers(0, N, (300, 3)):
        corners = BOUNDS[0] + size * (cell + np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3))
        camera = np.array([np.linalg.inv(scene.poses[1][:, :3]) @ (c - scene.poses[1][:, 3]) for c in corners])
        col, row = cx - fx * camera[:, 0] / camera[:, 2] - 0.5, cy + fy * camera[:, 1] / camera[:, 2] - 0.5
        rows, cols = (range(int(np.floor(a.min())), int(np.ceil(a.max())) + 1) for a in (row, col))
        within = rows[0] >= 0 and cols[0] >= 0 and rows[-1] < scene.height and cols[-1] < scene.width
        opaque = any(alpha[r, c] for r in rows if 0 <= r < scene.height for c in cols if 0 <= c < scene.width)
        beyond += not within
        assert carved[tuple(cell)] == ((camera[:, 2] < 0).all() and not opaque and (within or not reaches))
    assert 0 < beyond < 300


def test_nothing_behind_a_camera_is_carved_nor_outside_an_image_without_an_object():
    scene = ball_scene(train=(0,))
    nothing = replace(scene, alpha=lambda view: np.zeros((scene.height, scene.width)))
    behind = scene.poses[0][:, 3] + scene.poses[0][:, 2] * 3
    aside = scene.poses[0][:, 0] * 30
    for centre in (behind, aside):
        assert not carved_cells(nothing, np.stack([centre - 1, centre + 1]), 4, 0.5).any()
    ahead = scene.poses[0][:, 3] - scene.poses[0][:, 2] * 4
    assert carved_cells(nothing, np.stack([ahead - 0.1, ahead + 0.1]), 4, 0.5).all()


OPTIONS = ["--expname", "t", "--datadir", "d", "--dataset_type", "blender", "--netwidth", "8", "--netwidth_fine", "8",
           "--N_rand", "6", "--N_samples", "8", "--N_importance", "4", "--no_batching", "--density_bias", "5",
           "--white_bkgd", "--pixel_center", "0.5"]  # fmt: skip


def test_training_and_rendering_within_the_hull():
    """No density where all is carved: not in the grid, and in no picture."""
    args, _ = parse_options([*OPTIONS, "--skip_empty", "--visual_hull"])
    scene = replace(ball_scene(), white_background=True)
    trainer = make_trainer(args, scene, torch.device("cpu"))
    carved = trainer.occupancy.carved
    assert torch.equal(carved, torch.from_numpy(carved_cells(scene, build.bounds_of(scene), CELLS, 0.5).ravel()))
    for _ in range(48):
        trainer.train_step()
    assert not trainer.occupancy.density[carved].any()
    assert trainer.occupancy.density[~carved].any()
    renderer = make_renderer(args, trainer.networks, scene)
    rays = image_rays(cameras_of(scene, [4], 0.5, "cpu"), scene.height, scene.width)
    with torch.no_grad():
        _, fine = render_rays(trainer.networks, rays, renderer.sampling, None, renderer.query)
    points = rays.origins[:, None] + rays.directions[:, None] * torch.linspace(2, 6, 500)[:, None]
    hull = Occupancy(torch.as_tensor(build.bounds_of(scene), dtype=torch.float32), None, carved)
    through = hull.occupied(points.flatten(0, 1)).view(len(rays), -1).any(-1)
    assert not fine.acc[~through].any()
    assert 0.1 < through.float().mean() < 0.9
    assert float(fine.acc[through].max()) > 0.5


def test_what_it_needs():
    with refused("--visual_hull: found no --skip_empty"):
        parse_options([*OPTIONS, "--visual_hull"])
    args, _ = parse_options([*OPTIONS, "--skip_empty", "--visual_hull"])
    with refused("--visual_hull: the images of memory have no alpha, expected RGBA images"):
        build.build_occupancy(args, memory_scene(), torch.device("cpu"))
    empty = replace(ball_scene(), alpha=lambda view: np.zeros((HEIGHT * FINE, WIDTH * FINE)),
                    bounds=np.array([[-0.1] * 3, [0.1] * 3]))  # fmt: skip
    with refused("--visual_hull: no point within the bounds of memory is seen opaque"):
        build.build_occupancy(args, empty, torch.device("cpu"))
