"""Known depths: from the scene's pixels to rays, and to the depth prior's loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import run_nerf_helpers
from infonerf.command_line import parse_options
from infonerf.config import LossesConfig
from infonerf.rendering.compositing import Rendering, composite
from infonerf.rendering.groups import KNOWN, SEEN
from infonerf.scene import swept_depths
from infonerf.scene.cameras import Cameras
from infonerf.scene.known_depths import KnownDepths
from infonerf.scene.trusted_depths import DepthMap
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import StepView, loss_terms
from load_blender import load_blender
from loss import depth_prior, depth_prior_loss
from run_nerf import create_trainer, main
from run_nerf_helpers import create_sampler, described, known_pixels
from support import reference
from support.devices import DEVICE, TINY
from support.draws import DOUBLE, assert_uniform, rand, seeded
from support.runs import LOSSES, contents, losses_printed, options, same
from support.scenes import HEIGHT, WIDTH, known_at_random, memory_scene, write_blender

CPU = torch.device("cpu")
WORDS = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "6", "--N_samples", "4",
         "--N_importance", "3", "--netwidth", "8", "--netwidth_fine", "8", "--precision", "fp32", "--density_bias",
         "0.5"]  # fmt: skip
PRIOR = ["--depth_prior_lambda", "0.1", "--depth_prior_sigma", "0.05", "--N_depth", "5"]


# ---- the loss -------------------------------------------------------------------------------------------------------


def along_rays(n=5, s=6, seed=0):
    """A composite of n rays, and the raw densities that it depends on."""
    raw = rand(n, s, seed=seed, low=-1, high=2).requires_grad_()
    z = rand(n, s, seed=seed + 1, low=2, high=6).sort(-1).values
    return composite(rand(n, s, 3, seed=seed + 2), raw, z, rand(n, 3, seed=seed + 3, low=-1)), raw


def known_view(fine, coarse=None, depths=None, weights=None):
    n = len(fine.acc)
    depths = rand(n, seed=8, low=2, high=6) if depths is None else depths
    weights = rand(n, seed=9, high=2) if weights is None else weights
    batch = RayBatch({}, torch.empty(0, 3), 2.0, 6.0, known_depths=depths, known_weights=weights)
    return StepView.of({KNOWN: Rendering(coarse, fine)}, batch)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("sigma", [0.003, 0.1, 1.0])
def test_against_the_reference(coarse, sigma):
    """Values and gradients; sigma is a fraction of far - near, which is 4."""
    (fine, raw), (first, raw_first) = along_rays(), along_rays(seed=20)
    view = known_view(fine, first if coarse else None)
    value = depth_prior(LossesConfig(depth_prior_lambda=0.1, depth_prior_sigma=sigma)).value(view)
    expected = 0
    for one in (fine, first)[: 1 + coarse]:
        rays = [{"weights": one.weights[r], "z": one.z[r]} for r in range(len(one.acc))]
        expected = expected + reference.depth_prior_term(
            rays, view.batch.known_depths, view.batch.known_weights, 4 * sigma
        )
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-14)
    inputs = [raw, raw_first][: 1 + coarse]
    ours, theirs = (torch.autograd.grad(x, inputs, retain_graph=True) for x in (value, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in ours)


def test_gradients_by_finite_differences():
    z, known = rand(4, 6, low=2, high=6).sort(-1).values, rand(4, seed=1, low=2, high=6)
    weights = rand(4, 6, seed=2, low=0.01, high=0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: depth_prior_loss(w, z, known, 0.4), weights)


def test_least_where_the_weights_are_at_the_known_depth():
    """All of the weight in one sample's interval: 0 where the depth lies in it, and what is far off is bounded."""
    z = torch.tensor([[2.0, 3.0, 4.0, 5.0, 6.0]], dtype=DOUBLE).expand(5, 5)
    for known, best in ((2.5, 0), (3.5, 1), (5.5, 3), (9.0, 4)):  # the last interval has no end
        found = depth_prior_loss(torch.eye(5, dtype=DOUBLE), z, torch.full((5,), known, dtype=DOUBLE), 0.05)
        others = torch.arange(5) != best
        assert found[best].item() == pytest.approx(-math.log(1.01))
        assert found[others].tolist() == pytest.approx([-math.log(0.01)] * 4)
    empty = depth_prior_loss(torch.zeros(1, 5, dtype=DOUBLE), z[:1], torch.full((1,), 3.5, dtype=DOUBLE), 0.05)
    assert empty.item() == pytest.approx(-math.log(0.01))


