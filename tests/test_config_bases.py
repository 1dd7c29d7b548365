"""Config files that are based on others: `base = FILE`."""

import re

import pytest

from infonerf.command_line import as_text, parse_options
from infonerf.config import DEFAULTS
from infonerf.system.errors import InputError
from support.runs import ROOT

CONFIGS = sorted((ROOT / "configs").glob("**/*.txt"))
LEGO = str(ROOT / "configs/infonerf/synthetic/lego.txt")
MINIMAL = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender"]


def write_file(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def options_of(path, *extra):
    return parse_options(["--config", str(path), *extra])[0]


def fault(path, *extra):
    """The one line that says what is wrong."""
    with pytest.raises(InputError) as caught:
        options_of(path, *extra)
    assert str(caught.value).isprintable()
    return str(caught.value)


REST = "expname = x\ndatadir = d\ndataset_type = blender\n"


def test_the_command_line_wins_over_the_config_and_that_over_each_base(tmp_path):
    lines = "chunk = {0}\nnetchunk = {0}\nseed = {0}\n".format
    write_file(tmp_path, "a.txt", REST + lines(1) + "N_rand = 1\ntrain_scene = [1, 2]\nentropy\n")
    write_file(tmp_path, "b.txt", "base = a.txt\n" + lines(2) + "train_scene = [3]\nentropy = False\n")
    top = write_file(tmp_path, "c.txt", "netchunk = 3\nseed = 3\nbase = b.txt\nexpname = y\n")
    config = options_of(top, "--seed", "4")
    assert (config.batch.N_rand, config.rendering.chunk, config.rendering.netchunk, config.batch.seed) == (1, 2, 3, 4)
    assert (config.data.train_scene, config.losses.entropy, config.run.expname) == ([3], False, "y")
    assert options_of(top, "--entropy", "--train_scene", "5", "6").data.train_scene == [5, 6]
    assert options_of(top, "--entropy").losses.entropy


def test_a_config_on_a_base_is_the_config_written_out(tmp_path):
    """A shipped one that is based on another gives what all their lines give, and its notes."""
    whole = (ROOT / "configs/infonerf/synthetic/lego.txt").read_text()
    write_file(tmp_path, "lego.txt", whole)
    lines = "smoothing = True\nN_rand = 7\nshape = car\n"
    based = write_file(tmp_path, "based.txt", "base = lego.txt\n" + lines)
    changed = {line.split(" = ")[0] for line in lines.splitlines()}
    kept = "".join(line + "\n" for line in whole.splitlines() if line.split(" = ")[0] not in changed)
    flat = write_file(tmp_path, "flat.txt", kept + lines)
    assert parse_options(["--config", str(based)]) == parse_options(["--config", str(flat)])


@pytest.mark.parametrize(("config", "base", "line"), [
    ("c.txt", "b.txt", "base = b.txt"),
    ("c.txt", "b.txt", "base: ./b.txt"),
    ("c.txt", "b.txt", "  --base b.txt ; why"),
    ("c.txt", "b.txt", "base='b.txt'  # why"),
    ("c.txt", "my base.txt", 'base = "my base.txt"'),
    ("c.txt", "my base.txt", "base = my base.txt"),
    ("c.txt", "sub/b.txt", "base = sub/b.txt"),
    ("sub/c.txt", "b.txt", "base = ../b.txt"),
    ("sub/c.txt", "other/b.txt", "#base = x\nbase = ../other/b.txt"),
    ("sub/c.txt", "b.txt", "base = ../sub/../b.txt"),
])  # fmt: skip
def test_a_base_lies_where_the_config_says_from_its_own_folder(tmp_path, monkeypatch, config, base, line):
    write_file(tmp_path, base, REST + "N_rand = 3\n")
    path = write_file(tmp_path, config, line + "\nchunk = 4\n")
    (tmp_path / "elsewhere").mkdir()
    for here in (tmp_path, path.parent, tmp_path / "elsewhere"):
        monkeypatch.chdir(here)
        for given in (path, path.relative_to(here) if path.is_relative_to(here) else path):
            found = options_of(given)
            assert (found.batch.N_rand, found.rendering.chunk) == (3, 4)


def test_each_base_is_found_from_its_own_folder(tmp_path):
    write_file(tmp_path, "best/b.txt", REST + "N_rand = 3\n")
    write_file(tmp_path, "b.txt", "N_rand = 9\n")
    write_file(tmp_path, "ablation/dtu/b.txt", "base = ../../best/b.txt\nchunk = 4\n")
    path = write_file(tmp_path, "ablation/one.txt", "base = dtu/b.txt\n")
    assert (options_of(path).batch.N_rand, options_of(path).rendering.chunk) == (3, 4)
    away = write_file(tmp_path, "away.txt", f"base = {path}\n")
    assert options_of(away) == options_of(path)


@pytest.mark.parametrize(("line", "expected"), [
    ("N_rand = many", "argument --N_rand: found 'many', expected an integer >= 1"),
    ("train_scene = [1, x]", "argument --train_scene: found 'x', expected an integer"),
    ("entropy_type = log3", "argument --entropy_type: invalid choice: 'log3'"),
])  # fmt: skip
def test_a_wrong_value_in_a_base_is_told_with_the_bases_file(tmp_path, line, expected):
    base = write_file(tmp_path, "base/b.txt", REST + line + "\n")
    write_file(tmp_path, "c.txt", "base = base/b.txt\n")
    top = write_file(tmp_path, "d.txt", "base = c.txt\nchunk = 4\n")
    assert fault(top).startswith(f"{base}: {expected}")
    given = line.split()[0]
    if given == "N_rand":  # what takes its place is right, or wrong itself
        assert options_of(top, "--N_rand", "5").batch.N_rand == 5
        assert fault(top, "--N_rand", "none").startswith("argument --N_rand: found 'none'")
        write_file(tmp_path, "c.txt", "base = base/b.txt\nN_rand = few\n")
        assert fault(top).startswith(f"{tmp_path}/c.txt: argument --N_rand: found 'few'")


def test_an_unknown_option_in_a_base_is_told_with_the_bases_file(tmp_path):
    base = write_file(tmp_path, "base/b.txt", REST + "N_rnd = 3\n")
    top = write_file(tmp_path, "c.txt", "base = base/b.txt\nchunk = 4\n")
    assert fault(top) == f"unknown option '--N_rnd=3' in {base}; did you mean --N_rand?"
    base.write_text(REST)
    top.write_text("base = base/b.txt\nN_rnd = 3\n")
    assert fault(top) == f"unknown option '--N_rnd=3' in {top}; did you mean --N_rand?"


def test_a_line_with_dashes_is_told_with_its_file_too(tmp_path):
    base = write_file(tmp_path, "b.txt", REST + "--N_rnd = 3\n")
    top = write_file(tmp_path, "c.txt", "base = b.txt\n")
    assert fault(top) == f"unknown option '--N_rnd=3' in {base}; did you mean --N_rand?"
    base.write_text(REST + "--N_rand = many\n")
    assert fault(top).startswith(f"{base}: argument --N_rand: found 'many'")


def test_options_of_base_and_config_that_contradict_each_other(tmp_path):
    write_file(tmp_path, "b.txt", REST + "exact_dense = True\n")
    top = write_file(tmp_path, "c.txt", "base = b.txt\nskip_empty = True\n")
    assert fault(top) == "--skip_empty: not with --exact_dense, which evaluates everything in float32"
    assert options_of(top, "--exact_dense", "False").rendering.skip_empty


@pytest.mark.parametrize(("content", "expected"), [
    (None, "{top}: base: found no file {base}, expected a config file (its path is relative to this one's)"),
    ("folder", "{top}: base: found no file {base}, expected a config file (its path is relative to this one's)"),
    (b"\xff\xfe", "{base}: cannot be read (not a text file), expected a config file"),
    (b"x" * 20_000, "{base}: found a line of 20000 characters, expected at most 10000"),
    (b"base =\n", "{base}: base: found 'base =', expected one line `base = FILE`"),
], ids=lambda value: repr(value)[:20])  # fmt: skip
def test_bases_that_cannot_be_read(tmp_path, content, expected):
    base, top = tmp_path / "b.txt", write_file(tmp_path, "c.txt", REST + "base = b.txt\n")
    if content == "folder":
        base.mkdir()
    elif content:
        base.write_bytes(content)
    assert fault(top) == "--config " + expected.format(base=base, top=top)


@pytest.mark.parametrize("lines", [
    "base =", "base", "base\n", "base =\nchunk = 4", "base = ''", "base = [b.txt]", "base = true",
    "base = b.txt\nchunk = 4\nbase = b.txt", "base = b.txt\n--base: c.txt",
])  # fmt: skip
def test_lines_that_name_no_base_or_two(tmp_path, lines):
    write_file(tmp_path, "b.txt", REST)
    top = write_file(tmp_path, "c.txt", REST + lines)
    shown = " ".join(line for line in lines.splitlines() if "base" in line)
    assert fault(top) == f"--config {top}: base: found {shown!r}, expected one line `base = FILE`"


def test_what_is_named_as_a_base_is_shown_in_one_line(tmp_path):
    for name in ("a\0b", "a\x1b[2Jb", "b" * 5000):
        assert "found no file" in fault(write_file(tmp_path, "c.txt", REST + f"base = {name}\n"))


@pytest.mark.parametrize(("bases", "where", "found"), [
    ({"c": "c"}, "c", "c"),
    ({"c": "../here/c"}, "c", "../here/c"),
    ({"c": "link"}, "c", "link"),
    ({"c": "b", "b": "c"}, "b", "c"),
    ({"c": "b", "b": "a", "a": "b"}, "a", "b"),
])  # fmt: skip
def test_bases_in_a_circle(tmp_path, bases, where, found):
    folder = tmp_path / "here"
    for name, base in bases.items():
        write_file(folder, f"{name}.txt", REST + f"base = {base}.txt\n")
    (folder / "link.txt").symlink_to("c.txt")
    expected = f"base: found {folder}/{found}.txt, which is based on this file itself, expected no circle"
    assert fault(folder / "c.txt") == f"--config {folder}/{where}.txt: {expected}"


def test_a_base_is_no_option(tmp_path):
    base = write_file(tmp_path, "b.txt", REST)
    top = write_file(tmp_path, "c.txt", "base = b.txt\n")
    for given in (["--base", str(base)], [f"--base={base}"]):
        assert fault(top, *given).startswith(f"unknown option {given[0]!r} on the command line")
    assert "base" not in DEFAULTS


def test_the_text_of_a_config_stands_alone(tmp_path):
    """A run's args.txt has no base, wherever it came from."""
    write_file(tmp_path, "b.txt", REST + "N_rand = 3\nentropy = True\nentropy_ray_zvals_lambda = 0.01\n")
    config = options_of(write_file(tmp_path, "c.txt", "base = b.txt\nchunk = 4\n"))
    text = as_text(config)
    assert not re.search(r"(?m)^\s*(--)?base\b", text)
    assert options_of(write_file(tmp_path, "run/args.txt", text)) == config
