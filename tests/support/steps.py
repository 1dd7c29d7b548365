"""Samplers and regularizers of a step in float64, on the scene in memory."""

import torch

from infonerf.training.sampler import SEEN, UNSEEN, RaySampler, cameras_of, central_crop
from loss import entropy_regularizer, smoothness_regularizer
from support.scenes import HEIGHT, WIDTH

THRESHOLD = 0.9


def make_sampler(scene, *, unseen=True, batching=False, neighbourhood=None, crop_until=0, n_seen=3, n_unseen=2):
    pools = {SEEN: (cameras_of(scene, scene.train, 0.0, "cpu", torch.float64), n_seen)}
    if unseen:
        pools[UNSEEN] = (cameras_of(scene, scene.unseen, 0.0, "cpu", torch.float64), n_unseen)
    images = torch.stack([torch.from_numpy(scene.image(view)).double() for view in scene.train])
    crop = central_crop(HEIGHT, WIDTH, 0.5)
    return RaySampler(pools, images, batching=batching, neighbourhood=neighbourhood, crop=crop, crop_until=crop_until)


def make_regularizers(entropy, smoothing, unseen, **changed):
    options = {"kind": "log2", "log_scaling": False, "seen": False, "ignore": False, "activation": "norm"} | changed
    regularizers = []
    if entropy:
        regularizers.append(
            entropy_regularizer(
                weight=0.3, end=None, threshold=THRESHOLD, kind=options["kind"], log_scaling=options["log_scaling"],
                unseen=unseen, seen=options["seen"], neighbours=smoothing and not options["ignore"],
            )
        )
    if smoothing:
        regularizers.append(
            smoothness_regularizer(
                weight=0.2, rate=0.5, step_size=1, end=None, activation=options["activation"], unseen=unseen
            )
        )
    return regularizers
