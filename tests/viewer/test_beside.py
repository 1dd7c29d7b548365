"""A page beside a training: not a bit of its numbers changes, its time is bounded, it can be held."""

import threading

import numpy as np
import pytest
import torch

import run_nerf
from infonerf.command_line import parse_options
from infonerf.system.errors import InputError
from infonerf.viewer.beside import MOST_CREDIT, MOST_POINTS, Beside, Curves
from infonerf.viewer.frames import Source, Wish
from infonerf.viewer.painter import Painter
from loss import ray_entropy
from support.runs import LOSSES, contents, options, same


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Work:
    """A painter that always has something to do, in bits of 0.03 s."""

    busy = True

    def __init__(self, clock):
        self.clock, self.total, self.waited = clock, 0.0, 0

    def work(self, seconds):
        spent = 0.0
        while spent < seconds:
            spent += 0.03
        self.clock.now += spent
        self.total += spent
        return spent

    def wait(self, seconds):
        self.waited += 1


def test_painting_has_a_bounded_share_of_the_time():
    clock = Clock()
    work = Work(clock)
    beside = Beside(work, share=0.25, clock=clock)
    for _ in range(1000):
        clock.now += 0.004  # a step
        beside.between_steps()
    assert work.total / clock.now == pytest.approx(0.25, abs=0.01)


def test_what_is_saved_up_is_bounded_and_without_anybody_nothing_is_painted():
    clock = Clock()
    work = Work(clock)
    beside = Beside(work, clock=clock)
    work.busy = False
    clock.now += 1000
    assert not beside.between_steps()
    work.busy = True
    assert beside.between_steps() and work.total < MOST_CREDIT + 0.05


def test_held_until_it_goes_on_or_makes_one_step():
    clock = Clock()
    beside = Beside(Work(clock), clock=clock)
    beside.pause(True)
    done = []
    thread = threading.Thread(target=lambda: [done.append(beside.between_steps()) for _ in range(2)])
    thread.start()
    beside.step_once()
    while not done:
        pass
    assert thread.is_alive()
    beside.pause(False)
    thread.join(10)
    assert done[0] and len(done) == 2


def test_curves_are_thinned_out_and_keep_their_shape():
    curves = Curves()
    for step in range(1, 5001):
        curves.add(step, {"a": step} | ({"b": 2 * step} if step > 2500 else {}))
    assert len(curves.steps) <= MOST_POINTS and curves.steps[-1] > 4900
    np.testing.assert_array_equal(curves.values["a"], curves.steps)
    b = np.array(curves.values["b"])
    assert np.isnan(b[np.array(curves.steps) <= 2500]).all()
    np.testing.assert_array_equal(b[~np.isnan(b)], 2 * np.array(curves.steps)[~np.isnan(b)])


@pytest.mark.parametrize("extra", [[], ["--skip_empty", "--ema_decay", "0.9", "--perturb", "1", "--raw_noise_std", "1",
                                        "--freq_end_iter", "20", "--precision", "bf16"]])  # fmt: skip
def test_not_a_bit_of_the_weights_changes(blender, tmp_path, monkeypatch, extra):
    """30 steps, each followed by a picture and a half, and without."""
    argv = [*LOSSES, *extra, "--density_bias", "0.3", "--N_iters", "30", "--i_img", "10", "--i_testset", "0"]
    assert run_nerf.main(options(blender, tmp_path, *argv, name="alone")) == 0
    pictures = []

    class Watch:
        def __init__(self, name, folder, scene, source, entropy, n_steps, alone):
            assert (n_steps, alone) == (30, True)
            assert isinstance(source(), Source)
            self.painter = Painter(lambda: [source()], entropy, lambda *what: pictures.append(what), fail, first=1e-3)
            self.scene = scene

        def after_step(self, step, terms):
            assert "colour_fine" in terms
            self.painter.wish("a", Wish(self.scene.poses[step % 4], 0.5 + step / 100, (12, 16)))
            for _ in range(7):  # chunks: a picture or two, and perhaps a part of one
                self.painter.work_a_bit()
            return True

        def close(self):
            self.closed = True

    monkeypatch.setattr(run_nerf, "Watch", Watch)
    monkeypatch.setattr(run_nerf, "require_viser", lambda: None)
    assert run_nerf.main(options(blender, tmp_path, *argv, "--view", name="watched")) == 0
    assert len(pictures) > 30 and max(picture.acc.max() for _, _, picture, _ in pictures) > 0
    alone, watched = (contents(tmp_path, 30, name) for name in ("alone", "watched"))
    left_out = ("options", "checksum")
    assert same(*({key: value for key, value in c.items() if key not in left_out} for c in (alone, watched)))


def fail(error):
    raise error


def test_without_viser_nothing_is_begun(blender, tmp_path, monkeypatch, capsys):
    def missing():
        raise InputError("the viewer needs viser (none): pip install -r requirements-view.txt")

    monkeypatch.setattr(run_nerf, "require_viser", missing)
    assert run_nerf.main(options(blender, tmp_path, "--view")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "requirements-view.txt" in error
    assert not (tmp_path / "logs").exists()


def test_a_run_that_was_watched_is_evaluated_as_any(blender, tmp_path):
    config, _ = parse_options(options(blender, tmp_path, "--view"))
    assert config.replace(eval_only=True).looking.instead_of_training


def test_entropy_of_the_page_is_that_of_the_loss():
    alpha = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    torch.testing.assert_close(ray_entropy(alpha), torch.tensor([1.0, 0.0]))
