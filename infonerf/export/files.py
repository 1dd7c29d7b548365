"""Meshes and clouds as files, written by trimesh."""

from pathlib import Path

import numpy as np

from infonerf.export.mesh import Cloud, Mesh, MeshOptions, make_mesh
from infonerf.rendering.renderer import Renderer
from infonerf.scene.scene import Scene
from infonerf.system.errors import InputError
from infonerf.system.files import atomic_file, check_output

ENDINGS = (".ply", ".glb", ".obj")
PAGE = MeshOptions(resolution=192, simplify=50_000)  # of a mesh for a page: below 1.5 MB
PACKAGES = ("skimage", "scipy", "trimesh", "fast_simplification")


def require_packages() -> None:
    """Raise InputError where a package is missing that only meshes need."""
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:
            raise InputError(f"meshes need {name}, which is not installed: pip install -r requirements-export.txt"
                             ) from error


def check_new_file(path: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Raise InputError where a file cannot be written, or there is one, which nobody said to overwrite."""
    if path.suffix.lower() not in endings:
        raise InputError(f"--output {path}: found the ending {path.suffix or 'of no kind'!r}, expected "
                         + ", ".join(endings))
    check_output("output", path)
    if path.exists() and not overwrite:
        raise InputError(f"--output {path}: found a file of this name, expected none, or --overwrite")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """In the format that the ending names; whole or not at all."""
    import trimesh

    ending, colours = path.suffix.lower(), mesh.colours
    if ending == ".glb":
        write(path, glb_of(mesh))
        return
    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=colours,
                            process=False)  # fmt: skip
    options = {"vertex_normal": True} if ending == ".ply" else {"include_normals": True}
    write(path, shape.export(file_type=ending[1:], **options))


def glb_of(mesh: Mesh) -> bytes:
    """A binary glTF, whose colours are linear, as the format has them, and no metal."""
    import trimesh

    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals,
                            vertex_colors=linear(mesh.colours), process=False)  # fmt: skip
    return shape.export(file_type="glb", include_normals=True, tree_postprocessor=add_material)


def page_glb(renderer: Renderer, scene: Scene, options: MeshOptions = PAGE) -> bytes:
    """A run's mesh as a binary glTF small enough for a page: attributes POSITION, NORMAL, COLOR_0 (uint8, linear)."""
    return glb_of(make_mesh(renderer, scene, options))


def add_material(tree: dict) -> None:
    """To a glTF without any, of which viewers else make metal."""
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0


def linear(colours: np.ndarray) -> np.ndarray:
    """sRGB -> linear, both uint8."""
    x = np.arange(256) / 255
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return (255 * table).round().astype(np.uint8)[colours]


def write_cloud(path: Path, cloud: Cloud) -> None:
    """As PLY; whole or not at all."""
    import trimesh

    write(path, trimesh.PointCloud(cloud.points, colors=cloud.colours).export(file_type="ply"))


def write(path: Path, content: bytes | str) -> None:
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
