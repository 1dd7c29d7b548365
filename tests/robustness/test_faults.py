"""What a run survives: being killed, a full disk, a removed folder, a second run, too little memory, a wrong clock."""

import errno
import itertools
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

import evaluate
import run_nerf
import run_nerf_helpers
from infonerf.evaluation import views
from infonerf.rendering.renderer import Renderer
from infonerf.system.errors import InputError, exit_status, out_of_memory
from infonerf.system.files import sole_owner
from infonerf.training import checkpoint
from robustness.faults import options
from run_nerf import Trainer, main
from support.disks import full_disk
from support.runs import contents
from support.scenes import write_blender

ROOT = Path(__file__).parents[2]
PICTURES = ("i_img", "i_testset", "i_video")


@pytest.fixture
def folder(tmp_path):
    write_blender(tmp_path / "scene", counts=(4, 1, 16))
    return tmp_path


def saved_steps(folder):
    return [step for step, _ in checkpoint.saved(folder / "logs/run")]


def test_killed_runs_end_as_undisturbed_ones():
    """The short form of `python tests/robustness/faults.py --rounds 50`."""
    command = [sys.executable, "tests/robustness/faults.py", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rounds: all ended with the weights, metrics and pictures of the undisturbed run" in done.stdout


def test_a_full_disk_does_not_end_training(folder, capsys, monkeypatch):
    command = options(folder, "run", "--N_iters", "6", "--i_weights", "2")
    save = checkpoint.save

    def filling(folder, step, *arguments, **further):
        with full_disk(20_000) if step == 4 else nullcontext():
            return save(folder, step, *arguments, **further)

    monkeypatch.setattr(checkpoint, "save", filling)
    assert main(command) == 0
    text, errors = capsys.readouterr()
    assert f"WARNING: step 4 is not saved: [Errno 27] File too large: '{folder}/logs/run/000004.tar'; going on" in text
    assert saved_steps(folder) == [2, 6]
    assert not list((folder / "logs/run").glob("*.tmp"))
    assert "Traceback" not in errors


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_full_disk_at_the_end_is_one_line_and_status_1(folder, capsys, share):
    extra = ("--N_iters", "2", "--netdepth", "8", "--netwidth", "80", "--netdepth_fine", "8", "--netwidth_fine", "80")
    assert main(options(folder, "whole", *extra)) == 0
    with full_disk(int(share * (folder / "logs/whole/000002.tar").stat().st_size)):
        status = main(options(folder, "run", *extra))
    assert status == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1] == f"run_nerf.py: error: [Errno 27] File too large: '{folder}/logs/run/000002.tar'"
    assert saved_steps(folder) == []


