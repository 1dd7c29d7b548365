"""The options "beyond the paper": each against a slow reference, and in whole steps and runs."""

import itertools
from itertools import pairwise

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from infonerf.command_line import parse_options
from infonerf.config import DataConfig, LossesConfig
from infonerf.fields.nerf import NeRF
from infonerf.rendering.compositing import Rendering, composite
from infonerf.scene import photographs
from infonerf.scene.scene import with_made_poses
from infonerf.training.sampler import RayBatch
from infonerf.training.terms import StepView, loss_terms
from load_blender import load_blender
from load_dtu import load_dtu
from loss import carving, colour_losses, depth_smoothness, distortion, distortion_loss, entropy, occlusion
from run_nerf import create_trainer, main
from run_nerf_helpers import create_sampler, load_scene
from support import reference
from support.devices import DEVICE, TINY
from support.draws import DOUBLE, rand
from support.runs import LOSSES, contents, losses_printed, options, same
from support.scenes import (
    HEIGHT,
    WIDTH,
    memory_scene,
    random_pixels,
    refused,
    with_photographs,
    write_blender,
    write_dtu,
)


def alpha_scene():
    """White, with alphas of which about half are 0."""
    def alpha(view):
        values = random_pixels(100 + view, 1)[..., 0] / np.float32(255)
        return np.where(values < 0.5, np.float32(0), values)

    return with_photographs(memory_scene(white=True), alpha=alpha)


def see_through(folder):
    """The blender scene at `folder` with alphas of which about half are 0."""
    for path in folder.glob("train/*.png"):
        pixels = iio.imread(path)
        pixels[..., 3][pixels[..., 3] < 128] = 0
        iio.imwrite(path, pixels)
    return folder


# ---- each option in whole steps and runs ----------------------------------------------------------------------------

RUNS = {
    "random_bkgd": ["--white_bkgd", "--random_bkgd"],
    "carving": ["--carving_lambda", "0.3"],
    "entropy": ["--entropy", "--entropy_ray_zvals_lambda", "0.01", "--entropy_on", "weights", "--entropy_skip_last",
                "--entropy_start_iter", "1", "--entropy_ramp", "3"],
    "occlusion": ["--occlusion_lambda", "0.1", "--occlusion_samples", "2"],
    "smoothing_floor": ["--smoothing", "--smoothing_lambda", "0.01", "--smoothing_floor", "0.01"],
    "distortion": ["--distortion_lambda", "0.1", "--distortion_start_iter", "2", "--N_entropy", "4"],
    "interpolate": [*LOSSES, "--unseen_poses", "interpolate"],
    "spread": [*LOSSES, "--unseen_poses", "spread"],
    "mi_mlp": ["--mi_mlp"],
    "depth_smooth": ["--depth_smooth_lambda", "0.1", "--N_entropy", "64"],
    "freq": ["--freq_start", "2", "--freq_end_iter", "4"],
    "range": ["--range_start", "0.3", "--range_end_iter", "4"],
    "ema": ["--ema_decay", "0.9"],
}  # fmt: skip
BY_OPTION = pytest.mark.parametrize("extra", RUNS.values(), ids=RUNS.keys())


@BY_OPTION
@pytest.mark.parametrize("mode", [["--no_batching", "--exact_dense"], [*LOSSES, "--raw_noise_std", "1"],
                                  ["--no_batching", "--skip_empty", "--N_importance", "0"]], ids=str)  # fmt: skip
def test_resume_is_exact(tmp_path, capsys, extra, mode):
    scene = see_through(write_blender(tmp_path / "scene"))
    command = options(scene, tmp_path, *mode, *extra, "--density_bias", "0.5", "--i_img", "0")
    assert main([*command, "--N_iters", "5", "--expname", "whole"]) == 0
    whole = losses_printed(capsys.readouterr().out)
    assert main([*command, "--N_iters", "2"]) == 0
    assert main([*command, "--N_iters", "5"]) == 0
    assert losses_printed(capsys.readouterr().out) == whole
    first, second = contents(tmp_path, 5, "whole"), contents(tmp_path, 5)
    assert all(same(first[part], second[part]) for part in first.keys() - {"options", "checksum"})


