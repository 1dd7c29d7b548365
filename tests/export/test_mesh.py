"""Meshes and clouds of shapes whose surfaces are known."""

import re
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from infonerf.export import files, memory
from infonerf.export.files import check_new_file, glb_of, linear, require_packages, write_cloud, write_mesh
from infonerf.export.mesh import MeshOptions, make_cloud, make_mesh, moved
from infonerf.scene.cameras import NDC
from infonerf.system.errors import InputError
from support.scenes import forward_scene, refused
from support.solids import boxed_scene, renderer_of, sphere, torus, union

MISSING = [name for name in ("skimage", "trimesh", "fast_simplification") if find_spec(name) is None]
needs_packages = pytest.mark.skipif(bool(MISSING), reason="requirements-export.txt")
NEAR_ZERO = 1e-3  # a threshold at which the surface is the shape's


def mesh_of(shape, scene=None, resolution=40, threshold=NEAR_ZERO, **options):
    return make_mesh(renderer_of(shape), scene or boxed_scene(), MeshOptions(resolution, threshold, **options))


def trimesh_of(mesh):
    import trimesh

    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def degrees(a, b):
    return np.degrees(np.arccos(np.einsum("ni,ni->n", a, b).clip(-1, 1)))


@needs_packages
def test_a_sphere():
    mesh = mesh_of(sphere((0.1, 0.0, -0.2)))
    outwards = mesh.vertices - [0.1, 0, -0.2]
    distance = np.linalg.norm(outwards, axis=1)
    assert abs(distance - 1).max() < 0.1 * 3 / 40  # cells
    assert degrees(mesh.normals, outwards / distance[:, None]).max() < 0.1
    found = trimesh_of(mesh)
    assert found.is_watertight and found.is_winding_consistent
    assert found.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    expected = 255 / (1 + np.exp(4 * mesh.normals))  # seen along the normal, inwards
    assert abs(mesh.colours - expected).max() < 0.51


@needs_packages
def test_a_torus():
    mesh = mesh_of(torus)
    depth = torus(torch.from_numpy(mesh.vertices)).numpy()
    assert abs(depth).max() < 0.1 * 3 / 40
    assert trimesh_of(mesh).is_watertight and trimesh_of(mesh).euler_number == 0


@needs_packages
def test_the_rule_of_the_threshold_is_used():
    mesh = mesh_of(sphere(), threshold=None)
    assert 0.9 < np.linalg.norm(mesh.vertices, axis=1).mean() < 0.95  # STEEP is not so steep


@needs_packages
def test_what_the_bounds_cut_is_closed():
    mesh = mesh_of(sphere(), boxed_scene(0.75))
    assert trimesh_of(mesh).is_watertight and abs(mesh.vertices).max() <= 0.75
    flat = mesh.vertices[:, 0] > 0.75 - 2 * 1.5 / 40
    assert degrees(mesh.normals[flat], np.tile([1.0, 0, 0], (flat.sum(), 1))).max() < 90


@needs_packages
def test_floaters():
    shape = union(sphere(radius=0.8), sphere((1.2, 1.2, 1.2), 0.06))
    assert np.linalg.norm(mesh_of(shape).vertices, axis=1).max() < 0.81
    assert np.linalg.norm(mesh_of(shape, keep_floaters=True).vertices, axis=1).max() > 1.9


@needs_packages
def test_simplified():
    mesh = mesh_of(sphere(), simplify=500)
    assert 400 < len(mesh.faces) <= 500
    assert abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 0.02
    assert degrees(mesh.normals, mesh.vertices / np.linalg.norm(mesh.vertices, axis=1)[:, None]).max() < 1