def test_a_gap_of_sigma_and_the_unit_of_depth():
    z, weights = torch.tensor([[2.0, 3.0, 4.0]], dtype=DOUBLE), torch.tensor([[0.0, 0.5, 0.0]], dtype=DOUBLE)
    for known in (2.9, 4.1):
        found = depth_prior_loss(weights, z, torch.tensor([known], dtype=DOUBLE), 0.1)
        assert found.item() == pytest.approx(-math.log(0.5 * math.exp(-0.5) + 0.01))
        in_other_units = depth_prior_loss(weights, 50 * z, torch.tensor([50 * known], dtype=DOUBLE), 5.0)
        assert in_other_units.item() == pytest.approx(found.item())


@pytest.mark.parametrize(("end", "weights"), [(0, [2.0, 2.0, 2.0]), (4, [1.5, 0.5, 0.0])])
def test_schedule(end, weights):
    loss = depth_prior(LossesConfig(depth_prior_lambda=2.0, depth_prior_end_iter=end))
    assert [loss.schedule(step) for step in (1, 3, 4)] == weights
    assert loss.schedule(5) == loss.schedule(10**6) == weights[-1]
    assert loss.groups == (KNOWN,)


def test_rays_without_weight_and_scenes_without_known_depths():
    fine, raw = along_rays()
    loss = depth_prior(LossesConfig(depth_prior_lambda=0.1))
    value = loss.value(known_view(fine, weights=torch.zeros(5, dtype=DOUBLE)))
    assert value.item() == 0
    assert not torch.autograd.grad(value, raw)[0].any()
    bare = StepView.of({SEEN: Rendering(None, fine)}, RayBatch({}, torch.empty(0, 3), 2.0, 6.0))
    assert loss_terms(bare, [loss], 1) == {}


# ---- the rays -------------------------------------------------------------------------------------------------------


def projected(scene, view, points):
    """Columns, rows (COLMAP's, the outer corner of the first pixel being 0 0) and z-depths of points n 3."""
    pose, (fx, fy, cx, cy) = scene.poses[view], scene.cameras.intrinsics[view].tolist()
    x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).T
    return cx + fx * x / -z, cy - fy * y / -z, -z


def scene_of_points(pixel_center=0.5, near=2.0):
    """Points about the origin, known in all views, those not trained on included. -> scene, points."""
    scene = memory_scene(train=(4, 1), pixel_center=pixel_center)
    points = np.random.default_rng(1).uniform(-0.8, 0.8, (30, 3))
    columns = [projected(scene, view, points) for view in range(6)]
    cols, rows, depths = np.concatenate(columns, axis=1)
    views = np.repeat(np.arange(6), len(points))
    known = KnownDepths(views, cols, rows, depths, np.tile(1 + np.arange(30) / 100, 6))
    return replace(scene, known_depths=known, cameras=replace(scene.cameras, near=near)), points


def sampler_of(scene, *words, dtype=DOUBLE):
    config, _ = parse_options([*WORDS, *PRIOR, *words])
    sampler = create_sampler(config, scene, CPU)
    sampler.pools[SEEN] = (scene.cameras.at(scene.split.train).to(CPU, dtype), config.batch.N_rand)
    return sampler


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
@pytest.mark.parametrize("batching", [[], ["--no_batching", "--precrop_iters", "9"]], ids=["batching", "no_batching"])
def test_rays_hit_the_known_points_at_their_depths(pixel_center, batching):
    scene, points = scene_of_points(pixel_center)
    sampler, generator, counts = sampler_of(scene, *batching, "--N_depth", "40"), seeded(), np.zeros((2, 30))
    for step in range(1, 31):
        batch = sampler.draw(step, {SEEN, KNOWN}, generator)
        rays = batch.groups[KNOWN]
        assert len(rays) == 40
        hits = rays.origins + batch.known_depths[:, None] * rays.directions
        distances = np.linalg.norm(hits.numpy()[:, None] - points, axis=-1)
        assert distances.min(1).max() < 1e-9
        which = distances.argmin(1)
        origins = [(rays.origins.numpy() == scene.poses[view][:, 3]).all(1) for view in (4, 1)]
        assert (origins[0] ^ origins[1]).all()  # no views but those trained on
        np.add.at(counts, (origins[1].astype(int), which), 1)
        trusted = (1 + which / 100) / (1 + np.arange(30) / 100).mean()
        np.testing.assert_allclose(batch.known_weights.numpy(), trusted)
    assert_uniform(counts)


