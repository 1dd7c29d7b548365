"""Device discipline without a GPU: on a pretended device, a tensor left on the CPU is an error.

Under torch's FakeTensorMode tensors have shapes and devices but no values, so the draws that decide
something are replaced by constants; everything else of a step and of a rendering is the real code.
The device is CUDA where torch is built with it. A CPU build cannot index tensors of a device that it
was built without; there, a device registered for the purpose stands in.
"""

import re

import numpy as np
import pytest
import torch

import run_nerf
from infonerf.command_line import parse_options
from infonerf.evaluation.estimates import draw_rays
from infonerf.system import devices
from infonerf.system.devices import find_device, has_bfloat16, rank_device
from infonerf.system.errors import InputError
from infonerf.system.graphs import at_once
from infonerf.system.ranks import Ranks
from infonerf.training import fixed_step
from run_nerf import create_trainer
from run_nerf_helpers import create_networks, create_renderer
from support.devices import DEVICE, TINY
from support.scenes import HEIGHT, WIDTH, memory_scene, with_photographs


def test_a_tensor_left_on_the_cpu_is_found(pretended_device):
    """The method itself: mixing devices fails as it would on a GPU."""
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device=DEVICE) + torch.ones(3)


@pytest.mark.parametrize("extra", [
    ["--no_batching", "--N_importance", "5", "--use_viewdirs"],
    ["--no_batching", "--smooth_sampling_method", "near_pixel", "--precrop_iters", "9"],
    ["--N_importance", "5", "--near_c2w_type", "random_pos"],
    ["--no_batching", "--N_importance", "5", "--use_viewdirs", "--skip_empty"],
    ["--no_batching", "--smoothing_activation", "softmax", "--entropy_type", "1-p", "--lindisp"],
], ids=" ".join)  # fmt: skip
def test_training_step_stays_on_the_device(pretended_device, extra):
    config, _ = parse_options(TINY + extra)
    trainer = create_trainer(config, memory_scene(), DEVICE)
    for _ in range(2):  # the second step has an optimizer state
        terms, renderings = trainer.train_step()
    assert trainer.step == 2
    assert all(value.device == DEVICE for _, value in terms.values())
    assert set(renderings) == {"seen", "unseen", "seen_near", "unseen_near"}
    fields = [field for rendering in renderings.values() for field in rendering.fine if field is not None]
    assert all(field.device == DEVICE for field in fields)
    gradients = [parameter.grad for parameter in trainer.networks.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.device == DEVICE for gradient in gradients)
    moments = [value for state in trainer.optimizer.state.values() for name, value in state.items() if name != "step"]
    assert moments
    assert all(moment.device == DEVICE for moment in moments)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("extra", [
    ["--no_batching", "--N_importance", "5", "--use_viewdirs", "--ema_decay", "0.9"],
    ["--no_batching", "--smooth_sampling_method", "near_pixel", "--freq_start", "2", "--freq_end_iter", "9"],
    ["--N_importance", "5", "--near_c2w_type", "random_pos", "--skip_empty", "--range_start", "0.5",
     "--range_end_iter", "9"],
], ids=" ".join)  # fmt: skip
def test_a_step_of_fixed_shapes_stays_on_the_device(pretended_device, monkeypatch, extra, small):
    """And waits for the device but where the host asks how many blocks there are."""
    monkeypatch.setattr(run_nerf, "capture_of", lambda config, networks: lambda work, beside: lambda: at_once(work))
    monkeypatch.setattr(fixed_step, "SMALL", 1e10 if small else 0)
    config, _ = parse_options(TINY + extra)
    trainer = create_trainer(config, memory_scene(), DEVICE)
    for _ in range(3):
        terms, renderings = trainer.train_step()
    expected = {"is it the same gradient?"}  # of the first captured step
    if "--skip_empty" in extra:
        expected.add("which are they?")  # the grid, which here is updated every step
    assert set(pretended_device) == (expected if small else {*expected, "how many are active?"})
    assert all(value.device == DEVICE for _, value in terms.values())
    fields = [field for rendering in renderings.values() for field in rendering.fine if field is not None]
    assert all(field.device == DEVICE for field in fields)
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert all(moment.device == DEVICE for moment in moments)


def test_the_visual_hull_stays_on_the_device(pretended_device):
    config, _ = parse_options([*TINY, "--no_batching", "--skip_empty", "--visual_hull"])
    scene = with_photographs(memory_scene(), alpha=lambda view: np.eye(HEIGHT, WIDTH))
    trainer = create_trainer(config, scene, DEVICE)
    trainer.train_step()
    assert {trainer.occupancy.carved.device, trainer.occupancy.density.device} == {DEVICE}
    trainer.picture_renderer()


@pytest.mark.parametrize("extra", [["--N_importance", "0"], ["--N_importance", "5"], ["--skip_empty"]], ids=" ".join)
def test_rendering_stays_on_the_device(pretended_device, extra):
    config, _ = parse_options([*TINY, "--use_viewdirs", *extra])
    scene = memory_scene(pixel_center=0.5)
    networks = create_networks(config, scene, DEVICE, torch.Generator())
    renderer = create_renderer(config, scene, networks).for_pictures(networks)
    renderer.chunk = 7
    image = renderer.image(scene.cameras.at([1]))
    assert image.rgb.shape == (HEIGHT, WIDTH, 3)
    assert all(field.device == DEVICE for field in image)


def test_rays_to_measure_lie_on_the_device(pretended_device):
    scene = with_photographs(memory_scene(pixel_center=0.5), mask=lambda view: np.eye(HEIGHT, WIDTH, dtype=bool))
    [part] = draw_rays(scene, [1], 5, DEVICE)
    assert {part.rays.origins.device, part.rays.directions.device, part.truth.device} == {DEVICE}
    assert (part.truth.shape, part.mask.device.type) == ((5, 3), "cpu")


def no_kernels(*_, **__):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")


def test_a_gpu_that_computes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", no_kernels)
    assert find_device("auto") == torch.device("cpu")
    assert re.search(r"WARNING: the GPU cannot be used \(CUDA error: no kernel .* device\)", capsys.readouterr().out)
    with pytest.raises(InputError, match=r"--device cuda:0: found a device that cannot be used \(CUDA error"):
        find_device("cuda:0")


def test_each_rank_has_its_own_gpu(monkeypatch):
    assert rank_device("auto", Ranks(1, 2, 1)) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "fault_of", lambda device: None)
    for name in ("auto", "cuda"):
        assert [str(rank_device(name, Ranks(3, 4, local))) for local in (0, 1)] == ["cuda:0", "cuda:1"]
    assert rank_device("cpu", Ranks(1, 2, 1)) == torch.device("cpu")
    assert rank_device("cuda:1", Ranks.alone()) == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"torchrun: found 2 GPUs for more processes .*, expected --nproc_per_node 2"):
        rank_device("auto", Ranks(2, 3, 2))
    with pytest.raises(InputError, match=r"--device cuda:0: expected auto, cpu or cuda under torchrun"):
        rank_device("cuda:0", Ranks(1, 2, 1))


def test_precision_on_a_gpu_that_is_only_pretended(monkeypatch):
    """PyTorch for CUDA on a machine without one: asking the driver would be an error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not has_bfloat16(torch.device("cuda:0"))
