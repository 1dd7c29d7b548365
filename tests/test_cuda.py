"""Training and rendering on a real GPU: `pytest -m cuda -n 0`, under four minutes.

Without a GPU these tests are skipped. To try their code there, `CUDA_TESTS_ON=cpu pytest -m cuda` runs them on the CPU,
with the stand-in for CUDA graphs of support/graphs.py.
"""

import os
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch
from torch import nn

import run_nerf
from infonerf.fields import fused
from infonerf.rendering import occupancy
from infonerf.system.graphs import capture_cuda
from infonerf.training import fixed_step
from infonerf.training.sampler import TrainingColours
from support import graphs
from support.fixed_steps import CASES, CPU, DEFAULT, RGBA, trainer_of, weights
from support.runs import LOSSES, ROOT, contents, losses_printed, options, same

ON_CPU = os.environ.get("CUDA_TESTS_ON") == "cpu"
DEVICE = CPU if ON_CPU else torch.device("cuda")
CAPTURE = graphs.capture if ON_CPU else partial(capture_cuda, device=DEVICE)
NO_DRAWS = ["--perturb", "0", "--raw_noise_std", "0"]  # devices draw differently
REFERENCES = {"sparse": [], "dense": ["--exact_dense"]}

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not ON_CPU and not torch.cuda.is_available(), reason="no CUDA GPU"),
]
on_a_gpu_alone = pytest.mark.skipif(ON_CPU, reason="the CPU has no such thing")


@pytest.fixture(autouse=True)
def setting(monkeypatch):
    monkeypatch.setattr(occupancy, "EVERY", 2)
    monkeypatch.setattr(occupancy, "WARM_UP", 3)
    if ON_CPU:
        monkeypatch.setattr(run_nerf, "capture_of", stand_in)