@pytest.mark.parametrize("batching", [[], ["--no_batching"]], ids=["batching", "no_batching"])
def test_other_draws_of_the_step_stay_as_they_are(batching):
    scene, batches = scene_of_points()[0], []
    for words in ([], ["--depth_prior_lambda", "0"]):
        sampler, generator = sampler_of(scene, *batching, *LOSSES, "--N_entropy", "5", *words), seeded(3)
        batches.append(sampler.draw(1, {SEEN, "unseen", "seen_near", KNOWN}, generator))
    on, off = batches
    assert on.groups.keys() - off.groups.keys() == {KNOWN}
    assert off.known_depths is None and off.known_weights is None
    assert torch.equal(on.target, off.target)
    for group, rays in off.groups.items():
        assert torch.equal(rays.origins, on.groups[group].origins)
        assert torch.equal(rays.directions, on.groups[group].directions)


def test_in_the_precision_of_the_cameras():
    scene, _ = scene_of_points()
    batch = sampler_of(scene, dtype=torch.float32).draw(1, {SEEN, KNOWN}, seeded())
    rays = batch.groups[KNOWN]
    parts = (rays.origins, rays.directions, batch.known_depths, batch.known_weights)
    assert {part.dtype for part in parts} == {torch.float32}


def test_depths_outside_the_range_of_the_rays_do_not_count():
    """Of the whole range: they are never drawn. Of a range that is narrowed: they weigh nothing meanwhile."""
    scene, _ = scene_of_points(near=3.9)
    known = known_pixels(scene)
    assert 10 < len(known.depths) < 50
    assert known.depths.min() >= 3.9
    assert known.weights.mean().item() == pytest.approx(1)
    sampler = sampler_of(scene_of_points()[0], "--N_depth", "200", "--range_start", "0.1", "--range_end_iter", "5")
    for step, (near, far) in ((1, (3.6, 4.4)), (2, (3.2, 4.8)), (5, (2.0, 6.0))):
        batch = sampler.draw(step, {SEEN, KNOWN}, seeded())
        rays, inside = batch.groups[KNOWN], (batch.known_depths >= near) & (batch.known_depths <= far)
        assert (rays.near, rays.far) == pytest.approx((near, far))
        assert torch.equal(batch.known_weights > 0, inside)
        assert inside.all() == (step == 5)
    assert (batch.near, batch.far) == (2.0, 6.0)


def test_cameras_say_where_on_the_rays_the_depths_are(monkeypatch):
    """As for normalised device coordinates."""
    scene, _ = scene_of_points()
    plain = known_pixels(scene)
    monkeypatch.setattr(Cameras, "sample_depths", lambda self, pixels, z: 1 + z / 2 + 0 * pixels.rows)
    torch.testing.assert_close(known_pixels(scene).depths, 1 + plain.depths / 2)


# ---- runs -----------------------------------------------------------------------------------------------------------


def knowing(monkeypatch):
    """Scenes of files come with known depths."""
    monkeypatch.setitem(run_nerf_helpers.LOADERS, "blender", lambda data: known_at_random(load_blender(data)))


@pytest.mark.parametrize("mode", [["--no_batching", "--exact_dense"], [*LOSSES, "--raw_noise_std", "1"],
                                  ["--no_batching", "--skip_empty", "--N_importance", "0"]], ids=str)  # fmt: skip
def test_resume_is_exact(tmp_path, capsys, monkeypatch, mode):
    knowing(monkeypatch)
    scene = write_blender(tmp_path / "scene")
    command = options(scene, tmp_path, *mode, *PRIOR, "--depth_prior_end_iter", "5", "--density_bias", "0.5",
                      "--i_img", "0")  # fmt: skip
    assert main([*command, "--N_iters", "6", "--expname", "whole"]) == 0
    said = capsys.readouterr().out
    whole = losses_printed(said)
    assert ["depth_prior" in whole[step] for step in range(1, 7)] == [True] * 4 + [False] * 2
    assert "losses    colour" in said and "depth_prior" in said.split("losses")[1].split("\n")[0]
    assert "known, in 4 of the training views" in said
    assert main([*command, "--N_iters", "2"]) == 0
    assert main([*command, "--N_iters", "6"]) == 0
    assert losses_printed(capsys.readouterr().out) == whole
    first, second = contents(tmp_path, 6, "whole"), contents(tmp_path, 6)
    assert all(same(first[part], second[part]) for part in first.keys() - {"options", "checksum"})


