"""What a loss is: labels and groups of all there are, penalties of fields, and the optimizer's groups of parameters."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from infonerf.config import LossesConfig
from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering.compositing import Rendering
from infonerf.rendering.groups import KNOWN, NEIGHBOURS, SEEN, UNSEEN
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import StepView, loss_terms, needed_groups, total_loss
from loss import colour_losses, losses_of
from support.draws import rand

EVERY_TERM = {
    "entropy": True, "smoothing": True, "carving_lambda": 0.1, "occlusion_lambda": 0.1, "distortion_lambda": 0.1,
    "depth_smooth_lambda": 0.1, "depth_prior_lambda": 0.1,
}  # fmt: skip
NAMES = ["colour_fine", "colour_coarse", "entropy", "smoothing", "carving", "occlusion", "distortion", "depth_smooth",
         "depth_prior"]


class Scaled(Field):
    """A field of one parameter, which is penalised; a parameter of its own learning rate where `slow` says so."""

    def __init__(self, value: float, slow: bool = False):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))
        self.offset = nn.Parameter(torch.tensor(0.0)) if slow else None

    def parameter_groups(self, lrate):
        groups = [{"params": [self.scale], "lr": lrate}]
        return groups if self.offset is None else [*groups, {"params": [self.offset], "lr": lrate / 10}]

    def penalties(self):
        return {"size": (0.5, self.scale.square())}


@pytest.mark.parametrize("n_entropy", [0, 64])
def test_every_loss_has_a_label_and_known_groups(n_entropy):
    """Those of a whole run, and of each term alone; without unseen rays none asks for them."""
    known = {SEEN, NEIGHBOURS[SEEN], KNOWN} | ({UNSEEN, NEIGHBOURS[UNSEEN]} if n_entropy else set())
    wanted = {name: value for name, value in EVERY_TERM.items() if n_entropy or name != "depth_smooth_lambda"}
    losses = losses_of(LossesConfig(N_entropy=n_entropy, **wanted))
    assert [loss.name for loss in losses] == [name for name in NAMES if n_entropy or name != "depth_smooth"]
    assert len(losses) == len(wanted) + 2
    alone = (losses_of(LossesConfig(N_entropy=n_entropy, **{name: value})) for name, value in wanted.items())
    for loss in itertools.chain(losses, *alone):
        assert loss.label.strip() and loss.label.isprintable()
        assert loss.groups and known.issuperset(loss.groups)
    assert len({loss.label for loss in losses}) == len(losses)
    assert needed_groups(losses, 1) == known


def some_view(networks):
    """A step whose renderings have what the colour losses read."""
    rendering = Rendering(None, SimpleNamespace(rgb=rand(4, 3)))
    return StepView.of({SEEN: rendering}, RayBatch({}, rand(4, 3, seed=1), 2.0, 6.0), networks)


def test_penalties_of_fields_are_terms():
    networks = CoarseFine(Scaled(3.0), Scaled(4.0))
    terms = loss_terms(some_view(networks), colour_losses(), 1)
    assert list(terms) == ["colour_fine", "size_coarse", "size_fine"]
    for name, value in (("size_coarse", 9.0), ("size_fine", 16.0)):
        assert (terms[name][0], terms[name][1].item()) == (0.5, value)
    assert total_loss(terms).item() == pytest.approx(terms["colour_fine"][1].item() + 0.5 * 9 + 0.5 * 16)
    total_loss(terms).backward()
    assert [network.scale.grad.item() for network in networks] == [3.0, 4.0]
    assert list(loss_terms(some_view(CoarseFine(Scaled(3.0), None)), [], 1)) == ["size_coarse"]
    assert loss_terms(some_view(None), [], 1) == {}


def test_equal_groups_of_parameters_are_one():
    coarse, fine = Scaled(1.0), Scaled(2.0)
    [group] = CoarseFine(coarse, fine).parameter_groups(0.1)
    assert group.keys() == {"params", "lr"}
    assert group["lr"] == 0.1
    assert all(one is other for one, other in zip(group["params"], [coarse.scale, fine.scale], strict=True))
    [alone] = CoarseFine(coarse, None).parameter_groups(0.1)
    assert len(alone["params"]) == 1


@pytest.mark.parametrize("slow", [(True, True), (True, False), (False, True)], ids=str)
def test_groups_of_another_learning_rate_stay_apart(slow):
    networks = CoarseFine(*(Scaled(value, of_field) for value, of_field in zip((1.0, 2.0), slow, strict=True)))
    fast, apart = networks.parameter_groups(0.1)
    assert (fast["lr"], apart["lr"]) == (0.1, 0.1 / 10)
    offsets = [network.offset for network in networks if network.offset is not None]
    for group, expected in ((fast, [network.scale for network in networks]), (apart, offsets)):
        assert all(one is other for one, other in zip(group["params"], expected, strict=True))
    torch.optim.Adam(networks.parameter_groups(0.1))  # which refuses a parameter that is in two
