"""What fuzz.py damages: a well-formed file or more for each loader, and how the loader's result is checked."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

import imageio.v3 as iio
import numpy as np
import torch

import duplicate_config
from infonerf import jobs
from infonerf.command_line import as_text, parse_options, run_config
from infonerf.config import DataConfig
from infonerf.evaluation.record import Record, records_table
from infonerf.evaluation.views import earlier_record
from infonerf.report.events import read_scalars
from infonerf.report.page import make_page
from infonerf.report.read import Source, read_scenes
from infonerf.scene.photographs import read_pixels
from infonerf.training import checkpoint
from infonerf.training.generators import create_generators
from infonerf.version import VERSION
from load_capture import load_capture
from load_dtu import load_dtu
from load_llff import load_llff
from run_nerf_helpers import load_scene
from support.captures import change, sparse_points, write_colmap, write_ply, write_transforms
from support.scenes import random_pixels, small_networks, write_blender, write_dtu, write_llff


class Loader(NamedTuple):
    """path: where a damaged file is put. seeds: well-formed ones. read: reads it, and checks what it has read. damage:
    of a seed, where it is not that of bytes (`fuzz.damaged`)."""

    path: Path
    seeds: list[bytes]
    read: Callable[[], object]
    damage: Callable[[bytes, Random], bytes] | None = None


def check_scene(scene) -> None:
    assert scene.cameras.poses.float().isfinite().all() and scene.cameras.intrinsics.float().isfinite().all()
    check_pixels(scene.photographs.image(scene.split.train[0]))


def check_pixels(pixels) -> None:
    assert pixels.ndim == 3 and pixels.shape[-1] in (3, 4) and pixels.dtype == np.float32
    assert pixels.min() >= 0 and pixels.max() <= 1


def images(folder: Path, ending: str) -> Loader:
    shapes = (9, 7), (9, 7, 3), (9, 7, 4), (9, 7, 2)
    path, rng = folder / f"image{ending}", np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    arrays = arrays[:2] if ending == ".jpg" else [*arrays, arrays[0].astype(np.uint16) * 257]
    seeds = [iio.imwrite("<bytes>", array, extension=ending) for array in arrays]
    return Loader(path, seeds, lambda: check_pixels(read_pixels(path)))


def transforms(folder: Path) -> Loader:
    scene = write_blender(folder / "blender", counts=(2, 1, 1))
    path = scene / "transforms_train.json"
    content = json.loads(path.read_text())
    pixels = {"fl_x": 30.0, "fl_y": 24, "cx": 13, "cy": 7, "w": 20, "h": 16, "camera_angle_y": 0.6, "k1": 0,
              "camera_model": "OPENCV"}  # fmt: skip
    seeds = [path.read_bytes(), json.dumps(content | {"depth_scale": 0.001}, indent=1).encode(),
             json.dumps({"frames": content["frames"]} | pixels).encode()]  # fmt: skip
    data = DataConfig(datadir=str(scene), dataset_type="blender")
    return Loader(path, seeds, lambda: check_scene(load_scene(data)))


def cameras(folder: Path) -> Loader:
    scan = write_dtu(folder / "dtu", n=2, masks=False)
    path, packed = scan / "cameras.npz", io.BytesIO()
    with np.load(path) as archive:
        np.savez_compressed(packed, **archive)
    data = DataConfig(datadir=str(scan), train_scene=[0])
    return Loader(path, [path.read_bytes(), packed.getvalue()], lambda: check_scene(load_dtu(data)))


def poses_bounds(folder: Path) -> Loader:
    scene = write_llff(folder / "llff", n=3)
    path, single = scene / "poses_bounds.npy", io.BytesIO()
    np.save(single, np.load(path).astype(np.float32))

    def read():
        for no_ndc in (False, True):
            check_scene(load_llff(DataConfig(datadir=str(scene), dataset_type="llff", no_ndc=no_ndc)))

    return Loader(path, [path.read_bytes(), single.getvalue()], read)


def masks(folder: Path) -> Loader:
    scan = write_dtu(folder / "masks", n=2)
    path = scan / "mask" / "001.png"
    data = DataConfig(datadir=str(scan), train_scene=[0], maskdir=str(path.parent))
    grey = iio.imread(path)
    seeds = [iio.imwrite("<bytes>", array, extension=".png") for array in (grey, grey // 255, np.dstack([grey] * 4))]

    def read():
        mask = load_dtu(data).photographs.mask(1)
        assert mask.shape == grey.shape and mask.dtype == bool and mask.any() and not mask.all()

    return Loader(path, seeds, read)


def capture(folder: Path) -> Loader:
    scene = write_transforms(folder / "capture", 2, "OPENCV")
    path = scene / "transforms.json"
    seeds = [path.read_bytes()]
    change(scene, lambda c: c.update(train_filenames=["images/000.png"], test_filenames=["images/001.png"], w=40, h=32))
    seeds.append(path.read_bytes())
    data = DataConfig(datadir=str(scene), allow_outside=False)
    return Loader(path, seeds, lambda: check_scene(load_capture(data)))


def points(folder: Path) -> Loader:
    scene = write_transforms(folder / "points", 2, ply_file_path="p.ply")
    path, seeds = scene / "p.ply", []
    for kind in ("ascii", "binary_little_endian"):
        write_ply(path, sparse_points(20), kind)
        seeds.append(path.read_bytes())
    return Loader(path, seeds, lambda: check_scene(load_capture(DataConfig(datadir=str(scene)))))


def model(folder: Path, name: str) -> Loader:
    """A file of a COLMAP model."""
    scene = write_colmap(folder / name, name.rpartition(".")[2], "OPENCV", 2)
    path = scene / "sparse/0" / name
    return Loader(path, [path.read_bytes()], lambda: check_scene(load_capture(DataConfig(datadir=str(scene)))))


MODEL_FILES = [f"{part}.{ending}" for part in ("cameras", "images", "points3D") for ending in ("bin", "txt")]


CONFIG = b"""# a run
expname = a/lego
datadir = ./data/lego
dataset_type = blender
train_scene = [26, 86, 2]
entropy = True
entropy_ray_zvals_lambda = 0.001  # weight
ft_path = None
no_batching
N_rand = 1024
lrate: 5e-4
"""


def configs(folder: Path) -> Loader:
    path, again = folder / "config.txt", folder / "again.txt"

    def read():
        config, _ = parse_options(["--config", str(path)])
        again.write_text(as_text(config), encoding="utf-8")
        held, _ = parse_options(["--config", str(again)])
        for name in {line.split(" ")[0] for line in as_text(config).splitlines()}:
            assert held.values()[name] == config.values()[name], name

    return Loader(path, [CONFIG], read)


def sources(folder: Path) -> Loader:
    (folder / "sources").mkdir()
    path = folder / "sources" / "lego.txt"

    def read():
        for clone in duplicate_config.plan(path, ["mic"], None, False):
            assert clone.path == path.with_name("mic.txt")

    return Loader(path, [CONFIG, CONFIG.replace(b"\n", b"\r\n")], read)


def checkpoints(folder: Path) -> Loader:
    networks = small_networks(4, True, dtype=torch.float32, depth=2, width=4)
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-3)
    sum(parameter.sum() for parameter in networks.parameters()).backward()
    optimizer.step()
    network_parts = checkpoint.network_parts(networks)
    parts = network_parts | {
        "optimizer_state_dict": checkpoint.OptimizerPart(optimizer),
        "random_states": create_generators(0, torch.device("cpu")),
        "sampler": SimpleNamespace(state_dict=lambda: {"seen": {"n": 9, "seed": 1, "cursor": 3}}),
    }
    path = checkpoint.save(folder / "run", 3, {"lrate": 0.1, "datadir": "a"}, parts)
    foreign = {name: value for name, value in checkpoint.read(path).content.items() if name != "checksum"}
    seeds = [path.read_bytes(), *(packed(foreign, zipped) for zipped in (True, False))]

    def read():
        found = checkpoint.read(path)
        assert isinstance(found.step, int)
        other = checkpoint.OptimizerPart(torch.optim.Adam(networks.parameters()))
        found.load(network_parts | {"optimizer_state_dict": other})

    return Loader(path, seeds, read)


def packed(content: dict, zipped: bool) -> bytes:
    """As a file of torch's present or earlier format."""
    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=zipped)
    return target.getvalue()


