"""average.py and --ema_decay: the average against a slow one, its place in checkpoints, and who looks at it."""

import json

import torch

import evaluate
from infonerf.command_line import parse_options
from infonerf.evaluation.record import Record
from infonerf.evaluation.views import checksum_of
from infonerf.fields.average import WeightAverage
from infonerf.training import checkpoint
from run_nerf import create_trainer, main
from run_nerf_helpers import create_networks, load_scene
from support.runs import contents, same
from support.runs import options as training_options
from support.scenes import small_networks


def options(*arguments, **further):
    return [*training_options(*arguments, **further), "--density_bias", "0.5"]


def test_the_average_of_a_sequence_of_weights():
    networks = small_networks(3, True)
    first = [p.detach().clone() for p in networks.parameters()]
    average = WeightAverage(networks, 0.4)
    expected = [p.clone() for p in first]
    for step in range(1, 7):
        with torch.no_grad():
            for k, p in enumerate(networks.parameters()):
                p.copy_(first[k] * (1 + step * step))
        average.update(networks, step)
        keep = min(0.4, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13, 5/14, 0.4, 0.4
        expected = [keep * e + (1 - keep) * f * (1 + step * step) for e, f in zip(expected, first, strict=True)]
    for mine, theirs in zip(average.networks.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)
        assert not mine.requires_grad


def test_training_is_not_changed_and_resumes_exactly(blender, tmp_path):
    extra = ["--no_batching", "--mi_mlp", "--freq_start", "2", "--freq_end_iter", "20"]
    assert main(options(blender, tmp_path, *extra, "--N_iters", "5", name="plain")) == 0
    extra += ["--ema_decay", "0.5"]
    assert main(options(blender, tmp_path, *extra, "--N_iters", "5", name="whole")) == 0
    assert main(options(blender, tmp_path, *extra, "--N_iters", "2")) == 0
    assert main(options(blender, tmp_path, *extra, "--N_iters", "5")) == 0
    plain, whole, run = (contents(tmp_path, 5, name) for name in ("plain", "whole", "run"))
    for key in ("network_fn_state_dict", "network_fine_state_dict", "optimizer_state_dict"):
        assert same(plain[key], whole[key])
    for key in whole.keys() - {"options", "checksum"}:
        assert same(whole[key], run[key]), key
    assert not any("average" in key for key in plain)
    for key in ("network_fn", "network_fine"):
        assert not same(whole[f"{key}_average_state_dict"], whole[f"{key}_state_dict"])


def test_the_average_is_what_is_rendered(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching", "--ema_decay", "0.9", "--lrate", "0.01", "--N_iters", "6")
    assert main([*command, "--i_testset", "6"]) == 0
    folder = tmp_path / "logs/run/testset_000006"
    during = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").unlink()
    assert evaluate.main([str(tmp_path / "logs/run"), "--device", "cpu"]) == 0
    assert Record.read(folder / "metrics.json").weights == json.loads(during)["weights"]
    config, _ = parse_options(command)
    networks = create_networks(config, load_scene(config.data), torch.device("cpu"), torch.Generator())
    found = checkpoint.read(tmp_path / "logs/run/000006.tar")
    found.load(checkpoint.network_parts(networks, checkpoint.AVERAGE_KEYS))
    assert checksum_of(networks) == json.loads(during)["weights"]
    found.load(checkpoint.network_parts(networks))
    assert checksum_of(networks) != json.loads(during)["weights"]


def test_the_frequencies_of_the_average_are_those_of_the_step(blender, tmp_path):
    extra = ["--no_batching", "--freq_start", "2", "--freq_end_iter", "20", "--ema_decay", "0.9"]
    config, _ = parse_options(options(blender, tmp_path, *extra))
    trainer = create_trainer(config, load_scene(config.data), torch.device("cpu"))
    for _ in range(3):
        trainer.train_step()
    rendered = trainer.picture_renderer().networks
    assert torch.equal(rendered.fine.masks[0], trainer.networks.fine.masks[0])
    assert rendered.fine is not trainer.networks.fine


def test_an_average_that_begins_later_is_said(blender, tmp_path, capsys):
    command = options(blender, tmp_path, "--no_batching")
    assert main([*command, "--N_iters", "2"]) == 0
    assert main([*command, "--N_iters", "3", "--ema_decay", "0.9"]) == 0
    assert "holds no averaged weights, starting the average from its weights" in capsys.readouterr().out
    first, second = contents(tmp_path, 2), contents(tmp_path, 3)
    for key, value in second["network_fn_average_state_dict"].items():
        before, after = (content["network_fn_state_dict"][key] for content in (first, second))
        torch.testing.assert_close(value, before + (after - before) * (1 - 4 / 13))
