"""Trainers of tiny steps, plain or of fixed shapes, on any device."""

import itertools
from dataclasses import replace

import numpy as np
import torch

from infonerf.command_line import parse_options
from infonerf.rendering import occupancy
from infonerf.training.sampler import TrainingColours
from run_nerf import create_fixed_stepper, create_trainer
from support import graphs
from support.devices import TINY
from support.scenes import HEIGHT, WIDTH, forward_scene, known_at_random, memory_scene, with_photographs

CPU = torch.device("cpu")
DEFAULT = ["--no_batching", "--N_importance", "5", "--use_viewdirs"]
CASES = {
    "default": DEFAULT,
    "one pass": ["--no_batching", "--N_importance", "0"],
    "all views mixed": ["--N_importance", "5", "--near_c2w_type", "random_pos"],
    "other forms of the losses": [
        *DEFAULT, "--smoothing_activation", "softmax", "--entropy_type", "1-p", "--lindisp",
        "--smooth_sampling_method", "near_pixel", "--computing_entropy_all",
    ],
    "small chunks": [*DEFAULT, "--chunk", "5", "--perturb", "0", "--entropy_log_scaling"],
    "schedules": [
        *DEFAULT, "--freq_start", "2", "--freq_end_iter", "4", "--range_start", "0.5", "--range_end_iter",
        "5", "--entropy_start_iter", "2", "--entropy_ramp", "3", "--smoothing_end_iter", "3", "--ema_decay", "0.9",
    ],
    "beyond the paper": [
        *DEFAULT, "--carving_lambda", "0.1", "--random_bkgd", "--occlusion_lambda", "0.1", "--occlusion_samples", "2",
        "--distortion_lambda", "0.1", "--mi_mlp",
    ],
    "known depths": [
        *DEFAULT, "--depth_prior_lambda", "0.1", "--N_depth", "7", "--depth_prior_sigma", "0.1",
        "--depth_prior_end_iter", "6", "--range_start", "0.5", "--range_end_iter", "5",
    ],
    "a grid": [*DEFAULT, "--skip_empty", "--visual_hull"],
    "in NDC": [*DEFAULT, "--dataset_type", "llff", "--skip_empty", "--range_start", "0.5", "--range_end_iter", "5"],
}  # fmt: skip
RGBA = with_photographs(memory_scene(pixel_center=0.5), alpha=lambda view: np.eye(HEIGHT, WIDTH, dtype=np.float32))
RGBA = known_at_random(RGBA)

FORWARD = forward_scene()


def trainer_of(options, fixed=False, capture=None, device=CPU, precision="fp32", dtype=torch.float64, ranks=None):
    """A trainer whose steps are the plain ones or of fixed shapes. dtype: of networks and rays; with another precision
    they are as always."""
    given = [*TINY, "--density_bias", "0.3", "--precision", precision, "--netchunk", "32", *options]
    config = parse_options(given)[0].replace(cuda_graphs=fixed)
    trainer = create_trainer(config, FORWARD if config.data.dataset_type == "llff" else RGBA, device)
    if precision == "fp32":
        for networks in (trainer.networks, *([trainer.average.networks] if trainer.average else [])):
            for network in networks:
                network.to(dtype).set_step(0)
        pools, colours = trainer.sampler.pools, trainer.sampler.colours
        trainer.sampler.pools = {group: (cameras.to(device, dtype), n) for group, (cameras, n) in pools.items()}
        trainer.sampler.colours = TrainingColours(*(part if part is None else part.to(dtype) for part in colours))
    if fixed:
        trainer.ranks = ranks or trainer.ranks
        trainer.fixed = create_fixed_stepper(trainer, config, capture)
    for group in trainer.optimizer.param_groups if fixed else ():
        group["lr"] = torch.as_tensor(group["lr"], device=device)
    return trainer


def weights(networks):
    """Copies; of the averaged ones, of an average."""
    networks = getattr(networks, "networks", networks)
    return [parameter.detach().clone() for parameter in networks.parameters()]


def asking(losses):
    """The losses, the first of which waits for the device to say what its value is."""

    def value(view):
        found = losses[0].value(view)
        assert float(found.detach()) >= 0
        return found

    return [replace(losses[0], value=value), *losses[1:]]


# What ranks share.

STEPS = 20
FORMS = {
    "entropy": {"": [], "log of the entropy": ["--entropy_log_scaling"], "no entropy": ["--entropy", "False"]},
    "smoothing": {"": [], "near pixels": ["--smooth_sampling_method", "near_pixel"],
                  "no smoothing": ["--smoothing", "False"]},
    "rays": {"": [], "seen, too": ["--computing_entropy_all"]},
}  # fmt: skip
SPECIAL = {
    "fewer rays than ranks": [*DEFAULT, "--N_rand", "1", "--N_entropy", "1"],
    "patches": [*DEFAULT, "--depth_smooth_lambda", "0.1", "--N_entropy", "64", "--smoothing", "False"],
}
SHARED = CASES | SPECIAL | {
    ", ".join(names): sum((form[name] for form, name in zip(FORMS.values(), names, strict=True)), DEFAULT)
    for names in itertools.product(*FORMS.values())
}
SHARED = {case: [*options, "--netchunk", "50"] for case, options in SHARED.items()}


def steps_of(trainer):
    """The losses of some steps, and the weights after them."""
    losses = []
    for _ in range(STEPS):
        terms, _ = trainer.train_step()
        losses.append(sum(weight * value for weight, value in terms.values()).detach())
    return torch.stack(losses), weights(trainer.networks)


def shared_results(cases, ranks, captured=False):
    """Of each case, by a rank that does its share."""
    torch.set_num_threads(1)
    occupancy.EVERY, occupancy.WARM_UP = 2, 3
    found = {}
    for case in cases:
        trainer = trainer_of(SHARED[case], fixed=True, capture=graphs.capture if captured else None, ranks=ranks)
        for group, lrate in zip(trainer.optimizer.param_groups, trainer.lrates, strict=True):
            group["lr"] = torch.tensor(lrate, dtype=torch.float64) if captured else lrate
        found[case] = steps_of(trainer)
    return found
