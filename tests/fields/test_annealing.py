"""Frequency annealing: the bands that a step shows, in the network, in training and in what is rendered from it.
Annealing of the range of depths: what rays of a step have, and that pictures have the whole."""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.fields.field import CoarseFine
from infonerf.fields.nerf import Annealing, NeRF, band_weights, positional_encoding
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.scene import with_depth_range
from infonerf.training.terms import StepView, loss_terms, total_loss
from loss import colour_losses
from run_nerf import create_trainer, main
from run_nerf_helpers import create_networks, create_sampler, load_scene
from support.draws import rand
from support.runs import LOSSES, options
from support.scenes import memory_scene, write_blender


@pytest.mark.parametrize(("start", "end", "multires", "multires_views"), [(0, 10, 4, 2), (2, 7, 3, 4), (3, 5, 3, 2)])
def test_annealed_frequencies(start, end, multires, multires_views):
    """Band by band, from the formula; from the last step on there is no mask at all."""
    network = NeRF(2, 8, multires=multires, multires_views=multires_views, annealing=Annealing(start, end)).double()
    assert network.masks
    for step in range(end + 3):
        network.set_step(step)
        if step >= end:
            assert network.masks is None
            continue
        shown = start + (multires - start) * step / end
        expected = [1.0] * 3
        for k in range(multires):
            expected += [min(max(shown - k, 0), 1)] * 6
        assert network.masks[0].tolist() == pytest.approx(expected)
        x = rand(4, 3, low=-1)
        views = positional_encoding(x, multires_views)
        for k in range(multires_views):
            views[:, 3 + 6 * k : 9 + 6 * k] *= min(max(shown * multires_views / multires - k, 0), 1)
        torch.testing.assert_close(network.encode_directions(x), views)


def test_shown_frequencies():
    assert band_weights(2, 0.0).tolist() == [1] * 3 + [0] * 12
    assert band_weights(2, 1.25).tolist() == [1] * 9 + [0.25] * 6
    assert band_weights(2, 2.0).tolist() == [1] * 15


def test_hidden_frequencies_have_no_part():
    """A network of which all but two frequencies are hidden is one of two frequencies."""
    big, small = (NeRF(7, 8, multires=n, multires_views=n, generator=torch.Generator().manual_seed(0)).double()
                  for n in (4, 2))  # fmt: skip
    big.annealing = Annealing(2, 10)
    big.set_step(0)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            source = big.get_parameter(name)
            if name == "pts_linears.5.weight":
                source = torch.cat([source[:, :15], source[:, 27:]], dim=1)
            parameter.copy_(source[:, : parameter.shape[1]] if parameter.ndim == 2 else source)
    points, views = rand(3, 2, 3), rand(3, 3, seed=1)
    torch.testing.assert_close(big(points, views), small(points, views))


@pytest.mark.parametrize("query", ["sparse", "dense", "skip_empty"])
def test_the_mask_is_that_of_the_step(tmp_path, query):
    """In training, and in what is rendered from a checkpoint."""
    scene = write_blender(tmp_path / "scene")
    extra = {"sparse": [], "dense": ["--exact_dense"], "skip_empty": ["--skip_empty"]}[query]
    command = options(scene, tmp_path, "--no_batching", *extra, "--freq_start", "2", "--freq_end_iter", "8")
    command += ["--density_bias", "0.5", "--N_iters", "3"]
    config, _ = parse_options(command)
    loaded = load_scene(config.data)
    trainer = create_trainer(config, loaded, torch.device("cpu"))
    for _ in range(3):
        trainer.train_step()
    assert trainer.networks.fine.masks[0][3::6].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    expected = trainer.picture_renderer().image(loaded.cameras.at([loaded.split.test[0]])).rgb
    assert main(command) == 0
    assert main([*command, "--render_only", "--testskip", "0", "--i_img", "0"]) == 0
    [path, *_] = sorted(tmp_path.glob("logs/run/renderonly_test_000003/*r_0.png"))
    np.testing.assert_allclose(iio.imread(path) / 255, expected.numpy(), atol=0.51 / 255)


