"""run_nerf.py and evaluate.py under torchrun: one set of files, as from one process; stopping; what fails on a rank.

Ranks are forked, as three seconds each to start them would add up, but for one test of torchrun itself."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import run_nerf
from infonerf.training import checkpoint
from support import ranks
from support.runs import LOSSES, ROOT, contents, options
from support.scenes import write_blender

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


@pytest.fixture
def scene(tmp_path):
    return write_blender(tmp_path / "scene", counts=(4, 1, 24))  # three test views


def command(scene, tmp_path, *extra, name="run"):
    extra = ["--no_batching", "--precision", "fp32", "--density_bias", "0.5", *LOSSES, *extra]
    return options(scene, tmp_path, *extra, name=name)


def start(size, argv, tmp_path):
    return ranks.start_script(size, "run_nerf", argv, tmp_path / "printed")


def train(size, argv, tmp_path, fault=None, script="run_nerf"):
    """The exit statuses of all ranks, and what each printed on stderr."""
    ended = ranks.statuses(ranks.start_script(size, script, argv, tmp_path / "printed", fault))
    return ended, ranks.printed(tmp_path / "printed", "err")


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def files(folder):
    """Their names, but that of TensorBoard's, which says when and where."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(name.split(".tfevents.")[0] for name in names)


def test_two_ranks_leave_what_one_process_does(scene, tmp_path):
    extra = ["--N_iters", "4", "--i_weights", "2", "--i_img", "2", "--i_testset", "2", "--i_video", "4", "--i_val", "2"]
    assert run_nerf.main(command(scene, tmp_path, *extra, name="one")) == 0
    ended, errors = train(2, command(scene, tmp_path, *extra, name="two"), tmp_path)
    assert ended == [0, 0], errors
    one, two = (tmp_path / "logs" / name for name in ("one", "two"))
    assert files(one) == files(two)
    for step in (2, 4):
        alone, shared = (json.loads((run / f"testset_{step:06d}/metrics.json").read_text()) for run in (one, two))
        exact = alone.keys() - {"views", "mean", "seconds", "timing", "weights"}
        assert [alone[name] for name in exact] == [shared[name] for name in exact]
        assert list(alone["views"]) == list(shared["views"])
        psnr = [[metrics["psnr"] for metrics in record["views"].values()] for record in (alone, shared)]
        assert psnr[1] == pytest.approx(psnr[0], abs=1e-3)
    for path in one.rglob("*.png"):
        pair = [iio.imread(path).astype(int), iio.imread(two / path.relative_to(one)).astype(int)]
        assert np.abs(pair[0] - pair[1]).max() <= (2 if pair[0].ndim == 3 else 600), path
    for key in ("network_fn_state_dict", "network_fine_state_dict"):
        first, second = contents(tmp_path, 4, "one")[key], contents(tmp_path, 4, "two")[key]
        assert all(torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5) for name in first)
    lines = (tmp_path / "logs/results.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["expname", "one", "one", "two", "two"]
    assert [bool(text) for text in ranks.printed(tmp_path / "printed", "out")] == [True, False]
    assert errors[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_torchrun_stops_and_other_numbers_of_ranks_go_on(scene, tmp_path, number):
    argv = command(scene, tmp_path, "--N_iters", "1000000")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "run_nerf.py"]
    run = subprocess.Popen([*torchrun, *argv], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in run.stdout:
        if line.startswith("step 3 "):
            break
    run.send_signal(number)
    rest, _ = run.communicate(timeout=60)  # what ranks that are left behind print, too
    assert rest.count("SIGTERM: saved") == 1
    step = checkpoint.read(checkpoint.newest(tmp_path / "logs/run")).step
    words = shlex.split(next(line for line in rest.splitlines() if line.strip().startswith("torchrun")))
    assert words[:4] == ["torchrun", "--nproc_per_node", "2", "run_nerf.py"]
    assert run_nerf.main([*words[4:], "--N_iters", str(step + 1)]) == 0
    ended, errors = train(3, [*words[4:], "--N_iters", str(step + 2)], tmp_path)
    assert ended == [0, 0, 0], errors
    assert f"going on from {tmp_path}/logs/run/{step + 1:06d}.tar" in ranks.printed(tmp_path / "printed", "out")[0]
    assert contents(tmp_path, step + 2)["global_step"] == step + 2


def test_a_signal_to_one_rank_stops_all_at_the_same_step(scene, tmp_path):
    children = start(2, command(scene, tmp_path, "--N_iters", "1000000"), tmp_path)
    out = tmp_path / "printed/0.out"
    wait_for(lambda: out.is_file() and "step 3 " in out.read_text())
    os.kill(children[1].pid, signal.SIGTERM)
    assert ranks.statuses(children, 20) == [143, 143]
    assert "SIGTERM: saved" in out.read_text()
    assert "Traceback" not in "".join(ranks.printed(tmp_path / "printed", "err"))
    assert contents(tmp_path, checkpoint.saved(tmp_path / "logs/run")[-1][0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_and_the_run_goes_on(scene, tmp_path, rank):
    argv = command(scene, tmp_path, "--i_weights", "2")
    children = start(2, [*argv, "--N_iters", "1000000"], tmp_path)
    wait_for(lambda: len(checkpoint.saved(tmp_path / "logs/run")) >= 2)
    started = time.monotonic()
    os.kill(children[rank].pid, signal.SIGKILL)
    assert ranks.statuses(children, 20)[1 - rank] == 1
    assert time.monotonic() - started < 10
    errors = ranks.printed(tmp_path / "printed", "err")
    assert f"error: rank {rank} has ended, and so all others" in errors[1 - rank]
    assert "Traceback" not in errors[1 - rank]
    step = checkpoint.saved(tmp_path / "logs/run")[-1][0]
    assert run_nerf.main([*argv, "--N_iters", str(step + 1)]) == 0
    assert contents(tmp_path, step + 1)["global_step"] == step + 1


def test_an_evaluation_by_two_that_is_stopped_is_taken_up_by_three(scene, tmp_path):
    assert run_nerf.main(command(scene, tmp_path, "--N_iters", "1")) == 0
    argv = [str(tmp_path / "logs/run"), "--device", "cpu"]
    ended, errors = train(2, argv, tmp_path, ranks.stop_in_second_view, "evaluate")
    assert ended == [130, 130]
    assert "evaluate.py: SIGINT; what was done is kept, and the same command goes on from it" in errors[0]
    assert errors[1] == ""
    ended, errors = train(3, argv, tmp_path, script="evaluate")
    assert ended == [0, 0, 0], errors
    assert "3 views in" in (text := ranks.printed(tmp_path / "printed", "out")[0])
    assert "2 of them from before" in text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_scene_that_one_rank_lacks_is_one_line_and_status_2_of_all(scene, tmp_path, rank):
    ended, errors = train(2, command(scene, tmp_path, "--N_iters", "2"), tmp_path, partial(ranks.lack_scene, rank))
    assert ended == [2, 2]
    assert errors == ["run_nerf.py: error: scene: no such folder\n", ""]
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("fault", "what"), [
    (ranks.another_scene, "scene"),
    (ranks.another_version, "version of the program or of torch"),
])  # fmt: skip
def test_a_rank_of_another_kind_is_refused_at_the_start(scene, tmp_path, fault, what):
    ended, errors = train(2, command(scene, tmp_path, "--N_iters", "2"), tmp_path, fault)
    assert ended == [2, 2]
    assert re.fullmatch(rf"run_nerf.py: error: torchrun: rank 1 \(on .*\) has another {what} than rank 0 \(on .*\), "
                        r"expected the same\n", errors[0])  # fmt: skip
    assert errors[1] == ""
    assert not (tmp_path / "logs").exists()


def test_a_later_run_on_another_machine_is_not_begun_anew(scene, tmp_path):
    argv = command(scene, tmp_path, "--N_iters", "2", "--basedir", "logs")
    (tmp_path / "1/logs/run").mkdir(parents=True)
    (tmp_path / "1/logs/run/000005.tar").write_bytes(b"")
    ended, errors = train(2, argv, tmp_path, partial(ranks.move_apart, tmp_path))
    assert ended == [2, 2]
    assert re.match(r"run_nerf.py: error: logs/run: found step 0 on .*, and step 5 on another machine", errors[0])
    assert errors[1] == ""


@pytest.mark.parametrize("extra", [["--N_rnd", "3"], ["--device", "cuda:0"]], ids=str)
def test_bad_input_is_one_line_and_status_2_of_all(scene, tmp_path, extra):
    ended, errors = train(2, command(scene, tmp_path, *extra), tmp_path)
    assert ended == [2, 2]
    assert errors[0].startswith("run_nerf.py: error: ")
    assert (errors[0].count("\n"), errors[1]) == (1, "")


@pytest.mark.parametrize(("step", "status"), [(1, 0), (2, 1)])
def test_a_full_disk(scene, tmp_path, step, status):
    """Before the end a warning, at the end an error, as for one process."""
    argv = command(scene, tmp_path, "--i_weights", "1", "--N_iters", "2")
    ended, errors = train(2, argv, tmp_path, partial(ranks.fill_disk, step))
    assert ended == [status, status]
    warned = "WARNING: step 1 is not saved: " in ranks.printed(tmp_path / "printed", "out")[0]
    assert warned == (step == 1)
    assert errors[0].count("run_nerf.py: error: [Errno 28] No space left on device: ") == status
    assert errors[1] == ""


def test_pictures_that_cannot_be_written_do_not_end_training(scene, tmp_path):
    argv = command(scene, tmp_path, "--i_testset", "1", "--N_iters", "2")
    ended, errors = train(2, argv, tmp_path, ranks.refuse_pictures)
    assert ended == [0, 0], errors
    assert ranks.printed(tmp_path / "printed", "out")[0].count("not all test views were made: ") == 2


def test_a_loss_that_is_not_finite_is_one_message(scene, tmp_path):
    ended, errors = train(2, command(scene, tmp_path, "--N_iters", "50", "--lrate", "1e20"), tmp_path)
    assert ended == [1, 1]
    assert errors[0].count("run_nerf.py: step ") == 1
    assert errors[1] == ""
