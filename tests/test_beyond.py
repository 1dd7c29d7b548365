"""The options "beyond the paper": each against a slow reference, and in whole steps and runs."""

import itertools
from dataclasses import replace
from itertools import pairwise

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import build
import reference
import scene as scene_module
from load_blender import load_blender
from load_dtu import load_dtu
from load_scene import with_made_poses
from loss import (
    Composites,
    carving_regularizer,
    depth_smoothness_regularizer,
    distortion_loss,
    distortion_regularizer,
    entropy_regularizer,
    loss_terms,
    occlusion_regularizer,
)
from options import parse_options
from render import make_renderer
from run_nerf import main, make_trainer
from run_nerf_helpers import (
    Annealing,
    DenseQuery,
    NeRF,
    Networks,
    Rendering,
    Sampling,
    band_weights,
    composite,
    positional_encoding,
    render_groups,
)
from scenes import HEIGHT, WIDTH, look_at_origin, memory_scene, random_pixels, refused, write_blender, write_dtu
from sparse import SparseQuery
from test_device import DEVICE, TINY, pretended_device  # noqa: F401
from test_training import contents, losses_printed, options, same
from unseen_poses import KINDS, WIDER, between, common_point, make_poses

DOUBLE = torch.float64
LOSSES = ["--entropy", "--entropy_ray_zvals_lambda", "0.01", "--smoothing", "--smoothing_lambda", "0.01"]


def rand(*shape, seed=0, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def alpha_scene():
    """White, with alphas of which about half are 0."""
    def alpha(view):
        values = random_pixels(100 + view, 1)[..., 0] / np.float32(255)
        return np.where(values < 0.5, np.float32(0), values)

    return replace(memory_scene(white=True), alpha=alpha)


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
    "distortion": ["--distortion_lambda", "0.1", "--distortion_start_iter", "2", "--N_entropy", "4"],
    "interpolate": [*LOSSES, "--unseen_poses", "interpolate"],
    "spread": [*LOSSES, "--unseen_poses", "spread"],
    "mi_mlp": ["--mi_mlp"],
    "depth_smooth": ["--depth_smooth_lambda", "0.1", "--N_entropy", "64"],
    "freq": ["--freq_start", "2", "--freq_end_iter", "4"],
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
        args, _ = parse_options(options(scene, tmp_path, *mode, *every, *LOSSES, "--density_bias", "0.5", *exact,
                                        "--precision", "fp32",
                                        "--seed", "2", "--raw_noise_std", "1", "--N_entropy", "64"))  # fmt: skip
        trainer = make_trainer(args, build.build_scene(args), torch.device("cpu"))
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
def test_steps_stay_on_the_device(pretended_device, extra, exact):  # noqa: F811
    args, _ = parse_options([*TINY, "--no_batching", "--N_importance", "5", "--use_viewdirs", *extra, *exact])
    scene = with_made_poses(alpha_scene(), args.unseen_poses) if args.unseen_poses in KINDS else alpha_scene()
    trainer = make_trainer(args, scene, DEVICE)
    for _ in range(2):
        terms, _ = trainer.train_step()
    assert all(value.device == DEVICE for _, value in terms.values())


def some_rays(n=5, s=4, seed=0):
    """A composite of n rays, and the raw colours and densities that it depends on."""
    raw = [rand(n, s, 3, seed=seed, low=-2, high=2), rand(n, s, seed=seed + 1, low=-1, high=2)]
    raw = [tensor.requires_grad_() for tensor in raw]
    z = rand(n, s, seed=seed + 2, low=2, high=6).sort(-1).values
    return composite(*raw, z, rand(n, 3, seed=seed + 3, low=-1)), raw


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
    terms = loss_terms({"seen": rendering}, target, [], 1, alpha, background)

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
        args, _ = parse_options([*words, *LOSSES, "--N_entropy", "5", "--random_bkgd", on, *batching])
        sampler = build.build_sampler(args, scene, torch.device("cpu"))
        batches.append(sampler.draw(1, {"seen", "unseen", "seen_near"}, torch.Generator().manual_seed(3)))
    on, off = batches
    assert torch.equal(on.target, off.target)
    assert all(torch.equal(on.groups[group].origins, off.groups[group].origins) for group in off.groups)
    assert (off.alpha, off.background) == (None, None)
    assert on.background.shape == on.target.shape
    assert 0 <= on.background.min() < 0.1 < 0.9 < on.background.max() <= 1
    alpha_of = {tuple(scene.image(view)[row, col]): scene.alpha(view)[row, col]
                for view in scene.train for row in range(HEIGHT) for col in range(WIDTH)}  # fmt: skip
    assert [alpha_of[tuple(rgb)] for rgb in on.target.numpy()] == on.alpha.tolist()


@pytest.mark.parametrize("half_res", [False, True])
def test_alpha_of_blender(tmp_path, monkeypatch, half_res):
    """Of the same pixels as the colours, which are decoded once for both."""
    folder, decoded = write_blender(tmp_path / "scene"), []
    scene = load_blender(folder, white_bkgd=True, half_res=half_res)
    read = scene_module.decoded
    monkeypatch.setattr(scene_module, "decoded", lambda path, *size: decoded.append(path) or read(path, *size))
    for view in (1, 2):
        image, alpha = scene.image(view), scene.alpha(view)
        pixels = iio.imread(folder / f"train/r_{view}.png") / 255
        if half_res:
            pixels = pixels.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 4).mean((1, 3))
        np.testing.assert_allclose(alpha, pixels[..., 3], atol=1e-6)
        np.testing.assert_allclose(image, pixels[..., :3] * alpha[..., None] + 1 - alpha[..., None], atol=1e-6)
    assert len(decoded) == 2


