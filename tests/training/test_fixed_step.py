"""Steps of fixed shapes against the plain ones, in float64: as they are, and captured and done again.

support/graphs.py stands in for CUDA graphs: whatever of a step is not in tensors that stay where they are, or waits for
the device, fails here as it would on a GPU.
"""

import gc
import weakref

import pytest
import torch

import run_nerf
from infonerf.fields.field import Field
from infonerf.rendering import occupancy
from infonerf.rendering.fixed import ActivePoints, Points
from infonerf.rendering.sparse import Samples
from infonerf.system.graphs import Captured
from infonerf.training import fixed_step
from infonerf.training.fixed_step import FixedStep
from infonerf.training.sampler import TrainingColours
from run_nerf import NonFiniteLoss
from support import fixed_steps
from support.fixed_steps import CASES, DEFAULT, asking, weights
from support.graphs import capture


@pytest.fixture(autouse=True)
def grids_in_use_soon(monkeypatch):
    monkeypatch.setattr(occupancy, "EVERY", 2)
    monkeypatch.setattr(occupancy, "WARM_UP", 3)


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Of a step: all samples in one stretch of work; or blocks of those that are active."""
    monkeypatch.setattr(fixed_step, "SMALL", {"small": 1e10, "large": 0}[request.param])
    return request.param


def trainer_of(options, fixed=False, captured=False, ranks=None, precision="fp32"):
    return fixed_steps.trainer_of(options, fixed, capture if captured else None, precision=precision, ranks=ranks)


@pytest.mark.parametrize("captured", [False, True], ids=["as it is", "captured"])
@pytest.mark.parametrize("case", CASES)
def test_steps(case, captured, size):
    plain, fixed = trainer_of(CASES[case]), trainer_of(CASES[case], fixed=True, captured=captured)
    for _ in range(7):
        (expected, theirs), (found, ours) = plain.train_step(), fixed.train_step()
        assert list(found) == list(expected)
        for name, (weight, value) in expected.items():
            assert found[name][0] == pytest.approx(weight)
            torch.testing.assert_close(found[name][1], value, rtol=1e-7, atol=1e-9)
        assert list(ours) == list(theirs)
        torch.testing.assert_close(ours["seen"].fine.rgb, theirs["seen"].fine.rgb, rtol=1e-6, atol=1e-8)
    # The learning rate is a tensor in float32.
    for ours, theirs in ((fixed.networks, plain.networks), (fixed.average, plain.average)):
        if ours:
            torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)
    assert (fixed.step, plain.step) == (7, 7)
    if captured:
        assert fixed.fixed.capture is capture
        assert fixed.fixed.current.again is not None


def gradients(trainer):
    trainer.train_step()
    return [parameter.grad for parameter in trainer.networks.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_first_step(case, size):
    ours, theirs = gradients(trainer_of(CASES[case], fixed=True)), gradients(trainer_of(CASES[case]))
    assert [gradient is None for gradient in ours] == [gradient is None for gradient in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_low_precision(size):
    """Weights that are rounded once a step, against those that autocast rounds in every block."""
    plain = trainer_of(DEFAULT, precision="bf16")
    fixed = trainer_of(DEFAULT, fixed=True, captured=True, precision="bf16")
    assert fixed.fixed.copies.coarse.pts_linears[0].weight.dtype == torch.bfloat16
    assert fixed.fixed.copies.coarse.alpha_linear.weight.dtype == torch.float32
    first = [torch.cat([g.flatten() for g in gradients(trainer) if g is not None]) for trainer in (fixed, plain)]
    assert float((first[0] - first[1]).norm()) <= 0.02 * float(first[1].norm())
    for _ in range(3):
        (found, _), (expected, _) = fixed.train_step(), plain.train_step()
    assert float(found["colour_fine"][1]) == pytest.approx(float(expected["colour_fine"][1]), rel=0.02)


def test_a_captured_step_waits_for_the_host_once(size):
    trainer = trainer_of(DEFAULT, fixed=True, captured=True)
    for _ in range(3):
        trainer.train_step()
    stretches = trainer.fixed.current.again.pool
    assert len(stretches) == {"small": 1, "large": 2}[size]


def test_what_cannot_be_captured_is_done_as_it_is(capsys):
    trainer, plain = trainer_of(DEFAULT, fixed=True, captured=True), trainer_of(DEFAULT)
    trainer.fixed.losses = asking(trainer.fixed.losses)
    for _ in range(4):
        found, _ = trainer.train_step()
        expected, _ = plain.train_step()
    assert float(found["colour_fine"][1]) == pytest.approx(float(expected["colour_fine"][1]), rel=1e-6)
    said = capsys.readouterr().out
    warning = "WARNING: a step cannot be captured as a CUDA graph (_local_scalar_dense asks for values of a tensor)"
    assert said.count(warning) == 1
    assert trainer.fixed.capture is None


def test_a_capture_that_does_something_else_is_found(size, capsys):
    """Say, it sees other rays than those of the step."""

    def move():
        trainer.fixed.current.inputs[1].add_(1)

    def faulty(work, beside=None):
        captured = capture(work, beside)
        return Captured([move, *captured.parts], captured.pool)

    trainer, plain = trainer_of(DEFAULT, fixed=True), trainer_of(DEFAULT)
    trainer.fixed.capture = faulty
    for _ in range(3):
        found, _ = trainer.train_step()
        expected, _ = plain.train_step()
    assert trainer.fixed.capture is None
    said = capsys.readouterr().out
    assert said.count("WARNING: a step cannot be captured as a CUDA graph (its gradient is another one)") == 1
    # One step was made of it.
    assert float(found["colour_fine"][1]) == pytest.approx(float(expected["colour_fine"][1]), rel=0.05)


def test_updates_that_are_not_made(size, capsys):
    """A gradient that is not finite changes no weight, no moment and no average; the host hears of it when it asks."""
    trainer = trainer_of([*DEFAULT, "--ema_decay", "0.9"], fixed=True, captured=True)
    for _ in range(3):
        trainer.train_step()
    before = [*weights(trainer.networks), *weights(trainer.average)]
    moments = [value.clone() for state in trainer.optimizer.state.values() for value in state.values()]
    colours = trainer.sampler.colours
    trainer.sampler.colours = TrainingColours(torch.full_like(colours.rgb, torch.nan), colours.alpha)
    for _ in range(3):
        trainer.train_step()
    after = [*weights(trainer.networks), *weights(trainer.average)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    now = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert all(torch.equal(*pair) for pair in zip(moments, now, strict=True))
    trainer.check()
    assert "WARNING: 3 of the last steps made no update" in capsys.readouterr().out
    assert trainer.skipped == 3
    trainer.sampler.colours = colours
    trainer.train_step()
    assert int(trainer.fixed.in_a_row) == 0
    assert not torch.equal(weights(trainer.networks)[0], before[0])
    trainer.sampler.colours = TrainingColours(torch.full_like(colours.rgb, torch.nan), colours.alpha)
    for _ in range(run_nerf.MAX_SKIPPED):
        trainer.train_step()
    with pytest.raises(NonFiniteLoss, match=r"step 17: loss term colour_fine, .*not finite, nor .* before \(10\)"):
        trainer.check()


def test_no_graph_outlives_a_step(size):
    """Its nodes at the parameters would remember the stream of a step that was not captured."""
    trainer = trainer_of(DEFAULT, fixed=True)

    def node(parameter):
        return parameter.view_as(parameter).grad_fn.next_functions[0][0]

    for _ in range(2):
        trainer.train_step()
        for parameter in trainer.networks.parameters():
            assert "seen" not in node(parameter).metadata
        for parameter in trainer.networks.parameters():  # kept only where a graph is
            node(parameter).metadata["seen"] = True


def test_steps_of_another_kind_keep_no_memory(size):
    """An unseen group that comes and goes with the entropy's schedule."""
    given = [*DEFAULT, "--smoothing", "False", "--entropy_start_iter", "4", "--entropy_end_iter", "6"]
    trainer, kinds = trainer_of(given, fixed=True, captured=True), []
    gc.disable()
    try:
        for _ in range(9):
            trainer.train_step()
            if trainer.fixed.current not in [kind() for kind in kinds]:
                kinds.append(weakref.ref(trainer.fixed.current))
    finally:
        gc.enable()
    assert [kind() is None for kind in kinds] == [True, True, False]