@pytest.mark.parametrize("mode", [["--no_batching"], []], ids=["no_batching", "batching"])
def test_all_together(tmp_path, mode):
    """The networks evaluated everywhere, or where it has an effect: the same terms and gradients."""
    scene, found = see_through(write_blender(tmp_path / "scene")), []
    every = [word for extra in RUNS.values() for word in extra]
    for exact in ([], ["--exact_dense"]):
        config, _ = parse_options(options(scene, tmp_path, *mode, *every, *LOSSES, "--density_bias", "0.5", *exact,
                                          "--precision", "fp32",
                                          "--seed", "2", "--raw_noise_std", "1", "--N_entropy", "64"))  # fmt: skip
        trainer = create_trainer(config, load_scene(config.data), torch.device("cpu"))
        for _ in range(2):
            terms, _ = trainer.train_step()
        found.append((terms, [parameter.grad for parameter in trainer.networks.parameters()]))
    (terms, gradients), (terms_dense, gradients_dense) = found
    names = "colour_fine colour_coarse entropy smoothing carving occlusion distortion depth_smooth"
    assert list(terms) == list(terms_dense) == names.split()
    for name, (weight, value) in terms.items():
        torch.testing.assert_close((weight, value), terms_dense[name], rtol=1e-4, atol=1e-6)
        assert value != 0
    for one, other in zip(gradients, gradients_dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@BY_OPTION
@pytest.mark.parametrize("exact", [[], ["--exact_dense"]], ids=["sparse", "dense"])
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by deepcopy, of averaged weights
def test_steps_stay_on_the_device(pretended_device, extra, exact):
    config, _ = parse_options([*TINY, "--no_batching", "--N_importance", "5", "--use_viewdirs", *extra, *exact])
    trainer = create_trainer(config, with_made_poses(alpha_scene(), config.data.unseen_poses), DEVICE)
    for _ in range(2):
        terms, _ = trainer.train_step()
    assert all(value.device == DEVICE for _, value in terms.values())


def some_rays(n=5, s=4, seed=0):
    """A composite of n rays, and the raw colours and densities that it depends on."""
    raw = [rand(n, s, 3, seed=seed, low=-2, high=2), rand(n, s, seed=seed + 1, low=-1, high=2)]
    raw = [tensor.requires_grad_() for tensor in raw]
    z = rand(n, s, seed=seed + 2, low=2, high=6).sort(-1).values
    return composite(*raw, z, rand(n, 3, seed=seed + 3, low=-1)), raw


def view_of(renderings, target=None, near=2.0, far=6.0, alpha=None, background=None):
    """What a loss sees of a step of these renderings."""
    return StepView.of(renderings, RayBatch({}, target, near, far, alpha, background))


def fine_view(near=2.0, far=6.0, **fine):
    """The same, of composites of the last pass."""
    return view_of({group: Rendering(None, rays) for group, rays in fine.items()}, near=near, far=far)


def compare(value, expected, inputs):
    """Values and gradients."""
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-14)
    ours, theirs = (torch.autograd.grad(x, inputs, retain_graph=True, allow_unused=True) for x in (value, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in ours)


# ---- random_bkgd ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [False, True])
def test_random_backgrounds(coarse):
    """As if photographs and renderings had been composited on each ray's own colour from the start."""
    n, s = 5, 4
    raw = [rand(n, s, 3, low=-2, high=2).requires_grad_(), rand(n, s, seed=1, low=-2, high=2).requires_grad_()]
    z, directions = rand(n, s, seed=2, low=2, high=6).sort(-1).values, rand(n, 3, seed=3)
    rgb, alpha, background = rand(n, 3, seed=4), rand(n, seed=5), rand(n, 3, seed=6)
    on_white = composite(*raw, z, directions, white_background=True)
    rendering = Rendering(on_white if coarse else None, on_white)
    target = rgb * alpha[:, None] + 1 - alpha[:, None]
    view = view_of({"seen": rendering}, target=target, alpha=alpha, background=background)
    terms = loss_terms(view, colour_losses(), 1)

    bare, expected = composite(*raw, z, directions), 0
    for r in range(n):
        for c in range(3):
            truth = rgb[r, c] * alpha[r] + (1 - alpha[r]) * background[r, c]
            seen = bare.rgb[r, c] + (1 - bare.acc[r]) * background[r, c]
            expected = expected + (seen - truth) ** 2 / (3 * n)
    assert len(terms) == 1 + coarse
    for _, value in terms.values():
        torch.testing.assert_close(value, expected)
        ours, theirs = (torch.autograd.grad(x, raw, retain_graph=True) for x in (value, expected))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("batching", [[], ["--no_batching"]])
def test_random_backgrounds_leave_the_rays_alone(batching):
    """Only the colours are drawn in addition, after all else, and from 0 to 1; alphas are those of the pixels."""
    scene, batches = alpha_scene(), []
    for on in ("True", "False"):
        words = ["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--white_bkgd", "--N_rand", "40"]
        config, _ = parse_options([*words, *LOSSES, "--N_entropy", "5", "--random_bkgd", on, *batching])
        sampler = create_sampler(config, scene, torch.device("cpu"))
        batches.append(sampler.draw(1, {"seen", "unseen", "seen_near"}, torch.Generator().manual_seed(3)))
    on, off = batches
    assert torch.equal(on.target, off.target)
    assert all(torch.equal(on.groups[group].origins, off.groups[group].origins) for group in off.groups)
    assert (off.alpha, off.background) == (None, None)
    assert on.background.shape == on.target.shape
    assert 0 <= on.background.min() < 0.1 < 0.9 < on.background.max() <= 1
    alpha_of = {tuple(scene.photographs.image(view)[row, col]): scene.photographs.alpha(view)[row, col]
                for view in scene.split.train for row in range(HEIGHT) for col in range(WIDTH)}  # fmt: skip
    assert [alpha_of[tuple(rgb)] for rgb in on.target.numpy()] == on.alpha.tolist()


@pytest.mark.parametrize("half_res", [False, True])
def test_alpha_of_blender(tmp_path, monkeypatch, half_res):
    """Of the same pixels as the colours, which are decoded once for both."""
    folder, decoded = write_blender(tmp_path / "scene"), []
    scene = load_blender(DataConfig(datadir=str(folder), white_bkgd=True, half_res=half_res))
    read = photographs.decoded
    monkeypatch.setattr(photographs, "decoded", lambda path, *size: decoded.append(path) or read(path, *size))
    for view in (1, 2):
        image, alpha = scene.photographs.image(view), scene.photographs.alpha(view)
        pixels = iio.imread(folder / f"train/r_{view}.png") / 255
        if half_res:
            pixels = pixels.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 4).mean((1, 3))
        np.testing.assert_allclose(alpha, pixels[..., 3], atol=1e-6)
        np.testing.assert_allclose(image, pixels[..., :3] * alpha[..., None] + 1 - alpha[..., None], atol=1e-6)
    assert len(decoded) == 2


