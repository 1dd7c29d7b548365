"""export_mesh.py: files, and what cannot be done in one line."""

import shutil
import signal

import numpy as np
import pytest
import torch

import export_mesh
from infonerf.export.mesh import Cloud

LOW = "1e-6"  # a threshold that an untrained run reaches


@pytest.fixture(autouse=True)
def packages_are_there(monkeypatch):
    """What needs none is tested without; and a script's handler does not outlive its test."""
    monkeypatch.setattr(export_mesh, "require_packages", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def refusal(capsys, *argv):
    """The one line with which a command line is refused."""
    assert export_mesh.main([str(word) for word in argv]) == 2
    error = capsys.readouterr().err.strip().split("\n")
    assert len(error) == 1 and error[0].startswith("export_mesh.py: error: ")
    return error[0].removeprefix("export_mesh.py: error: ")


@pytest.mark.parametrize(("words", "message"), [
    (["--output", "mesh.stl"], "--output mesh.stl: found the ending '.stl', expected .ply, .glb, .obj"),
    (["--points", "--output", "cloud.glb"], "--output cloud.glb: found the ending '.glb', expected .ply"),
    (["--points", "--simplify", "9"], "--simplify: is of meshes, expected no --points beside it"),
    (["--points", "--keep_floaters"], "--keep_floaters: is of meshes, expected no --points beside it"),
    (["--resolution", "2000"], "argument --resolution: found '2000', expected an integer >= 8 and <= 1024"),
    (["--threshold", "0"], "argument --threshold: found '0', expected a number > 0 and <= 1e+09"),
    (["--output", "none/mesh.ply"], "--output none/mesh.ply: found no folder none, expected it to exist"),
])  # fmt: skip
def test_wrong_options(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, tmp_path, *words) == message


def test_no_run_and_no_checkpoint(trained, tmp_path, capsys):
    assert "args.txt" in refusal(capsys, tmp_path)
    shutil.copytree(trained / "logs/run", tmp_path / "run", ignore=shutil.ignore_patterns("*.tar"))
    assert "found no checkpoint to render" in refusal(capsys, tmp_path / "run")


def test_nothing_is_overwritten(logdir, capsys):
    [step] = [int(path.stem) for path in sorted(logdir.glob("*.tar"))][-1:]
    for kind, words in (("mesh", []), ("points", ["--points"])):
        path = logdir / f"{kind}_{step:06d}.ply"
        path.write_text("mine")
        assert refusal(capsys, logdir, *words) == f"--output {path}: found a file of this name, expected none, or " \
                                                  "--overwrite"  # fmt: skip
        assert path.read_text() == "mine"


def test_a_mesh_and_a_cloud_of_a_run(logdir, tmp_path, capsys):
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("skimage")
    before = {path.name: path.read_bytes() for path in logdir.iterdir() if path.is_file()}
    assert export_mesh.main([str(logdir), "--resolution", "12", "--threshold", LOW, "--keep_floaters"]) == 0
    [written] = {path.name for path in logdir.iterdir() if path.is_file()} - before.keys()
    assert written.startswith("mesh_") and f"{logdir / written}: " in capsys.readouterr().out
    mesh = trimesh.load(logdir / written, process=False)
    assert mesh.is_watertight and len(mesh.faces) >= 8
    assert {name: (logdir / name).read_bytes() for name in before} == before
    first = (logdir / written).read_bytes()
    assert export_mesh.main([str(logdir), "--resolution", "12", "--threshold", LOW, "--overwrite"]) == 0
    assert (logdir / written).read_bytes() == first
    assert export_mesh.main([str(logdir), "--resolution", "12", "--threshold", LOW, "--simplify", "50", "--output",
                             str(tmp_path / "mesh.glb")]) == 0  # fmt: skip
    assert len(trimesh.load(tmp_path / "mesh.glb", force="mesh").faces) <= 50
    assert export_mesh.main([str(logdir), "--threshold", "1e9", "--output", str(tmp_path / "none.ply")]) == 2
    assert "error: --threshold 1e+09: leaves nothing, found densities of 0 to" in capsys.readouterr().err
    assert not (tmp_path / "none.ply").exists()


def test_ctrl_c_leaves_no_half_file(logdir, tmp_path, monkeypatch):
    pytest.importorskip("trimesh")
    cloud = Cloud(np.zeros((3, 3)), np.zeros((3, 3), np.uint8))
    monkeypatch.setattr(export_mesh, "make_cloud", lambda renderer, scene: cloud)
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "points.ply").write_text("mine")

    def interrupted(file):
        raise KeyboardInterrupt

    monkeypatch.setattr("infonerf.system.files.os.fsync", interrupted)
    argv = [str(logdir), "--points", "--overwrite", "--output", str(folder / "points.ply")]
    assert export_mesh.main(argv) == 130
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize(("bias", "words"), [
    (-1e6, []), (-1e6, ["--points"]), (-1e6, ["--threshold", "1e-30"]), (1e6, ["--points"]), (float("nan"), []),
    (float("inf"), ["--points"]),
], ids=str)  # fmt: skip
def test_a_run_that_is_odd_is_one_line_or_a_file(logdir, tmp_path, capsys, bias, words):
    """Empty everywhere, opaque everywhere, of densities that are no numbers."""
    for name in ("trimesh", "skimage"):
        pytest.importorskip(name)
    path = sorted(logdir.glob("*.tar"))[-1]
    content = torch.load(path, weights_only=True)
    for network in ("network_fn_state_dict", "network_fine_state_dict"):
        content[network]["alpha_linear.bias"].fill_(bias)
    torch.save({name: part for name, part in content.items() if name != "checksum"}, path)
    argv = [str(logdir), *words, "--output", str(tmp_path / "odd.ply")]
    status = export_mesh.main(argv if "--points" in words else [*argv, "--resolution", "9"])
    error = capsys.readouterr().err
    lines = [line for line in error.replace("\r", "\n").split("\n") if "error" in line.lower()]
    assert "Traceback" not in error
    if bias == 1e6:
        assert status == 0 and (tmp_path / "odd.ply").stat().st_size > 200
    else:
        assert status == 2 and not (tmp_path / "odd.ply").exists()
        assert len(lines) == 1 and lines[0].startswith("export_mesh.py: error: ")
