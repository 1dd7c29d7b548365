"""Captures for tests, in every format that is read: photographs of random pixels, and cameras that are known."""

import json
import struct

import imageio.v3 as iio
import numpy as np

from infonerf.scene.colmap import MODEL_IDS
from infonerf.scene.distortion import MODELS, Lens
from support.scenes import look_at_origin, random_pixels

VALUES = {"f": 14.0, "fx": 14.0, "fy": 15.0, "cx": 9.6, "cy": 8.3, "k1": 0.05, "k2": -0.02, "p1": 0.002, "p2": -0.001,
          "k3": 0.004, "k4": 0.01, "k5": -0.003, "k6": 0.001}  # fmt: skip
SHIFT = np.array([3.0, -2.0, 5.0])  # of the files' world: nothing is at its origin


def lens(model: str = "PINHOLE", width: int = 20, height: int = 16) -> Lens:
    return Lens.of_model(model, width, height, [VALUES[name] for name in MODELS[model]])


def poses(n: int = 6) -> np.ndarray:
    """n 3 4, OpenGL: around SHIFT, from 2.5 away."""
    around = np.stack([look_at_origin(10 + 300.0 * i / n, 20.0 + 3 * i, radius=2.5)[:3] for i in range(n)])
    around[:, :, 3] += SHIFT
    return around


def sparse_points(n: int = 60) -> np.ndarray:
    return np.random.default_rng(4).uniform(-0.4, 0.4, (n, 3)) + SHIFT


def names(n: int = 6) -> list[str]:
    return [f"{i:03d}.png" for i in range(n)]


def write_images(folder, listed, width: int = 20, height: int = 16, channels: int = 3):
    for i, name in enumerate(listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(folder / name, random_pixels(i, channels, height, width))


def of_lens(camera: Lens, model: str) -> dict:
    """What transforms.json says of a lens."""
    named = {name: VALUES[name] for name in MODELS[model] if name.startswith(("k", "p"))}
    return {"camera_model": model, "fl_x": camera.fx, "fl_y": camera.fy, "cx": camera.cx, "cy": camera.cy,
            "w": camera.width, "h": camera.height, **named}  # fmt: skip


def square(pose: np.ndarray) -> list:
    return np.concatenate([pose, [[0, 0, 0, 1]]]).tolist()


def write_transforms(folder, n: int = 6, model: str = "PINHOLE", **facts):
    """images/NNN.png and transforms.json; `facts` are further keys of the file."""
    write_images(folder / "images", names(n))
    frames = [{"file_path": f"images/{name}", "transform_matrix": square(pose)}
              for name, pose in zip(names(n), poses(n), strict=True)]  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(of_lens(lens(model), model) | facts | {"frames": frames}))
    return folder


def change(folder, edit, name: str = "transforms.json"):
    """Change the content of a JSON file, which `edit` is given."""
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))


def projected(camera: Lens, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """n 2: cols and rows of points."""
    places = (points - pose[:, 3]) @ pose[:, :3] * [1, -1, -1]
    return camera.project(places[:, :2] / places[:, 2:])


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w x y z of a rotation matrix."""
    k = np.array([[rotation[0, 0] - rotation[1, 1] - rotation[2, 2], 0, 0, 0],
                  [rotation[0, 1] + rotation[1, 0], rotation[1, 1] - rotation[0, 0] - rotation[2, 2], 0, 0],
                  [rotation[0, 2] + rotation[2, 0], rotation[1, 2] + rotation[2, 1],
                   rotation[2, 2] - rotation[0, 0] - rotation[1, 1], 0],
                  [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0],
                   rotation[1, 0] - rotation[0, 1], np.trace(rotation)]])  # fmt: skip
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    return np.array([w, x, y, z])


def colmap_pose(pose: np.ndarray) -> np.ndarray:
    """qw qx qy qz tx ty tz, world to camera, x right, y down, z forward."""
    rotation = (pose[:, :3] * [1, -1, -1]).T
    return np.concatenate([quaternion(rotation), -rotation @ pose[:, 3]])


def write_colmap(folder, ending: str = "bin", model: str = "PINHOLE", n: int = 6, listed=None, place: str = "sparse/0"):
    """images/ and a model in which each image has its own camera; the ids have gaps, the images are in reverse order,
    and every place in an image whose number is a multiple of 3 has no point."""
    listed = listed or names(n)
    write_images(folder / "images", listed)
    where, camera, points = folder / place, lens(model), sparse_points()
    where.mkdir(parents=True)
    values = [VALUES[name] for name in MODELS[model]]
    cameras = [(7 * i + 3, values) for i in range(n)] + [(1000, values)]
    images = [(5 * i + 2, colmap_pose(pose), 7 * i + 3, name, projected(camera, pose, points))
              for i, (pose, name) in enumerate(zip(poses(n), listed, strict=True))][::-1]  # fmt: skip
    ids = [-1 if k % 3 == 0 else 11 * k + 4 for k in range(len(points))]
    rows = [(11 * k + 4, place, 0.2 + 0.01 * k) for k, place in enumerate(points) if k % 3][::-1]
    write = write_binary if ending == "bin" else write_text
    write(where, model, camera, cameras, images, ids, rows)
    return folder


def write_binary(where, model, camera, cameras, images, ids, rows):
    with (where / "cameras.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(cameras)))
        for number, values in cameras:
            file.write(struct.pack(f"<IiQQ{len(values)}d", number, MODEL_IDS.index(model), camera.width, camera.height,
                                   *values))  # fmt: skip
    with (where / "images.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(images)))
        for number, pose, of, name, places in images:
            file.write(struct.pack("<I7dI", number, *pose, of) + name.encode() + b"\0")
            file.write(struct.pack("<Q", len(places)))
            for (x, y), point in zip(places, ids, strict=True):
                file.write(struct.pack("<ddq", x, y, point))
    with (where / "points3D.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(rows)))
        for number, place, error in rows:
            file.write(struct.pack("<Q3d3BdQ", number, *place, 1, 2, 3, error, 2) + struct.pack("<4I", 2, 0, 7, 1))


def write_text(where, model, camera, cameras, images, ids, rows):
    def numbers(values):
        return " ".join(repr(float(value)) for value in values)

    lines = [f"{number} {model} {camera.width} {camera.height} {numbers(values)}" for number, values in cameras]
    (where / "cameras.txt").write_text("# Camera list\n" + "\n".join(lines) + "\n")
    lines = ["# Image list", "#"]
    for number, pose, of, name, places in images:
        lines.append(f"{number} {numbers(pose)} {of} {name}")
        lines.append(" ".join(f"{numbers(place)} {point}" for place, point in zip(places, ids, strict=True)))
    (where / "images.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{number} {numbers(place)} 1 2 3 {float(error)!r} 2 0 7 1" for number, place, error in rows]
    (where / "points3D.txt").write_text("# 3D point list\n" + "\n".join(lines) + "\n")


def write_ply(path, points, kind: str = "ascii"):
    """With a colour before each place and a normal's x behind it."""
    head = f"ply\nformat {kind} 1.0\ncomment x\nelement vertex {len(points)}\nproperty uchar red\nproperty float x\n"
    head += "property float y\nproperty double z\nproperty float nx\nelement face 0\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    if kind == "ascii":
        body = "".join(f"7 {x!r} {y!r} {z!r} 0.5\n" for x, y, z in points.tolist()).encode()
    else:
        body = b"".join(struct.pack("<Bffdf", 7, *point, 0.5) for point in points)
    path.write_bytes(head.encode() + body)
