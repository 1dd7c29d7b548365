"""Planes: values and gradients against the formula with its interpolation written out, total variation, resuming."""

import itertools

import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.fields.nerf import positional_encoding
from infonerf.fields.planes import FASTER, Planes
from run_nerf import create_trainer, main
from run_nerf_helpers import load_scene
from support.draws import DOUBLE, rand, seeded
from support.fixed_steps import CASES, trainer_of, weights
from support.runs import ROOT, contents, options, same
from support.scenes import refused

BOUNDS = torch.tensor([[-1.0, -0.5, 0.0], [1.0, 2.0, 0.7]], dtype=DOUBLE)
SMALL = ["--field", "planes", "--planes_resolution", "8", "--planes_components", "2", "--planes_tv", "0.1",
         "--multires", "2", "--density_bias", "0.5", "--no_batching"]  # fmt: skip


def small(**options):
    shape = {"resolution": 9, "components": 2, "depth": 2, "width": 5, "multires": 1, "multires_views": 1} | options
    return Planes(BOUNDS, **shape, generator=seeded()).double()


def at(grid, *places):
    """The value (c) of grid c h w at a place in nodes, from its two or four neighbours."""
    value = 0
    for corner in itertools.product((0, 1), repeat=len(places)):
        index, share = [], 1.0
        for place, side, upper in zip(places, grid.shape[1:], corner, strict=True):
            low = min(int(place), side - 2)
            share *= place - low if upper else 1 - (place - low)
            index.append(low + upper)
        value = value + share * grid[(slice(None), *index)]
    return value


def slow_features(field, point):
    """The features of one point."""
    unit = ((point - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])).clamp(0, 1).tolist()
    products = []
    for k, (first, second, third) in enumerate([(0, 1, 2), (0, 2, 1), (1, 2, 0)]):
        plane = sum(at(g[k], *(unit[a] * (g.shape[2] - 1) for a in (first, second))) for g in field.planes)
        line = sum(at(g[k, :, :, 0], unit[third] * (g.shape[2] - 1)) for g in field.lines)
        products.append(plane * line)
    h = torch.cat([*products, positional_encoding(point, field.multires)])
    for layer in field.layers:
        h = (layer.weight @ h + layer.bias).relu()
    return h


def slow(field, point, direction):
    """Raw colour and raw density of one point."""
    h = slow_features(field, point)
    density = field.density_layer.weight @ h + field.density_layer.bias
    view = [positional_encoding(direction, field.multires_views)] if field.use_viewdirs else []
    hidden, last = field.colour_layers
    colour = last.weight @ (hidden.weight @ torch.cat([h, *view]) + hidden.bias).relu() + last.bias
    return colour, density[0]


@pytest.mark.parametrize("given", [{}, {"use_viewdirs": False}, {"multires": None, "depth": 1}], ids=str)
def test_values_and_gradients(given):
    """Inside of the bounds, on them and outside."""
    field = small(**given)
    points = rand(3, 4, 3, low=-1, high=1) * torch.tensor([1.2, 1.5, 1.0]) + torch.tensor([0, 0.7, 0.3])
    points[0, 0], points[0, 1] = BOUNDS
    directions = torch.nn.functional.normalize(rand(3, 3, low=-1), dim=-1)
    found = field(points, directions)
    rows = [[slow(field, points[r, s], directions[r]) for s in range(4)] for r in range(3)]
    expected = [torch.stack([torch.stack([one[i] for one in row]) for row in rows]) for i in (0, 1)]
    losses = []
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    for outputs in (found, expected):
        loss = sum((output * rand(*output.shape, seed=7)).sum() for output in outputs)
        losses.append(torch.autograd.grad(loss, list(field.parameters())))
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_resolutions_and_points():
    field = small()
    assert [tuple(grid.shape) for grid in field.planes] == [(3, 2, n, n) for n in (9, 5, 3)]
    assert [tuple(grid.shape) for grid in field.lines] == [(3, 2, n, 1) for n in (9, 5, 3)]
    assert field.features(torch.empty(0, 3, dtype=DOUBLE)).shape == (0, 5)


