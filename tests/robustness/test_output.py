"""Output that cannot be written, files named with bytes that are no text, signals: none of them costs a training."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import evaluate
import report
import run_nerf
from infonerf.rendering import pictures
from infonerf.system.console import Console, guard_consoles, is_lost
from infonerf.system.errors import stop_signals
from infonerf.system.logs import named_in_text
from infonerf.training import checkpoint
from robustness.faults import options
from run_nerf import main
from support.disks import full_disk
from support.runs import ROOT, scalars
from support.scenes import write_blender


@pytest.fixture
def folder(tmp_path):
    write_blender(tmp_path / "scene", counts=(4, 1, 16))
    return tmp_path


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(("redirect", "said"), [
    (">/dev/full", "WARNING: standard output cannot be written (No space left on device); going on without it"),
    ("2>&- >&- <&-", ""),
    ("| head -1", "WARNING: standard output cannot be written (Broken pipe); going on without it"),
])  # fmt: skip
def test_losing_the_output_costs_no_training(folder, redirect, said):
    words = [sys.executable, "run_nerf.py", *options(folder, "run", "--N_iters", "40", "--i_weights", "20")]
    command = f"set -o pipefail; {shlex.join(words)} {redirect}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert [step for step, _ in checkpoint.saved(folder / "logs/run")] == [20, 40]
    assert "Traceback" not in done.stderr and done.stderr.count("WARNING: standard") == bool(said)
    assert said in done.stderr


class Failing:
    """A stream whose writes fail."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


def test_a_stream_that_fails_is_told_on_the_other_one_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(OSError(errno.EIO, "Input/output error")))
    guard_consoles()
    for _ in range(3):
        print("lost", flush=True)
    assert is_lost("stdout") and not is_lost("stderr")
    assert capsys.readouterr().err.count("standard output cannot be written (Input/output error)") == 1


def test_two_streams_that_fail_and_one_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(ValueError("I/O operation on closed file")))
    monkeypatch.setattr(sys, "stderr", Failing(BrokenPipeError()))
    guard_consoles()
    print("lost", flush=True)
    assert is_lost("stdout") and is_lost("stderr")
    monkeypatch.setattr(sys, "stderr", None)
    guard_consoles()
    assert isinstance(sys.stderr, Console) and sys.stderr.write("nowhere") == 7 and not is_lost("stderr")
    sys.stderr.stream.close()


def test_a_signals_handler_may_write_within_a_write(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(RuntimeError("reentrant call inside <_io.BufferedWriter>")))
    guard_consoles()
    print("within another")
    assert sys.stdout.error is None


def test_training_without_a_bar(folder, monkeypatch, capsys):
    """As with TQDM_DISABLE=1, which tqdm reads when it is imported."""
    monkeypatch.setattr(run_nerf, "progress_bar", partial(run_nerf.progress_bar, disable=True))
    assert main(options(folder, "run", "--N_iters", "2")) == 0
    text, errors = capsys.readouterr()
    assert "step 2  loss" in text and "training:" not in errors


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_folders_that_are_named_with_bytes_that_are_no_text(folder, capsys):
    odd = os.fsdecode(b"n\xe4me")
    os.rename(folder / "scene", folder / odd)
    run = folder / odd / "r\xe4ume" / odd
    words = options(folder, "run", "--N_iters", "2", "--i_testset", "2", "--i_video", "2", "--i_img", "1")
    words += ["--basedir", str(run.parent), "--expname", run.name, "--datadir", str(folder / odd)]
    assert main(words) == 0
    assert main([*words, "--N_iters", "3"]) == 0
    assert "going on from" in capsys.readouterr().out
    assert {"loss/total", "test/psnr"} <= scalars(named_in_text(run)).keys()
    for kind in ("test", "val"):
        assert evaluate.main([str(run), "--device", "cpu", "--split", kind]) == 0
    assert b",n\\udce4me," in (run.parent / "results.csv").read_bytes()
    assert report.main([str(run), "--output", str(folder / odd / "page.html")]) == 0
    assert "no TensorBoard events" not in (folder / odd / "page.html").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="a locale of POSIX")
def test_a_config_file_names_a_folder_where_the_systems_names_are_of_ascii(tmp_path):
    (tmp_path / "args.txt").write_text("expname = rün  # übrigens\ndatadir = .\n", encoding="utf-8")
    code = "import sys; from infonerf.command_line import parse_options as parse\n"
    code += "print(ascii(str(parse(['--config', sys.argv[1]])[0].run.folder)))"
    ascii_names = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "args.txt")], cwd=ROOT, text=True,
                          env=os.environ | ascii_names, capture_output=True)  # fmt: skip
    assert done.stdout.strip() == "'logs/r\\udcc3\\udcbcn'", done.stderr


def test_pictures_on_a_full_disk_are_one_error(tmp_path, capfd):
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    for name, write in (("a.png", lambda path: pictures.write_image(path, frames[0])),
                        ("a.gif", lambda path: pictures.write_gif(path, frames)),
                        ("a.mp4", lambda path: pictures.write_mp4(path, np.stack(frames)))):
        with full_disk(1_000), pytest.raises(OSError, match=str(tmp_path / name)):
            write(tmp_path / name)
        assert list(tmp_path.iterdir()) == []
        write(tmp_path / name)
        (tmp_path / name).unlink()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that are closed")
def test_a_terminal_that_is_closed_saves_unless_that_is_ignored(folder, monkeypatch, capsys):
    train_step = run_nerf.Trainer.train_step

    def closing(trainer):
        if trainer.step == 2:
            signal.raise_signal(signal.SIGHUP)
        return train_step(trainer)

    monkeypatch.setattr(run_nerf.Trainer, "train_step", closing)
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        assert signal.SIGHUP not in stop_signals()
        assert main(options(folder, "nohup", "--N_iters", "4")) == 0
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert main(options(folder, "run", "--N_iters", "4")) == 129
        assert "SIGHUP: saved " in capsys.readouterr().out
        assert [step for step, _ in checkpoint.saved(folder / "logs/run")] == [3]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_that_cannot_be_written_is_named_without_an_option(folder, capsys, monkeypatch):
    assert main(options(folder, "run", "--N_iters", "1")) == 0

    def read_only(*given, **further):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("infonerf.system.files.tempfile.TemporaryFile", read_only)
    assert evaluate.main([str(folder / "logs/run"), "--device", "cpu"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    where = folder / "logs/run/testset_000001"
    assert line.endswith(f"error: {where}: cannot write there (Read-only file system), expected a writable folder")
