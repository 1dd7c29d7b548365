"""A pretended device, on which tensors have shapes and no values (test_device.py says why)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import run_nerf
import run_nerf_helpers
from infonerf.rendering import occupancy, sparse
from infonerf.scene.cameras import Cameras
from infonerf.scene.scene import Scene
from infonerf.training import fixed_step, neighbours, sampler
from infonerf.training.generators import create_generators


def pretend() -> torch.device:
    if torch.backends.cuda.is_built():
        return torch.device("cuda:0")
    _setup_privateuseone_for_python_backend("pretended")
    return torch.device("pretended:0")


DEVICE = pretend()
TINY = [
    "--expname", "t", "--datadir", "d", "--dataset_type", "blender", "--netwidth", "8", "--netwidth_fine", "8",
    "--N_rand", "6", "--N_entropy", "4", "--N_samples", "4", "--white_bkgd", "--entropy", "--chunk", "16",
    "--entropy_ray_zvals_lambda", "0.1", "--smoothing", "--smoothing_lambda", "0.1", "--smooth_pixel_range", "2",
    "--raw_noise_std", "1",
]  # fmt: skip


def with_values(function):
    """A scene's cameras have values: its numbers are computed on the CPU, for the most part by numpy."""

    def call(*args):
        with unset_fake_temporarily():
            return function(*args)

    return call


class Pretence(FakeTensorMode):
    """Takes tensors that have values, and never asks the device to hold one of them."""

    avoid_device_init = True


def with_other(module, **names):
    """A module in which some names are others."""
    return SimpleNamespace(**vars(module) | names)


def added(parameters, gradients, *moments, lr, found_inf, **settings):
    """In place of Adam's fused kernel, which knows no tensors without values."""
    for parameter, *parts in zip(parameters, gradients, *moments[:2], strict=True):
        parameter.add_(sum(parts) * lr * (1 if found_inf is None else found_inf))


@contextmanager
def pretending() -> Iterator[list[str]]:
    """Tensors without values on DEVICE. Yields a list that grows with every wait for the device: what the host would
    decide by is replaced by constants."""
    waits = []

    def constant(name, value):
        return lambda *args: waits.append(name) or value(*args)

    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer")  # where networks are copied
        for module in (sampler, neighbours):
            monkeypatch.setattr(module, "random_integer", lambda low, high, generator: low)
        monkeypatch.setattr(sampler, "distinct_integers", lambda n, high, generator: torch.arange(n))
        finite = constant("is the gradient finite?", lambda loss: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # nor is a real one asked for anything
        monkeypatch.setattr(run_nerf, "torch", with_other(torch, isfinite=finite))
        for module in (occupancy, sparse):
            every = constant("which are they?", lambda mask: torch.arange(len(mask), device=mask.device))
            monkeypatch.setattr(module, "nonzero_indices", every)
        monkeypatch.setattr(fixed_step, "alike", constant("is it the same gradient?", lambda *both: True))
        monkeypatch.setattr(fixed_step, "numbers", constant("how many are active?", lambda counts: [9] * len(counts)))
        for owner, name in (
            (torch.Tensor, "numpy"), (Cameras, "of_arrays"), (Cameras, "at"), (Scene, "unseen_cameras"),
            (run_nerf_helpers, "bounds_of"), (run_nerf_helpers, "carved_cells"),
            (run_nerf_helpers, "known_pixels"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, with_values(getattr(owner, name)))
        monkeypatch.setattr(torch, "_fused_adam_", added)
        cpu_generators = create_generators(0, torch.device("cpu"))
        monkeypatch.setattr(run_nerf, "create_generators", lambda seed, device: cpu_generators)
        with Pretence(allow_non_fake_inputs=True):
            yield waits


@pytest.fixture
def pretended_device(monkeypatch):
    monkeypatch.setattr(occupancy, "EVERY", 1)
    monkeypatch.setattr(occupancy, "WARM_UP", 1)
    with pretending() as waits:
        yield waits
