"""Samplers, losses and renderers of a step in float64, on the scene in memory."""

import torch

from infonerf.config import LossesConfig
from infonerf.rendering.groups import SEEN, UNSEEN
from infonerf.training.sampler import RaySampler, TrainingColours
from infonerf.training.terms import Loss
from loss import losses_of

THRESHOLD = 0.9


def training_colours(scene, dtype=torch.float64) -> TrainingColours:
    """The colours of the scene's training views."""
    images = [torch.from_numpy(scene.photographs.image(view)).to(dtype).flatten(0, 1) for view in scene.split.train]
    return TrainingColours(torch.cat(images))


def make_sampler(scene, *, unseen=True, batching=False, neighbourhood=None, crop_until=0, n_seen=3, n_unseen=2):
    pools = {SEEN: (scene.cameras.at(scene.split.train), n_seen)}
    if unseen:
        pools[UNSEEN] = (scene.cameras.at(scene.split.unseen), n_unseen)
    return RaySampler(pools, training_colours(scene), batching=batching, neighbourhood=neighbourhood,
                      crop_fraction=0.5, crop_until=crop_until)  # fmt: skip


def make_losses(entropy, smoothing, unseen, **changed) -> list[Loss]:
    """Colour, and ray entropy (weight 0.3) and KL smoothness (0.2, halved every step) where they are asked for."""
    names = {"kind": "entropy_type", "log_scaling": "entropy_log_scaling", "seen": "computing_entropy_all",
             "ignore": "entropy_ignore_smoothing", "activation": "smoothing_activation"}  # fmt: skip
    options = {names[name]: value for name, value in changed.items()}
    return losses_of(LossesConfig(
        entropy=entropy, N_entropy=2 if unseen else 0, entropy_ray_zvals_lambda=0.3, entropy_acc_threshold=THRESHOLD,
        smoothing=smoothing, smoothing_lambda=0.2, smoothing_rate=0.5, smoothing_step_size=1, **options,
    ))  # fmt: skip