@needs_packages
@pytest.mark.parametrize("mirror", [1, -1])
def test_the_world_of_the_files(mirror):
    """A scene's world that is turned, scaled and moved is undone."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = 0.2 * turn * np.sign(np.linalg.det(turn)) * [1, 1, mirror], [0.1, -0.2, 0.3]
    plain, mesh = mesh_of(sphere()), mesh_of(sphere(), boxed_scene(world=world))
    np.testing.assert_allclose(moved(mesh.vertices, world), plain.vertices, atol=1e-6)
    centre = moved(np.zeros((1, 3)), np.linalg.inv(world))
    outwards = (mesh.vertices - centre) / np.linalg.norm(mesh.vertices - centre, axis=1)[:, None]
    assert degrees(mesh.normals, outwards).max() < 0.1
    assert trimesh_of(mesh).volume == pytest.approx(4 / 3 * np.pi * 125, rel=0.01)
    np.testing.assert_array_equal(mesh.colours, plain.colours)


@needs_packages
def test_ndc():
    """A sphere of the world, as a field of NDC says it, comes back."""
    scene, ndc, centre = forward_scene(), NDC(2.4, 2.75), torch.tensor([0.1, 0.0, -4.0])
    renderer = renderer_of(lambda points: 1 - (ndc.unproject(points) - centre.to(points)).norm(dim=-1))
    mesh = make_mesh(renderer, scene, MeshOptions(100, NEAR_ZERO))
    outwards = mesh.vertices - centre.numpy()
    assert abs(np.linalg.norm(outwards, axis=1) - 1).max() < 0.05
    assert degrees(mesh.normals, outwards / np.linalg.norm(outwards, axis=1)[:, None]).max() < 1
    assert trimesh_of(mesh).is_watertight and trimesh_of(mesh).volume == pytest.approx(4 / 3 * np.pi, rel=0.03)


def test_unproject():
    ndc, points = NDC(2.4, 2.75), torch.tensor([[0.1, 0.2, -1.0], [3.0, -2.0, -40.0]], dtype=torch.float64)
    torch.testing.assert_close(ndc.unproject(ndc.project(points)), points)


@needs_packages
def test_a_threshold_that_leaves_nothing():
    with pytest.raises(InputError, match=r"--threshold 1e\+06: leaves nothing, found densities of 0 to 200 within"):
        mesh_of(sphere(), threshold=1e6)


@needs_packages
def test_a_mesh_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    with pytest.raises(InputError, match=r"--resolution 40: a mesh of .* GB of free memory, expected at most .* \d\b"):
        mesh_of(sphere())


def test_free_memory(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  99 kB\nMemAvailable:   12 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    assert memory.available() == 12 * 1024
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.available() is None
    memory.check_memory(10**12, 1024)


@pytest.mark.parametrize("ending", ["ply", "glb", "obj"])
@needs_packages
def test_files_hold_what_was_written(tmp_path, ending):
    import trimesh

    mesh, path = mesh_of(sphere(), resolution=12), tmp_path / f"mesh.{ending}"
    write_mesh(path, mesh)
    found = trimesh.load_scene(path, process=False).geometry.popitem()[1]
    np.testing.assert_allclose(found.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    np.testing.assert_allclose(found.vertex_normals, mesh.normals, atol=1e-5)
    if ending == "glb":
        read, colours = found.visual.vertex_attributes["color"], linear(mesh.colours)
    else:
        read, colours = found.visual.vertex_colors, mesh.colours
    assert abs(read[:, :3].astype(int) - colours).max() <= 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@needs_packages
def test_a_glb_is_no_metal():
    assert b'"metallicFactor":0.0' in glb_of(mesh_of(sphere(), resolution=12))


@needs_packages
def test_a_glb_for_a_page_is_small():
    options = replace(files.PAGE, resolution=150, threshold=NEAR_ZERO)
    content = files.page_glb(renderer_of(sphere()), boxed_scene(), options)
    faces = int(re.search(rb'"componentType":5125,"type":"SCALAR","bufferView":0,"count":(\d+)', content)[1]) / 3
    assert 49_000 < faces <= options.simplify and len(content) < 1.5e6


def test_linear_colours():
    assert linear(np.array([0, 10, 128, 255], np.uint8)).tolist() == [0, 1, 55, 255]


def test_a_cloud():
    scene = boxed_scene()
    cloud = make_cloud(renderer_of(sphere()), scene)
    distance = np.linalg.norm(cloud.points, axis=1)
    assert len(cloud.points) > 20 and distance.min() > 0.85 and distance.max() < 1
    world = np.diag([2.0, 2, 2, 1])
    np.testing.assert_allclose(make_cloud(renderer_of(sphere()), replace(scene, world=world)).points, cloud.points / 2)


def test_a_cloud_of_nothing():
    with pytest.raises(InputError, match="no ray of the training views of memory"):
        make_cloud(renderer_of(sphere(radius=-1.0)), boxed_scene())


@needs_packages
def test_a_cloud_as_a_file(tmp_path):
    import trimesh

    cloud = make_cloud(renderer_of(sphere()), boxed_scene())
    write_cloud(tmp_path / "points.ply", cloud)
    found = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_allclose(found.vertices, cloud.points, atol=1e-6)
    np.testing.assert_array_equal(found.visual.vertex_colors[:, :3], cloud.colours)


def test_where_a_file_can_be_written(tmp_path):
    check_new_file(tmp_path / "mesh.PLY", (".ply",), False)
    (tmp_path / "mesh.ply").write_text("mine")
    check_new_file(tmp_path / "mesh.ply", (".ply",), True)
    for path, message in [("mesh.ply", "found a file of this name, expected none, or --overwrite"),
                          ("mesh.stl", "found the ending '.stl', expected .ply"),
                          ("mesh", "found the ending 'of no kind', expected .ply"),
                          ("none/mesh.ply", "found no folder")]:  # fmt: skip
        with refused(message):
            check_new_file(tmp_path / path, (".ply",), False)


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with refused("meshes need skimage, which is not installed: pip install -r requirements-export.txt"):
        require_packages()