def test_a_disk_too_full_for_pictures_does_not_end_training(folder, capsys, monkeypatch):
    def failing(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((views, "write_images"), (run_nerf_helpers, "render_path"), (run_nerf, "thumbnails")):
        monkeypatch.setattr(module, name, failing)
    assert main(options(folder, "run", "--N_iters", "2", *(f"--{every}=1" for every in PICTURES))) == 0
    text = capsys.readouterr().out
    for step, what in itertools.product((1, 2), ("thumbnails", "test views", "video")):
        assert f"WARNING: step {step}: not all {what} were made: [Errno 28] No space left on device" in text
    assert saved_steps(folder) == [1, 2]


def test_tensorboards_log_may_fail(folder, capsys):
    with full_disk(1_000):  # enough for its header
        log = run_nerf.Log(folder / "log", 0)
        for step in range(1, 5):
            log.tensorboard(step, {f"scalar_{i}": 0.5 for i in range(20)})
        log.close()
    text, errors = capsys.readouterr()
    assert text.count("WARNING: TensorBoard's log cannot be written: [Errno 27] File too large") == 1
    assert "Traceback" not in errors


def test_a_run_that_another_process_has_just_trained(folder, capsys, monkeypatch):
    """It ended between the reading of the checkpoint and the owning of the folder: its later one is not set aside."""
    command = options(folder, "run", "--N_iters", "4")
    assert main(options(folder, "run", "--N_iters", "2")) == 0
    resume, run = run_nerf.resume, folder / "logs/run"

    def slow(*given):
        resume(*given)
        shutil.copy(run / "000002.tar", run / "000003.tar")

    monkeypatch.setattr(run_nerf, "resume", slow)
    assert main(command) == 2
    assert "another process has just trained there; the same command goes on from it" in capsys.readouterr().err
    assert saved_steps(folder) == [2, 3]
    monkeypatch.undo()
    assert main(command) == 0


def test_a_removed_folder_is_made_again(folder, capsys, monkeypatch):
    train_step = Trainer.train_step

    def removing(trainer):
        if trainer.step == 3:
            shutil.rmtree(folder / "logs")
        return train_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", removing)
    assert main(options(folder, "run", "--N_iters", "6", "--i_weights", "2")) == 0
    assert saved_steps(folder) == [4, 6]
    assert (folder / "logs/run/args.txt").is_file()
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.undo()
    assert main(options(folder, "run", "--N_iters", "7")) == 0
    assert "going on from" in capsys.readouterr().out


def test_a_second_run_of_the_same_name_is_refused(folder, capsys):
    assert main(options(folder, "run", "--N_iters", "1")) == 0
    before = {path: path.read_bytes() for path in (folder / "logs/run").iterdir() if path.is_file()}
    capsys.readouterr()
    with sole_owner(folder / "logs/run"):
        held = (folder / "logs/run/.lock").read_bytes()
        assert main(options(folder, "run", "--N_iters", "2")) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"run_nerf.py: error: {folder}/logs/run: found that process ")
        assert error.count("\n") == 1
        after = {path: path.read_bytes() for path in (folder / "logs/run").iterdir() if path.is_file()}
        assert after == before | {folder / "logs/run/.lock": held}
        assert main(options(folder, "other", "--N_iters", "1")) == 0
    assert main(options(folder, "run", "--N_iters", "2")) == 0


def test_the_lock_dies_with_its_owner(tmp_path):
    code = f"import sys; sys.path.insert(0, '{ROOT}'); from pathlib import Path\n" \
           "from infonerf.system.files import sole_owner\n" \
           f"with sole_owner(Path('{tmp_path}')): print('owned', flush=True); sys.stdin.read()"  # fmt: skip
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "owned\n"
    with pytest.raises(InputError, match=f"found that process {owner.pid} on "), sole_owner(tmp_path):
        pass
    owner.kill()
    owner.communicate()
    with sole_owner(tmp_path):
        pass


