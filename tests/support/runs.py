"""Tiny runs of run_nerf.py, and what they leave behind."""

from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ["--netdepth", "2", "--netdepth_fine", "6", "--netwidth", "8", "--netwidth_fine", "8", "--use_viewdirs"]
RAYS = ["--N_rand", "6", "--N_entropy", "4", "--N_samples", "4", "--N_importance", "3", "--chunk", "16"]
LOSSES = ["--entropy", "--entropy_ray_zvals_lambda", "0.01", "--smoothing", "--smoothing_lambda", "0.01"]


def options(scene, tmp_path, *extra, kind="blender", name="run"):
    where = ["--expname", name, "--basedir", str(tmp_path / "logs"), "--datadir", str(scene), "--dataset_type", kind]
    return [*where, *NETWORK, *RAYS, "--device", "cpu", "--i_print", "1", *extra]


def contents(tmp_path, step, name="run"):
    return torch.load(tmp_path / "logs" / name / f"{step:06d}.tar", weights_only=True)


def same(a, b):
    """Equal bit for bit, through dictionaries, lists and tensors."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def losses_printed(text):
    """step -> the line of a step without its speed."""
    lines = (line.rsplit("  ", 1)[0] for line in text.splitlines() if line.startswith("step "))
    return {int(line.split()[1]): line for line in lines}


def scalars(folder):
    """TensorBoard's scalars: tag -> {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