def test_images_without_alpha(tmp_path, capsys):
    folder = write_blender(tmp_path / "rgb", channels=3)
    assert load_blender(folder).alpha is None
    assert load_dtu(write_dtu(tmp_path / "dtu"), train_scene=[0]).alpha is None
    assert main(options(folder, tmp_path, "--white_bkgd", "--random_bkgd", "--N_iters", "1")) == 2
    assert "--random_bkgd: the images of rgb have no alpha, expected RGBA" in capsys.readouterr().err
    folder = write_blender(tmp_path / "mixed")
    iio.imwrite(folder / "train/r_1.png", random_pixels(0, 3))
    scene = load_blender(folder)
    assert scene.image(1).shape == (HEIGHT, WIDTH, 3)
    with refused(r"r_1\.png: found an image without alpha, expected RGBA"):
        scene.alpha(1)


# ---- carving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [False, True])
def test_carving(coarse):
    (fine, raw), (first, raw_first) = some_rays(), some_rays(seed=10)
    alpha = torch.tensor([0, 1e-3, 1.0, 0, 0.5], dtype=DOUBLE)
    regularizer = carving_regularizer(weight=0.3)
    value = regularizer.value(Composites({"seen": Rendering(first if coarse else None, fine)}, alpha))
    expected = (fine.acc[0] + fine.acc[3]) / 2 + coarse * (first.acc[0] + first.acc[3]) / 2
    compare(value, expected, raw + raw_first * coarse)
    assert (regularizer.groups, regularizer.weight(1), regularizer.weight(10**6)) == (("seen",), 0.3, 0.3)
    none = regularizer.value(Composites({"seen": Rendering(None, fine)}, alpha + 1e-6))
    assert none.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(none, fine.acc))


def test_carving_needs_alpha(tmp_path, capsys):
    folder = write_blender(tmp_path / "rgb", channels=3)
    assert main(options(folder, tmp_path, "--carving_lambda", "0.1", "--N_iters", "1")) == 2
    assert "--carving_lambda: the images of rgb have no alpha, expected RGBA" in capsys.readouterr().err


# ---- variants of the entropy ----------------------------------------------------------------------------------------