def test_a_field_with_a_schedule_of_its_own_is_not_captured():
    assert Field().capturable
    assert trainer_of(DEFAULT).networks.coarse.capturable
    assert not type("Scheduled", (Field,), {"set_step": lambda self, step: None})().capturable


@pytest.mark.parametrize("netchunk", [1, 3, 10**6])
def test_blocks_do_not_matter(netchunk, monkeypatch):
    monkeypatch.setattr(fixed_step, "SMALL", 0)
    one, other = (trainer_of([*DEFAULT, "--netchunk", str(n)], fixed=True) for n in (netchunk, 7))
    for mine, theirs in zip(gradients(one), gradients(other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("form", ["plain", "as it is", "captured"])
def test_a_step_that_is_short_of_memory_goes_on_in_smaller_blocks(form, size, capsys, monkeypatch):
    """From its fourth step on, where a captured one has been captured."""
    options = [*DEFAULT, "--ema_decay", "0.9", "--raw_noise_std", "0.1"]
    enough, short = (trainer_of(options, form != "plain", form == "captured") for _ in range(2))
    limit = 10**6

    def of_few(raw):
        def limited(points, rows=None):
            if len(points.points if rows is None else rows) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return raw(points, rows)

        return limited

    monkeypatch.setattr(Points, "raw", of_few(Points.raw))
    monkeypatch.setattr(Samples, "raw", of_few(Samples.raw))
    for step in range(7):
        limit = 10 if step >= 3 else 10**6
        if step == 3 and form == "captured":
            short.fixed.key = None  # other rays, say: a new capture
        (found, _) = short.train_step()
        limit = 10**6
        expected, _ = enough.train_step()
        for name, (_, value) in expected.items():
            torch.testing.assert_close(found[name][1], value, rtol=1e-7, atol=1e-9)
    for ours, theirs in ((short.networks, enough.networks), (short.average, enough.average)):
        torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)
    said = capsys.readouterr().out
    for block, count in ((16, 1), (8, 1), (4, 0)):
        assert said.count(f"out of memory: a step evaluates {block} points at a time from now on (netchunk)") == count


def test_a_captured_step_whose_blocks_are_short_of_memory_is_captured_anew(capsys, monkeypatch):
    """When it is done again, memory is taken by blocks of sizes that were not captured yet."""
    monkeypatch.setattr(fixed_step, "SMALL", 0)
    enough, short = (trainer_of(DEFAULT, fixed=True, captured=True) for _ in range(2))
    add_blocks, failed = FixedStep.add_blocks, []

    def failing(step, counts):
        if step.stepper is short.fixed and short.step == 4 and not failed:
            failed.append(step)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        add_blocks(step, counts)

    monkeypatch.setattr(FixedStep, "add_blocks", failing)
    for _ in range(8):
        short.train_step()
        enough.train_step()
    torch.testing.assert_close(weights(short.networks), weights(enough.networks), rtol=1e-6, atol=1e-8)
    assert failed[0].again is not None  # it was captured
    assert short.fixed.current.again is not None  # and is again
    assert capsys.readouterr().out.count("out of memory: a step evaluates 16 points at a time") == 1


def test_a_step_that_is_too_large_for_any_block_is_an_error(size, monkeypatch):
    trainer = trainer_of(DEFAULT, fixed=True)

    def fail(*given):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Points, "raw", fail)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_step()
    assert trainer.fixed.block == 1


@pytest.mark.parametrize(("n", "block", "sizes"), [
    (1000, 320, [320, 80, 20]), (50, 320, [50, 20]), (7, 3, [3, 1]), (0, 8, [0]),
])  # fmt: skip
def test_blocks(n, block, sizes):
    """They hold every active point once, in order, and few rows beside."""
    points = Points(Field(), torch.zeros(n, 3), None, 1, None)
    active = ActivePoints(points, (None, torch.ones(n)), block)
    assert active.sizes == sizes
    assert int(active.count) == n
    for count in range(n + 1):
        blocks = list(active.blocks(count))
        ends = [first + size for first, size in blocks]
        assert [first for first, _ in blocks] == [0, *ends[:-1]]
        assert count <= ends[-1] < max(count, 1) + sizes[-1]
        assert {size for _, size in blocks} <= set(sizes)