def test_images_without_alpha(tmp_path, capsys):
    folder = write_blender(tmp_path / "rgb", channels=3)
    assert load_blender(DataConfig(datadir=str(folder))).photographs.alpha is None
    scan = write_dtu(tmp_path / "dtu")
    assert load_dtu(DataConfig(datadir=str(scan), train_scene=[0])).photographs.alpha is None
    assert main(options(folder, tmp_path, "--white_bkgd", "--random_bkgd", "--N_iters", "1")) == 2
    assert "--random_bkgd: the images of rgb have no alpha, expected RGBA" in capsys.readouterr().err
    folder = write_blender(tmp_path / "mixed")
    iio.imwrite(folder / "train/r_1.png", random_pixels(0, 3))
    scene = load_blender(DataConfig(datadir=str(folder)))
    assert scene.photographs.image(1).shape == (HEIGHT, WIDTH, 3)
    with refused(r"r_1\.png: found an image without alpha, expected RGBA"):
        scene.photographs.alpha(1)


# ---- carving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [False, True])
def test_carving(coarse):
    (fine, raw), (first, raw_first) = some_rays(), some_rays(seed=10)
    alpha = torch.tensor([0, 1e-3, 1.0, 0, 0.5], dtype=DOUBLE)
    loss = carving(LossesConfig(carving_lambda=0.3))
    value = loss.value(view_of({"seen": Rendering(first if coarse else None, fine)}, alpha=alpha))
    expected = (fine.acc[0] + fine.acc[3]) / 2 + coarse * (first.acc[0] + first.acc[3]) / 2
    compare(value, expected, raw + raw_first * coarse)
    assert (loss.groups, loss.schedule(1), loss.schedule(10**6)) == (("seen",), 0.3, 0.3)
    none = loss.value(view_of({"seen": Rendering(None, fine)}, alpha=alpha + 1e-6))
    assert none.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(none, fine.acc))


