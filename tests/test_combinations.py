"""Every combination of losses, sampling modes and image options takes two steps on a scene from files."""

import itertools

import pytest
import torch

from infonerf.command_line import parse_options
from run_nerf import create_trainer
from run_nerf_helpers import load_scene
from support.scenes import write_blender, write_dtu

FLAGS = ("entropy", "smoothing", "no_batching", "use_viewdirs", "white_bkgd", "half_res")
TINY = [
    "--expname", "x", "--netdepth", "2", "--netdepth_fine", "2", "--netwidth", "4", "--netwidth_fine", "4", "--N_rand",
    "3", "--N_entropy", "2", "--N_samples", "4", "--smooth_pixel_range", "2", "--entropy_ray_zvals_lambda", "0.01",
    "--smoothing_lambda", "0.01", "--dataset_type",
]  # fmt: skip


def lit(trainer):
    """The trainer with density somewhere: about half of all initial networks have none, and then no gradient."""
    for network in trainer.networks:
        density = network.alpha_linear.bias if network.use_viewdirs else network.output_linear.bias
        torch.nn.init.constant_(density, 1.0)
    return trainer


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return {"blender": write_blender(folder / "blender"), "dtu": write_dtu(folder / "dtu")}


@pytest.mark.parametrize("kind", ["blender", "dtu"])
@pytest.mark.parametrize("near", ["near_pose", "near_pixel"])
@pytest.mark.parametrize("n_importance", [0, 3])
@pytest.mark.parametrize("precrop_iters", [0, 2])
def test_two_steps(scenes, kind, near, n_importance, precrop_iters):
    for values in itertools.product((False, True), repeat=len(FLAGS)):
        chosen = dict(zip(FLAGS, values, strict=True))
        words = [*TINY, kind, "--datadir", str(scenes[kind]), "--train_scene", "0", "2", "--N_importance"]
        words += [str(n_importance), "--precrop_iters", str(precrop_iters), "--smooth_sampling_method", near]
        config, _ = parse_options(words + [word for flag, on in chosen.items() for word in (f"--{flag}", str(on))])
        trainer = lit(create_trainer(config, load_scene(config.data), torch.device("cpu")))
        before = [parameter.detach().clone() for parameter in trainer.networks.parameters()]
        for _ in range(2):
            terms, renderings = trainer.train_step()
        rays = {"seen"} | ({"unseen"} if config.losses.entropy else set())
        near_rays = {f"{group}_near" for group in rays} if config.losses.smoothing else set()
        assert set(renderings) == rays | near_rays, chosen
        names = {"colour_fine"} | ({"colour_coarse"} if n_importance else set())
        names |= {name for name in ("entropy", "smoothing") if chosen[name]}
        assert set(terms) == names, chosen
        assert all(torch.isfinite(parameter).all() for parameter in trainer.networks.parameters()), chosen
        changed = [not torch.equal(*pair) for pair in zip(before, trainer.networks.parameters(), strict=True)]
        assert any(changed), chosen
