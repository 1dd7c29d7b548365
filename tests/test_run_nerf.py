"""run_nerf.py from outside: tiny real runs, exact resume, stopping, rendering, bad input."""

import re
import shlex
import signal
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.rendering import occupancy
from infonerf.system.interrupt import Interrupt, Stopped
from infonerf.training import checkpoint
from run_nerf import NonFiniteLoss, create_trainer, learning_rate, main
from run_nerf_helpers import load_scene
from support.runs import LOSSES, ROOT, contents, losses_printed, options, same, scalars
from support.scenes import HEIGHT, WIDTH, write_blender


@pytest.mark.parametrize("mode", [
    ["--no_batching", *LOSSES, "--precrop_iters", "4", "--raw_noise_std", "1", "--white_bkgd"],
    ["--train_scene", "0", "2", *LOSSES, "--smooth_sampling_method", "near_pixel", "--smooth_pixel_range", "2",
     "--N_rand", "61"],
    ["--no_batching", *LOSSES, "--skip_empty", "--seed", "1"],
    ["--no_batching", *LOSSES, "--skip_empty", "--visual_hull", "--seed", "1"],
], ids=["no_batching", "batching", "skip_empty", "visual_hull"])  # fmt: skip
def test_resume_is_exact(blender, tmp_path, capsys, monkeypatch, mode):
    monkeypatch.setattr(occupancy, "EVERY", 2)
    monkeypatch.setattr(occupancy, "WARM_UP", 2)
    assert main(options(blender, tmp_path, *mode, "--N_iters", "7", name="whole")) == 0
    whole = losses_printed(capsys.readouterr().out)
    assert main(options(blender, tmp_path, *mode, "--N_iters", "3")) == 0
    torch.rand(5), np.random.rand(5)  # what a global generator stands at must not matter
    assert main(options(blender, tmp_path, *mode, "--N_iters", "7")) == 0
    text = capsys.readouterr().out
    assert "going on from" in text
    assert losses_printed(text) == whole
    assert len(whole) == 7
    first, second = contents(tmp_path, 7, "whole"), contents(tmp_path, 7)
    assert first["global_step"] == 7
    for part in first.keys() - {"options", "checksum"}:
        assert same(first[part], second[part]), part
    if "--skip_empty" in mode:
        assert first["occupancy"]["in_use"]
        assert int((first["occupancy"]["density"] < occupancy.EMPTY).sum()) > 5000


