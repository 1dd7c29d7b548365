"""dataset_type and options to a loader."""

import inspect

import pytest

import run_nerf_helpers as build
from infonerf.command_line import parse_options
from load_blender import load_blender
from load_dtu import load_dtu
from load_scene import load_scene
from support.scenes import HEIGHT, WIDTH, refused, write_blender, write_dtu

DEFAULTS = {
    "maskdir": None, "half_res": False, "testskip": 8, "white_bkgd": False, "train_scene": None, "test_scene": None,
    "fewshot": 0, "fewshot_seed": 0, "unseen_poses": "no_test", "dtu_intrinsics": "shared",
    "allow_outside": False, "near": None, "far": None,
}  # fmt: skip
CHANGED = {
    "half_res": True, "testskip": 3, "white_bkgd": True, "train_scene": [1], "test_scene": [3], "fewshot": 1,
    "fewshot_seed": 7, "unseen_poses": "all", "dtu_intrinsics": "per_view", "maskdir": "masks",
    "allow_outside": True, "near": None, "far": None,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [("blender", "load_blender"), ("dtu", "load_dtu")])
def test_load_scene_hands_every_option_on(monkeypatch, kind, name):
    loader = {"blender": load_blender, "dtu": load_dtu}[kind]
    taken = set(inspect.signature(loader).parameters) - {"datadir"}
    options = CHANGED if kind == "dtu" else CHANGED | {"test_scene": None, "maskdir": None}
    monkeypatch.setattr(f"load_scene.{name}", lambda datadir, **given: (datadir, given))
    assert load_scene(kind, "folder", **options) == ("folder", {option: options[option] for option in taken})


def test_load_scene(tmp_path):
    blender, dtu = write_blender(tmp_path / "lego", counts=(1, 1, 1)), write_dtu(tmp_path / "scan", n=2)
    assert load_scene("blender", str(blender), **DEFAULTS).view_names == ("train/r_0", "val/r_0", "test/r_0")
    scene = load_scene("dtu", str(dtu), **DEFAULTS | {"train_scene": [1], "maskdir": str(dtu / "mask")})
    assert scene.train == (1,)
    assert scene.mask(0).sum() == HEIGHT * WIDTH / 2


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("blender", {"test_scene": [1]}, "--test_scene: not for Blender scenes"),
        ("blender", {"maskdir": "masks"}, "--maskdir: not for Blender scenes"),
        ("llff", {}, "--dataset_type llff: not supported yet, expected blender or dtu"),
    ],
)
def test_load_scene_refuses(kind, options, message):
    with refused(message):
        load_scene(kind, "folder", **DEFAULTS | options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (2, 6)), ({"near": 0.0}, (0, 6)), ({"far": 3.5}, (2, 3.5)), ({"near": 7.0, "far": 9.0}, (7, 9))],
)
def test_near_and_far_take_the_place_of_the_data_sets_own(tmp_path, given, expected):
    scene = load_scene("blender", str(write_blender(tmp_path / "lego")), **DEFAULTS | given)
    assert (scene.near, scene.far) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [({"near": 6.0}, "--near 6: found --far 6, expected near < far"), ({"far": 1.0}, "--near 2: found --far 1,")],
)
def test_far_must_lie_behind_near(tmp_path, given, message):
    with refused(message):
        load_scene("blender", str(write_blender(tmp_path / "lego")), **DEFAULTS | given)


def test_disparity_needs_a_near_above_0(tmp_path):
    folder = write_blender(tmp_path / "lego")
    command = ["--expname", "x", "--dataset_type", "blender", "--datadir", str(folder), "--lindisp"]
    assert build.build_scene(parse_options(command)[0]).near == 2
    with refused("--lindisp: found --near 0, expected more"):
        build.build_scene(parse_options([*command, "--near", "0"])[0])