def make_entropy(**changed):
    given = {"weight": 0.3, "end": None, "threshold": 0.5, "kind": "log2", "log_scaling": False, "unseen": True,
             "seen": False, "neighbours": False} | changed  # fmt: skip
    return entropy_regularizer(**given)


@pytest.mark.parametrize("on", ["alpha", "weights"])
@pytest.mark.parametrize("skip_last", [False, True])
@pytest.mark.parametrize("kind", ["log2", "1-p"])
def test_what_the_entropy_is_of(on, skip_last, kind):
    """The mask's accumulated opacity is always that of all samples."""
    rays, raw = some_rays(6, 5)
    value = make_entropy(on=on, skip_last=skip_last, kind=kind).value({"unseen": rays})
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
    regularizer = make_entropy(start=start, ramp=ramp, end=end)
    assert [regularizer.weight(step) for step in range(1, 8)] == pytest.approx([0.3 * share for share in expected])


def test_a_late_entropy_costs_nothing_before():
    args, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--no_batching",
                             "--N_rand", "4", "--N_entropy", "3", *LOSSES[:3], "--entropy_start_iter", "3"])
    trainer = make_trainer(args, memory_scene(), torch.device("cpu"))
    assert [set(trainer.train_step()[1]) for _ in range(3)] == [{"seen"}, {"seen"}, {"seen", "unseen"}]


# ---- frequency annealing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end", "multires", "multires_views"), [(0, 10, 4, 2), (2, 7, 3, 4), (3, 5, 3, 2)])
def test_annealed_frequencies(start, end, multires, multires_views):
    """Band by band, from the formula; from the last step on there is no mask at all."""
    network = NeRF(2, 8, multires=multires, multires_views=multires_views, annealing=Annealing(start, end)).double()
    assert network.point_mask is not None
    for step in range(end + 3):
        network.set_step(step)
        if step >= end:
            assert (network.point_mask, network.view_mask) == (None, None)
            continue
        shown = start + (multires - start) * step / end
        expected = [1.0] * 3
        for k in range(multires):
            expected += [min(max(shown - k, 0), 1)] * 6
        assert network.point_mask.tolist() == pytest.approx(expected)
        x = rand(4, 3, low=-1)
        views = positional_encoding(x, multires_views)
        for k in range(multires_views):
            views[:, 3 + 6 * k : 9 + 6 * k] *= min(max(shown * multires_views / multires - k, 0), 1)
        torch.testing.assert_close(network.encoded_views(x), views)


def test_shown_frequencies():
    assert band_weights(2, 0.0) == [1] * 3 + [0] * 12
    assert band_weights(2, 1.25) == [1] * 9 + [0.25] * 6
    assert band_weights(2, 2.0) == [1] * 15


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
    args, _ = parse_options(command)
    loaded = build.build_scene(args)
    trainer = make_trainer(args, loaded, torch.device("cpu"))
    for _ in range(3):
        trainer.train_step()
    assert trainer.networks.fine.point_mask[3::6].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    expected = make_renderer(args, trainer.networks, loaded).view(loaded, loaded.test[0]).rgb
    assert main(command) == 0
    assert main([*command, "--render_only", "--testskip", "0", "--i_img", "0"]) == 0
    [path, *_] = sorted(tmp_path.glob("logs/run/renderonly_test_000003/*r_0.png"))
    np.testing.assert_allclose(iio.imread(path) / 255, expected.numpy(), atol=0.51 / 255)