def test_carving_needs_alpha(tmp_path, capsys):
    folder = write_blender(tmp_path / "rgb", channels=3)
    assert main(options(folder, tmp_path, "--carving_lambda", "0.1", "--N_iters", "1")) == 2
    assert "--carving_lambda: the images of rgb have no alpha, expected RGBA" in capsys.readouterr().err


# ---- variants of the entropy ----------------------------------------------------------------------------------------


def make_entropy(**options):
    return entropy(LossesConfig(entropy=True, entropy_ray_zvals_lambda=0.3, entropy_acc_threshold=0.5, **options))


@pytest.mark.parametrize("on", ["alpha", "weights"])
@pytest.mark.parametrize("skip_last", [False, True])
@pytest.mark.parametrize("kind", ["log2", "1-p"])
def test_what_the_entropy_is_of(on, skip_last, kind):
    """The mask's accumulated opacity is always that of all samples."""
    rays, raw = some_rays(6, 5)
    loss = make_entropy(entropy_on=on, entropy_skip_last=skip_last, entropy_type=kind)
    value = loss.value(fine_view(unseen=rays))
    mass = [[row[k] for k in range(5 - skip_last)] for row in getattr(rays, on)]
    expected = sum(reference.ray_entropy(torch.stack(row), kind) for row, acc in zip(mass, rays.acc, strict=True)
                   if acc > 0.5) / 6  # fmt: skip
    compare(value, expected, raw[1])


@pytest.mark.parametrize(("start", "ramp", "end", "expected"), [
    (0, 0, None, [1, 1, 1, 1, 1, 1, 1]),
    (0, 4, None, [0.25, 0.5, 0.75, 1, 1, 1, 1]),
    (1, 4, None, [0.25, 0.5, 0.75, 1, 1, 1, 1]),
    (3, 0, None, [0, 0, 1, 1, 1, 1, 1]),
    (3, 2, 5, [0, 0, 0.5, 1, 1, 0, 0]),
    (3, 1, None, [0, 0, 1, 1, 1, 1, 1]),
])  # fmt: skip
def test_when_the_entropy_counts(start, ramp, end, expected):
    loss = make_entropy(entropy_start_iter=start, entropy_ramp=ramp, entropy_end_iter=end)
    assert [loss.schedule(step) for step in range(1, 8)] == pytest.approx([0.3 * fraction for fraction in expected])


def test_a_late_entropy_costs_nothing_before():
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--no_batching",
                               "--N_rand", "4", "--N_entropy", "3", *LOSSES[:3], "--entropy_start_iter", "3"])
    trainer = create_trainer(config, memory_scene(), torch.device("cpu"))
    assert [set(trainer.train_step()[1]) for _ in range(3)] == [{"seen"}, {"seen"}, {"seen", "unseen"}]


