"""The reference itself: the worked examples of docs/method.md to the printed digits, and its gradients."""

import math

import pytest
import torch

from support.reference import (
    coarse_depths,
    colour_term,
    composite,
    depth_prior,
    encode,
    entropy_term,
    entropy_weight,
    f64,
    fine_depths,
    inverse_transform,
    kl_term,
    learning_rate,
    neighbour_pixel,
    network,
    pixel_ray,
    ray_entropy,
    render_ray,
    rotate_pose,
    smoothing_weight,
    step_loss,
)

MULTIRES, MULTIRES_VIEWS = 2, 1
ENTROPY_ROWS = [[0.5, 0.5, 0, 0], [0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0]]
ENTROPY_ACC = [0.75, 0.91, 0.05, 0]


def printed(values, digits):
    """The numbers rounded to the digits that the specification prints; -0 becomes 0."""
    return [round(value, digits) + 0.0 for value in torch.as_tensor(values).detach().reshape(-1).tolist()]


def tiny_state(seed, depth=6, width=8, multires=MULTIRES, multires_views=MULTIRES_VIEWS, use_viewdirs=True):
    """A random state dict of a small network, float64, with positive biases to keep neurons alive."""
    generator = torch.Generator().manual_seed(seed)
    n_point = 3 + 6 * multires
    n_view = 3 + 6 * multires_views
    shapes = {f"pts_linears.{i}": (width, width) for i in range(depth)}
    shapes["pts_linears.0"] = (width, n_point)
    if depth > 5:
        shapes["pts_linears.5"] = (width, n_point + width)
    if use_viewdirs:
        shapes["views_linears.0"] = (width // 2, width + n_view)
        shapes["feature_linear"] = (width, width)
        shapes["alpha_linear"] = (1, width)
        shapes["rgb_linear"] = (3, width // 2)
    else:
        shapes["output_linear"] = (5, width)
    state = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        state[name + ".weight"] = weight / math.sqrt(shape[1])
        state[name + ".bias"] = 0.5 * torch.rand(shape[0], generator=generator, dtype=torch.float64)
    return state


def rendering(alpha, rgb=(0.0, 0.0, 0.0), coarse_rgb=None):
    """A hand-made rendering of one ray: what the losses read and nothing else."""
    final = {"alpha": f64(alpha), "acc": f64(1.0), "rgb": f64(rgb)}
    return (None if coarse_rgb is None else {"rgb": f64(coarse_rgb)}), final


# ---- worked examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixel", "direction"), [((1, 2), [-0.2, 1, 0.2]), ((0, 0), [-0.6, 1, 0.4])])
def test_ray_example(pixel, direction):
    c2w = [[1, 0, 0, 0.1], [0, 0, -1, 0.2], [0, 1, 0, 0.3]]
    got_origin, got_direction = pixel_ray(c2w, 5, 5, 3, 2, *pixel)
    assert printed(got_origin, 12) == [0.1, 0.2, 0.3]
    assert printed(got_direction, 12) == direction


def test_encoding_example():
    expected = [0.5, -1, 2, 0.4794, -0.8415, 0.9093, 0.8776, 0.5403, -0.4161]
    expected += [0.8415, -0.9093, -0.7568, 0.5403, -0.4161, -0.6536]
    assert printed(encode(f64([0.5, -1, 2]), 2), 4) == expected


def test_encoding_sizes():
    assert [len(encode(f64([1, 2, 3]), n)) for n in (None, 0, 4, 10)] == [3, 3, 27, 63]


def test_inverse_transform_example():
    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert printed(inverse_transform([2, 3, 4, 6], [0.1, 0.7, 0.2], u), 4) == [2.0, 3.2143, 3.5714, 3.9286, 6.0]


def test_compositing_example():
    raw_rgb = [[0, 0, 0], [1, -1, 2], [2, 0, 0], [-1, 1, 0]]
    got = composite(raw_rgb, [1, -3, 5, 0.5], [2, 3, 3.5, 5], [0, 0.3, -1])
    assert printed(got["alpha"], 6) == [0.647967, 0, 0.999602, 1]
    assert printed(got["weights"], 6) == [0.647967, 0, 0.351893, 0.00014]
    assert printed(got["rgb"], 6) == [0.633967, 0.500032, 0.5]
    assert printed(got["depth"], 6) == [2.528259]
    assert printed(got["disparity"], 6) == [0.395529]
    assert printed(got["acc"], 6) == [1.0]


def test_entropy_example():
    assert printed(entropy_term(ENTROPY_ROWS, ENTROPY_ACC, 0.1, "log2", False), 6) == [0.367249]


@pytest.mark.parametrize(("activation", "expected"), [("norm", 6.225652), ("softmax", 0.016877)])
def test_kl_example(activation, expected):
    rays = [[0.5, 0.5, 0, 0], [0.9, 0.1, 0, 0]]
    neighbours = [[0.25, 0.25, 0.25, 0.25], [0.8, 0.1, 0.1, 0]]
    assert printed(kl_term(rays, neighbours, activation), 6) == [expected]


def test_depth_prior_example():
    assert printed(depth_prior(f64([0.2, 0.3, 0.4, 0.1]), f64([2, 3, 3.5, 5]), 3.6, 0.1), 6) == [0.524318]


# ---- the rest of each formula ---------------------------------------------------------------------------------------


def test_coarse_depths():
    assert printed(coarse_depths(2, 6, 5), 12) == [2, 3, 4, 5, 6]
    assert printed(coarse_depths(1, 4, 3, lindisp=True), 12) == [1, 1.6, 4]
    assert printed(coarse_depths(2, 6, 5, uniforms=[0.0] * 5), 12) == [2, 2.5, 3.5, 4.5, 5.5]
    assert printed(coarse_depths(2, 6, 5, uniforms=[1.0] * 5), 12) == [2.5, 3.5, 4.5, 5.5, 6]


def test_inverse_transform_light_bin_has_divisor_one():
    # The middle bin's mass is just below 1e-5, so u inside it moves by (u - cdf) times the bin's width only.
    weights = [0.7, 0.0, 0.7]
    total = 1.4 + 3e-5
    start = (0.7 + 1e-5) / total
    got = inverse_transform([0, 1, 2, 3], weights, [start + 0.5e-5 / total])
    assert got.item() == pytest.approx(1 + 0.5e-5 / total, abs=1e-12)


def test_inverse_transform_ends_are_the_outer_edges():
    for weights in ([0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [1 / 3, 1 / 7, 0.0]):
        assert printed(inverse_transform([0, 1, 2, 4], weights, [0.0, 1.0]), 12) == [0, 4]


def test_fine_depths_are_a_sorted_union_without_gradient():
    weights = f64([0.9, 0.1, 0.7, 0.2, 0.9]).requires_grad_()
    z = f64([1.0, 3.0, 3.5, 4.5, 7.5])  # midpoints 2 3.25 4 6
    got = fine_depths(z, weights, [1.0, 0.0])
    assert printed(got, 12) == [1, 2, 3, 3.5, 4.5, 6, 7.5]
    assert not got.requires_grad
    # Only the inner weights .1 .7 .2 count: u = .25 and .5 lie at (u - .1) / .7 of the middle bin.
    got = fine_depths(z, weights, [0.5, 0.25])
    expected = [1, 3, 3.25 + 0.75 * 0.15 / 0.7, 3.5, 3.25 + 0.75 * 0.4 / 0.7, 4.5, 7.5]
    assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_empty_ray():
    density = torch.full((3,), -1.0, dtype=torch.float64, requires_grad=True)
    black = composite([[0, 0, 0]] * 3, density, [2, 3, 4], [0, 0, -1])
    white = composite([[0, 0, 0]] * 3, density, [2, 3, 4], [0, 0, -1], white=True)
    assert [black[key].item() for key in ("acc", "depth", "disparity")] == [0, 0, 0]
    assert printed(black["rgb"], 12) == [0, 0, 0]
    assert printed(white["rgb"], 12) == [1, 1, 1]
    (white["rgb"].sum() + white["disparity"] + ray_entropy(white["alpha"])).backward()
    assert torch.isfinite(density.grad).all()


def test_noise_is_added_before_the_relu():
    noisy = composite([[0, 0, 0]] * 2, [-1.0, 0.0], [2, 3], [0, 0, -1], noise=[1.5, -1.0])
    assert printed(noisy["alpha"], 12) == [round(1 - math.exp(-0.5), 12), 0]


def test_network_by_hand():
    # One-neuron layers that pass the first coordinate on; the skip adds the second coordinate at layer 5.
    state = {f"pts_linears.{i}.weight": torch.ones(1, 1) for i in range(6)}
    state["pts_linears.0.weight"] = torch.tensor([[1.0, 0.0, 0.0]])
    state["pts_linears.5.weight"] = torch.tensor([[0.0, 1.0, 0.0, 2.0]])
    state["output_linear.weight"] = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    state |= {f"pts_linears.{i}.bias": torch.zeros(1) for i in range(6)} | {"output_linear.bias": torch.zeros(5)}
    rgb, density = network(state, f64([3, 10, 100]), None, None, None)
    assert (rgb.tolist(), density.item()) == ([16, 32, 48], 64)


def hand_state_with_views(view_weight):
    """One neuron per layer: density 0.1 relu(-y), raw rgb (1, 2, 3) relu(view_weight @ (feature, direction))."""
    weights = {
        "pts_linears.0": [[0.0, -1.0, 0.0]],
        "alpha_linear": [[0.1]],
        "feature_linear": [[1.0]],
        "views_linears.0": [view_weight],
        "rgb_linear": [[1.0], [2.0], [3.0]],
    }
    state = {name + ".weight": f64(weight) for name, weight in weights.items()}
    return state | {name + ".bias": f64([0.0] * len(weight)) for name, weight in weights.items()}


def test_network_with_views_by_hand():
    state = hand_state_with_views([1.0, 10.0, 100.0, 1000.0])
    rgb, density = network(state, f64([3, -4, 5]), f64([0.1, 0.2, 0.3]), None, None)
    assert printed(rgb, 9) == [325, 650, 975]
    assert density.item() == pytest.approx(0.4)


def test_render_ray_by_hand():
    # Points y = 0 -2 -4 at z = 2 3 4, |d| = 2; the colour sees the unit direction (0 -1 0).
    state = hand_state_with_views([0.0, 0.0, -1.0, 0.0])
    _, got = render_ray(state, None, [0, 4, 0], [0, -2, 0], 2, 4, 3, 0, None, None, True)
    assert printed(got["alpha"], 9) == [0, round(1 - math.exp(-0.2 * 2), 9), 1]
    assert printed(got["rgb"], 6) == printed(torch.sigmoid(f64([1, 2, 3])), 6)
    assert got["depth"].item() == pytest.approx(3 * (1 - math.exp(-0.4)) + 4 * math.exp(-0.4), abs=1e-8)


def test_last_interval_is_as_long_as_1e10_directions():
    got = composite([[0, 0, 0]], [1e-10], [2], [0, 0, -3])
    assert got["alpha"].item() == pytest.approx(1 - math.exp(-3))


@pytest.mark.parametrize("depth", [4, 5, 6, 8])
@pytest.mark.parametrize("use_viewdirs", [False, True])
def test_network_of_any_depth(depth, use_viewdirs):
    state = tiny_state(0, depth=depth, use_viewdirs=use_viewdirs)
    rgb, density = network(state, f64([0.1, 0.2, 0.3]), f64([0, 0, 1]), MULTIRES, MULTIRES_VIEWS)
    assert (rgb.shape, density.shape) == ((3,), ())
    other, _ = network(state, f64([0.1, 0.2, 0.3]), f64([0, 1, 0]), MULTIRES, MULTIRES_VIEWS)
    assert bool((rgb != other).any()) == use_viewdirs


def test_render_ray_without_importance_is_the_coarse_pass():
    ray = ([0, 0, 4], [0.1, 0.2, -1], 2, 6, 5)
    nothing, only = render_ray(tiny_state(0), None, *ray, 0, MULTIRES, MULTIRES_VIEWS, True)
    coarse, final = render_ray(tiny_state(0), tiny_state(1), *ray, 4, MULTIRES, MULTIRES_VIEWS, True)
    assert nothing is None
    assert torch.equal(only["rgb"], coarse["rgb"])
    assert (len(coarse["alpha"]), len(final["alpha"])) == (5, 9)


def test_other_entropies():
    assert ray_entropy([0.5, 0.5], "1-p").item() == pytest.approx(-1)
    # The guard: p = 1 / (1 + 1e-10), so 1 - p is 1e-10 up to rounding.
    assert ray_entropy([1.0, 0.0], "1-p").item() == pytest.approx(math.log2(1e-10), rel=1e-6)
    assert ray_entropy([1e6, 0.0], "1-p").item() == pytest.approx(math.log2(1e-10), rel=1e-6)
    scaled = entropy_term(ENTROPY_ROWS, ENTROPY_ACC, 0.1, "log2", True)
    assert scaled.item() == pytest.approx(math.log(0.367249), abs=1e-5)
    nobody = entropy_term(ENTROPY_ROWS, ENTROPY_ACC, 0.95, "log2", True)
    assert nobody.item() == pytest.approx(math.log(1e-10))
    assert entropy_term([[0.5, 0.5]], [0.1], 0.1, "log2", False).item() == 0  # the threshold itself does not count


def test_colour_term():
    targets = [[0, 0, 0], [1, 1, 1]]
    assert colour_term([[0.3, 0, 0], [1, 1, 1]], None, targets).item() == pytest.approx(0.09 / 6)
    assert colour_term([[0.3, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 0]], targets).item() == pytest.approx(1.09 / 6)


def test_rotate_pose():
    c2w = f64([[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]])
    assert printed(rotate_pose(c2w, 90, 0, 0)[:, 3], 12) == [1, -3, 2]
    assert printed(rotate_pose(c2w, 0, 90, 0)[:, 3], 12) == [3, 2, -1]
    assert printed(rotate_pose(c2w, 0, 0, 90)[:, 3], 12) == [-2, 1, 3]
    # Rz acts first, then Ry, then Rx: (1 2 3) -> (-2 1 3) -> (3 1 2) -> (3 -2 1).
    assert printed(rotate_pose(c2w, 90, 90, 90)[:, 3], 12) == [3, -2, 1]
    assert printed(rotate_pose(c2w, 90, 90, 90)[:, :3] @ f64([1, 2, 3]), 12) == [3, -2, 1]


def test_neighbour_pixel():
    assert neighbour_pixel(10, 20, 5, 2, -1, 1) == (8, 23)
    assert neighbour_pixel(0, 0, 3, 3, -1, -1) == (-3, 0)


def test_schedules():
    assert [smoothing_weight(i, 2.0, 0.5, 10, 25) for i in (1, 9, 10, 20, 25, 26)] == [2, 2, 1, 0.5, 0.5, 0]
    assert smoothing_weight(10**6, 2.0, 1, 10, None) == 2
    assert [entropy_weight(i, 3.0, 5) for i in (1, 5, 6)] == [3, 3, 0]
    assert entropy_weight(10**6, 3.0, None) == 3
    assert learning_rate(5e-4, 250, 250_000) == pytest.approx(5e-5)


# ---- one step -------------------------------------------------------------------------------------------------------

# Entropies in bits: seen 0, unseen 1, seen_near log2 3, unseen_near 2.
GROUPS = {
    "seen": [rendering([1, 0, 0, 0], rgb=(0.3, 0, 0), coarse_rgb=(0, 0.6, 0))],
    "unseen": [rendering([1, 1, 0, 0])],
    "seen_near": [rendering([1, 1, 1, 0])],
    "unseen_near": [rendering([1, 1, 1, 1])],
}


@pytest.mark.parametrize(
    ("names", "options", "entropies"),
    [
        (["seen", "unseen"], {}, [1]),
        (["seen", "unseen"], {"entropy_all": True}, [0, 1]),
        (["seen"], {}, [0]),
        (["seen", "unseen", "seen_near", "unseen_near"], {}, [1, math.log2(3), 2]),
        (["seen", "unseen", "seen_near", "unseen_near"], {"entropy_all": True}, [0, 1, math.log2(3), 2]),
        (["seen", "unseen", "seen_near", "unseen_near"], {"entropy_ignore_smoothing": True}, [1]),
        (["seen", "seen_near"], {}, [0, math.log2(3)]),
        (["seen", "seen_near"], {"entropy_ignore_smoothing": True}, [0]),
    ],
)
def test_rays_of_the_entropy_term(names, options, entropies):
    groups = {name: GROUPS[name] for name in names}
    total, terms = step_loss(groups, [[0, 0, 0]], entropy=True, entropy_lambda=0.5, **options)
    assert terms["colour"].item() == pytest.approx((0.09 + 0.36) / 3)
    assert terms["entropy"].item() == pytest.approx(sum(entropies) / len(entropies), abs=1e-6)
    assert total.item() == pytest.approx(terms["colour"].item() + 0.5 * terms["entropy"].item())


def test_smoothing_is_one_mean_over_the_pairs_of_both_groups():
    groups = {name: list(rays) for name, rays in GROUPS.items()}
    groups["unseen"] = groups["unseen"] * 2
    groups["unseen_near"] = groups["unseen_near"] * 2
    total, terms = step_loss(groups, [[0, 0, 0]], smoothing=True, smoothing_weight=0.1, smoothing_activation="softmax")
    seen = kl_term([[1, 0, 0, 0]], [[1, 1, 1, 0]], "softmax").item()
    unseen = kl_term([[1, 1, 0, 0]], [[1, 1, 1, 1]], "softmax").item()
    assert set(terms) == {"colour", "smoothing"}
    assert terms["smoothing"].item() == pytest.approx((seen + 2 * unseen) / 3)
    assert total.item() == pytest.approx(terms["colour"].item() + 0.1 * terms["smoothing"].item())


# ---- gradients ------------------------------------------------------------------------------------------------------


def tiny_step(coarse_state, fine_state, n_importance):
    """The total loss of a step of two rays and a neighbour for each, every draw fixed, both regularizers on."""
    generator = torch.Generator().manual_seed(7)
    c2w = f64([[1, 0, 0, 0.1], [0, 1, 0, -0.2], [0, 0, 1, 4]])
    near_c2w = rotate_pose(c2w, 4, -3, 2)
    poses_and_pixels = {
        "seen": (c2w, 1, 2),
        "unseen": (near_c2w, 3, 4),
        "seen_near": (near_c2w, 1, 2),
        "unseen_near": (c2w, 3, 4),
    }
    groups = {}
    for name, (pose, row, col) in poses_and_pixels.items():
        draws = {
            "uniforms": torch.rand(5, generator=generator, dtype=torch.float64),
            "u": torch.rand(n_importance, generator=generator, dtype=torch.float64),
            "noise_coarse": 0.1 * torch.randn(5, generator=generator, dtype=torch.float64),
            "noise_fine": 0.1 * torch.randn(5 + n_importance, generator=generator, dtype=torch.float64),
        }
        ray = pixel_ray(pose, 5, 5, 3, 2, row, col)
        depths_and_encoding = (2, 6, 5, n_importance, MULTIRES, MULTIRES_VIEWS, True)
        groups[name] = [render_ray(coarse_state, fine_state, *ray, *depths_and_encoding, white=True, **draws)]
    total, _ = step_loss(groups, [[0.2, 0.5, 0.8]], entropy=True, smoothing=True, smoothing_weight=0.3)
    return total


# No finite difference for a coarse network below a fine one: its weights move the fine depths, which carry no gradient.
@pytest.mark.parametrize("n_importance", [0, 4])
def test_gradient_against_finite_differences(n_importance):
    coarse, fine = tiny_state(3), tiny_state(2)
    state = fine if n_importance else coarse
    for value in state.values():
        value.requires_grad_()
    tiny_step(coarse, fine, n_importance).backward()

    step = 1e-6
    for name, parameter in state.items():
        index = parameter.grad.abs().argmax()
        values = parameter.detach().view(-1)  # shares memory with the parameter
        original = values[index].item()
        losses = []
        for sign in (1, -1):
            values[index] = original + sign * step
            with torch.no_grad():
                losses.append(tiny_step(coarse, fine, n_importance).item())
        values[index] = original
        gradient = parameter.grad.view(-1)[index].item()
        assert gradient != 0, name
        assert gradient == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5, abs=1e-8), name


def test_no_gradient_reaches_the_coarse_network_through_the_depths():
    coarse = tiny_state(3)
    for value in coarse.values():
        value.requires_grad_()
    ray = ([0, 0, 4], [0.1, 0.2, -1], 2, 6, 5)
    first, final = render_ray(coarse, tiny_state(2), *ray, 4, MULTIRES, MULTIRES_VIEWS, True)
    assert first["rgb"].requires_grad
    assert not final["rgb"].requires_grad