def test_masked_gradients_of_both_queries():
    """The backward pass of the sparse query evaluates the features again."""
    args, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "6",
                             "--use_viewdirs", "--netwidth", "8", "--netwidth_fine", "8", "--N_importance", "4",
                             "--freq_end_iter", "9", "--density_bias", "1"])  # fmt: skip
    networks = build.build_networks(args, torch.device("cpu"), torch.Generator().manual_seed(1))
    networks = Networks(*(network.double() for network in networks))
    sampler = build.build_sampler(args, memory_scene(), torch.device("cpu"))
    batch = sampler.draw(1, {"seen"}, torch.Generator().manual_seed(0))
    batch = batch._replace(groups={name: replace(rays, origins=rays.origins.double(),
                                                 directions=rays.directions.double())
                                   for name, rays in batch.groups.items()})  # fmt: skip
    gradients = []
    for step, query in ((4, SparseQuery(7)), (4, DenseQuery(64)), (9, DenseQuery(64))):
        networks.set_step(step)
        renderings = render_groups(networks, batch.groups, Sampling(4, 4), torch.Generator().manual_seed(2), 99, query)
        terms = loss_terms(renderings, batch.target.double(), [], step)
        gradients.append(torch.autograd.grad(sum(value for _, value in terms.values()), networks.parameters()))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-12)
    assert not torch.allclose(gradients[1][0], gradients[2][0])
    assert (gradients[1][0][:, 3 + 6 * 5 :] == 0).all()


# ---- occlusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_occlusion(samples):
    """Noise included, densities below 0 as 0."""
    n, s = 5, 4
    raw, noise = rand(n, s, low=-1, high=2).requires_grad_(), rand(n, s, seed=1, low=-1)
    z = rand(n, s, seed=2, low=2, high=6).sort(-1).values
    rays = composite(None, raw, z, rand(n, 3, seed=3, low=-1), noise)
    regularizer = occlusion_regularizer(weight=0.2, samples=samples)
    expected = 0
    for r in range(n):
        for k in range(samples):
            expected = expected + max(raw[r, k] + noise[r, k], 0 * raw[r, k]) / (n * s)
    compare(regularizer.value({"seen": rays}), expected, [raw])
    assert (regularizer.groups, regularizer.weight(7)) == (("seen",), 0.2)


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
    regularizer = distortion_regularizer(weight=0.2, start=4, near=1.0, far=7.0, unseen=unseen)
    value = regularizer.value({"seen": seen, "unseen": other, "seen_near": other})
    expected = slow_distortion([*seen.weights, *(other.weights if unseen else [])],
                               [*seen.z, *(other.z if unseen else [])], 1.0, 7.0)  # fmt: skip
    compare(value, expected, [raw[1], raw_other[1]])
    assert [regularizer.weight(step) for step in (1, 3, 4, 99)] == [0, 0, 0.2, 0.2]


@pytest.mark.parametrize(("n_entropy", "groups"), [("3", {"seen", "unseen"}), ("0", {"seen"})])
def test_distortion_draws_unseen_rays(n_entropy, groups):
    args, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "4",
                             "--N_entropy", n_entropy, "--distortion_lambda", "0.1", "--distortion_start_iter", "2"])
    trainer = make_trainer(args, memory_scene(), torch.device("cpu"))
    assert [set(trainer.train_step()[1]) for _ in range(2)] == [{"seen"}, groups]


# ---- made poses -----------------------------------------------------------------------------------------------------

POINT = np.array([0.3, -0.2, 0.5])


def around_the_point(*angles, radius=4.0):
    """Poses that look at POINT from azimuths and elevations in degrees."""
    poses = np.stack([look_at_origin(*pair, radius=radius + 0.2 * i)[:3] for i, pair in enumerate(angles)])
    poses[:, :, 3] += POINT
    return poses


CAMERAS = around_the_point((0, 10), (50, 30), (100, 20), (170, 45))
PARALLEL = np.stack([np.concatenate([np.eye(3), [[x], [0.1 * x], [0.0]]], axis=1) for x in (-1.0, 0.0, 2.0)])


def check_rotations(poses):
    for pose in poses:
        np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:, :3]) > 0


