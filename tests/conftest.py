"""One thread: the tests' tensors are tiny, and many threads on a busy machine only wait for one another.
And a trained run, which the tests of evaluations share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the tests' own processes

import shutil

import pytest

import run_nerf
from support.devices import pretended_device  # noqa: F401
from support.runs import options
from support.scenes import write_blender, write_dtu


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on a DTU scan with masks, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    scan = write_dtu(folder / "scan", height=16, width=20)
    extra = ["--no_batching", "--train_scene", "0", "3", "--maskdir", str(scan / "mask"), "--N_iters", "2"]
    assert run_nerf.main(options(scan, folder, *extra, "--i_weights", "1", kind="dtu")) == 0
    return folder


@pytest.fixture
def logdir(trained, tmp_path):
    """A copy of the run, so that each test has its own."""
    shutil.copytree(trained / "logs", tmp_path / "logs")
    return tmp_path / "logs" / "run"


@pytest.fixture
def blender(tmp_path):
    return write_blender(tmp_path / "scene")


@pytest.fixture
def dtu(tmp_path):
    return write_dtu(tmp_path / "scan")