def test_total_variation():
    field = small(tv=0.3)
    [(weight, value)] = field.penalties().values()
    expected = 0
    for grid in (*field.planes, *field.lines):
        for axis in (2, 3):
            if grid.shape[axis] > 1:
                pairs = zip(grid.unbind(axis), grid.unbind(axis)[1:], strict=False)
                expected = expected + torch.stack([(b - a).square() for a, b in pairs]).mean()
    assert weight == 0.3
    torch.testing.assert_close(value, expected)
    found, wanted = (torch.autograd.grad(one, [*field.planes, *field.lines]) for one in (value, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert not small().penalties()


def test_learning_rates():
    field = small()
    grids, layers = field.parameter_groups(0.01)
    assert (grids["lr"], layers["lr"]) == (0.01 * FASTER, 0.01)
    both = {*grids["params"], *layers["params"]}
    assert both == {*field.parameters()}
    assert {*grids["params"]} == {*field.planes, *field.lines}


@pytest.mark.parametrize("extra", [[], ["--skip_empty"], ["--N_importance", "0"], ["--exact_dense"]], ids=str)
def test_resume_is_exact(blender, tmp_path, extra):
    command = [*SMALL, "--ema_decay", "0.5", *extra]
    assert main(options(blender, tmp_path, *command, "--N_iters", "5", name="whole")) == 0
    assert main(options(blender, tmp_path, *command, "--N_iters", "2")) == 0
    assert main(options(blender, tmp_path, *command, "--N_iters", "5")) == 0
    whole, run = (contents(tmp_path, 5, name) for name in ("whole", "run"))
    for key in whole.keys() - {"options", "checksum"}:
        assert same(whole[key], run[key]), key


def test_they_learn():
    config = parse_options(["--config", str(ROOT / "configs/fast/sample.txt"), "--datadir", str(ROOT / "data/sample"),
                            "--planes_resolution", "32", "--N_samples", "32", "--precision", "fp32"])[0]  # fmt: skip
    trainer = create_trainer(config, load_scene(config.data), torch.device("cpu"))
    losses = [trainer.train_step()[0]["colour_fine"][1].item() for _ in range(80)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize("case", ["default", "one pass", "a grid", "in NDC"])
def test_steps_of_fixed_shapes(case):
    """Those that are captured on a GPU, and shared by ranks."""
    found = []
    for fixed in (False, True):
        trainer = trainer_of([*CASES[case], *SMALL], fixed)
        for _ in range(2):
            trainer.train_step()
        found.append(weights(trainer.networks))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("words", "message"), [
    (["--field", "grid"], "--field"),
    (["--planes_resolution", "4"], "--planes_resolution"),
    (["--planes_resolution", "100000"], "--planes_resolution"),
    (["--planes_components", "0"], "--planes_components"),
    (["--planes_components", "100000000"], "--planes_components"),
    (["--planes_tv", "-1"], "--planes_tv"),
])  # fmt: skip
def test_bad_options(words, message):
    with refused(message):
        parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", *SMALL, *words])


def test_options_of_the_other_field(capsys):
    words = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender"]
    for extra, idle in ((["--planes_tv", "1"], "planes_tv without field planes"),
                        (["--field", "planes", "--mi_mlp"], "mi_mlp without field nerf")):  # fmt: skip
        assert any(idle in note for note in parse_options([*words, *extra])[1])


def test_a_checkpoint_of_the_other_field(blender, tmp_path, capsys):
    assert main(options(blender, tmp_path, *SMALL, "--N_iters", "1")) == 0
    assert main(options(blender, tmp_path, *SMALL, "--N_iters", "2", "--field", "nerf")) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "coarse network" in error
    assert "field" in error


def test_bounds_of_a_file_that_are_no_box(blender, tmp_path, capsys):
    command = options(blender, tmp_path, *SMALL)
    assert main([*command, "--N_iters", "1"]) == 0
    content = contents(tmp_path, 1)
    content["network_fn_state_dict"]["bounds"][1] = -9
    del content["checksum"]
    torch.save(content, tmp_path / "logs/run/000001.tar")
    for words in (["--N_iters", "2"], ["--eval_only"]):
        assert main([*command, *words]) == 2
        assert "000001.tar: its entry network_fn_state_dict cannot be used (bounds: found" in capsys.readouterr().err
