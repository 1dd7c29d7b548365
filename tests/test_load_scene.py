"""From dataset_type and options to a scene, by its loader."""

from dataclasses import replace

import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.config import DataConfig
from run_nerf_helpers import LOADERS, create_networks, create_renderer, load_scene
from support.draws import seeded
from support.scenes import HEIGHT, WIDTH, memory_scene, refused, write_blender, write_dtu, write_llff

CHANGED = {
    "half_res": True, "testskip": 3, "white_bkgd": True, "train_scene": [1], "test_scene": [3], "fewshot": 1,
    "fewshot_seed": 7, "unseen_poses": "all", "dtu_intrinsics": "per_view", "maskdir": "masks",
    "allow_outside": True, "pixel_center": 0.5, "drop_alpha": True, "image_scale": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["blender", "dtu"])
def test_load_scene_hands_every_option_on(monkeypatch, kind):
    handed, data = [], DataConfig(datadir="folder", dataset_type=kind, **CHANGED)
    scene = memory_scene()
    monkeypatch.setitem(LOADERS, kind, lambda data: handed.append(data) or scene)
    assert load_scene(data).name == scene.name
    assert handed == [data]


def test_load_scene(tmp_path):
    blender, dtu = write_blender(tmp_path / "lego", counts=(1, 1, 1)), write_dtu(tmp_path / "scan", n=2)
    scene = load_scene(DataConfig(datadir=str(blender), dataset_type="blender"))
    assert scene.view_names == ("train/r_0", "val/r_0", "test/r_0")
    scene = load_scene(DataConfig(datadir=str(dtu), dataset_type="dtu", train_scene=[1], maskdir=str(dtu / "mask")))
    assert scene.split.train == (1,)
    assert scene.photographs.mask(0).sum() == HEIGHT * WIDTH / 2


@pytest.mark.parametrize(("kind", "write"), [("blender", write_blender), ("dtu", write_dtu), ("llff", write_llff)])
def test_pixel_center_is_the_cameras(tmp_path, kind, write):
    data = DataConfig(datadir=str(write(tmp_path / "scene")), dataset_type=kind, train_scene=[1])
    assert load_scene(data).cameras.pixel_center == 0
    assert load_scene(replace(data, pixel_center=0.5)).cameras.pixel_center == 0.5


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("blender", {"test_scene": [1]}, "--test_scene: not for Blender scenes"),
        ("blender", {"maskdir": "masks"}, "--maskdir: not for Blender scenes"),
        ("llff", {"maskdir": "masks"}, "--maskdir: not for LLFF scenes"),
    ],
)
def test_load_scene_refuses(kind, options, message):
    with refused(message):
        load_scene(DataConfig(datadir="folder", dataset_type=kind, **options))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (2, 6)), ({"near": 0.0}, (0, 6)), ({"far": 3.5}, (2, 3.5)), ({"near": 7.0, "far": 9.0}, (7, 9))],
)
def test_near_and_far_take_the_place_of_the_data_sets_own(tmp_path, given, expected):
    scene = load_scene(DataConfig(datadir=str(write_blender(tmp_path / "lego")), dataset_type="blender", **given))
    assert (scene.near, scene.far) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [({"near": 6.0}, "--near 6: found --far 6, expected near < far"), ({"far": 1.0}, "--near 2: found --far 1,")],
)
def test_far_must_lie_behind_near(tmp_path, given, message):
    data = DataConfig(datadir=str(write_blender(tmp_path / "lego")), dataset_type="blender", **given)
    with refused(message):
        load_scene(data)


def test_disparity_needs_a_near_above_0(tmp_path):
    folder = write_blender(tmp_path / "lego")
    command = ["--expname", "x", "--dataset_type", "blender", "--datadir", str(folder), "--lindisp"]

    def renderer(*options):
        config, _ = parse_options([*command, *options])
        scene = load_scene(config.data)
        return create_renderer(config, scene, create_networks(config, scene, torch.device("cpu"), seeded()))

    assert load_scene(parse_options(command)[0].data).near == 2
    assert renderer().sampling.lindisp
    with refused("--lindisp: found --near 0, expected more"):
        renderer("--near", "0")