def stand_in(config, networks):
    wanted = config.rendering.cuda_graphs and not config.rendering.exact_dense
    return CAPTURE if wanted and all(network.capturable for network in networks) else None


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Of a step: all samples in one stretch of work; or blocks of those that are active."""
    monkeypatch.setattr(fixed_step, "SMALL", {"small": 1e10, "large": 0}[request.param])
    return request.param


def captured(given, **settings):
    return trainer_of(given, fixed=True, capture=CAPTURE, device=DEVICE, **settings)


def plain(given, device=DEVICE, **settings):
    return trainer_of(given, device=device, **settings)


def assert_captured(trainer):
    assert trainer.fixed.capture is CAPTURE
    assert trainer.fixed.current.again is not None


def set_learning_rate(trainer, lrate):
    trainer.lrates = [lrate] * len(trainer.lrates)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["lr"].fill_(lrate) if isinstance(group["lr"], torch.Tensor) else lrate


def gradient(trainer):
    trainer.train_step()
    parts = [parameter.grad for parameter in trainer.networks.parameters() if parameter.grad is not None]
    return torch.cat([part.flatten().double() for part in parts])


def error(found, expected):
    """Relative, of all numbers together."""
    found, expected = (torch.cat([part.detach().flatten().double().cpu() for part in parts])
                       for parts in (found, expected))  # fmt: skip
    return float((found - expected).norm() / expected.norm())


# Captured steps against plain ones.


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=str)
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, reference, dtype, tolerance, size):
    """Of a first step, which is not captured, and of captured ones; all at the same weights."""
    if case == "a grid" and reference == "dense":
        pytest.skip("without a grid there are other gradients")
    ours, theirs = captured(CASES[case], dtype=dtype), plain([*CASES[case], *REFERENCES[reference]], dtype=dtype)
    for trainer in (ours, theirs):
        set_learning_rate(trainer, 0.0)
    for _ in range(3):
        assert error([gradient(ours)], [gradient(theirs)]) < tolerance


@pytest.mark.parametrize("case", CASES)
def test_steps(case, size):
    ours, theirs = captured(CASES[case]), plain(CASES[case])
    for _ in range(8):
        (found, mine), (expected, other) = ours.train_step(), theirs.train_step()
        assert list(found) == list(expected)
        for name, (weight, value) in expected.items():
            assert found[name][0] == pytest.approx(weight)
            torch.testing.assert_close(found[name][1], value, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(mine["seen"].fine.rgb, other["seen"].fine.rgb, rtol=1e-5, atol=1e-7)
    for one, other in ((ours.networks, theirs.networks), (ours.average, theirs.average)):
        if one:
            assert error(weights(one), weights(other)) < 1e-6
    assert_captured(ours)


@pytest.mark.parametrize("case", [case for case in CASES if case != "a grid"])  # whose points are drawn on the device
def test_steps_against_the_cpu(case, size):
    ours, theirs = captured([*CASES[case], *NO_DRAWS]), plain([*CASES[case], *NO_DRAWS, "--exact_dense"], CPU)
    for _ in range(5):
        (found, _), (expected, _) = ours.train_step(), theirs.train_step()
        for name, (_, value) in expected.items():
            torch.testing.assert_close(found[name][1].cpu(), value, rtol=1e-6, atol=1e-8)
    assert error(weights(ours.networks), weights(theirs.networks)) < 1e-6


def test_bfloat16(size):
    given = [*DEFAULT, *NO_DRAWS]  # else a fine sample that bfloat16 puts elsewhere can be most of so small a step
    ours, theirs = captured(given, precision="bf16"), plain([*given, "--exact_dense"], dtype=torch.float32)
    for trainer in (ours, theirs):
        set_learning_rate(trainer, 0.0)
    assert ours.fixed.copies.coarse.pts_linears[0].weight.dtype == torch.bfloat16
    for _ in range(3):
        assert error([gradient(ours)], [gradient(theirs)]) < 0.05
    assert_captured(ours)


# What changes from one captured step to the next.


def test_the_learning_rate_changes_under_capture(size):
    ours, theirs = captured(DEFAULT), plain(DEFAULT)
    changes = []
    for trainer in (ours, theirs):
        trainer.lrate_decay = 0.001  # a tenth every step, from the second on
    for _ in range(5):
        before = weights(ours.networks)
        ours.train_step()
        theirs.train_step()
        after = weights(ours.networks)
        changes.append(max(float((new - old).abs().max()) for new, old in zip(after, before, strict=True)))
    assert_captured(ours)
    assert changes[4] < 0.02 * changes[2]
    assert error(weights(ours.networks), weights(theirs.networks)) < 1e-6


def test_every_step_has_draws_of_its_own(size):
    trainer = captured(DEFAULT)
    set_learning_rate(trainer, 0.0)
    seen = []
    for _ in range(5):
        terms, renderings = trainer.train_step()
        seen.append([terms["colour_fine"][1].clone(), renderings["seen"].coarse.z.clone()])
    assert_captured(trainer)
    for i, (loss, z) in enumerate(seen):
        for other_loss, other_z in seen[:i]:
            assert not torch.equal(loss, other_loss)
            assert not torch.equal(z, other_z)


def test_schedules_are_captured_anew_where_they_end(size):
    trainer, kinds = captured(CASES["schedules"]), set()
    for _ in range(12):
        trainer.train_step()
        kinds.add(trainer.fixed.key)
    assert 3 <= len(kinds) <= 6
    assert_captured(trainer)


def test_updates_that_are_not_made(size, capsys):
    trainer = captured([*DEFAULT, "--ema_decay", "0.9"])
    for _ in range(3):
        trainer.train_step()
    state = [value for parts in trainer.optimizer.state.values() for value in parts.values()]
    before = [part.clone() for part in (*weights(trainer.networks), *weights(trainer.average), *state)]
    colours = trainer.sampler.colours
    trainer.sampler.colours = TrainingColours(torch.full_like(colours.rgb, torch.nan), colours.alpha)
    for _ in range(3):
        trainer.train_step()
    after = [*weights(trainer.networks), *weights(trainer.average), *state]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    trainer.check()
    assert "WARNING: 3 of the last steps made no update" in capsys.readouterr().out
    trainer.sampler.colours = colours
    trainer.train_step()
    assert not torch.equal(weights(trainer.networks)[0], before[0])
    assert (int(trainer.fixed.in_a_row), int(trainer.fixed.skipped)) == (0, 3)


# What a capture asks of the rest.


@on_a_gpu_alone
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_the_host_waits_for_nothing_but_the_number_of_blocks(size, monkeypatch):
    def numbers(counts):
        torch.cuda.set_sync_debug_mode("default")
        found = counts.tolist()
        torch.cuda.set_sync_debug_mode("error")
        return found

    trainer = captured(DEFAULT)
    for _ in range(3):
        trainer.train_step()
    monkeypatch.setattr(fixed_step, "numbers", numbers)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


RECOVERY = """
from functools import partial
import torch, run_nerf
from infonerf.system.graphs import capture_cuda
from support import graphs
from support.fixed_steps import DEFAULT, asking, trainer_of, weights
device = torch.device(DEVICE)
capture = graphs.capture if device.type == "cpu" else partial(capture_cuda, device=device)
ours, theirs = trainer_of(DEFAULT, True, capture, device), trainer_of(DEFAULT, device=device)
ours.fixed.losses = asking(ours.fixed.losses)
for _ in range(6):
    found, expected = ours.train_step()[0], theirs.train_step()[0]
    assert abs(float(found["colour_fine"][1]) / float(expected["colour_fine"][1]) - 1) < 1e-6