def test_masked_gradients_of_both_queries():
    """The backward pass of the sparse query evaluates the features again."""
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "6",
                             "--use_viewdirs", "--netwidth", "8", "--netwidth_fine", "8", "--N_importance", "4",
                             "--freq_end_iter", "9", "--density_bias", "1"])  # fmt: skip
    scene, cpu = memory_scene(), torch.device("cpu")
    networks = create_networks(config, scene, cpu, torch.Generator().manual_seed(1))
    networks = CoarseFine(*(network.double() for network in networks))
    sampler = create_sampler(config, scene, cpu)
    batch = sampler.draw(1, {"seen"}, torch.Generator().manual_seed(0))
    groups = {name: replace(rays, origins=rays.origins.double(), directions=rays.directions.double())
              for name, rays in batch.groups.items()}  # fmt: skip
    batch = batch._replace(groups=groups, target=batch.target.double())
    gradients = []
    for step, query in ((4, SparseQuery(7)), (4, DenseQuery(64)), (9, DenseQuery(64))):
        networks.set_step(step)
        renderer = Renderer(networks, Sampling(4, 4), query=query, chunk=99)
        renderings = renderer.groups(batch.groups, torch.Generator().manual_seed(2))
        terms = loss_terms(StepView.of(renderings, batch), colour_losses(), step)
        gradients.append(torch.autograd.grad(total_loss(terms), networks.parameters()))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-12)
    assert not torch.allclose(gradients[1][0], gradients[2][0])
    assert (gradients[1][0][:, 3 + 6 * 5 :] == 0).all()


# ---- the range of depths --------------------------------------------------------------------------------------------

RANGE = ["--range_start", "0.25", "--range_end_iter", "8"]
SMALL = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--no_batching", "--N_rand", "4",
         "--N_entropy", "4", "--use_viewdirs", "--netwidth", "8", "--netwidth_fine", "8", "--N_importance", "4",
         *LOSSES]  # fmt: skip
GROUPS = {"seen", "unseen", "seen_near", "unseen_near"}


def test_range_of_each_step():
    """Of all groups, by RegNeRF's formula; the same rays but for their depths; from the end on exactly near and far."""
    scene = with_depth_range(memory_scene(), 0.1, 5.0)
    narrow, whole = (create_sampler(parse_options([*SMALL, *extra])[0], scene, torch.device("cpu"))
                     for extra in (RANGE, []))  # fmt: skip
    for step in range(1, 11):
        fraction = min(max(step / 8, 0.25), 1)
        batch, other = (sampler.draw(step, GROUPS, torch.Generator().manual_seed(step)) for sampler in (narrow, whole))
        assert batch.groups.keys() == GROUPS
        for group, rays in batch.groups.items():
            assert torch.equal(rays.directions, other.groups[group].directions)
            assert (rays.near, rays.far) == pytest.approx((2.55 - fraction * 2.45, 2.55 + fraction * 2.45))
            assert step < 8 or (rays.near, rays.far) == (0.1, 5.0)


@pytest.mark.parametrize("query", [[], ["--exact_dense"], ["--skip_empty"]], ids=str)
def test_pictures_have_the_whole_range(query):
    scene, pictures = memory_scene(), []
    for extra in (RANGE, []):
        config, _ = parse_options([*SMALL, *query, *extra, "--density_bias", "0.5"])
        trainer = create_trainer(config, scene, torch.device("cpu"))
        pictures.append(trainer.picture_renderer().image(scene.cameras.at([5])))
    assert torch.equal(pictures[0].depth, pictures[1].depth)
    assert (pictures[0].acc > 0.5).any()


def test_training_samples_the_range_of_the_step():
    config, _ = parse_options([*SMALL, *RANGE, "--density_bias", "0.5"])
    trainer = create_trainer(config, memory_scene(), torch.device("cpu"))
    for step in range(1, 10):
        _, renderings = trainer.train_step()
        half = 2 * min(max(step / 8, 0.25), 1)
        z = renderings["unseen"].coarse.z
        assert 4 - half <= z.min() < 4 - 0.7 * half
        assert 4 + 0.7 * half < z.max() <= 4 + half