RECORD = {
    "step": 2, "kind": "testset", "options": {"render_factor": 2}, "scene": "lego", "render_size": [10, 8],
    "weights": "0a1b2c3d", "depth_png": {"0": 2.0, "65535": 6.0, "empty": "far"}, "version": VERSION, "seconds": 1.5,
    "device": "cpu", "lpips_missing": None, "lpips_net": "vgg", "timing": {"test/r_0": [80, 0.5]}, "views_missing": 0,
    "mean": {"mse": 0.01, "psnr": 20.0, "ssim": 0.5},
    "views": {f"test/r_{i}": {"mse": 0.01, "psnr": 20.0, "ssim": 0.5, "lpips": None} for i in range(3)},
}  # fmt: skip


def records(folder: Path) -> Loader:
    logdir = folder / "logs" / "run"
    path = logdir / "testset_000002" / "metrics.json"
    path.parent.mkdir(parents=True)
    for i in range(3):
        iio.imwrite(path.with_name(f"test_r_{i}.png"), random_pixels(i, 3))
    scene = write_blender(folder / "photographs", counts=(1, 1, 1))
    config, _ = parse_options(["--expname", "run", "--datadir", str(scene), "--dataset_type", "blender"])
    source = Source(logdir, config, [], lambda: load_scene(config.data), lambda step: None)  # which nobody opens
    job, wanted = SimpleNamespace(folder=logdir, step=2), Record.of_content(RECORD)

    def read():
        jobs.newest_means(job)
        found = earlier_record(path.parent, wanted)
        if found:
            records_table({"run": found})
            found.write(path.with_name("again.json"))
            assert Record.read(path.with_name("again.json")) == found
        make_page(read_scenes([source], 1), {}, VERSION, 9)

    return Loader(path, [json.dumps(RECORD, indent=1).encode()], read)


def runs(folder: Path) -> Loader:
    path = folder / "logs" / "other" / "args.txt"
    path.parent.mkdir(parents=True)

    def read():
        config = run_config(path.parent).replace(eval_only=True)
        assert config.run.folder.resolve() == path.parent.resolve()

    return Loader(path, [CONFIG], read)


def events(folder: Path) -> Loader:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "events") as writer:
        for step in range(4):
            writer.add_scalar("loss/total", 0.5, step)
        writer.add_image("validation/rgb", random_pixels(0, 3), 3, dataformats="HWC")
    path = next((folder / "events").iterdir())
    return Loader(path, [path.read_bytes()], lambda: read_scalars(path.parent))


LOADERS = {
    "transforms.json": transforms, "cameras.npz": cameras, "mask": masks, "poses_bounds.npy": poses_bounds,
    "png": lambda folder: images(folder, ".png"),
    "jpeg": lambda folder: images(folder, ".jpg"), "config": configs, "duplicate_config": sources,
    "capture": capture, "points.ply": points, **{name: partial(model, name=name) for name in MODEL_FILES},
    "checkpoint": checkpoints, "metrics.json": records, "args.txt": runs, "events": events,
}  # fmt: skip