def test_the_point_that_cameras_look_at():
    np.testing.assert_allclose(common_point(CAMERAS), POINT, atol=1e-9)
    shaken = CAMERAS + 0.05 * np.random.default_rng(0).normal(size=CAMERAS.shape)
    found, axes = common_point(shaken), -shaken[:, :, 2] / np.linalg.norm(shaken[:, :, 2], axis=-1, keepdims=True)

    def squared_distances(point):
        return sum(np.linalg.norm(np.cross(axis, point - pose[:, 3])) ** 2 for axis, pose in
                   zip(axes, shaken, strict=True))  # fmt: skip

    assert not np.allclose(found, POINT, atol=1e-3)
    for step in 1e-3 * np.concatenate([np.eye(3), -np.eye(3)]):
        assert squared_distances(found) < squared_distances(found + step)
    outwards = CAMERAS.copy()
    outwards[:, :, [0, 2]] *= -1  # turned about the upward axis
    assert common_point(outwards) is None
    assert common_point(PARALLEL) is None


def test_poses_between_cameras_that_look_at_a_point():
    poses = make_poses("interpolate", CAMERAS)
    assert poses.shape == (100, 3, 4)
    check_rotations(poses)
    offsets = POINT - poses[:, :, 3]
    distances = np.linalg.norm(offsets, axis=-1)
    np.testing.assert_allclose(offsets / distances[:, None], -poses[:, :, 2], atol=1e-9)
    assert 4.0 <= distances.min() < 4.2 < distances.max() <= 4.6
    for t in (0.0, 0.25, 1.0):
        pose = between(CAMERAS[0], CAMERAS[3], t, POINT)
        assert np.linalg.norm(pose[:, 3] - POINT) == pytest.approx(4.0 + t * 0.6)
        turned = [np.trace(pose[:, :3].T @ camera[:, :3]) for camera in (CAMERAS[0], CAMERAS[3])]
        angles = np.arccos(np.clip((np.array(turned) - 1) / 2, -1, 1))
        np.testing.assert_allclose(angles, np.array([t, 1 - t]) * angles.sum(), atol=1e-6)
    np.testing.assert_allclose(between(CAMERAS[0], CAMERAS[3], 1.0, POINT), CAMERAS[3], atol=1e-9)


def test_poses_between_parallel_cameras():
    for pose in make_poses("interpolate", PARALLEL):
        np.testing.assert_allclose(pose[:, :3], np.eye(3), atol=1e-12)
        assert -1 <= pose[0, 3] <= 2
        assert pose[1, 3] == pytest.approx(0.1 * pose[0, 3])


def test_poses_spread_around_the_point():
    poses = make_poses("spread", CAMERAS)
    assert poses.shape == (100, 3, 4)
    check_rotations(poses)
    offsets = poses[:, :, 3] - POINT
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=-1), 4.3)
    np.testing.assert_allclose(offsets / 4.3, poses[:, :, 2], atol=1e-9)
    cameras = CAMERAS[:, :, 3] - POINT
    cameras /= np.linalg.norm(cameras, axis=-1, keepdims=True)
    axis = cameras.mean(0) / np.linalg.norm(cameras.mean(0))
    largest = np.degrees(np.arccos(cameras @ axis)).max() + WIDER
    angles = np.degrees(np.arccos(offsets @ axis / 4.3))
    assert 0.9 * largest < angles.max() <= largest
    area = (1 - np.cos(np.radians(angles))) / (1 - np.cos(np.radians(largest)))  # uniform where uniform on the cap
    assert abs(area.mean() - 0.5) < 0.1
    assert (poses[:, 2, 1] > 0).mean() > 0.9  # upright


