"""Checkpoints that are sound files of odd content: each entry is checked when it is read. More of them: fuzz.py."""

import math
import sys
import warnings

import pytest
import torch

import evaluate
import export_mesh
import run_nerf
import view
from infonerf.rendering.occupancy import CELLS
from infonerf.training import checkpoint
from infonerf.training.checkpoint_content import TO_LOOK_AT, held_out, occupancy, random_states, sampler
from support.scenes import refused

NAME = "pts_linears.0.weight"
WEIGHTS, ADAM = checkpoint.NETWORK_KEYS["coarse"], "optimizer_state_dict"


def change(path, edit):
    """Change what a checkpoint holds, on purpose."""
    content = torch.load(path, weights_only=True)
    del content["checksum"]
    edit(content)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    torch.save(content, path)
    sys.setrecursionlimit(limit)


def of_weight(make):
    """An edit that replaces a weight by what `make` makes of it."""
    return lambda content: content[WEIGHTS].update({NAME: make(content[WEIGHTS][NAME])})


def of_group(**settings):
    return lambda content: content[ADAM]["param_groups"][0].update(settings)


def of_moments(**values):
    return lambda content: content[ADAM]["state"][2].update(values)


def ring():
    ring = [1]
    ring.append({"ring": ring})
    return ring


def nested(levels, width=1):
    value = []
    for _ in range(levels):
        value = [value] * width
    return value


@pytest.fixture
def path(logdir):
    return checkpoint.path_of(logdir, 2)


ODD_TENSORS = {
    "sparse": torch.Tensor.to_sparse,
    "on meta": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "nested": lambda t: torch.nested.nested_tensor([t, t[:2]]),
    "of elements that share memory": lambda t: torch.zeros(1).expand(10**6, 10**6),
    "torch.complex64": lambda t: t.to(torch.complex64),
    "torch.float8_e5m2": lambda t: t.to(torch.float8_e5m2),
    "a view": lambda t: t.to(torch.complex64).conj().imag,
}


@pytest.mark.parametrize("word", ODD_TENSORS)
@pytest.mark.parametrize("entry", [WEIGHTS, "optimizer_state_dict"])
def test_tensors_that_are_not_dense(path, word, entry):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ODD_TENSORS[word](torch.ones(8, 3))
        change(path, of_weight(lambda t: made) if entry == WEIGHTS else of_moments(exp_avg=made))
    name = NAME if entry == WEIGHTS else "state.2.exp_avg"
    with refused(f"{path}: {entry}.{name}: found a tensor that is {word}, expected a dense one"):
        checkpoint.read(path)


@pytest.mark.parametrize(("value", "message"), [
    (b"bytes", "found a bytes, expected tensors, numbers and text"),
    ({1, 2}, "found a set"),
    (torch.float32, "found a dtype"),
    (2**63, "found an integer of 64 bits"),
    ({(1, 2): 3}, "found a tuple as a name"),
    ({None: 3}, "found None as a name"),
    (ring(), "found more than 8 levels of lists"),
    (nested(5000), "found more than 8 levels of lists"),
    (nested(5, 100), "found more than 100000 values"),
], ids=range(9))  # fmt: skip
@pytest.mark.parametrize("entry", ["options", "sampler"])
def test_values_that_nobody_can_look_at(path, value, message, entry):
    change(path, lambda content: content[entry].update(odd=value))
    with refused(f"{path}: .*{message}"):
        checkpoint.read(path)


