"""A pretended device, on which tensors have shapes and no values (test_device.py says why)."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import run_nerf_helpers as build
from infonerf.rendering import occupancy, sparse
from infonerf.training import sampler as rays


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


@pytest.fixture
def pretended_device(monkeypatch):
    monkeypatch.setattr(rays, "random_integer", lambda low, high, generator: low)
    monkeypatch.setattr(rays, "distinct_integers", lambda n, high, generator: torch.arange(n))
    monkeypatch.setattr(torch, "isfinite", lambda loss: True)
    for module in (occupancy, sparse):
        monkeypatch.setattr(module, "numbers_of", lambda mask: torch.arange(len(mask), device=mask.device))
    monkeypatch.setattr(occupancy, "EVERY", 1)
    monkeypatch.setattr(occupancy, "WARM_UP", 1)
    cpu_generators = build.build_generators(0, torch.device("cpu"))
    monkeypatch.setattr(build, "build_generators", lambda seed, device: cpu_generators)
    with FakeTensorMode():
        yield
