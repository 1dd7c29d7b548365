"""What fuzz.py damages: a well-formed file or more for each loader, and how the loader's result is checked. Files of
scenes: fuzz_scenes.py."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import torch

import duplicate_config
from infonerf import jobs
from infonerf.command_line import as_text, parse_options, run_config
from infonerf.evaluation.record import Record, records_table
from infonerf.evaluation.views import earlier_record
from infonerf.report.events import read_scalars
from infonerf.report.page import make_page
from infonerf.report.read import Source, read_scenes
from infonerf.training import checkpoint
from infonerf.training.generators import create_generators
from infonerf.version import VERSION
from robustness.fuzz_scenes import SCENES, Loader
from run_nerf_helpers import load_scene
from support.scenes import random_pixels, small_networks, write_blender

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
        again.write_text(as_text(config), encoding="utf-8", errors="surrogateescape")
        held, _ = parse_options(["--config", str(again)])
        for name in {line.split(" ")[0] for line in as_text(config).split("\n") if line}:
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


LOADERS = SCENES | {
    "config": configs, "duplicate_config": sources, "checkpoint": checkpoints, "metrics.json": records,
    "args.txt": runs, "events": events,
}  # fmt: skip