@pytest.mark.parametrize(("make", "message"), [
    (lambda t: t.index_fill(0, torch.tensor(1), math.nan), r"found \d+ of \d+ numbers that are not finite"),
    (lambda t: t * math.inf, "not finite"),
    (lambda t: t.double() * 1e200, "not finite"),  # in float32
    (lambda t: t.tolist(), "found a list, expected a tensor of weights"),
    (lambda t: 0.5, "found 0.5, expected a tensor of weights"),
])  # fmt: skip
def test_weights_that_are_none(path, make, message):
    change(path, of_weight(make))
    with refused(f"{path}: {WEIGHTS}.{NAME}: .*{message}"):
        checkpoint.read(path)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content[ADAM]["param_groups"][0].pop("eps"), "param_groups.0.eps: found None"),
    (of_group(eps=-1e-8), "param_groups.0.eps: found -1e-08, expected a number >= 1e-37"),
    (of_group(eps=0), "param_groups.0.eps: found 0, expected a number >= 1e-37"),
    (of_group(lr=1e300), "param_groups.0.lr: found 1e.300"),
    (of_group(lr="1e-3"), "param_groups.0.lr: found '1e-3'"),
    (of_group(weight_decay=True), "param_groups.0.weight_decay: found True"),
    (of_group(betas=0.9), "param_groups.0.betas: found 0.9, expected two numbers"),
    (of_group(betas=(0.9, 1.5)), "param_groups.0.betas.1: found 1.5, expected a number >= 0 and < 1"),
    (of_group(betas=(0.9, "x")), "param_groups.0.betas.1: found 'x'"),
    (of_group(maximize=True), "param_groups.0.maximize: found True, expected False"),
    (of_group(maximize=torch.ones(3)), "param_groups.0.maximize: found a tensor .float32, 3., expected False"),
    (of_group(amsgrad=1), "param_groups.0.amsgrad: found 1, expected False"),
    (of_group(params=[0, "1"]), "param_groups.0.params: found a list, expected numbers of parameters"),
    (of_group(params=[0, 0, 1]), "state: found parameters that are not in param_groups, or twice"),
    (lambda content: content[ADAM].update(param_groups=[3]), "param_groups.0: found 3, expected values by name"),
    (lambda content: content[ADAM].update(param_groups=[]), "param_groups: found a list, expected groups"),
    (lambda content: content[ADAM].update(state=[1]), "state: found a list, expected values by name"),
    (lambda content: content[ADAM]["state"].update(a={}), "state.a.step: found None"),
    (of_moments(step=-1.0), "state.2.step: found -1.0"),
    (of_moments(step=torch.ones(2)), r"state.2.step: found a tensor \(float32, 2\)"),
    (of_moments(exp_avg=3), "state.2.exp_avg: found 3, expected a tensor of floats"),
    (of_moments(exp_avg=torch.ones(3, dtype=torch.long)), "state.2.exp_avg: found a tensor .int64, 3."),
    (of_moments(exp_avg=torch.tensor(math.nan)), "state.2.exp_avg: found 1 of 1 numbers that are not finite"),
    (of_moments(exp_avg_sq=torch.tensor(-1.0)), "state.2.exp_avg_sq: found no squares"),
])  # fmt: skip
def test_states_of_adam_that_are_none(path, edit, message):
    change(path, edit)
    with refused(f"{path}: {ADAM}.*{message}"):
        checkpoint.read(path)
    assert checkpoint.read(path, TO_LOOK_AT).content.keys() <= TO_LOOK_AT.keys()  # which needs no optimizer


def test_moments_of_other_types_and_of_shared_memory_are_taken(path):
    def edit(content):
        for moments in content[ADAM]["state"].values():
            moments["step"] = int(moments["step"])
            moments["exp_avg"] = moments["exp_avg_sq"] = torch.nn.Parameter(moments["exp_avg_sq"].half())
        content[ADAM]["param_groups"][0] |= {"lr": torch.tensor(0.5), "initial_lr": 3, "foreach": "odd"}

    change(path, edit)
    state = checkpoint.read(path).content[ADAM]
    assert state["param_groups"][0]["lr"] == 0.5 and "initial_lr" not in state["param_groups"][0]
    first = state["state"][0]
    assert first["exp_avg"].data_ptr() != first["exp_avg_sq"].data_ptr() and not first["exp_avg"].requires_grad
    assert first["step"] == 2 and first["step"].dtype == torch.float32


@pytest.mark.parametrize(("name", "value", "message"), [
    ("datadir", 3, "found a value of type int, expected text"),
    ("datadir", "a\0b", r"found 'a\\x00b', expected a name"),
    ("expname", "a\ud800", r"found 'a\\ud800', expected a name"),
    ("datadir", "a" * 5000, "found 'aaa.*a', expected a name"),
    ("N_entropy", "\x1b[31mred", r"found '\\x1b\[31mred', expected an integer >= 0"),
    ("N_entropy", 0.5, "found '0.5', expected an integer"),
    ("lrate", math.nan, "found 'nan', expected a number"),
    ("lrate", torch.tensor(1.0), "found a value of type Tensor, expected a value"),
    ("entropy", "maybe", "found 'maybe', expected True or False"),
    ("field", "mesh", "found 'mesh', expected nerf or planes"),
    ("train_scene", [1, "x"], "found 'x', expected an integer"),
    ("train_scene", {"a": 1}, "found a value of type dict"),
])  # fmt: skip
def test_options_are_those_of_a_config_file(path, name, value, message):
    change(path, lambda content: content["options"].update({name: value}))
    with refused(f"{path}: options.{name}: {message}"):
        checkpoint.read(path)


def test_options_of_other_versions_and_spellings(path):
    given = {"N_rand": 7.0, "gone": "x", "lrate": "5e-4", "N_entropy": None, "train_scene": [3, "4"], "entropy": "true"}
    with refused("options.N_rand: found '7.0'"):
        change(path, lambda content: content.update(options=given))
        checkpoint.read(path)
    change_again = given | {"N_rand": "7"}
    torch.save(torch.load(path, weights_only=True) | {"options": change_again}, path)
    assert checkpoint.read(path).content["options"] == {
        "N_rand": 7, "lrate": 5e-4, "N_entropy": 100, "train_scene": [3, 4], "entropy": True
    }  # fmt: skip