@pytest.fixture
def heeded_hangup():
    """Though the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_an_evaluation_that_is_stopped_goes_on(folder, capsys, monkeypatch, signum, status):
    assert main(options(folder, "run", "--N_iters", "1")) == 0
    command, write_images = [str(folder / "logs/run"), "--device", "cpu"], views.write_images

    def stopping(folder, name, *arguments):
        if name == "test_r_8":  # the second one
            signal.raise_signal(signum)
        write_images(folder, name, *arguments)

    monkeypatch.setattr(views, "write_images", stopping)
    assert evaluate.main(command) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"evaluate.py: {signum.name}; what was done is kept, and the same command goes on from it")
    monkeypatch.undo()
    assert evaluate.main(command) == 0
    assert "1 of them from before" in capsys.readouterr().out


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),  # Windows
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")], ids=str)
def test_rendering_halves_its_blocks_where_memory_is_short(folder, capsys, monkeypatch, error):
    assert main(options(folder, "run", "--N_iters", "1", "--chunk", "64")) == 0
    images = {}
    render, sizes = Renderer.rays, []

    def short_of_memory(renderer, rays, *arguments, **further):
        sizes.append(len(rays))
        if len(rays) > 20:
            raise error
        return render(renderer, rays, *arguments, **further)

    for name in ("enough", "short"):
        assert evaluate.main([str(folder / "logs/run"), "--device", "cpu"]) == 0
        pictures = folder / "logs/run/testset_000001"
        images[name] = {path.name: path.read_bytes() for path in pictures.glob("*.png")}
        shutil.rmtree(pictures)
        monkeypatch.setattr(Renderer, "rays", short_of_memory)
    assert len(images["enough"]) == 6
    assert images["short"] == images["enough"]
    assert sizes == [64, 32, *[16] * 5, *[16] * 5]  # 80 pixels a view, two views: halved once for both
    text = capsys.readouterr().out
    assert text.count("out of memory: rendering 32 rays at a time") == text.count("rendering 16 rays at a time") == 1


def raising(error):
    def fail(*arguments, **further):
        raise error

    return fail


@pytest.mark.parametrize("allocate", [
    lambda: torch.empty(10**15), lambda: torch.empty(10**12, 10**12), lambda: np.empty(10**15),
    lambda: bytearray(10**15),
    raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")),
    raising(cv2.error("(-4:Insufficient memory) Failed to allocate 3600000000 bytes in function 'OutOfMemoryError'")),
    raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
])  # fmt: skip
def test_the_allocators_own_words_are_known(capsys, allocate):
    """Those of this system, asked for more than any has, and of others: one line that names what to lower."""
    assert exit_status("program", lambda: len(allocate())) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("program: error: out of memory; lower netchunk")
    assert all(name in line for name in ("N_rand", "N_entropy", "netwidth", "chunk", "half_res", "render_factor"))


def test_a_gpu_that_fails_is_one_line_and_the_last_checkpoint_stands(folder, capsys, monkeypatch):
    train_step = run_nerf.Trainer.train_step

    def failing(trainer):
        if trainer.step == 3:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors ...")
        return train_step(trainer)

    whole = ["--N_iters", "5", "--i_weights", "2"]
    assert main(options(folder, "whole", *whole)) == 0
    monkeypatch.setattr(run_nerf.Trainer, "train_step", failing)
    capsys.readouterr()
    assert main(options(folder, "run", *whole)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "run_nerf.py: error: the GPU failed (CUDA error: an illegal memory access was encountered); what was saved is "
        "kept, and the same command goes on from it"
    )
    monkeypatch.undo()
    assert main(options(folder, "run", *whole)) == 0
    assert "going on from" in capsys.readouterr().out
    ours, theirs = (contents(folder, 5, name)["network_fn_state_dict"] for name in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_error_of_rendering_is_not_taken_for_it():
    assert not out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        exit_status("program", raising(RuntimeError("shapes do not match")))


def test_photographs_too_large_for_the_memory_are_no_damaged_files(folder, capsys, monkeypatch):
    monkeypatch.setattr(PIL.Image.Image, "convert", raising(MemoryError()))
    assert main(options(folder, "run", "--N_iters", "1")) == 2
    monkeypatch.undo()
    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load", raising(MemoryError()))
    assert main(options(folder, "run", "--N_iters", "1")) == 2
    assert capsys.readouterr().err.count("run_nerf.py: error: out of memory; ") == 2
    assert not (folder / "logs").exists()


def test_a_checkpoint_that_memory_is_short_for_is_not_damaged(folder, capsys, monkeypatch):
    """No older one is taken in its place, and nothing is moved."""
    assert main(options(folder, "run", "--N_iters", "2", "--i_weights", "1")) == 0
    monkeypatch.setattr(torch, "load", raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    assert main(options(folder, "run", "--N_iters", "3")) == 2
    text, error = capsys.readouterr()
    assert "error: out of memory; " in error and "going back" not in text
    assert saved_steps(folder) == [1, 2]


@pytest.mark.parametrize("interval", PICTURES)
def test_memory_that_suffices_only_to_train_does_not_end_training(folder, capsys, monkeypatch, interval):
    monkeypatch.setattr(Renderer, "last_pass", raising(torch.OutOfMemoryError("CUDA out of memory.")))
    assert main(options(folder, "run", "--N_iters", "2", f"--{interval}", "1")) == 0
    assert capsys.readouterr().out.count("WARNING: step 2: not all ") == 1
    assert saved_steps(folder)[-1] == 2


def test_an_evaluation_that_runs_out_of_memory_keeps_what_it_has(folder, capsys, monkeypatch):
    assert main(options(folder, "run", "--N_iters", "1")) == 0
    measure, measured = views.metrics_of, []

    def short_of_memory(*arguments):
        measured.append(1)
        if len(measured) == 2:
            raise MemoryError
        return measure(*arguments)

    monkeypatch.setattr(views, "metrics_of", short_of_memory)
    command = [str(folder / "logs/run"), "--device", "cpu"]
    assert evaluate.main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("half_res, say")
    assert evaluate.main(command) == 0
    assert "1 of them from before" in capsys.readouterr().out


def test_a_clock_that_goes_backwards(folder, monkeypatch):
    assert main(options(folder, "run", "--N_iters", "4", "--i_weights", "2")) == 0
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(now))
    assert main(options(folder, "run", "--N_iters", "8", "--i_weights", "2")) == 0
    assert evaluate.main([str(folder / "logs/run"), "--device", "cpu"]) == 0
    assert saved_steps(folder) == [2, 4, 6, 8]


@pytest.mark.parametrize(("keep", "kept"), [("1", [6]), ("2", [5, 6]), ("0", [1, 2, 3, 4, 5, 6])])
def test_old_checkpoints_are_removed_by_the_stated_rule(folder, keep, kept):
    extra = ("--i_weights", "1", "--keep_checkpoints", keep)
    assert main(options(folder, "run", "--N_iters", "6", *extra)) == 0
    assert saved_steps(folder) == kept
    assert main(options(folder, "run", "--N_iters", "7", *extra)) == 0
    assert saved_steps(folder) == ([*kept, 7] if keep == "0" else [*kept[1:], 7])


def test_a_damaged_checkpoint_is_passed_over_and_kept(folder, capsys):
    assert main(options(folder, "whole", "--N_iters", "6", "--i_weights", "2")) == 0
    assert main(options(folder, "run", "--N_iters", "5", "--i_weights", "2")) == 0
    damaged = folder / "logs/run/000005.tar"
    content = damaged.read_bytes()[:-1000]
    damaged.write_bytes(content)
    capsys.readouterr()
    assert evaluate.main([str(folder / "logs/run"), "--device", "cpu"]) == 0
    assert "step 4, on cpu" in capsys.readouterr().out
    assert main(options(folder, "run", "--N_iters", "6", "--i_weights", "2")) == 0
    text = capsys.readouterr().out
    assert f"WARNING: {damaged}: cannot be read as a checkpoint" in text
    assert f"going on from {folder}/logs/run/000004.tar, step 4" in text
    assert (folder / "logs/run/superseded_1/000005.tar").read_bytes() == content
    whole, run = (checkpoint.read(folder / f"logs/{name}/000006.tar").content for name in ("whole", "run"))
    for which in ("network_fn_state_dict", "network_fine_state_dict", "optimizer_state_dict", "random_states"):
        assert list(checkpoint.hashed_parts(whole[which])) == list(checkpoint.hashed_parts(run[which]))


@pytest.mark.parametrize("length", [0, 1, 100, 65_557])  # torch has another error for each
def test_only_damaged_checkpoints_are_an_error(folder, capsys, length):
    assert main(options(folder, "run", "--N_iters", "1")) == 0
    path = folder / "logs/run/000001.tar"
    rest = path.read_bytes()[:100].ljust(length, b"\0")[:length]
    path.write_bytes(rest)
    capsys.readouterr()
    assert main(options(folder, "run", "--N_iters", "2")) == 2
    reason = "no torch file" if length == 1 else "cut off or damaged)"
    message = f"run_nerf.py: error: {path}: cannot be read as a checkpoint ({reason}"
    assert capsys.readouterr().err.startswith(message)
    assert path.read_bytes() == rest
    path.write_bytes(b"hello")
    assert main(options(folder, "run", "--N_iters", "2")) == 2
    assert "cannot be read as a checkpoint (no torch file" in capsys.readouterr().err