assert ours.fixed.capture is None
for one, other in zip(weights(ours.networks), weights(theirs.networks), strict=True):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
print("goes on")
if device.type == "cuda":
    assert torch.cuda.current_stream() == torch.cuda.default_stream(), "left on the stream of the capture"
print("on the same stream")
again = trainer_of(DEFAULT, True, capture, device)
for _ in range(4):
    again.train_step()
assert again.fixed.current.again is not None
print("captures again")
"""


def test_a_step_that_cannot_be_captured(tmp_path):
    """It goes on without, and other steps are captured as ever. In a process of its own, as CUDA may be in disorder."""
    code = RECOVERY.replace("DEVICE", repr(str(DEVICE)), 1)
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": folders, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("WARNING: a step cannot be captured as a CUDA graph"), done.stdout + done.stderr
    found = [line for line in done.stdout.splitlines() if not line.startswith("WARNING")]
    assert found == ["goes on", "on the same stream", "captures again"], done.stdout + done.stderr


def test_another_thread_that_leaves_the_gpu_alone():
    """Nor do its tensors on the CPU, with gradients, disturb a capture."""
    stop = threading.Event()

    def work():
        a = torch.rand(64, 64, requires_grad=True)
        while not stop.is_set():
            (a @ a).sum().backward()

    ours, theirs = captured(DEFAULT), plain(DEFAULT)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(6):
            ours.train_step()
    finally:
        stop.set()
        thread.join()
    for _ in range(6):
        theirs.train_step()
    assert_captured(ours)
    assert error(weights(ours.networks), weights(theirs.networks)) < 1e-6


# A layer and its ReLU in one operation.


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 63, 16), (40, 319, 33), (0, 8, 8), (300, 256, 256)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [
    (torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05),
], ids=str)  # fmt: skip
def test_the_kernel_against_a_plain_layer(sizes, dtype, tolerance):
    """Of two inputs, one of which needs no gradient."""
    n, n_in, n_out = sizes
    generator = torch.Generator().manual_seed(n)
    layer = nn.Linear(n_in + 3, n_out)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.2, 0.2, generator=generator)
    layer.to(DEVICE, dtype)
    x, fixed, d_y = (torch.randn(n, m, generator=generator).to(DEVICE, dtype) for m in (n_in, 3, n_out))
    x.requires_grad_()
    inputs = (x, layer.weight, layer.bias)
    ours = fused.LinearReLU.apply(fused.cuda_kernel, fused.CUDA_MULTIPLE, layer.weight, layer.bias, x, fixed)
    theirs = layer(torch.cat([x, fixed], dim=-1)).relu()
    found, expected = ([y, *torch.autograd.grad(y, inputs, d_y)] for y in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        size, difference = (float(part.detach().double().norm()) for part in (other, one - other))
        assert difference <= tolerance * size + 1e-30


# Runs and pictures.


def run(scene, tmp_path, *extra, device=DEVICE, name="run"):
    given = ["--no_batching", *LOSSES, "--precision", "fp32", "--device", str(device), *extra]
    assert run_nerf.main(options(scene, tmp_path, *given, name=name)) == 0


@pytest.mark.parametrize("extra", [[], ["--skip_empty", "--ema_decay", "0.9"]], ids=" ".join)
def test_resume_is_exact(blender, tmp_path, capsys, extra, size):
    run(blender, tmp_path, *extra, "--N_iters", "9", name="whole")
    whole = losses_printed(capsys.readouterr().out)
    run(blender, tmp_path, *extra, "--N_iters", "4")
    run(blender, tmp_path, *extra, "--N_iters", "9")
    text = capsys.readouterr().out
    assert "going on from" in text
    assert "cannot be captured" not in text
    assert list(losses_printed(text)) == list(whole)
    first, second = contents(tmp_path, 9, "whole"), contents(tmp_path, 9)
    assert same(first["random_states"], second["random_states"])
    for part in ("network_fn_state_dict", "network_fine_state_dict"):  # one of the steps is captured in one run alone
        assert error(second[part].values(), first[part].values()) < 1e-5


def test_a_checkpoint_goes_on_on_another_device(blender, tmp_path, capsys):
    for n, device in ((4, DEVICE), (6, CPU), (10, DEVICE), (11, CPU)):
        run(blender, tmp_path, "--N_iters", str(n), device=device)
    text = capsys.readouterr().out
    assert text.count("going on from") == 3
    assert "cannot be captured" not in text
    assert text.count("another kind of device") == (0 if ON_CPU else 3)
    assert list(losses_printed(text)) == list(range(1, 12))
    found = contents(tmp_path, 11)
    assert all(part.isfinite().all() for part in found["network_fine_state_dict"].values())
    assert float(found["optimizer_state_dict"]["state"][0]["step"]) == 11


def test_a_whole_run(blender, tmp_path, capsys):
    """Precision as the device has it, a grid, an average, held-out and test views, and the pictures of a training."""
    extra = ["--N_iters", "8", "--skip_empty", "--visual_hull", "--ema_decay", "0.9", "--precision", "auto", "--i_val",
             "4", "--i_img", "8", "--i_testset", "8", "--white_bkgd", "--testskip", "8"]  # fmt: skip
    run(blender, tmp_path, *extra)
    text = capsys.readouterr().out
    assert "cannot be captured" not in text
    assert "held-out psnr" in text
    assert list((tmp_path / "logs/run/testset_000008").glob("*.png"))


@pytest.mark.parametrize("extra", [[], ["--skip_empty"], ["--exact_dense"]], ids=" ".join)
def test_a_picture_against_the_cpu(extra):
    ours, theirs = plain([*DEFAULT, *extra], dtype=torch.float32), plain([*DEFAULT, *extra], CPU, dtype=torch.float32)
    for _ in range(2):
        ours.train_step()
    for one, other in zip(ours.networks, theirs.networks, strict=True):
        other.load_state_dict(one.state_dict())
    images = [trainer.picture_renderer().image(RGBA.cameras.at([1])) for trainer in (ours, theirs)]
    for one, other in zip(*images, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-3)