# ---- occlusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_occlusion(samples):
    """Noise included, densities below 0 as 0."""
    n, s = 5, 4
    raw, noise = rand(n, s, low=-1, high=2).requires_grad_(), rand(n, s, seed=1, low=-1)
    z = rand(n, s, seed=2, low=2, high=6).sort(-1).values
    rays = composite(None, raw, z, rand(n, 3, seed=3, low=-1), noise)
    loss = occlusion(LossesConfig(occlusion_lambda=0.2, occlusion_samples=samples))
    expected = 0
    for r in range(n):
        for k in range(samples):
            expected = expected + max(raw[r, k] + noise[r, k], 0 * raw[r, k]) / (n * s)
    compare(loss.value(fine_view(seen=rays)), expected, [raw])
    assert (loss.groups, loss.schedule(7)) == (("seen",), 0.2)


# ---- distortion -----------------------------------------------------------------------------------------------------


def slow_distortion(weights, z, near, far):
    """The double sum, ray by ray."""
    total = 0
    for w, depths in zip(weights, z, strict=True):
        edges = [(d - near) / (far - near) for d in depths] + [1.0]
        middle = [(a + b) / 2 for a, b in pairwise(edges)]
        for i in range(len(w)):
            for j in range(len(w)):
                total = total + w[i] * w[j] * abs(middle[i] - middle[j]) / len(weights)
            total = total + w[i] ** 2 * (edges[i + 1] - edges[i]) / 3 / len(weights)
    return total


@pytest.mark.parametrize("kind", ["random", "zeros", "one-hot", "equal depths"])
def test_distortion(kind):
    weights, z = rand(4, 6), rand(4, 6, seed=1, low=2, high=6).sort(-1).values
    if kind == "zeros":
        weights[1:] = 0
    if kind == "one-hot":
        weights = torch.eye(6, dtype=DOUBLE)[:4]
    if kind == "equal depths":
        z[:, 2:] = z[:, 2:3]
    weights.requires_grad_()
    value, expected = distortion_loss(weights, z, 2.0, 6.0), slow_distortion(weights, z, 2.0, 6.0)
    compare(value, expected, [weights])
    single = distortion_loss(weights.detach().float(), z.float(), 2.0, 6.0)
    torch.testing.assert_close(single, expected.detach().float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unseen", [False, True])
def test_distortion_of_the_groups(unseen):
    (seen, raw), (other, raw_other) = some_rays(3), some_rays(5, seed=9)
    loss = distortion(LossesConfig(distortion_lambda=0.2, distortion_start_iter=4, N_entropy=5 * unseen))
    value = loss.value(fine_view(near=1.0, far=7.0, seen=seen, unseen=other, seen_near=other))
    expected = slow_distortion([*seen.weights, *(other.weights if unseen else [])],
                               [*seen.z, *(other.z if unseen else [])], 1.0, 7.0)  # fmt: skip
    compare(value, expected, [raw[1], raw_other[1]])
    assert [loss.schedule(step) for step in (1, 3, 4, 99)] == [0, 0, 0.2, 0.2]


@pytest.mark.parametrize(("n_entropy", "groups"), [("3", {"seen", "unseen"}), ("0", {"seen"})])
def test_distortion_draws_unseen_rays(n_entropy, groups):
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "4",
                               "--N_entropy", n_entropy, "--distortion_lambda", "0.1", "--distortion_start_iter", "2"])
    trainer = create_trainer(config, memory_scene(), torch.device("cpu"))
    assert [set(trainer.train_step()[1]) for _ in range(2)] == [{"seen"}, groups]


# ---- mi_mlp ---------------------------------------------------------------------------------------------------------


def test_the_point_joins_every_layer():
    """Against the layers written out; the first layer and those after the trunk are as they were."""
    network = NeRF(4, 8, multires=2, multires_views=1, generator=torch.Generator().manual_seed(0), multi_input=True)
    network.double()
    assert [tuple(layer.weight.shape) for layer in network.pts_linears] == [(8, 15), (8, 23), (8, 23), (8, 23)]
    usual = dict(NeRF(4, 8, multires=2, multires_views=1).named_parameters())
    for name, parameter in network.named_parameters():
        assert (parameter.shape == usual[name].shape) == (name not in {f"pts_linears.{i}.weight" for i in (1, 2, 3)})
    points = rand(5, 3, low=-1)
    for point, found in zip(points, network.features(points), strict=True):
        encoded = reference.encode(point, 2)
        h = torch.relu(network.pts_linears[0].weight @ encoded + network.pts_linears[0].bias)
        for layer in list(network.pts_linears)[1:]:
            h = torch.relu(layer.weight[:, :15] @ encoded + layer.weight[:, 15:] @ h + layer.bias)
        torch.testing.assert_close(found, h)


