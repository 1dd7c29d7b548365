"""duplicate_config.py: what changes in a clone and what does not, and that nothing is lost."""

import os
import re
from pathlib import Path

import pytest

import duplicate_config
from duplicate_config import main
from infonerf.command_line import parse_options

ROOT = Path(__file__).parent.parent
LEGO = ROOT / "configs/infonerf/synthetic/lego.txt"
OTHERS = ["chair", "drums", "ficus", "hotdog", "materials", "mic", "ship"]
SETTINGS = "expname = run/lego\ndatadir = ./data/lego\n"


@pytest.fixture
def source(tmp_path):
    """A copy of the shipped lego.txt, in a folder of its own."""
    path = tmp_path / "configs" / "lego.txt"
    path.parent.mkdir()
    path.write_bytes(LEGO.read_bytes())
    return path


def write(folder, text, name="lego.txt"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def cloned(path, scene, *extra):
    """The text of the one clone that is made of a source."""
    before = set(path.parent.iterdir())
    assert main([str(path), "--scenes", scene, *extra]) == 0
    (clone,) = set(path.parent.iterdir()) - before
    return clone.read_bytes().decode()


def refused(capsys, folder, words, expected):
    """One line, status 2, and every file as before."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("duplicate_config.py: error: ")
    assert error.count("\n") == 1
    assert re.search(expected, error), error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_without_arguments_lego_becomes_the_seven_other_scenes(source, capsys, monkeypatch):
    monkeypatch.setattr(duplicate_config, "LEGO", source)
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {source.with_name(f'{name}.txt')}" for name in OTHERS]
    original = source.read_text()
    assert original == LEGO.read_text()
    for name in OTHERS:
        path = source.with_name(f"{name}.txt")
        expected = original.replace("infonerf/lego", f"infonerf/{name}").replace("synthetic/lego", f"synthetic/{name}")
        assert path.read_text() == expected
        config, _ = parse_options(["--config", str(path)])
        assert config.run.expname == f"synthetic/infonerf/{name}"
        assert config.data.datadir == f"./data/nerf_synthetic/{name}"
    assert len(list(source.parent.iterdir())) == 8  # no temporary files


def test_the_default_source_is_shipped():
    assert duplicate_config.LEGO == LEGO


@pytest.mark.parametrize(("before", "after"), [
    ("datadir = ./lego_sets/lego/../lego", "datadir = ./lego_sets/mic/../mic"),
    ("datadir: data/lego/  # lego", "datadir: data/mic/  # lego"),
    ("  --datadir=data/lego/.\t; lego ", "  --datadir=data/mic/.\t; lego "),
    ("datadir data/lego", "datadir data/mic"),
    ("datadir lego", "datadir mic"),
    ("--datadir\t=\t'my data/lego'", "--datadir\t=\t'my data/mic'"),
    ('datadir="/lego/lego"', 'datadir="/mic/mic"'),
    ("datadir = C:\\data\\lego", "datadir = C:\\data\\mic"),
    ("datadir = data/legö/lego", "datadir = data/legö/mic"),
    ("#datadir = data/x\ndatadir = data/lego", "#datadir = data/x\ndatadir = data/mic"),
    ("datadir = data/lego\nmaskdir = data/lego/mask", "datadir = data/mic\nmaskdir = data/mic/mask"),
    ("datadir = data/lego\nmaskdir =", "datadir = data/mic\nmaskdir ="),
    ("datadir = data/lego\nmaskdir = # lego", "datadir = data/mic\nmaskdir = # lego"),
    ("datadir = data/lego\nmaskdir = None  # lego", "datadir = data/mic\nmaskdir = None  # lego"),
    ("datadir = data/a#b/lego  # lego", "datadir = data/a#b/mic  # lego"),
    ("[lego]\n---\n; lego\nshape = lego\nwandb_group = a/lego\ndatadir = lego",
     "[lego]\n---\n; lego\nshape = lego\nwandb_group = a/lego\ndatadir = mic"),
])  # fmt: skip
def test_only_whole_components_of_paths_change(tmp_path, before, after):
    text = "expname = a/lego/b\n{}\ntrain_scene = [1, 2]"  # and no newline at the end
    path = write(tmp_path, text.format(before))
    wanted = text.format(after).replace("a/lego/b", "a/mic/b")
    assert cloned(path, "mic") == wanted
    config, _ = parse_options(["--config", str(path), "--dataset_type", "blender"])
    again, _ = parse_options(["--config", str(path.with_name("mic.txt")), "--dataset_type", "blender"])
    for name in ("datadir", "expname", "maskdir"):  # as the parser of configs sees them
        old, new = config.values()[name], again.values()[name]
        assert new == (old and re.sub(r"(^|[/\\])lego(?=[/\\]|$)", r"\1mic", old))


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"], ids=repr)
def test_line_ends_and_byte_order_mark_stay(tmp_path, end):
    text = f"\ufeffexpname = lego{end}{end}datadir = lego # \u2028{end}"
    assert cloned(write(tmp_path, text), "mic") == text.replace("lego", "mic")


@pytest.mark.parametrize(("expname", "after"), [
    ("infonerf/lego_kl", "infonerf/mic_kl"),
    ("lego_kl/seed_1", "mic_kl/seed_1"),
    ("lego_sets/lego_kl", "lego_sets/mic_kl"),
    ("lego_sets/lego", "lego_sets/mic"),
])
def test_a_suffix_of_the_run_stays(tmp_path, expname, after):
    path = write(tmp_path, f"expname = {expname}\ndatadir = ./lego_kl/lego", "lego_kl.txt")
    assert main([str(path), "--scenes", "mic"]) == 0
    assert (tmp_path / "mic_kl.txt").read_text() == f"expname = {after}\ndatadir = ./lego_kl/mic"


def test_the_shipped_kl_config(tmp_path):
    assert main([str(LEGO.with_name("lego_kl.txt")), "--scenes", "mic", "--output", str(tmp_path / "new/folder")]) == 0
    config, _ = parse_options(["--config", str(tmp_path / "new/folder/mic_kl.txt")])
    assert (config.run.expname, config.data.datadir) == ("synthetic/infonerf/mic_kl", "./data/nerf_synthetic/mic")


def test_dtu_scans_by_number(tmp_path):
    scan = ROOT / "configs/infonerf/dtu/scan114.txt"
    assert main([str(scan), "--scenes", "30", "scan34", "--output", str(tmp_path)]) == 0
    for name in ("scan30", "scan34"):
        config, _ = parse_options(["--config", str(tmp_path / f"{name}.txt")])
        assert (config.run.expname, config.data.datadir) == (f"dtu/infonerf/{name}", f"./data/DTU/{name}")


def test_a_config_of_ones_own_photographs(tmp_path):
    """Its scene has the name of its file and of its run alone."""
    text = "expname = mine\ndatadir = ./data/mine\ndataset_type = blender\nmaskdir = None  # none\n"
    path = write(tmp_path, text, "mine.txt")
    assert main([str(path), "--scenes", "garden"]) == 0
    assert (tmp_path / "garden.txt").read_text() == path.read_text().replace("mine", "garden")
    config, _ = parse_options(["--config", str(tmp_path / "garden.txt")])
    assert (config.run.expname, config.data.datadir, config.data.maskdir) == ("garden", "./data/garden", None)


def test_a_source_of_another_name(tmp_path):
    path = write(tmp_path, SETTINGS, "args.txt")
    assert main([str(path), "--scenes", "mic"]) == 0
    assert (tmp_path / "mic.txt").read_text() == SETTINGS.replace("lego", "mic")


def test_again_is_unchanged_and_what_differs_is_kept_without_force(source, capsys):
    words = [str(source), "--scenes", "mic", "ship"]
    assert main(words) == 0
    mic, ship = source.with_name("mic.txt"), source.with_name("ship.txt")
    made = mic.read_bytes()
    ship.write_text("mine")
    refused(capsys, source.parent, words, r"ship.txt: found a file that differs, expected none \(--force")
    mic.unlink()
    refused(capsys, source.parent, words, "ship.txt")  # and mic.txt is not written either
    mic.write_bytes(made)
    capsys.readouterr()
    assert main([*words, "--force", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"unchanged {mic}", f"would write {ship}"]
    assert ship.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"unchanged {mic}", f"wrote {ship}"]
    assert ship.read_text() == source.read_text().replace("/lego", "/ship")


def test_a_dry_run_makes_no_folder(source, tmp_path):
    assert main([str(source), "--output", str(tmp_path / "new"), "--dry-run"]) == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symlink", "hard link"])
def test_the_source_is_never_rewritten_through_a_link(source, capsys, make):
    make(source, source.with_name("mic.txt"))
    refused(capsys, source.parent, [source, "--scenes", "mic", "--force"], "mic.txt: found the source itself")
    other = source.with_name("other.txt")
    other.symlink_to(source)
    refused(capsys, source.parent, [other, "--scenes", "mic", "--force"], "mic.txt: found the source itself")


def test_the_source_is_never_rewritten_by_another_spelling(tmp_path, capsys):
    path = write(tmp_path, SETTINGS, "mic.txt")
    (tmp_path / "a").mkdir()
    words = ["--scenes", "ship", "mic", "--force"]
    for spelling in (path, tmp_path / "a/../mic.txt"):
        refused(capsys, tmp_path, [spelling, *words], "mic.txt: found the source itself")
    refused(capsys, tmp_path, [path, *words, "--output", tmp_path / "a/.."], "mic.txt: found the source itself")


def test_a_failed_write_leaves_the_old_file(source, capsys, monkeypatch):
    mic = source.with_name("mic.txt")
    mic.write_text("old")

    def replace(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    assert main([str(source), "--scenes", "mic", "--force"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in source.parent.iterdir()) == ["lego.txt", "mic.txt"]
    assert mic.read_text() == "old"


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "a..b", "", ".a", "-a", "a\nb", "a\x00", "\x7f", "a\udc80",
                                  "a" * 101, "ü" * 51])  # fmt: skip
def test_names_that_are_no_scenes(source, capsys, name):
    refused(capsys, source.parent, [source, f"--scenes={name}"], r"--scenes: found .* expected the name of a scene")


@pytest.mark.parametrize(("words", "expected"), [
    (["--scenes", "mic", "lego"], "found 'lego', expected others"),
    (["--scenes", "mic", "mic"], "found 'mic' twice"),
    (["--scenes"], "--scenes: expected at least one argument"),
    (["--scenes=--"], "--scenes: found '--', expected the name of a scene"),
    (["--scenes", "a #b"], "found 'a #b', expected a name that .*line 2: expname can hold"),
    (["--scenes", "a "], "found 'a ', expected a name"),
    (["--scene", "mic"], "unrecognized arguments: --scene mic"),
    (["other", "--force"], "unrecognized arguments: other"),
], ids=str)  # fmt: skip
def test_bad_options(source, capsys, words, expected):
    refused(capsys, source.parent, [source, *words], expected)


@pytest.mark.parametrize(("text", "expected"), [
    ("datadir = lego", "found no expname in it"),
    ("expname = lego", "found no datadir in it"),
    ("expname =\ndatadir = lego", "found no expname in it"),
    ("expname = lego\ndatadir = data/..", r"datadir: found 'data/\.\.', expected a path that ends"),
    ("expname = lego\ndatadir = /", "datadir: found '/'"),
    ("expname = a/b\ndatadir = lego", "line 1: expname: found 'a/b', expected a path with the component 'lego'"),
    ("expname = legos\ndatadir = lego", "line 1: expname: found 'legos'"),
    ("expname = lego\ndatadir = lego\nmaskdir = lego_mask", "line 3: maskdir: found 'lego_mask'"),
    ("expname = lego\n= 3\ndatadir = lego", "line 2: found '= 3', expected `option = value`"),
    ("expname = lego\n" + " " * 99_999 + "x\ndatadir = lego", "line 2: 100000 characters, expected at most 10000"),
    ("expname = [lego]\ndatadir = lego", r"line 1: expname: found '\[lego\]'"),
], ids=lambda text: repr(text)[:60])  # fmt: skip
def test_bad_sources(tmp_path, capsys, text, expected):
    refused(capsys, tmp_path, [write(tmp_path, text), "--scenes", "mic"], expected)


def test_sources_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    for name, expected in (("none.txt", "No such file"), (".", "Is a directory"), ("binary.txt", "not a text file")):
        refused(capsys, tmp_path, [tmp_path / name], rf"cannot be read \({expected}")


def test_scenes_have_defaults_only_among_the_known_ones(tmp_path, capsys):
    path = write(tmp_path, SETTINGS.replace("lego", "scan1"))
    refused(capsys, tmp_path, [path], "--scenes: not given; only chair, .* found scene scan1")


def test_other_scenes_of_llff(tmp_path):
    path = write(tmp_path, SETTINGS.replace("lego", "fern"))
    assert [clone.path.stem for clone in duplicate_config.plan(path, None, None, False)] == [
        "flower", "fortress", "horns", "leaves", "orchids", "room", "trex",
    ]  # fmt: skip


def test_what_stands_in_the_way(source, tmp_path, capsys):
    (source.parent / "mic.txt").mkdir()
    (source.parent / "ship.txt").symlink_to("nowhere")
    for name in ("mic", "ship"):
        refused(capsys, tmp_path, [source, "--scenes", "drums", name, "--force"], f"{name}.txt: found something else")
    refused(capsys, tmp_path, [source, "--output", source / "new"], "cannot be written to, found that .*lego.txt is no")


# Sources with a base.


def based(folder, text, name="configs/lego.txt"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SETTINGS + text)
    return path


BASE = "dataset_type = blender\nN_rand = 7\nexpname = run/base\ndatadir = ./data/lego\n"


def assert_same_but_for_the_scene(source, clone, new="mic"):
    config, again = (parse_options(["--config", str(path)])[0] for path in (source, clone))
    assert config.batch.N_rand == 7  # which the base has
    assert again == config.replace(expname=f"run/{new}", datadir=f"./data/{new}")


@pytest.mark.parametrize("line", ["base = base.txt", "--base: ./base.txt  # why", "base='../configs/base.txt'",
                                  "base = ../lego/base.txt", "base = lego_base.txt"])  # fmt: skip
def test_in_the_same_folder_the_base_stays_byte_for_byte(tmp_path, line):
    for name in ("configs/base.txt", "configs/lego_base.txt", "lego/base.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(BASE)
    source = based(tmp_path, line + "\nseed = 3")
    assert cloned(source, "mic") == source.read_text().replace("run/lego", "run/mic").replace("data/lego", "data/mic")
    assert_same_but_for_the_scene(source, source.with_name("mic.txt"))
    before = source.with_name("mic.txt").read_bytes()
    (tmp_path / "link").symlink_to("configs")
    for output in (source.parent, tmp_path / "lego/../configs", tmp_path / "link"):
        assert main([str(source), "--scenes", "mic", "--output", str(output)]) == 0
    assert source.with_name("mic.txt").read_bytes() == before


@pytest.mark.parametrize(("base", "line", "output", "expected"), [
    ("configs/base.txt", "base = base.txt", "new", "base = ../configs/base.txt"),
    ("configs/base.txt", "base = base.txt", "configs/new/er", "base = ../../base.txt"),
    ("base.txt", "base = ../base.txt", ".", "base = base.txt"),
    ("base.txt", "base = ../base.txt", "new", "base = ../base.txt"),
    ("other/base.txt", "  --base:\t../other/base.txt ; why", "other", "  --base:\tbase.txt ; why"),
    ("my base.txt", "base = '../my base.txt'  # why", "configs/new", "base = '../../my base.txt'  # why"),
    ("lego/lego.txt", "base = ../lego/lego.txt", "new", "base = ../lego/lego.txt"),
])  # fmt: skip
def test_elsewhere_the_base_is_found_from_there(tmp_path, monkeypatch, base, line, output, expected):
    (tmp_path / base).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / base).write_text(BASE)
    source = based(tmp_path, f"{line}\nseed = 3\n")
    assert main([str(source), "--scenes", "mic", "--output", str(tmp_path / output)]) == 0
    clone = tmp_path / output / "mic.txt"
    assert clone.read_text() == SETTINGS.replace("lego", "mic") + f"{expected}\nseed = 3\n"
    assert_same_but_for_the_scene(source, clone)
    monkeypatch.chdir(source.parent)  # the same from there, by relative paths
    assert main([source.name, "--scenes", "ship", "--output", os.path.relpath(tmp_path / output)]) == 0
    assert_same_but_for_the_scene(source, clone.with_name("ship.txt"), "ship")


def test_an_absolute_base_stays(tmp_path):
    (tmp_path / "base.txt").write_text(BASE)
    source = based(tmp_path, f"base = {tmp_path}/base.txt\n")
    assert main([str(source), "--scenes", "mic", "--output", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new/mic.txt").read_text() == source.read_text().replace("/lego", "/mic")
    assert_same_but_for_the_scene(source, tmp_path / "new/mic.txt")


def test_a_clone_in_a_linked_folder_finds_its_base(tmp_path):
    (tmp_path / "base.txt").write_text(BASE)
    source = based(tmp_path, "base = ../base.txt\n")
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    assert main([str(source), "--scenes", "mic", "--output", str(tmp_path / "link")]) == 0
    assert_same_but_for_the_scene(source, tmp_path / "link/mic.txt")
    assert_same_but_for_the_scene(source, tmp_path / "far/away/mic.txt")


@pytest.mark.parametrize("missing", ["expname", "datadir"])
def test_a_scene_that_only_the_base_names_is_not_cloned(tmp_path, capsys, missing):
    (tmp_path / "base.txt").write_text(BASE)
    text = "".join(line + "\n" for line in SETTINGS.splitlines() if not line.startswith(missing))
    source = write(tmp_path, text + "base = base.txt\n")
    expected = rf"lego.txt: found no {missing} in it, expected one that names the scene \(a base's is not cloned\)"
    refused(capsys, tmp_path, [source, "--scenes", "mic"], expected)


@pytest.mark.parametrize("mask", ["./data/lego/mask", "masks/lego"])
def test_masks_of_the_scene_that_only_a_base_names_are_not_shared(tmp_path, capsys, mask):
    (tmp_path / "a.txt").write_text(BASE + f"maskdir = {mask}\n")
    (tmp_path / "b.txt").write_text("base = a.txt\n")
    source = write(tmp_path, SETTINGS + "base = b.txt\n")
    refused(capsys, tmp_path, [source, "--scenes", "mic"], "lego.txt: .*maskdir")
    source.write_text(SETTINGS + f"base = b.txt\nmaskdir = {mask}\n")
    assert main([str(source), "--scenes", "mic"]) == 0
    config, _ = parse_options(["--config", str(tmp_path / "mic.txt")])
    assert config.data.maskdir == mask.replace("lego", "mic")


@pytest.mark.parametrize("line", ["base =", "base"])
def test_a_line_that_names_no_base(tmp_path, capsys, line):
    source = write(tmp_path, SETTINGS + line)
    refused(capsys, tmp_path, [source, "--scenes", "mic", "--output", tmp_path / "new"], "lego.txt: .*base: found")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("**/*.txt")),
                         ids=lambda path: str(path.relative_to(ROOT / "configs")))  # fmt: skip
def test_shipped_configs_are_cloned_whole_or_not_at_all(path, tmp_path, capsys):
    """A clone is its source but for the scene, which is nowhere left in it; where that cannot be, a line says so."""
    status = main([str(path), "--scenes", "another", "--output", str(tmp_path / "new")])
    if status:
        assert re.search("found no (expname|datadir|maskdir) in it|expected a path with the component",
                         capsys.readouterr().err)  # fmt: skip
        return
    config = parse_options(["--config", str(path)])[0]
    [clone] = (tmp_path / "new").iterdir()
    again = parse_options(["--config", str(clone)])[0]
    old = Path(config.data.datadir).name
    for name in ("datadir", "expname", "maskdir"):
        before, after = config.values()[name], again.values()[name]
        assert after == (before and re.sub(rf"(^|/){old}(?=_|/|$)", r"\1another", before))
    named = {name: again.values()[name] for name in ("datadir", "expname", "maskdir")}
    assert again == config.replace(**named)
