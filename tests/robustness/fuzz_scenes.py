"""Files of scenes for fuzz.py: photographs, cameras, points, masks, paths, kept depths; and what a scene must be."""

import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image

from infonerf.capture.photographs import focal_of, open_photograph
from infonerf.config import DataConfig
from infonerf.scene.cameras import Cameras, Pixels
from infonerf.scene.photographs import read_pixels
from infonerf.scene.swept_depths import read_maps, view_of, write_maps
from infonerf.scene.trusted_depths import DepthMap
from infonerf.system.errors import InputError
from infonerf.viewer.paths import as_json, cameras_of, moved, path_through, read_path
from robustness.fuzz_structure import (
    array_changed,
    arrays_changed,
    fields_changed,
    json_changed,
    size_changed,
    words_changed,
)
from run_nerf_helpers import load_scene
from support.captures import change, sparse_points, write_colmap, write_ply, write_transforms
from support.scenes import memory_scene, poses_around, random_pixels, write_blender, write_depth, write_dtu, write_llff


class Loader(NamedTuple):
    """path: where a damaged file is put. seeds: well-formed ones. read: reads it, and checks what it has read. change:
    damage that leaves its format whole, for half of the rounds."""

    path: Path
    seeds: list[bytes]
    read: Callable[[], object]
    change: Callable[[bytes, random.Random], bytes] | None = None


# What is read must be sound.


def check_scene(scene) -> None:
    check_cameras(scene.cameras)
    check_numbers(scene.near, scene.far, scene.bounds, scene.path, scene.world)
    if scene.known_depths is not None:
        known = scene.known_depths
        check_numbers(known.cols, known.rows, known.depths, known.weights)
        assert (known.depths > 0).all() and (known.weights > 0).all()
    view, photographs = scene.split.train[0], scene.photographs
    check_pixels(photographs.image(view))
    assert photographs.image(view).shape[:2] == scene.size(view)
    if photographs.mask is not None:
        assert photographs.mask(view).shape == scene.size(view) and photographs.mask(view).dtype == bool
    if photographs.depth is not None:
        for view in scene.split.test:
            depth = photographs.depth(view)
            assert depth is None or (depth.shape == scene.size(view) and np.isfinite(depth).all() and depth.min() >= 0)


def check_cameras(cameras: Cameras) -> None:
    """Whose rays are finite in float32."""
    cameras = cameras.to("cpu")
    check_numbers(cameras.poses.numpy(), cameras.intrinsics.numpy())
    for view, (height, width) in enumerate(cameras.sizes):
        rows, cols = torch.tensor([0, 0, height, height]), torch.tensor([0, width, 0, width])
        rays = cameras.rays(Pixels(torch.full((4,), view), rows, cols))
        check_numbers(rays.origins.numpy(), rays.directions.numpy(), rays.viewdirs.numpy())


def check_numbers(*arrays) -> None:
    for array in arrays:
        assert array is None or np.isfinite(np.asarray(array, np.float32)).all(), array


def check_pixels(pixels) -> None:
    assert pixels.ndim == 3 and pixels.shape[-1] in (3, 4) and pixels.dtype == np.float32
    assert pixels.min() >= 0 and pixels.max() <= 1


def read_scene(folder: Path, **options) -> None:
    check_scene(load_scene(DataConfig(datadir=str(folder), **options)))


# Images.


def images(folder: Path, ending: str) -> Loader:
    shapes = (9, 7), (9, 7, 3), (9, 7, 4), (9, 7, 2)
    path, rng = folder / f"image{ending}", np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    arrays = {".jpg": arrays[:2], ".webp": arrays[1:3], ".png": [*arrays, arrays[0].astype(np.uint16) * 257]}[ending]
    seeds = [iio.imwrite("<bytes>", array, extension=ending) for array in arrays]
    if ending == ".webp":
        seeds += [iio.imwrite("<bytes>", array, extension=ending, lossless=True) for array in arrays]
    return Loader(path, seeds, lambda: check_pixels(read_pixels(path)), size_changed)


def exif(folder: Path) -> Loader:
    """A photograph, for make_scene.py."""
    path, image, target = folder / "photograph.jpg", Image.fromarray(random_pixels(0, 3, 9, 7)), io.BytesIO()
    tags = image.getexif()
    tags[0x0112], tags[0x010F], tags[0x0110] = 6, "Maker", "Model"
    tags.get_ifd(0x8769).update({0x920A: 4.25, 0xA405: 26, 0xA002: 9, 0xA003: 7, 0xA20E: 70.5, 0xA210: 2})
    image.save(target, "JPEG", exif=tags)

    def read():
        photograph, found = open_photograph(path)
        assert photograph.mode in ("L", "RGB", "RGBA")
        focal = focal_of(found, *photograph.size)
        assert focal is None or 0 < focal < np.inf

    return Loader(path, [target.getvalue()], read, fields_changed)


