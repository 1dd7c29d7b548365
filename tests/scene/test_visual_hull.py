"""Space carving, against rays and a ball."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.rendering.occupancy import CELLS, Occupancy
from infonerf.scene.scene import bounds_of
from infonerf.scene.visual_hull import carved_cells
from run_nerf import create_trainer
from run_nerf_helpers import create_occupancy, create_renderer
from support.scenes import HEIGHT, WIDTH, memory_scene, refused, with_photographs

BOUNDS = np.array([[-1.5, -1.2, -1.4], [1.3, 1.5, 1.6]])
N, RADIUS = 16, 0.6
FINE = 12  # the images are this much finer than those of memory_scene, or cells would be smaller than pixels


def rays_of(scene, view):
    rays = scene.cameras.to("cpu").image_rays(view)
    return rays.origins.double().numpy(), rays.directions.double().numpy()


def ball_scene(pixel_center: float = 0.5, train=(0, 1, 2, 3), sizes=((HEIGHT * FINE, WIDTH * FINE),) * 6):
    """Views of a ball of RADIUS around the origin, opaque where a pixel's ray meets it."""
    scene = memory_scene(train=train, pixel_center=pixel_center, sizes=sizes)
    finer = torch.tensor([[width / WIDTH, height / HEIGHT] * 2 for height, width in sizes])
    scene = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics * finer))

    def alpha(view):
        origins, directions = rays_of(scene, view)
        nearest = -(origins * directions).sum(-1) / (directions**2).sum(-1)
        distance = np.linalg.norm(origins + nearest[:, None] * directions, axis=-1)
        return (distance < RADIUS).astype(np.float32).reshape(scene.size(view))

    return with_photographs(scene, alpha=alpha, image=lambda view: np.full((*scene.size(view), 3), 0.5, np.float32))


def trained_on(scene, *views):
    return replace(scene, split=replace(scene.split, train=views))


def cell_of(points):
    """Numbers of the cells (three columns) that hold points n 3, of those within the bounds."""
    unit = (points - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    return np.floor(unit[((unit >= 0) & (unit < 1)).all(-1)] * N).astype(int).T


def test_a_ball_stays_and_what_is_far_from_it_goes():
    carved = carved_cells(ball_scene(), BOUNDS, N)
    points = np.random.default_rng(0).uniform(-1.6, 1.7, (50_000, 3))
    r = np.linalg.norm(points, axis=-1)
    assert not carved[tuple(cell_of(points[r < RADIUS]))].any()
    assert 0.5 < carved.mean() < 0.95
    fewer = carved_cells(ball_scene(train=(0, 1)), BOUNDS, N)
    assert (carved | ~fewer).all()  # more views carve more
    assert fewer.sum() < carved.sum()


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_no_ray_of_an_opaque_pixel_meets_a_carved_cell(pixel_center):
    """Of random pixels of each view, and of the image's corners."""
    rng, scene = np.random.default_rng(1), ball_scene(pixel_center)
    for view in scene.split.train:
        opaque = rng.random(scene.size(view)) < 0.003
        opaque[[0, -1], [0, -1]] = True
        carved = carved_cells(with_photographs(trained_on(scene, view), alpha=lambda _, a=opaque: a), BOUNDS, N)
        origins, directions = (a[opaque.ravel()] for a in rays_of(scene, view))
        points = origins[:, None] + directions[:, None] * np.linspace(0.5, 9, 4000)[:, None]
        crossed = np.zeros_like(carved)
        crossed[tuple(cell_of(points.reshape(-1, 3)))] = True
        assert not (crossed & carved).any()
        assert crossed.any()
        assert carved.any()


def slowly(scene, view, cell, reaches):
    """Whether a view carves a cell, by a slow projection: it lies in front of the camera and has no opaque pixel around
    it, beyond the frame only if the object does not reach that. And whether it lies within the frame."""
    size, alpha, (height, width) = (BOUNDS[1] - BOUNDS[0]) / N, scene.photographs.alpha(view), scene.size(view)
    pose, (fx, fy, cx, cy) = scene.poses[view], scene.cameras.intrinsics[view].tolist()
    corners = BOUNDS[0] + size * (cell + np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3))
    camera = np.array([np.linalg.inv(pose[:, :3]) @ (c - pose[:, 3]) for c in corners])
    col, row = cx - fx * camera[:, 0] / camera[:, 2] - 0.5, cy + fy * camera[:, 1] / camera[:, 2] - 0.5
    rows, cols = (range(int(np.floor(a.min())), int(np.ceil(a.max())) + 1) for a in (row, col))
    within = rows[0] >= 0 and cols[0] >= 0 and rows[-1] < height and cols[-1] < width
    opaque = any(alpha[r, c] for r in rows if 0 <= r < height for c in cols if 0 <= c < width)
    return (camera[:, 2] < 0).all() and not opaque and (within or not reaches), within


