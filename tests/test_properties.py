"""What holds for any input: a sound result, or an InputError of one printable line that names the file or option."""

import contextlib
import copy
import io
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import duplicate_config
from infonerf.command_line import LEFT_OUT, as_text, create_parser, parse_options
from infonerf.config import DEFAULTS, DataConfig
from infonerf.scene.photographs import composited, read_pixels
from infonerf.scene.scene import with_made_poses
from infonerf.system.errors import InputError
from load_blender import load_blender
from load_dtu import load_dtu
from support.scenes import look_at_origin, write_blender, write_dtu

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=150,
                          suppress_health_check=list(HealthCheck))  # fmt: skip
settings.load_profile("repeatable")
REFUSED = object()


def result_of(call, *named):
    """What a call returns; REFUSED where it raises an InputError of one line that has one of the texts `named`."""
    try:
        return call()
    except InputError as error:
        message = str(error)
        assert message.isprintable() and message.strip()
        assert any(str(name) in message for name in named), message
        return REFUSED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each example writes over the files of the one before it."""
    return tmp_path_factory.mktemp("properties")


# Options and config files.

ACTIONS = {action.dest: action for action in create_parser()._actions if action.dest not in ("help", "config")}
MINIMAL = {"expname": "x", "datadir": "d", "dataset_type": "blender"}
WORDS = st.sampled_from([
    "True", "false", "None", "[1, 2]", "[]", "[[1]]", "[--]", "--", "-x", "-1e-5", "nan", "1e400", "'q'", '"', "[1,",
    "1" * 400, "1" * 5000, "a # b", "1_0", "[" * 3000, "../x", "/x", "a" * 300, "\u2028", "",
])  # fmt: skip
VALUES = st.one_of(WORDS, st.text(max_size=12), st.integers().map(str), st.floats().map(str))
NAMES = st.one_of(st.sampled_from([*ACTIONS, "help", "config", "N_rnd"]), st.text(max_size=5))
SEPARATORS = st.sampled_from([" = ", "=", ": ", " ", "\t"])
LINES = st.one_of(st.builds(lambda *parts: "".join(parts), NAMES, SEPARATORS, VALUES), st.text(max_size=20))


def parsed(argv):
    """The checked options; their text gives the same ones again."""
    config = result_of(lambda: parse_options(argv)[0], "--", "config", "help", *ACTIONS)
    if config is not REFUSED:
        path = Path(argv[-1]).with_name("again.txt")
        path.write_bytes(as_text(config).encode())
        again, _ = parse_options(["--config", str(path)])
        assert again == config.replace(**{name: DEFAULTS[name] for name in LEFT_OUT})
    return config


@given(lines=st.lists(LINES, max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_config_of_any_lines(folder, lines, end):
    path = folder / "config.txt"
    text = end.join([*(f"{name} = {value}" for name, value in MINIMAL.items()), *lines])
    path.write_bytes(text.encode(errors="surrogatepass"))
    parsed(["--config", str(path)])


@given(content=st.binary(max_size=100), after=st.booleans())
def test_a_config_of_any_bytes(folder, content, after):
    path = folder / "config.txt"
    path.write_bytes(b"expname = x\ndatadir = d\ndataset_type = blender\n" * after + content)
    parsed(["--config", str(path)])


def valid(action):
    """Values of an option that it may well take, as words."""
    if action.choices:
        return st.sampled_from(action.choices)
    numbers = st.one_of(st.integers(-1, 300).map(str), st.floats(allow_nan=False, allow_infinity=False).map(str))
    return st.one_of(numbers, st.sampled_from(["True", "False", "a/b", "1e-5"]), st.text(max_size=8))


OPTIONS = st.sampled_from(sorted(ACTIONS)).flatmap(lambda name: st.tuples(st.just(name), valid(ACTIONS[name])))


def words(options):
    return [f"--{name}={value}" for name, value in options.items()]


@given(chosen=st.lists(OPTIONS, max_size=4))
def test_options_are_those_of_their_text(folder, chosen):
    (folder / "config.txt").write_text("")
    parsed([*words(MINIMAL | dict(chosen)), "--config", str(folder / "config.txt")])


PARTS = st.lists(st.sampled_from(["..", ".", "", "a", "ü", "~"]))


@given(name=st.one_of(WORDS, st.text(max_size=300), PARTS.map("/".join)))
def test_a_run_lies_in_basedir(folder, name):
    base = folder / "basedir"
    config = result_of(lambda: parse_options(words(MINIMAL | {"expname": name, "basedir": base}))[0], "--expname")
    if config is not REFUSED:
        assert base in config.run.folder.resolve().parents
        config.run.folder.mkdir(parents=True, exist_ok=True)


# duplicate_config.py.


SCENES = st.sampled_from(["../x", "a/b", "a\\b", "C:x", "a..b", "~", "%s", "nul", "a\n", "ü" * 60])


@given(name=st.one_of(SCENES, st.text(max_size=110)), quote=st.sampled_from(["", "'", '"']))
def test_clones_lie_beside_their_source(folder, name, quote):
    place = folder / "configs"
    place.mkdir(exist_ok=True)
    source = place / "lego.txt"
    source.write_text(f"expname = run/lego\ndatadir = {quote}data/lego{quote}\n")
    before = {path for path in folder.rglob("*") if path.parent != place}
    with contextlib.redirect_stdout(io.StringIO()):
        done = result_of(lambda: duplicate_config.run([str(source), f"--scenes={name}"]), "--scenes", place)
    made = set(place.iterdir()) - {source}
    assert {path for path in folder.rglob("*") if path.parent != place} == before
    assert len(made) == (done is not REFUSED)
    for path in made:
        config, _ = parse_options(["--config", str(path), "--dataset_type", "blender"])
        assert (config.run.expname, config.data.datadir) == (f"run/{name}", f"data/{name}")
        path.unlink()


# Scenes.

NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, 1e20, 5e-324, math.nan, math.inf, -0.0])
PATHS = st.sampled_from(["../r_0", "./train/r_0", "\ud800", "a\nb", "a" * 300, "a\0"])
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.just(10**400), st.text(max_size=6), PATHS)
ANY = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v, max_size=3),
                   max_leaves=8)  # fmt: skip


def places(value, path=()):
    """The paths to everything in a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