def test_the_bounds_are_said_and_a_bad_grid_is_one_line(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--skip_empty")
    assert main([*command, "--N_iters", "1"]) == 0
    assert "bounds    -1.5 -1.5 -1.5 to 1.5 1.5 1.5; space outside is left empty" in capsys.readouterr().out
    path = tmp_path / "logs" / "run" / "000001.tar"
    spoilt = contents(tmp_path, 1) | {"occupancy": torch.ones(3)}
    torch.save({name: value for name, value in spoilt.items() if name != "checksum"}, path)
    assert main([*command, "--N_iters", "2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"run_nerf.py: error: {path}: occupancy: found")
    assert error.count("\n") == 1


def test_losses_fall_and_are_logged(blender, tmp_path, capsys):
    extra = ["--no_batching", *LOSSES, "--N_iters", "60", "--lrate", "5e-3", "--N_importance", "0", "--i_print", "20"]
    assert main(options(blender, tmp_path, *extra, "--precision", "fp32", "--train_scene", "1")) == 0
    logged = scalars(tmp_path / "logs/run")
    assert set(logged) == {
        "loss/total", "loss/colour_fine", "loss_weighted/colour_fine", "loss/entropy", "loss_weighted/entropy",
        "loss/smoothing", "loss_weighted/smoothing", "psnr/fine", "entropy/unseen_rays_passing_mask",
        "learning_rate", "rays_per_second", "skipped_updates",
    }  # fmt: skip
    assert list(logged["loss/total"]) == [20, 40, 60]
    assert logged["loss/total"][60] < logged["loss/total"][20]
    assert logged["loss_weighted/entropy"][60] == pytest.approx(0.01 * logged["loss/entropy"][60])
    parts = sum(logged[f"loss_weighted/{name}"][60] for name in ("colour_fine", "entropy", "smoothing"))
    assert logged["loss/total"][60] == pytest.approx(parts)
    assert 0 <= logged["entropy/unseen_rays_passing_mask"][60] <= 1
    text = capsys.readouterr().out
    for expected in ("10 x 8", "near 2, far 6", "train/r_1", "parameters", "device cpu", "seed 0", "saved"):
        assert expected in text


def test_same_seed_same_run_and_another_seed_another(blender, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main(options(blender, tmp_path, "--no_batching", "--N_iters", "2", "--seed", seed, name=name)) == 0
    a, b, c = (contents(tmp_path, 2, name)["network_fn_state_dict"] for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_rendering_leaves_the_run_alone_and_names_images_by_view(dtu, tmp_path, capsys):
    extra = ["--no_batching", "--train_scene", "0", "3", "--maskdir", str(dtu / "mask"), "--N_iters", "2"]
    command = options(dtu, tmp_path, *extra, kind="dtu")
    assert main([*command, "--i_testset", "2"]) == 0
    folder = tmp_path / "logs/run"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert main([*command, "--render_only", "--render_factor", "2"]) == 0
    assert main([*command, "--render_only", "--render_train"]) == 0
    assert main([*command, "--eval_only", "--ckpt_render_iter", "2"]) == 0
    text = capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    kinds = ("testset", "renderonly_test", "renderonly_train")
    tested, rendered, trained = (folder / f"{kind}_000002" for kind in kinds)
    rendered = rendered.with_name("renderonly_test_000002_factor2")
    names = {f"{view:06d}{end}" for view in (1, 2, 4, 5) for end in (".png", "_depth.png", "_depth_color.png")}
    names.add("metrics.json")
    assert {path.name for path in tested.iterdir()} == {path.name for path in rendered.iterdir()} == names
    assert {path.name for path in trained.glob("*[0-9].png")} == {"000000.png", "000003.png"}
    assert iio.imread(tested / "000001.png").shape == (HEIGHT, WIDTH, 3)
    assert iio.imread(rendered / "000001.png").shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert iio.imread(tested / "000001_depth.png").dtype == np.uint16
    assert re.search(r"000001: psnr \d+\.\d+  .*psnr_masked \d+\.\d+", text)


def test_ft_path_and_no_reload_start_over_without_losing_anything(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--i_weights", "1", "--N_iters", "4")
    assert main(command) == 0
    folder = tmp_path / "logs/run"
    original = {step: contents(tmp_path, step) for step in (1, 2, 3, 4)}
    assert main([*command, "--ft_path", str(folder / "000002.tar"), "--N_iters", "3"]) == 0
    assert same(contents(tmp_path, 3)["network_fn_state_dict"], original[3]["network_fn_state_dict"])
    assert sorted(path.name for path in (folder / "superseded_1").iterdir()) == ["000003.tar", "000004.tar"]
    capsys.readouterr()
    assert main([*command, "--no_reload"]) == 0
    assert "step 1 " in capsys.readouterr().out
    assert len(list((folder / "superseded_2").iterdir())) == 3
    assert main(command) == 0
    assert "nothing to do: step 4" in capsys.readouterr().out


def test_a_foreign_checkpoint_goes_on_and_says_what_is_missing(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "3")
    assert main(command) == 0
    path = tmp_path / "logs/run/000003.tar"
    ours = contents(tmp_path, 3)
    theirs = {key: ours[key] for key in ours if key.endswith("_state_dict")} | {"global_step": 2}
    torch.save(theirs, path)
    capsys.readouterr()
    assert main([*command, "--N_iters", "5"]) == 0
    text = capsys.readouterr().out
    assert "holds no generator state" in text
    assert list(losses_printed(text)) == [4, 5]


def test_changed_options_are_said_when_resuming(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "2")
    assert main(command) == 0
    assert main([*command, "--N_iters", "3", "--lrate", "1e-3"]) == 0
    assert "lrate was 0.0005, now 0.001" in capsys.readouterr().out


def test_a_non_finite_loss_stops_the_run_and_the_last_checkpoint_stands(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--i_weights", "1", "--lrate", "1e20", "--N_iters", "50")
    assert main(command) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"step \d+: .*(term colour_\w+|gradient) is not finite, .*the last checkpoint stands: ", error)
    step = int(re.search(r"step (\d+)", error)[1])
    assert checkpoint.newest(tmp_path / "logs/run") == tmp_path / f"logs/run/{step - 1:06d}.tar"
    checkpoint.read(tmp_path / f"logs/run/{step - 1:06d}.tar")


def test_a_gradient_that_is_not_finite_is_not_applied(blender, tmp_path, capsys):
    """A ray of direction 0 has no viewing direction: 0/0, whose gradient is NaN where the loss is finite."""
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "2", "--i_weights", "1")
    config, _ = parse_options(command)
    trainer = create_trainer(config, load_scene(config.data), torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in trainer.networks.parameters()]
    trainer.networks.coarse.alpha_linear.bias.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteLoss, match=r"step 1: the gradient is not finite, nor .* \(10 attempts"):
        trainer.train_step()
    assert trainer.skipped == 10
    assert all(torch.equal(*pair) for pair in zip(before, trainer.networks.parameters(), strict=True))
    assert trainer.step == 0


def test_a_test_image_that_cannot_be_read_does_not_end_training(blender, tmp_path, capsys):
    (blender / "test" / "r_8.png").write_bytes(b"not an image")
    assert main(options(blender, tmp_path, "--no_batching", "--N_iters", "2", "--i_testset", "1")) == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"test/r_8: not measured: .*r_8\.png: cannot be read as an image", text)) == 2


def test_pictures_of_an_earlier_attempt_are_moved_aside(blender, tmp_path):
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "2", "--i_testset", "2")
    assert main(command) == 0
    first = (tmp_path / "logs/run/testset_000002/test_r_0.png").read_bytes()
    assert main([*command, "--no_reload", "--seed", "3"]) == 0
    assert (tmp_path / "logs/run/superseded_1/testset_000002/test_r_0.png").read_bytes() == first
    assert (tmp_path / "logs/run/testset_000002/test_r_0.png").is_file()


def test_learning_rate_after_the_released_schedule(blender, tmp_path):
    assert main(options(blender, tmp_path, "--no_batching", "--N_iters", "3", "--lrate_decay", "0.01")) == 0
    rate = contents(tmp_path, 3)["optimizer_state_dict"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(5e-4 * 0.1 ** (2 / 10))  # after update 3, the exponent counts the 2 before it
    assert learning_rate(5e-4, 250, 250_000) == pytest.approx(5e-5)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_saves_and_says_how_to_go_on(blender, tmp_path, signum, status):
    command = options(blender, tmp_path, "--no_batching", *LOSSES, "--N_iters", "1000000", "--no_reload")
    run = subprocess.Popen(
        [sys.executable, "run_nerf.py", *command], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in run.stdout:
        if line.startswith("step 3 "):
            break
    run.send_signal(signum)
    rest, errors = run.communicate(timeout=60)
    assert run.returncode == status, errors
    assert "Traceback" not in errors
    step = checkpoint.read(checkpoint.newest(tmp_path / "logs/run")).step
    printed = next(line for line in rest.splitlines() if line.strip().startswith("python run_nerf.py"))
    words = shlex.split(printed)
    assert main([*words[2:], "--N_iters", str(step + 2)]) == 0
    assert contents(tmp_path, step + 2)["global_step"] == step + 2


def test_interrupt_waits_for_the_end_of_a_held_block():
    done, before = [], signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with Interrupt() as interrupt:
        with pytest.raises(Stopped) as stopped, interrupt.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("block")
        assert (done, stopped.value.status) == (["block"], 143)
        with pytest.raises(Stopped):  # outside, at once
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupt.held():  # the second one in a block
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("extra", "said"), [
    ([], "6 poses; the test views' (poses, not pixels) are among them, as else only the training poses"),
    (["--unseen_poses", "all"], "6 poses; the test views' (poses, not pixels) are among them\n"),
    (["--test_scene", "5"], "5 poses; the test views' are not among them\n"),
], ids=str)  # fmt: skip
def test_what_the_unseen_pool_holds_is_said(dtu, tmp_path, capsys, extra, said):
    command = options(dtu, tmp_path, "--train_scene", "0", "1", *extra, "--N_iters", "1", kind="dtu")
    assert main([*command, "--entropy", "--entropy_ray_zvals_lambda", "0.01"]) == 0
    assert said in capsys.readouterr().out
    assert main([*command, "--no_reload"]) == 0
    assert "unseen    " not in capsys.readouterr().out


def test_a_network_without_density_is_warned_of(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--N_iters", "1", "--N_importance", "0")
    warned = {}
    for seed in range(6):
        assert main([*command, "--seed", str(seed), "--no_reload"]) == 0
        text = capsys.readouterr().out
        state = contents(tmp_path, 1)["optimizer_state_dict"]["state"]
        stuck = not any(moments["exp_avg"].any() for moments in state.values())
        warned[seed] = ("WARNING: the fine network has density nowhere" in text, stuck)
    assert all(warning == stuck for warning, stuck in warned.values())
    assert {stuck for _, stuck in warned.values()} == {True, False}


def test_wandb_is_optional(blender, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if not installed
    assert main(options(blender, tmp_path, "--no_batching", "--N_iters", "2", "--wandb")) == 0
    assert capsys.readouterr().out.count("not installed") == 1


def bad(tmp_path, blender, dtu):
    """Name -> the options of a run that cannot be."""
    cut = tmp_path / "cut.tar"
    cut.write_bytes(b"PK\x03\x04")
    file = tmp_path / "file"
    file.write_text("")
    truncated = write_blender(tmp_path / "truncated")
    image = truncated / "train" / "r_1.png"
    image.write_bytes(image.read_bytes()[:60])
    other_size = write_blender(tmp_path / "other")
    iio.imwrite(other_size / "train" / "r_1.png", np.zeros((4, 4, 4), np.uint8))
    no_train = write_blender(tmp_path / "no_train")
    (no_train / "transforms_train.json").unlink()
    crop = ["--no_batching", "--precrop_iters", "5"]
    return {
        "no datadir": (tmp_path / "none", [], "no such folder"),
        "no train json": (no_train, [], "transforms_train.json: no such file"),
        "truncated": (truncated, [], r"r_1.png"),
        "other size": (other_size, [], r"train/r_1.png: the image is 4 x 4, expected 10 x 8"),
        "view": (blender, ["--train_scene", "4"], r"train_scene: found view 4, expected 0..3"),
        "twice": (blender, ["--train_scene", "1", "1"], "named twice"),
        "fewshot": (blender, ["--train_scene", "1", "--fewshot", "2"], "contradicts"),
        "crop": (blender, [*crop, "--N_rand", "21"], r"N_rand 21: the central crop .* has 16 pixels"),
        "crop of unseen": (blender, [*crop, *LOSSES, "--N_entropy", "21"], "N_entropy 21"),
        "image": (blender, ["--no_batching", "--N_rand", "81"], "N_rand 81: an image has 80 pixels"),
        "ft_path": (blender, ["--ft_path", str(cut)], "cut.tar: cannot be read"),
        "no ft_path": (blender, ["--ft_path", "none.tar"], "none.tar: no such checkpoint"),
        "basedir": (blender, ["--basedir", str(file)], f"{file}/run: cannot write there"),
        "long name": (blender, ["--expname", "x" * 300], "expname: found a name of 300 bytes, expected at most 200"),
        "outside": (blender, ["--expname", "../run"], r"expname: found '\.\./run', expected a folder within basedir"),
        "device": (blender, ["--device", "tpu"], "device tpu: expected auto, cpu"),
        "nothing to render": (blender, ["--render_only"], "no checkpoint to render"),
        "test_scene": (blender, ["--test_scene", "1"], "not for Blender"),
        "kind": (dtu, [], "transforms_train.json: no such file"),
    }


BAD = (
    "no datadir", "no train json", "truncated", "other size", "view", "twice", "fewshot", "crop", "crop of unseen",
    "image", "ft_path", "no ft_path", "basedir", "device", "nothing to render", "test_scene", "kind", "long name",
    "outside",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_status_2_and_nothing_written(blender, dtu, tmp_path, capsys, name):
    cases = bad(tmp_path, blender, dtu)
    assert set(BAD) == set(cases)
    scene, extra, expected = cases[name]
    before = sorted(tmp_path.rglob("*"))
    assert main(options(scene, tmp_path, *extra)) == 2
    error = capsys.readouterr().err
    assert error.startswith("run_nerf.py: error: ")
    assert error.count("\n") == 1
    assert re.search(expected, error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda(blender, tmp_path, capsys):
    assert main(options(blender, tmp_path, "--device", "cuda")) == 2
    assert "found no CUDA device" in capsys.readouterr().err


def test_the_bar_of_a_short_run_ends_with_its_numbers(blender, tmp_path, capsys):
    assert main(options(blender, tmp_path, "--no_batching", "--N_iters", "3", "--i_print", "0")) == 0
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert re.search(r"3/3 .* loss=0\.\d{4}, psnr=\d+\.\d\d, rays=\d+/s", last)


def test_args_txt_that_is_a_folder(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "1")
    (tmp_path / "logs/run/args.txt").mkdir(parents=True)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.endswith("run/args.txt: found a folder, expected the options of a run, or nothing there\n")
    assert error.count("\n") == 1
    (tmp_path / "logs/run/args.txt").rmdir()
    (tmp_path / "logs/run/args.txt").write_bytes(b"\xff no text")
    assert main(command) == 0
    assert parse_options(["--config", str(tmp_path / "logs/run/args.txt")])[0].stopping.N_iters == 1


def test_a_checkpoint_of_another_width_is_refused(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--N_iters", "1")
    assert main(command) == 0
    before = (tmp_path / "logs/run/args.txt").read_text()
    assert main([*command, "--netwidth", "16", "--N_iters", "2"]) == 2
    assert "found (1, 8), expected (1, 16)" in capsys.readouterr().err
    assert (tmp_path / "logs/run/args.txt").read_text() == before


def test_only_the_images_needed_are_decoded(blender, tmp_path):
    for path in [*blender.glob("train/r_[13].png"), *blender.glob("val/*.png"), *blender.glob("test/*.png")]:
        path.write_bytes(b"not an image")
    assert main(options(blender, tmp_path, "--train_scene", "0", "2", "--N_iters", "1")) == 0


def test_first_step_of_a_real_size_run_needs_little(tmp_path):
    """Four 800 x 800 views: the whole process stays far below 1 GB."""
    scene = write_blender(tmp_path / "scene", counts=(4, 1, 1), height=800, width=800)
    code = (
        "import resource, sys; from run_nerf import main; status = main(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024); sys.exit(status)"
    )
    command = options(scene, tmp_path, "--no_batching", "--N_iters", "1")
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"peak (\d+)", done.stdout)[1]) < 1000