def masks(folder: Path) -> Loader:
    scan = write_dtu(folder / "masks", n=2)
    path = scan / "mask" / "001.png"
    grey = iio.imread(path)
    seeds = [iio.imwrite("<bytes>", array, extension=".png") for array in (grey, grey // 255, np.dstack([grey] * 4))]
    options = {"dataset_type": "dtu", "train_scene": [0], "maskdir": str(path.parent)}

    def read():
        mask = load_scene(DataConfig(datadir=str(scan), **options)).photographs.mask(1)
        assert mask.shape == grey.shape and mask.dtype == bool and mask.any() and not mask.all()

    return Loader(path, seeds, read, size_changed)


def beside_photographs(folder: Path, kind: str) -> Loader:
    """The mask or depth image of a capture's view."""
    scene = write_transforms(folder / kind, 2, "OPENCV")
    shape, rng = (16, 20), np.random.default_rng(0)
    grey = (rng.random(shape) > 0.5).astype(np.uint8) * 255
    arrays = [grey, np.dstack([grey] * 3)] if kind == "mask_path" else [rng.integers(0, 9000, shape, dtype=np.uint16)]
    for name in ("0.png", "1.png"):
        iio.imwrite(scene / name, arrays[0])
    change(scene, lambda content: [frame.update({kind: f"{i}.png"}) for i, frame in enumerate(content["frames"])])
    seeds = [iio.imwrite("<bytes>", array, extension=".png") for array in arrays]
    prior = "files" if kind == "depth_file_path" else "off"
    return Loader(scene / "0.png", seeds, lambda: read_scene(scene, depth_prior=prior), size_changed)


# Blender, DTU, LLFF.


def transforms(folder: Path, split: str = "train") -> Loader:
    scene = write_blender(folder / "blender", counts=(2, 1, 2))
    write_depth(scene)
    path = scene / f"transforms_{split}.json"
    content = json.loads(path.read_text())
    pixels = {"fl_x": 30.0, "fl_y": 24, "cx": 13, "cy": 7, "w": 20, "h": 16, "camera_angle_y": 0.6, "k1": 0,
              "camera_model": "OPENCV"}  # fmt: skip
    seeds = [path.read_bytes(), json.dumps(content | {"depth_scale": 0.001}, indent=1).encode(),
             json.dumps({"frames": content["frames"]} | pixels).encode()]  # fmt: skip
    return Loader(path, seeds, lambda: read_scene(scene, dataset_type="blender"), json_changed)


def cameras(folder: Path) -> Loader:
    scan = write_dtu(folder / "dtu", n=2, masks=False)
    path, packed = scan / "cameras.npz", io.BytesIO()
    with np.load(path) as archive:
        np.savez_compressed(packed, **archive)

    def read():
        for kind in ("shared", "per_view"):
            read_scene(scan, dataset_type="dtu", train_scene=[0], dtu_intrinsics=kind)

    return Loader(path, [path.read_bytes(), packed.getvalue()], read, arrays_changed)


def poses_bounds(folder: Path) -> Loader:
    scene = write_llff(folder / "llff", n=3)
    path, single = scene / "poses_bounds.npy", io.BytesIO()
    np.save(single, np.load(path).astype(np.float32))

    def read():
        for options in ({}, {"no_ndc": True}):
            read_scene(scene, dataset_type="llff", **options)

    return Loader(path, [path.read_bytes(), single.getvalue()], read, array_changed)


# Captures.


def capture(folder: Path) -> Loader:
    """With all that transforms.json may say: of each frame or of all, with masks, depths, points and splits."""
    scene = write_transforms(folder / "capture", 2, "OPENCV")
    path = scene / "transforms.json"
    seeds = [path.read_bytes()]
    write_ply(scene / "p.ply", sparse_points(20))
    iio.imwrite(scene / "grey.png", np.arange(320, dtype=np.uint16).reshape(16, 20))
    content = json.loads(seeds[0])
    listed = {"train_filenames": ["images/000.png"], "test_filenames": ["images/001.png"]}
    larger = {key: 2 * content[key] for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    seeds.append(json.dumps(content | listed | larger).encode())
    frames = content.pop("frames")
    for frame in frames:
        frame |= content | {"mask_path": "grey.png", "depth_file_path": "grey.png", "camera_model": "OPENCV_FISHEYE"}
        frame |= {"p1": 0, "p2": 0}
    facts = {"ply_file_path": "p.ply", "depth_unit_scale_factor": 0.01, "applied_transform": np.eye(4)[:3].tolist()}
    seeds.append(json.dumps({"frames": frames} | facts).encode())
    angles = {"camera_angle_x": 0.7, "camera_angle_y": 0.6, "frames": [
        {key: frame[key] for key in ("file_path", "transform_matrix")} for frame in frames]}  # fmt: skip
    seeds.append(json.dumps(angles).encode())

    def read():
        for options in ({}, {"normalize": False, "depth_prior": "files"}):
            read_scene(scene, dataset_type="capture", **options)

    return Loader(path, seeds, read, json_changed)


def points(folder: Path) -> Loader:
    scene = write_transforms(folder / "points", 2, ply_file_path="p.ply")
    path, seeds = scene / "p.ply", []
    for kind in ("ascii", "binary_little_endian"):
        write_ply(path, sparse_points(20), kind)
        seeds.append(path.read_bytes())

    def changed(data: bytes, rng: random.Random) -> bytes:
        return (words_changed if b"ascii" in data or rng.random() < 0.5 else fields_changed)(data, rng)

    return Loader(path, seeds, lambda: read_scene(scene), changed)


def model(folder: Path, name: str) -> Loader:
    """A file of a COLMAP model."""
    ending, seeds = name.rpartition(".")[2], []
    for kind in ("OPENCV", "SIMPLE_RADIAL_FISHEYE", "FULL_OPENCV") if name.startswith("cameras") else ("OPENCV",):
        scene = write_colmap(folder / kind, ending, kind, 2)
        seeds.append((scene / "sparse/0" / name).read_bytes())
    path = scene / "sparse/0" / name

    def read():
        for options in ({}, {"normalize": False, "depth_prior": "points"}):
            read_scene(scene, **options)

    return Loader(path, seeds, read, fields_changed if ending == "bin" else words_changed)


# What is made for a scene.


def camera_path(folder: Path) -> Loader:
    file, world = folder / "path.json", np.diag([2.0, 2, 2, 1])
    around = np.stack([pose[:3] for pose in poses_around(3)])
    like, fovs = memory_scene().cameras, np.array([40.0, 50, 60])
    content = json.loads(as_json(path_through(around, fovs, (20, 30), 2, 1, True, 0.1)))
    older = json.loads(json.dumps(content)) | {"camera_path": []}
    for keyframe in older["keyframes"]:
        matrix = np.reshape(keyframe["matrix"], (4, 4)).T.reshape(-1).tolist()
        keyframe |= {"matrix": json.dumps(matrix), "properties": json.dumps([["FOV", keyframe.pop("fov")]])}
    seeds = [json.dumps(value).encode() for value in (content, older, content | {"keyframes": [], "is_cycle": False})]

    def read():
        path = moved(read_path(file), world)
        check_cameras(cameras_of(path, like))
        check_numbers(path.keyframes, path.keyframe_fovs, path.fps, path.seconds, path.tension)
        assert len(path.poses) <= 10_000

    return Loader(file, seeds, read, json_changed)


def plane_sweep(folder: Path) -> Loader:
    """Kept depths of a plane sweep: taken, or else found anew."""
    scene, path = memory_scene(), folder / "key.npz"
    views = [view_of(scene, view, torch.from_numpy(scene.photographs.image(view))) for view in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    write_maps(path, [DepthMap(*torch.rand((2, *view.grey.shape), generator=generator) + 0.1) for view in views])

    def read():
        maps = read_maps(path, views)
        if maps is None:
            raise InputError("found anew")
        for one, view in zip(maps, views, strict=True):
            assert one.depth.shape == one.confidence.shape == view.grey.shape
            assert one.depth.isfinite().all() and one.depth.min() > 0
            assert one.confidence.isfinite().all() and one.confidence.min() >= 0

    return Loader(path, [path.read_bytes()], read, arrays_changed)


MODEL_FILES = [f"{part}.{ending}" for part in ("cameras", "images", "points3D") for ending in ("bin", "txt")]
SCENES = {
    "transforms.json": transforms, "transforms_test.json": partial(transforms, split="test"), "cameras.npz": cameras,
    "mask": masks, "poses_bounds.npy": poses_bounds,
    "png": partial(images, ending=".png"), "jpeg": partial(images, ending=".jpg"),
    "webp": partial(images, ending=".webp"), "exif": exif,
    "capture": capture, "points.ply": points, **{name: partial(model, name=name) for name in MODEL_FILES},
    "mask_path": partial(beside_photographs, kind="mask_path"),
    "depth_file_path": partial(beside_photographs, kind="depth_file_path"),
    "camera_path": camera_path, "plane_sweep": plane_sweep,
}  # fmt: skip