FULL = torch.ones(CELLS**3)
GENERATOR = torch.Generator().get_state()
STATES = [
    *((occupancy, state) for state in (
        {}, [1], None, "x", torch.ones(3), {"density": FULL}, {"density": [1.0], "in_use": True},
        {"density": FULL[:5], "in_use": True}, {"density": torch.tensor(1.0), "in_use": True},
        {"density": FULL, "in_use": FULL}, {"density": torch.full_like(FULL, torch.nan), "in_use": True},
        {"density": FULL.long(), "in_use": True}, {"density": -FULL, "in_use": False},
    )),
    *((sampler, state) for state in (
        3, {"seen": {}}, {"seen": 3}, {"seen": {"n": 9, "seed": 1, "cursor": 10}}, {"seen": {"n": 9, "cursor": 1}},
        {"seen": {"n": 9, "seed": -1, "cursor": 1}}, {"seen": {"n": True, "seed": 1, "cursor": 1}},
    )),
    *((random_states, state) for state in (
        3, {}, {"pixels": GENERATOR, "samples": GENERATOR}, {"pixels": GENERATOR[:9], "samples": GENERATOR,
        "samples_device": "cpu"}, {"pixels": GENERATOR, "samples": 0 * GENERATOR, "samples_device": "cpu"},
        {"pixels": GENERATOR.float(), "samples": GENERATOR, "samples_device": "cpu"},
    )),
    *((held_out, state) for state in (
        {"views": [4], "best": math.nan, "best_step": 1, "waited": 0}, {"views": "4"}, [4],
        {"views": [4], "best": 20.0, "best_step": 1, "waited": -1},
    )),
]  # fmt: skip


@pytest.mark.parametrize(("check", "state"), STATES, ids=range(len(STATES)))
def test_a_state_that_is_none(check, state):
    with pytest.raises(ValueError, match="expected"):
        check(state)


def test_states_of_runs():
    assert occupancy({"density": FULL / 0, "in_use": True})["in_use"]
    assert random_states({"pixels": GENERATOR, "samples": torch.zeros(16, dtype=torch.uint8), "samples_device": "cuda"})
    assert sampler({"seen": {"n": 9, "seed": 2**62, "cursor": -1}, "unseen": {"n": 9, "seed": 2, "cursor": 9}})
    assert held_out({"views": [4], "best": -math.inf, "best_step": 0, "waited": 0})["best"] == -math.inf


@pytest.mark.parametrize(("edit", "message"), [
    (of_weight(lambda t: t * math.nan), f"{WEIGHTS}.{NAME}: found"),
    (of_weight(lambda t: t[None]), f"coarse network, {NAME}: found"),
    (of_weight(lambda t: t.int()), f"coarse network, {NAME}: found"),
    (of_moments(exp_avg=torch.zeros(1), exp_avg_sq=torch.zeros(1)), "its optimizer state does not fit the networks"),
    (lambda content: content["options"].update(ring=ring()), "options.ring"),
], ids=range(5))  # fmt: skip
def test_a_resume_takes_the_good_checkpoint_before_it(logdir, path, capsys, edit, message):
    good = torch.load(checkpoint.path_of(logdir, 1), weights_only=True)
    change(path, edit)
    command = ["--config", str(logdir / "args.txt"), "--basedir", str(logdir.parent)]
    assert run_nerf.main(command) == 0
    said = capsys.readouterr().out
    assert f"WARNING: {path}: {message}" in said and "000001.tar, step 1" in said
    assert torch.equal(torch.load(checkpoint.path_of(logdir, 1), weights_only=True)[WEIGHTS][NAME], good[WEIGHTS][NAME])
    assert checkpoint.read(path).step == 2  # trained again
    assert (logdir / "superseded_1/000002.tar").is_file()


@pytest.mark.parametrize("script", [evaluate, view, export_mesh, run_nerf], ids=lambda script: script.__name__)
def test_weights_that_are_not_finite_are_refused_by_every_script(logdir, path, capsys, monkeypatch, script):
    for module, name in ((view, "require_viser"), (export_mesh, "require_packages")):
        monkeypatch.setattr(module, name, lambda: None)
    checkpoint.path_of(logdir, 1).unlink()
    change(path, of_weight(lambda t: t / 0))
    files = sorted(logdir.rglob("*"))
    training = ["--config", str(logdir / "args.txt"), "--basedir", str(logdir.parent), "--N_iters", "3"]
    words = training if script is run_nerf else [str(logdir)]
    assert script.main([*words, "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"{script.__name__}.py: error: {path}: {WEIGHTS}.{NAME}: found") and "\n" not in error
    assert sorted(logdir.rglob("*")) == files


def test_networks_of_other_options_are_no_damage(logdir, path, capsys):
    command = ["--config", str(logdir / "args.txt"), "--basedir", str(logdir.parent), "--netwidth", "12"]
    assert run_nerf.main([*command, "--N_iters", "3"]) == 2
    said, error = capsys.readouterr()
    assert f"{path}: coarse network, " in error and "do the options (field, netdepth" in error
    assert "going back" not in said and sorted(logdir.glob("*.tar"))[-1] == path