@pytest.mark.parametrize("kind", KINDS)
def test_made_poses_are_the_pool(tmp_path, capsys, kind):
    """Always the same ones; cameras with the first training view's intrinsics; other data need not be there."""
    np.testing.assert_array_equal(make_poses(kind, CAMERAS), make_poses(kind, CAMERAS))
    scene = with_made_poses(memory_scene(train=(1, 0)), kind)
    assert (scene.unseen, scene.made_poses.shape) == ((), (100, 3, 4))
    cameras = build.unseen_cameras(scene, 0.5, torch.device("cpu"))
    np.testing.assert_allclose(cameras.poses, scene.made_poses, atol=1e-6)
    np.testing.assert_allclose(cameras.intrinsics, np.tile(scene.intrinsics[1], (100, 1)), rtol=1e-6)
    assert (cameras.near, cameras.far, cameras.pixel_center) == (2.0, 6.0, 0.5)
    with refused(f"--unseen_poses {kind}: found 1 training view, expected at least 2"):
        make_poses(kind, CAMERAS[:1])
    scan = write_dtu(tmp_path / "scan")
    command = options(scan, tmp_path, "--train_scene", "0", "2", "3", *LOSSES, "--unseen_poses", kind, kind="dtu")
    assert main([*command, "--N_iters", "2"]) == 0
    assert "100 poses; made from those of the training cameras; no view has them" in capsys.readouterr().out


def test_parallel_cameras_have_nothing_to_spread_around():
    with refused("--unseen_poses spread: the training cameras do not look at a point"):
        make_poses("spread", PARALLEL)


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
    regularizer = depth_smoothness_regularizer(weight=0.2, size=3)
    expected = 0
    for patch in range(2):
        for row in range(2):
            for col in range(2):
                here, below, right = (rays.depth[9 * patch + 3 * r + c] for r, c in
                                      ((row, col), (row + 1, col), (row, col + 1)))  # fmt: skip
                expected = expected + ((below - here) ** 2 + (right - here) ** 2) / 8
    compare(regularizer.value({"unseen": rays}), expected, [raw[1]])
    assert (regularizer.groups, regularizer.weight(5)) == (("unseen",), 0.2)


def patch_sampler(*extra):
    """128 unseen rays of a scene of 20 x 24 pixels."""
    images = {"image": lambda view: random_pixels(view, 3, 20, 24).astype(np.float32) / 255, "height": 20, "width": 24}
    args, _ = parse_options(["--expname", "x", "--datadir", "d", "--dataset_type", "blender", "--N_rand", "5",
                             "--depth_smooth_lambda", "0.1", "--N_entropy", "128", *extra])  # fmt: skip
    return build.build_sampler(args, replace(memory_scene(), **images), torch.device("cpu"))


@pytest.mark.parametrize("extra", [[], ["--no_batching"], ["--no_batching", "--precrop_iters", "500"]], ids=str)
def test_unseen_pixels_come_as_patches(extra):
    """Everywhere in the image or crop; rays are those of the pixels."""
    sampler, generator = patch_sampler(*extra), torch.Generator().manual_seed(0)
    corners, poses = set(), []
    for _ in range(1000):
        pose, rows, cols = sampler.pixels("unseen", 6, 128, 1, generator)
        for p in range(2):
            part = slice(64 * p, 64 * p + 64)
            assert (pose[part] == pose[64 * p]).all()
            assert (rows[part] == rows[64 * p] + torch.arange(8).repeat_interleave(8)).all()
            assert (cols[part] == cols[64 * p] + torch.arange(8).repeat(8)).all()
            corners.add((int(rows[64 * p]), int(cols[64 * p])))
        poses.append((int(pose[0]), int(pose[64])))
    rows, cols = (range(5, 8), range(6, 11)) if "500" in extra else (range(13), range(17))
    assert corners == set(itertools.product(rows, cols))
    assert {pose for pair in poses for pose in pair} == set(range(6))
    assert all(one == other for one, other in poses) == ("--no_batching" in extra)
    batch = sampler.draw(1, {"seen", "unseen"}, torch.Generator().manual_seed(4))
    assert len(batch.groups["unseen"]) == 128
    assert "unseen" not in sampler.state_dict()


def test_too_few_pixels_for_a_patch():
    with refused(r"--depth_smooth_lambda: the central crop \(precrop_frac\) has 6 x 6 pixels, expected at least 8 x 8"):
        patch_sampler("--no_batching", "--precrop_iters", "9", "--precrop_frac", "0.3")