@pytest.mark.parametrize(("first", "then"), [([], ["--mi_mlp"]), (["--mi_mlp"], [])], ids=str)
def test_a_checkpoint_of_the_other_layout(tmp_path, capsys, first, then):
    command = options(write_blender(tmp_path / "scene"), tmp_path, "--no_batching")
    assert main([*command, *first, "--N_iters", "1"]) == 0
    capsys.readouterr()
    assert main([*command, *then, "--N_iters", "2"]) == 2
    error = capsys.readouterr().err
    assert "pts_linears.1.weight: found (8, " in error
    assert "mi_mlp" in error
    assert error.count("\n") == 1


# ---- depth smoothness -----------------------------------------------------------------------------------------------


def test_depth_smoothness():
    rays, raw = some_rays(2 * 9)
    loss = depth_smoothness(LossesConfig(depth_smooth_lambda=0.2, N_entropy=64), size=3)
    expected = 0
    for patch in range(2):
        for row in range(2):
            for col in range(2):
                here, below, right = (rays.depth[9 * patch + 3 * r + c] for r, c in
                                      ((row, col), (row + 1, col), (row, col + 1)))  # fmt: skip
                expected = expected + ((below - here) ** 2 + (right - here) ** 2) / 8
    compare(loss.value(fine_view(unseen=rays)), expected, [raw[1]])
    assert (loss.groups, loss.schedule(5)) == (("unseen",), 0.2)


def patch_sampler(*extra):
    """128 unseen rays of a scene of 20 x 24 pixels."""
    config, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "5",
                               "--depth_smooth_lambda", "0.1", "--N_entropy", "128", *extra])  # fmt: skip
    return create_sampler(config, memory_scene(sizes=[(20, 24)] * 6), torch.device("cpu"))


@pytest.mark.parametrize("extra", [[], ["--no_batching"], ["--no_batching", "--precrop_iters", "500"]], ids=str)
def test_unseen_pixels_come_as_patches(extra):
    """Everywhere in the image or crop; rays are those of the pixels."""
    sampler, generator = patch_sampler(*extra), torch.Generator().manual_seed(0)
    corners, views, sizes = set(), [], sampler.pools["unseen"][0].sizes
    assert len(sizes) == 6
    for _ in range(1000):
        view, rows, cols = sampler.draw_pixels("unseen", sizes, 128, 1, generator)
        for p in range(2):
            part = slice(64 * p, 64 * p + 64)
            assert (view[part] == view[64 * p]).all()
            assert (rows[part] == rows[64 * p] + torch.arange(8).repeat_interleave(8)).all()
            assert (cols[part] == cols[64 * p] + torch.arange(8).repeat(8)).all()
            corners.add((int(rows[64 * p]), int(cols[64 * p])))
        views.append((int(view[0]), int(view[64])))
    rows, cols = (range(5, 8), range(6, 11)) if "500" in extra else (range(13), range(17))
    assert corners == set(itertools.product(rows, cols))
    assert {view for pair in views for view in pair} == set(range(6))
    assert all(one == other for one, other in views) == ("--no_batching" in extra)
    batch = sampler.draw(1, {"seen", "unseen"}, torch.Generator().manual_seed(4))
    assert len(batch.groups["unseen"]) == 128
    assert "unseen" not in sampler.state_dict()


def test_too_few_pixels_for_a_patch():
    with refused(r"--depth_smooth_lambda: the central crop \(precrop_frac\) has 6 x 6 pixels, expected at least 8 x 8"):
        patch_sampler("--no_batching", "--precrop_iters", "9", "--precrop_frac", "0.3")