def test_sparse_and_dense_steps_are_the_same():
    scene, found = known_at_random(memory_scene()), []
    for exact in ([], ["--exact_dense"]):
        trainer = create_trainer(parse_options([*WORDS, *PRIOR, *LOSSES, *exact])[0], scene, CPU)
        terms, renderings = trainer.train_step()
        assert renderings[KNOWN].fine.rgb is None or exact
        assert terms["depth_prior"][1] > 0
        found.append((terms["depth_prior"], [parameter.grad for parameter in trainer.networks.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_steps_stay_on_the_device(pretended_device):
    config, _ = parse_options([*TINY, *PRIOR, "--no_batching", "--N_importance", "5", "--use_viewdirs"])
    trainer = create_trainer(config, known_at_random(memory_scene(white=True)), DEVICE)
    for _ in range(2):
        terms, _ = trainer.train_step()
    assert all(value.device == DEVICE for _, value in terms.values())
    assert "depth_prior" in terms


def test_it_pulls_the_weights_to_the_known_depths():
    """A photograph of noise, which is known to show a wall: after some steps, rays end there."""
    scene = memory_scene(train=(0,))
    rows, cols = (index.ravel() for index in np.indices((8, 10)))
    known = KnownDepths(np.zeros(80, int), cols, rows, np.full(80, 3.5), np.ones(80))
    words = [*WORDS, *PRIOR, "--N_depth", "64", "--N_samples", "16", "--lrate", "0.01"]
    errors = []
    for given in (scene, replace(scene, known_depths=known)):
        trainer = create_trainer(parse_options(words)[0], given, CPU)
        for _ in range(60):
            trainer.train_step()
        rays = scene.cameras.at((0,)).to(CPU).image_rays()
        errors.append(float((trainer.renderer.last_pass(rays).depth - 3.5).abs().mean()))
    assert errors[1] < 0.25 < errors[0]


@pytest.mark.parametrize("known", [None, "outside", "other views"])
def test_without_known_depths_it_is_said_and_trained_without(known):
    scene = memory_scene()
    if known:
        scene = known_at_random(scene)
        part = {"depths": np.full(50, 9.0)} if known == "outside" else {"views": np.full(50, 3)}
        scene = replace(scene, known_depths=replace(scene.known_depths, **part))
    config, _ = parse_options([*WORDS, *PRIOR])
    trainer = create_trainer(config, scene, CPU)
    terms, renderings = trainer.train_step()
    assert set(terms) == {"colour_fine", "colour_coarse"}
    assert set(renderings) == {SEEN}
    lines = described(config, scene, trainer.networks, 0)
    note = ("note      no known depths (depth_prior points) between near and far in the training views; trained "
            "without the depth prior")
    assert lines[-1] == note
    assert "losses    colour" in lines
    off, _ = parse_options(WORDS)
    assert note not in described(off, scene, trainer.networks, 0)


# ---- depths of the photographs themselves ---------------------------------------------------------------------------


def test_a_run_with_swept_depths(tmp_path, monkeypatch, capsys):
    """Stopped and resumed it ends as undisturbed; its picture is its own; the second run sweeps nothing."""
    sweeps = []

    def sweep_all(views, nearest, farthest, device):
        sweeps.append(len(views))
        return [DepthMap(torch.full_like(view.grey, 4.0), torch.full_like(view.grey, 0.9)) for view in views]

    monkeypatch.setattr(swept_depths, "sweep_all", sweep_all)
    scene = write_blender(tmp_path / "scene")
    command = [*PRIOR, "--depth_prior", "sweep", "--no_batching"]
    assert main(options(scene, tmp_path, *command, "--N_iters", "4", name="whole")) == 0
    assert f"depths    {4 * HEIGHT * WIDTH} known, in 4 of the training views" in capsys.readouterr().out
    assert main(options(scene, tmp_path, *command, "--N_iters", "2")) == 0
    assert main(options(scene, tmp_path, *command, "--N_iters", "4")) == 0
    assert sweeps == [4]
    whole, run = (contents(tmp_path, 4, name) for name in ("whole", "run"))
    for key in whole.keys() - {"options", "checksum"}:
        assert same(whole[key], run[key]), key
    picture = tmp_path / "logs/run/plane_sweep.jpg"
    assert picture.is_file()
    assert main(options(scene, tmp_path, "--no_batching", "--N_iters", "1", "--no_reload")) == 0
    assert not picture.exists()


def test_photographs_that_match_nowhere_train_without(tmp_path, capsys):
    scene = write_blender(tmp_path / "scene", counts=(1, 2, 2))
    assert main(options(scene, tmp_path, *PRIOR, "--depth_prior", "sweep", "--no_batching", "--N_iters", "1")) == 0
    assert "no known depths (depth_prior sweep)" in capsys.readouterr().out
