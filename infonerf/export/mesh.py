"""From a rendered scene to a mesh, or a cloud of points, in the world of the scene's files.

Axes: n vertices or points, m faces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from infonerf.export.appearance import outward, seen_along
from infonerf.export.density import Grid, density_slabs, raw_density
from infonerf.export.half_light import half_points, random_rays
from infonerf.export.memory import check_memory
from infonerf.export.surface import face_normals, isosurface, simplified, without_floaters
from infonerf.rendering.renderer import Renderer
from infonerf.scene.cameras import NDC
from infonerf.scene.scene import Scene, bounds_of
from infonerf.system.errors import InputError
from infonerf.system.logs import progress_bar, say

N_RAYS, QUANTILE = 2**14, 0.25  # by which the threshold is chosen
FURTHEST = 50  # of a scene in NDC, what is up to so many times as far away as the near plane


@dataclass(frozen=True)
class MeshOptions:
    """resolution: cells along the longest side of the bounds. threshold: the density of the surface, None for that of
    `threshold_of`. simplify: the number of faces, at most; None for all."""

    resolution: int = 256
    threshold: float | None = None
    keep_floaters: bool = False
    simplify: int | None = None


class Mesh(NamedTuple):
    """vertices and unit normals n 3, float64; faces m 3, counterclockwise from outside; colours n 3 uint8, sRGB."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    colours: np.ndarray


class Cloud(NamedTuple):
    """points n 3, float64; colours n 3 uint8, sRGB."""

    points: np.ndarray
    colours: np.ndarray


def make_mesh(renderer: Renderer, scene: Scene, options: MeshOptions = MeshOptions()) -> Mesh:
    """The surface of the last pass's field within the scene's bounds. Raises InputError where there is none."""
    field, device = renderer.networks.last, renderer.networks.device
    threshold = threshold_of(renderer, scene) if options.threshold is None else options.threshold
    grid = Grid.over(seen_bounds(scene), options.resolution)
    with progress_bar(total=grid.shape[0], unit="plane", desc="density", leave=False) as bar:
        slabs = density_slabs(field, grid, renderer.query.occupancy, device, bar.update)
        vertices, faces, greatest = isosurface(slabs, threshold)
    if not len(faces):
        raise InputError(f"--threshold {threshold:g}: leaves nothing, found densities of 0 to {max(greatest, 0):.3g} "
                         "within the bounds, expected one below the greatest")
    check_memory(len(vertices), options.resolution)
    if not options.keep_floaters:
        viewpoints = (scene.poses[list(scene.split.train), :, 3] - grid.low) / grid.step
        vertices, faces, floaters, cavities = without_floaters(
            vertices, faces, np.empty((0, 3)) if scene.cameras.ndc else viewpoints)
        say(f"removed {floaters} floaters and {cavities} cavities (--keep_floaters keeps them)")
    if options.simplify:
        vertices, faces = simplified(vertices, faces, options.simplify)
    return painted(renderer, scene, grid.points(vertices), faces)


def threshold_of(renderer: Renderer, scene: Scene) -> float:
    """The lower quartile, over random rays of the training views, of the density at which half of a ray's light is
    stopped: of what pictures show, three quarters lie within the surface of this density. At the median, thin and faint
    parts are torn (docs/lab/meshes.md)."""
    rays = random_rays(scene.cameras.at(scene.split.train).to(renderer.networks.device), N_RAYS)
    points, _ = half_points(renderer, rays)
    found = raw_density(renderer.networks.last, points) if len(points) else points[:, 0]
    found = found[found > 0]
    if not len(found):
        raise InputError(f"found no ray of the training views of {scene.name} of which half is stopped, expected a run "
                         "that shows something, or --threshold")
    threshold = float(found.quantile(QUANTILE))
    say(f"threshold {threshold:.4g}: the density where half of a ray's light is stopped, lower quartile of "
        f"{len(found)} training rays")
    return threshold


def seen_bounds(scene: Scene) -> np.ndarray:
    """2 3: the scene's bounds; in NDC up to FURTHEST."""
    bounds = np.array(bounds_of(scene), np.float64)
    if scene.cameras.ndc:
        bounds[1, 2] = min(bounds[1, 2], 1 - 2 / FURTHEST)
    return bounds


def painted(renderer: Renderer, scene: Scene, vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    """Vertices n 3, in the coordinates of the scene's rays, and faces -> a mesh in the world of its files."""
    field, device, ndc = renderer.networks.last, renderer.networks.device, scene.cameras.ndc
    vertices = in_world(vertices, ndc)
    if ndc:  # which is a mirror
        faces = faces[:, ::-1]
    points = torch.from_numpy(vertices).to(device, torch.float32)
    place: Callable[[Tensor], Tensor] = ndc.project if ndc else lambda points: points
    like = torch.from_numpy(face_normals(vertices, faces)).to(device, torch.float32)
    normals = outward(field, place, points, like)
    colours = seen_along(field, place, points, -normals)
    to_files = inverse_similarity(scene)
    if np.linalg.det(to_files[:3, :3]) < 0:
        faces = faces[:, ::-1]
    turned = normals.cpu().numpy().astype(np.float64) @ to_files[:3, :3].T
    turned /= np.linalg.norm(turned, axis=1, keepdims=True).clip(1e-12)
    return Mesh(moved(vertices, to_files), np.ascontiguousarray(faces), turned, eight_bit(colours))


def in_world(points: np.ndarray, ndc: NDC | None) -> np.ndarray:
    """Points n 3 of the coordinates of a scene's rays, in its world."""
    return ndc.unproject(torch.from_numpy(points)).numpy() if ndc else points


def inverse_similarity(scene: Scene) -> np.ndarray:
    """4 4: points of the scene's world -> of the files' world."""
    return np.eye(4) if scene.world is None else np.linalg.inv(scene.world)


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points n 3 by a matrix 4 4."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def eight_bit(colours: Tensor) -> np.ndarray:
    return (colours * 255).round().to(torch.uint8).cpu().numpy()


def make_cloud(renderer: Renderer, scene: Scene) -> Cloud:
    """Where half of the light of each ray of the training views is stopped, where it is. Raises InputError where there
    is no such ray."""
    device, ndc, parts = renderer.networks.device, scene.cameras.ndc, []
    cameras = scene.cameras.at(scene.split.train).to(device)
    n_rays = sum(height * width for height, width in cameras.sizes)
    with progress_bar(total=n_rays, unit="ray", unit_scale=True, desc="rendering", leave=False) as bar:
        for view in range(len(cameras)):
            points, colours = half_points(renderer, cameras.image_rays(view), colour=True, progress=bar.update)
            if ndc:
                near = points[:, 2] < 1 - 2 / FURTHEST
                points, colours = points[near], colours[near]
            parts.append((points.cpu().numpy().astype(np.float64), eight_bit(colours)))
    points, colours = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(points):
        raise InputError(f"found no ray of the training views of {scene.name} of which half is stopped, expected a run "
                         "that shows something")
    return Cloud(moved(in_world(points, ndc), inverse_similarity(scene)), colours)