def check_scene(scene):
    """Cameras and pixels that can be computed with, and poses made from them."""
    cameras = scene.cameras.to("cpu")  # in float32
    assert cameras.poses.isfinite().all() and cameras.intrinsics.isfinite().all()
    assert (cameras.intrinsics[:, :2] > 0).all()
    view = scene.split.train[0]
    image = scene.photographs.image(view)
    assert image.shape == (*scene.size(view), 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1
    assert scene.path is None or np.isfinite(scene.path).all()
    made = result_of(lambda: with_made_poses(scene, "interpolate"), "--unseen_poses")
    assert made is REFUSED or np.isfinite(made.made_poses).all()


@pytest.fixture(scope="module")
def blender(folder):
    scene = write_blender(folder / "blender", counts=(2, 1, 1))
    return scene, {split: json.loads((scene / f"transforms_{split}.json").read_text()) for split in ("train", "test")}


@given(data=st.data(), split=st.sampled_from(["train", "test"]), new=ANY)
def test_any_value_at_any_place_of_a_transforms_file(blender, data, split, new):
    scene, contents = blender
    content = contents[split] | {"depth_scale": 0.1} if data.draw(st.booleans()) else contents[split]
    path = data.draw(st.sampled_from(list(places(content))))
    file = scene / f"transforms_{split}.json"
    file.write_text(json.dumps(replaced(content, path, new)))
    loaded = result_of(lambda: load_blender(DataConfig(datadir=str(scene))), file, ".png", "scene blender")
    if loaded is not REFUSED:
        check_scene(loaded)
    file.write_text(json.dumps(contents[split]))


@given(numbers=st.lists(NUMBERS, min_size=16, max_size=16), rows=st.sampled_from([3, 4]))
def test_any_numbers_as_a_blender_camera(blender, numbers, rows):
    scene, contents = blender
    matrix = np.reshape(numbers, (4, 4))[:rows].tolist()
    file = scene / "transforms_train.json"
    file.write_text(json.dumps(replaced(contents["train"], ("frames", 0, "transform_matrix"), matrix)))
    loaded = result_of(lambda: load_blender(DataConfig(datadir=str(scene))), file)
    if loaded is not REFUSED:
        check_scene(loaded)
    file.write_text(json.dumps(contents["train"]))


@given(scale=NUMBERS, factors=st.lists(NUMBERS, min_size=3, max_size=3), shift=NUMBERS)
def test_a_blender_camera_that_is_scaled_and_moved(blender, scale, factors, shift):
    """Nearer to a camera's pose than 16 numbers at random, so that most are sound."""
    scene, contents = blender
    with np.errstate(all="ignore"):
        pose = look_at_origin(10, 20)[:3] * [*factors, 1] * scale
    pose[0, 3] = shift
    file = scene / "transforms_train.json"
    file.write_text(json.dumps(replaced(contents["train"], ("frames", 0, "transform_matrix"), pose.tolist())))
    loaded = result_of(lambda: load_blender(DataConfig(datadir=str(scene))), file)
    if loaded is not REFUSED:
        check_scene(loaded)
    file.write_text(json.dumps(contents["train"]))


@pytest.fixture(scope="module")
def dtu(folder):
    scan = write_dtu(folder / "scan", n=3, masks=False)
    with np.load(scan / "cameras.npz") as archive:
        return scan, dict(archive)


TYPES = ["float64", "float32", "float16", "int64", "bool", "complex128", "U5", "O"]


SHAPES = [(4, 4), (4, 4), (3, 4), (4, 4, 1), (3, 3), ()]


@given(name=st.sampled_from(["world_mat_0", "scale_mat_0"]), kinds=st.sampled_from(["shared", "per_view"]),
       numbers=st.lists(NUMBERS, max_size=16), kind=st.sampled_from(TYPES), shape=st.sampled_from(SHAPES))
def test_any_numbers_as_a_dtu_camera(dtu, name, kinds, numbers, kind, shape):
    """The first ones of a matrix, or all."""
    scan, matrices = dtu
    matrix = np.concatenate([numbers, matrices[name].ravel()[len(numbers) :]])
    with np.errstate(all="ignore"):
        matrix = matrix.astype(kind)[: math.prod(shape)].reshape(shape)
    np.savez(scan / "cameras.npz", **matrices | {name: matrix})
    data = DataConfig(datadir=str(scan), train_scene=[0, 1], dtu_intrinsics=kinds)
    loaded = result_of(lambda: load_dtu(data), scan / "cameras.npz")
    if loaded is not REFUSED:
        check_scene(loaded)


# Images.

MODES = {"1": 3, "L": 3, "P": 3, "RGB": 3, "RGBA": 4, "LA": 4, "I;16": 3, "CMYK": 3}  # -> channels
FORMATS = {"PNG": {"1", "L", "P", "RGB", "RGBA", "LA", "I;16"}, "JPEG": {"L", "RGB", "CMYK"}, "WEBP": {"RGB", "RGBA"}}


def stored(mode, kind, height, width, seed, **options):
    """An image file of random pixels, and the image."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
        image = image.convert("RGB" if mode in ("CMYK", "P") else mode).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue(), image


SIDES = st.integers(1, 12)


@given(kind=st.sampled_from(list(FORMATS)), data=st.data(), height=SIDES, width=SIDES, seed=st.integers(0, 9))
def test_an_image_of_any_mode_and_shape(folder, kind, data, height, width, seed):
    mode = data.draw(st.sampled_from(sorted(FORMATS[kind])))
    exact = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    transparency = data.draw(st.sampled_from([None, 0, b"\x00\x80\xff"])) if mode == "P" else None
    if transparency is not None:
        exact["transparency"] = transparency
    orientation = data.draw(st.integers(0, 8))
    if orientation:
        exact["exif"] = Image.Exif()
        exact["exif"][0x0112] = orientation
    content, image = stored(mode, kind, height, width, seed, **exact)
    (folder / "image.png").write_bytes(content)
    pixels = read_pixels(folder / "image.png", (height, width))
    assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 1
    assert pixels.shape == (height, width, 4 if transparency is not None else MODES[mode])
    assert composited(pixels, white=True).shape == (height, width, 3)
    if kind != "JPEG":
        expected = np.asarray(image)[..., None] / 65535 if mode == "I;16" else np.asarray(image.convert("RGBA")) / 255
        np.testing.assert_allclose(pixels[..., :3], np.broadcast_to(expected[..., :3], (height, width, 3)), atol=1e-6)
        if mode in ("RGBA", "LA"):
            np.testing.assert_allclose(pixels[..., 3], expected[..., 3], atol=1e-6)


@given(kind=st.sampled_from(list(FORMATS)), data=st.data(), expected=st.sampled_from([None, (7, 9)]))
def test_an_image_that_is_cut_or_changed(folder, kind, data, expected):
    mode = data.draw(st.sampled_from(sorted(FORMATS[kind])))
    content, _ = stored(mode, kind, 7, 9, 0)
    start = data.draw(st.integers(0, len(content)))
    rest = data.draw(st.sampled_from([b"", content[start + 1 :]]))
    (folder / "image.png").write_bytes(content[:start] + data.draw(st.binary(max_size=4)) + rest)
    pixels = result_of(lambda: read_pixels(folder / "image.png", expected), folder / "image.png")
    if pixels is not REFUSED:
        assert pixels.dtype == np.float32 and pixels.ndim == 3 and pixels.min() >= 0 and pixels.max() <= 1


@given(width=st.integers(0, 2**31 - 1), height=st.integers(0, 2**31 - 1), expected=st.booleans())
def test_a_header_that_claims_any_size(folder, width, height, expected):
    content = bytearray(stored("RGB", "PNG", 7, 9, 0)[0])
    content[16:24] = struct.pack(">II", width, height)
    (folder / "image.png").write_bytes(content)
    size = (7, 9) if expected else None
    assert result_of(lambda: read_pixels(folder / "image.png", size), folder / "image.png") is REFUSED