@pytest.mark.parametrize("border", ["transparent", "opaque in one place"])
def test_the_cells_of_one_view_one_by_one(border):
    """Against the slow projection."""
    scene, reaches, beyond = trained_on(ball_scene(), 1), border != "transparent", 0
    alpha = scene.photographs.alpha(1).copy()
    alpha[-1, 7] = reaches
    scene = with_photographs(scene, alpha=lambda view: alpha)
    carved = carved_cells(scene, BOUNDS, N)
    for cell in np.random.default_rng(2).integers(0, N, (300, 3)):
        expected, within = slowly(scene, 1, cell, reaches)
        beyond += not within
        assert carved[tuple(cell)] == expected
    assert 0 < beyond < 300


def test_the_cells_of_two_views_of_different_size():
    """Each by its own size and intrinsics; one of them shows the whole object."""
    scene = ball_scene(train=(1, 3), sizes=[(96, 120), (60, 130), (8, 10), (110, 70), (8, 10), (8, 10)])
    alphas = {view: scene.photographs.alpha(view).copy() for view in (1, 3)}
    alphas[3][-1, 7] = 1
    scene = with_photographs(scene, alpha=alphas.get)
    carved, each, beyond = carved_cells(scene, BOUNDS, N), [], 0
    for cell in np.random.default_rng(2).integers(0, N, (300, 3)):
        found = [slowly(scene, view, cell, reaches=view == 3) for view in (1, 3)]
        assert carved[tuple(cell)] == any(expected for expected, _ in found)
        each.append([expected for expected, _ in found])
        beyond += not all(within for _, within in found)
    assert 0 < beyond < 300
    assert {(True, False), (False, True), (True, True), (False, False)} == set(map(tuple, each))


def test_nothing_behind_a_camera_is_carved_nor_outside_an_image_without_an_object():
    scene = ball_scene(train=(0,))
    nothing = with_photographs(scene, alpha=lambda view: np.zeros(scene.size(view)))
    behind = scene.poses[0][:, 3] + scene.poses[0][:, 2] * 3
    aside = scene.poses[0][:, 0] * 30
    for centre in (behind, aside):
        assert not carved_cells(nothing, np.stack([centre - 1, centre + 1]), 4).any()
    ahead = scene.poses[0][:, 3] - scene.poses[0][:, 2] * 4
    assert carved_cells(nothing, np.stack([ahead - 0.1, ahead + 0.1]), 4).all()


OPTIONS = ["--expname", "t", "--datadir", "d", "--dataset_type", "blender", "--netwidth", "8", "--netwidth_fine", "8",
           "--N_rand", "6", "--N_samples", "8", "--N_importance", "4", "--no_batching", "--density_bias", "5",
           "--white_bkgd"]  # fmt: skip


def test_training_and_rendering_within_the_hull():
    """No density where all is carved: not in the grid, and in no picture."""
    config, _ = parse_options([*OPTIONS, "--skip_empty", "--visual_hull"])
    scene = replace(ball_scene(), white_background=True)
    trainer = create_trainer(config, scene, torch.device("cpu"))
    carved = trainer.occupancy.carved
    assert torch.equal(carved, torch.from_numpy(carved_cells(scene, bounds_of(scene), CELLS).ravel()))
    for _ in range(48):
        trainer.train_step()
    assert not trainer.occupancy.density[carved].any()
    assert trainer.occupancy.density[~carved].any()
    renderer = create_renderer(config, scene, trainer.networks).for_pictures(trainer.networks)
    rays = scene.cameras.to("cpu").image_rays(4)
    with torch.no_grad():
        fine = renderer.rays(rays).fine
    points = rays.origins[:, None] + rays.directions[:, None] * torch.linspace(2, 6, 500)[:, None]
    hull = Occupancy(torch.as_tensor(bounds_of(scene), dtype=torch.float32), None, carved)
    through = hull.occupied(points.flatten(0, 1)).view(len(rays), -1).any(-1)
    assert not fine.acc[~through].any()
    assert 0.1 < through.float().mean() < 0.9
    assert float(fine.acc[through].max()) > 0.5


def test_what_it_needs():
    with refused("--visual_hull: found no --skip_empty"):
        parse_options([*OPTIONS, "--visual_hull"])
    config, _ = parse_options([*OPTIONS, "--skip_empty", "--visual_hull"])
    with refused("--visual_hull: the images of memory have no alpha, expected RGBA images"):
        create_occupancy(config, memory_scene(), torch.device("cpu"))
    scene = replace(ball_scene(), bounds=np.array([[-0.1] * 3, [0.1] * 3]))
    empty = with_photographs(scene, alpha=lambda view: np.zeros(scene.size(view)))
    with refused("--visual_hull: no point within the bounds of memory is seen opaque"):
        create_occupancy(config, empty, torch.device("cpu"))
