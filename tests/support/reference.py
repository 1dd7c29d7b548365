"""The method in its slowest and plainest form, against which the fast implementation is tested.

One ray, one sample, one number at a time, in float64, written from docs/method.md alone. Only a layer of the
network (`W @ x + b`), the three coordinates of a point or colour, and the 3x3 rotation of a pose are tensor operations.
Every random draw is an argument (None = deterministic), and torch autograd gives the reference gradients.

Conventions: a ray is origin (3,) and un-normalised direction (3,); `z` are multiples of that direction; a composite is
the dict that `composite` returns; a rendering of one ray is a pair (coarse composite or None, final composite).
"""

import math

import torch


def f64(values):
    """A float64 tensor of `values` (tensor, list or number); gradients flow through."""
    if isinstance(values, (list, tuple)) and any(isinstance(value, torch.Tensor) for value in values):
        return torch.stack([f64(value) for value in values])
    return torch.as_tensor(values, dtype=torch.float64)


# ---- cameras, encoding, network -------------------------------------------------------------------------------------


def pixel_ray(c2w, fx, fy, cx, cy, row, col):
    """Origin and un-normalised world direction of a pixel's corner (docs/method.md, Cameras and rays)."""
    c2w = f64(c2w)
    camera_direction = f64([(col - cx) / fx, -(row - cy) / fy, -1.0])
    return c2w[:3, 3], c2w[:3, :3] @ camera_direction


def ndc_point(x_scale, y_scale, point):
    """A point of the world as a pinhole camera at the origin that looks along -z projects it: -1 to 1 across the image,
    and -1 to 1 for depths from 1 to infinity."""
    x, y, z = point
    return f64([x_scale * x / -z, y_scale * y / -z, 1 - 2 / -z])


def length(vector):
    """Euclidean length of a 3-vector, |d| in the formulas (docs/method.md, Cameras and rays, Compositing)."""
    x, y, z = vector
    return torch.sqrt(x * x + y * y + z * z)


def encode(x, n_freqs):
    """[x, sin x, cos x, sin 2x, cos 2x, sin 4x, ...], x itself for None (docs/method.md, Positional encoding)."""
    x = f64(x)
    if n_freqs is None:
        return x
    parts = [x]
    for k in range(n_freqs):
        parts.append(torch.sin(2.0**k * x))
        parts.append(torch.cos(2.0**k * x))
    return torch.cat(parts)


def layer(state, name, x):
    """One linear layer of a state dict, W x + b (docs/method.md, Network)."""
    return f64(state[name + ".weight"]) @ x + f64(state[name + ".bias"])


def network(state, point, viewdir, multires, multires_views):
    """Raw rgb (3,) and raw density () of one point seen from one direction (docs/method.md, Network)."""
    depth = 0
    while f"pts_linears.{depth}.weight" in state:
        depth += 1

    encoded_point = encode(point, multires)
    hidden = encoded_point
    for i in range(depth):
        if i == 5:
            hidden = torch.cat([encoded_point, hidden])
        hidden = torch.relu(layer(state, f"pts_linears.{i}", hidden))

    if "output_linear.weight" in state:
        output = layer(state, "output_linear", hidden)
        return output[:3], output[3]

    raw_density = layer(state, "alpha_linear", hidden)[0]
    feature = layer(state, "feature_linear", hidden)
    hidden = torch.cat([feature, encode(viewdir, multires_views)])
    hidden = torch.relu(layer(state, "views_linears.0", hidden))
    return layer(state, "rgb_linear", hidden), raw_density


# ---- depths ---------------------------------------------------------------------------------------------------------


def midpoints(z):
    """The depths halfway between neighbouring depths, one fewer than z (docs/method.md, Depths along a ray)."""
    return [(z[k] + z[k + 1]) / 2 for k in range(len(z) - 1)]


def coarse_depths(near, far, n_samples, lindisp=False, uniforms=None):
    """Depths (n_samples,), evenly spaced or one uniform draw per interval (docs/method.md, Depths along a ray)."""
    z = []
    for t in torch.linspace(0, 1, n_samples, dtype=torch.float64):
        if lindisp:
            z.append(1 / ((1 - t) / near + t / far))
        else:
            z.append(near * (1 - t) + far * t)
    if uniforms is None:
        return f64(z)

    middle = midpoints(z)
    lower = [z[0], *middle]
    upper = [*middle, z[-1]]
    return f64([lower[k] + (upper[k] - lower[k]) * uniforms[k] for k in range(n_samples)])


def inverse_transform(bin_edges, weights, u):
    """Depths (len(u),) at which the distribution of the bins' weights reaches u (docs/method.md, Depths along a ray).

    n + 1 edges, n weights. A bin is closed at its lower end: u equal to a cumulative value falls into the bin above it,
    and u = 1 is the last edge.
    """
    edges, weights, u = f64(bin_edges), f64(weights), f64(u)
    cumulative = [f64(0.0)]
    for weight in weights:
        cumulative.append(cumulative[-1] + (weight + 1e-5))
    # Divided after summing, so that the last value is 1 exactly and rounding cannot decide in which bin u = 1 falls.
    cdf = [value / cumulative[-1] for value in cumulative] if len(weights) else cumulative

    depths = []
    for x in u:
        n_reached = sum(1 for value in cdf if value <= x)
        below = max(0, n_reached - 1)
        above = min(len(cdf) - 1, n_reached)
        mass = cdf[above] - cdf[below]
        divisor = mass if mass >= 1e-5 else 1.0
        fraction = (x - cdf[below]) / divisor
        depths.append(edges[below] + fraction * (edges[above] - edges[below]))
    return f64(depths)


def fine_depths(z, weights, u):
    """The coarse depths and those drawn by their weights, sorted, no gradient (docs/method.md, Depths along a ray)."""
    z, weights = f64(z).detach(), f64(weights).detach()
    drawn = inverse_transform(midpoints(z), weights[1:-1], u)
    return f64(sorted([*z.tolist(), *drawn.tolist()]))


# ---- compositing and rendering --------------------------------------------------------------------------------------


def composite(raw_rgb, raw_density, z, direction, noise=None, white=False):
    """The composite of one ray's samples (docs/method.md, Compositing).

    `noise` is added to the raw density as it is (already scaled by raw_noise_std). Keys: alpha (s,), weights (s,),
    rgb (3,), acc (), depth (), disparity (), density (s,), z (s,). The disparity of an empty ray is 0 (section 12).
    """
    n_samples = len(z)
    z, size = f64(z), length(f64(direction))
    alpha, weights, density = [], [], []
    transmittance = f64(1.0)
    rgb, acc, depth = f64([0.0, 0.0, 0.0]), f64(0.0), f64(0.0)
    for k in range(n_samples):
        delta = (z[k + 1] - z[k]) * size if k + 1 < n_samples else 1e10 * size
        raw = f64(raw_density[k]) if noise is None else f64(raw_density[k]) + noise[k]
        density.append(torch.relu(raw))
        alpha.append(1 - torch.exp(-density[k] * delta))
        weights.append(alpha[k] * transmittance)
        transmittance = transmittance * (1 - alpha[k] + 1e-10)

        rgb = rgb + weights[k] * torch.sigmoid(f64(raw_rgb[k]))
        acc = acc + weights[k]
        depth = depth + weights[k] * z[k]

    disparity = 1 / torch.clamp(depth / acc, min=1e-10) if acc > 0 else f64(0.0)
    if white:
        rgb = rgb + (1 - acc)
    return {
        "alpha": f64(alpha),
        "weights": f64(weights),
        "rgb": rgb,
        "acc": acc,
        "depth": depth,
        "disparity": disparity,
        "density": f64(density),
        "z": z,
    }


def render_samples(state, origin, direction, z, multires, multires_views, use_viewdirs, noise, white):
    """The composite of one network's answers at the depths z of one ray.

    docs/method.md, Cameras and rays, Network, Compositing."""
    viewdir = direction / length(direction) if use_viewdirs else None
    raw_rgb, raw_density = [], []
    for depth in z:
        rgb, density = network(state, origin + depth * direction, viewdir, multires, multires_views)
        raw_rgb.append(rgb)
        raw_density.append(density)
    return composite(raw_rgb, raw_density, z, direction, noise, white)


def render_ray(
    coarse_state,
    fine_state,
    origin,
    direction,
    near,
    far,
    n_samples,
    n_importance,
    multires,
    multires_views,
    use_viewdirs,
    lindisp=False,
    uniforms=None,
    u=None,
    noise_coarse=None,
    noise_fine=None,
    white=False,
):
    """(coarse composite or None, final composite) of one ray.

    docs/method.md, Network, Depths along a ray, Compositing.

    With n_importance = 0 the final composite is the coarse pass and the first entry is None. Without a fine state the
    coarse network also answers the fine pass.
    """
    origin, direction = f64(origin), f64(direction)
    encoding = (multires, multires_views, use_viewdirs)

    z = coarse_depths(near, far, n_samples, lindisp, uniforms)
    coarse = render_samples(coarse_state, origin, direction, z, *encoding, noise_coarse, white)
    if n_importance == 0:
        return None, coarse

    if u is None:
        u = torch.linspace(0, 1, n_importance, dtype=torch.float64)
    if len(u) != n_importance:
        raise ValueError(f"{len(u)} values of u for n_importance = {n_importance}")
    z = fine_depths(z, coarse["weights"], u)
    state = coarse_state if fine_state is None else fine_state
    return coarse, render_samples(state, origin, direction, z, *encoding, noise_fine, white)


# ---- losses ---------------------------------------------------------------------------------------------------------


def normalised(alpha):
    """alpha / (sum alpha + 1e-10), a list of one ray's samples (docs/method.md, Losses)."""
    total = sum(alpha)
    return [a / (total + 1e-10) for a in alpha]


def softmax(alpha):
    """exp alpha / sum exp alpha, a list of one ray's samples (docs/method.md, Losses)."""
    total = sum(torch.exp(a) for a in alpha)
    return [torch.exp(a) / total for a in alpha]


def ray_entropy(alpha, kind="log2"):
    """Entropy () in bits of one ray's opacities, or the '1-p' form (docs/method.md, Losses)."""
    entropy = f64(0.0)
    for p in normalised(f64(alpha)):
        if kind == "log2":
            entropy = entropy - p * torch.log2(p + 1e-10)
        elif kind == "1-p":
            entropy = entropy + p * torch.log2(torch.clamp(1 - p, min=1e-10))
        else:
            raise ValueError(f"unknown entropy type {kind!r}")
    return entropy


def entropy_term(alphas, accs, threshold, kind, log_scaling):
    """Mean entropy () over all given rays, rays of acc <= threshold as 0 (docs/method.md, Losses)."""
    total = f64(0.0)
    for alpha, acc in zip(alphas, accs, strict=True):
        counts = 1.0 if acc > threshold else 0.0
        total = total + counts * ray_entropy(alpha, kind)
    mean = total / len(alphas)
    return torch.log(mean + 1e-10) if log_scaling else mean


def ray_kl(alpha, neighbour_alpha, activation):
    """KL(neighbour || ray) () of one pair of rays, in nats (docs/method.md, Losses)."""
    if activation == "norm":
        ps = [p + 1e-10 for p in normalised(f64(alpha))]
        qs = [q + 1e-10 for q in normalised(f64(neighbour_alpha))]
    elif activation == "softmax":
        ps = softmax(f64(alpha))
        qs = softmax(f64(neighbour_alpha))
    else:
        raise ValueError(f"unknown smoothing activation {activation!r}")
    kl = f64(0.0)
    for p, q in zip(ps, qs, strict=True):
        kl = kl + q * (torch.log(q) - torch.log(p))
    return kl


def kl_term(alphas, neighbour_alphas, activation):
    """Mean over the pairs of KL(neighbour || ray) () (docs/method.md, Losses)."""
    total = f64(0.0)
    for alpha, neighbour_alpha in zip(alphas, neighbour_alphas, strict=True):
        total = total + ray_kl(alpha, neighbour_alpha, activation)
    return total / len(alphas)


def mean_squared_error(rgbs, targets):
    """Mean over rays and channels of the squared difference () (docs/method.md, Losses)."""
    total = f64(0.0)
    for rgb, target in zip(rgbs, targets, strict=True):
        for channel in range(3):
            total = total + (rgb[channel] - target[channel]) ** 2
    return total / (3 * len(targets))


def colour_term(final_rgbs, coarse_rgbs, targets):
    """Squared error of the final colour plus that of the coarse colour, if any (docs/method.md, Losses)."""
    targets = [f64(target) for target in targets]
    loss = mean_squared_error([f64(rgb) for rgb in final_rgbs], targets)
    if coarse_rgbs is not None:
        loss = loss + mean_squared_error([f64(rgb) for rgb in coarse_rgbs], targets)
    return loss


def depth_prior(weights, z, known, sigma):
    """How unlikely () one ray is to end at its known depth (docs/method.md, Losses)."""
    likely = f64(0.0)
    for k in range(len(z)):
        gap = f64(0.0)
        if known < z[k]:
            gap = z[k] - known
        elif k + 1 < len(z) and known > z[k + 1]:
            gap = known - z[k + 1]
        likely = likely + weights[k] * torch.exp(-(gap**2) / (2 * sigma**2))
    return -torch.log(likely + 0.01)


def depth_prior_term(composites, known, trusted, sigma):
    """Mean over rays of their loss times how far their known depth is trusted (docs/method.md, Losses)."""
    total = f64(0.0)
    for ray, depth, trust in zip(composites, known, trusted, strict=True):
        total = total + trust * depth_prior(ray["weights"], ray["z"], depth, sigma)
    return total / len(known)


# ---- neighbours and schedules ---------------------------------------------------------------------------------------


def rotate_pose(c2w, a, b, c):
    """Pose (3,4) turned about the world origin by Rx(a) Ry(b) Rz(c), degrees (docs/method.md, Losses)."""
    a, b, c = math.radians(a), math.radians(b), math.radians(c)
    rx = f64([[1.0, 0.0, 0.0], [0.0, math.cos(a), -math.sin(a)], [0.0, math.sin(a), math.cos(a)]])
    ry = f64([[math.cos(b), 0.0, math.sin(b)], [0.0, 1.0, 0.0], [-math.sin(b), 0.0, math.cos(b)]])
    rz = f64([[math.cos(c), -math.sin(c), 0.0], [math.sin(c), math.cos(c), 0.0], [0.0, 0.0, 1.0]])
    return rx @ ry @ rz @ f64(c2w)[:3, :4]


def neighbour_pixel(row, col, distance, split, sign_row, sign_col):
    """The pixel `split` rows and `distance - split` columns away, signed (docs/method.md, Losses)."""
    return row + sign_row * split, col + sign_col * (distance - split)


def smoothing_weight(i, lam, rate, step_size, end_iter):
    """Weight of the KL term in step i = 1, 2, ...; 0 after end_iter (docs/method.md, Losses)."""
    if end_iter is not None and i > end_iter:
        return 0.0
    return lam * rate ** (i // step_size)


def entropy_weight(i, lam, end_iter):
    """Weight of the entropy term in step i = 1, 2, ...; 0 after end_iter (docs/method.md, Losses)."""
    if end_iter is not None and i > end_iter:
        return 0.0
    return lam


def learning_rate(lrate, lrate_decay, step):
    """lrate * 0.1 ** (step / (lrate_decay * 1000)) (docs/method.md, Steps)."""
    return lrate * 0.1 ** (step / (lrate_decay * 1000))


# ---- one step -------------------------------------------------------------------------------------------------------


def entropy_rays(groups, entropy_all, entropy_ignore_smoothing):
    """The final composites that the entropy term covers (docs/method.md, Losses).

    All rays of the step but the seen ones; the seen ones too if `entropy_all` or where there is no unseen group; the
    neighbours not if `entropy_ignore_smoothing`.
    """
    names = ["unseen"]
    if entropy_all or "unseen" not in groups:
        names.append("seen")
    if not entropy_ignore_smoothing:
        names += ["seen_near", "unseen_near"]
    return [final for name in names for _, final in groups.get(name, [])]


def neighbour_pairs(groups):
    """The alphas of the step's rays and, in the same order, of their neighbours (docs/method.md, Losses)."""
    alphas, neighbour_alphas = [], []
    for name in ["seen", "unseen"]:
        if name in groups:
            alphas += [final["alpha"] for _, final in groups[name]]
            neighbour_alphas += [final["alpha"] for _, final in groups[name + "_near"]]
    return alphas, neighbour_alphas


def step_loss(
    groups,
    targets,
    *,
    entropy=False,
    entropy_lambda=1.0,
    entropy_kind="log2",
    entropy_threshold=0.1,
    entropy_all=False,
    entropy_ignore_smoothing=False,
    entropy_log_scaling=False,
    smoothing=False,
    smoothing_weight=1.0,
    smoothing_activation="norm",
):
    """(total loss, dict of the unweighted terms that are on) of one step (docs/method.md, Losses, Steps).

    `groups`: name -> list of (coarse composite or None, final composite), the names among seen, unseen, seen_near and
    unseen_near. `targets`: the colours of the seen rays. The terms are named colour, entropy and smoothing.
    """
    unknown = set(groups) - {"seen", "unseen", "seen_near", "unseen_near"}
    if unknown:
        raise ValueError(f"unknown groups of rays {sorted(unknown)}")

    coarse_rgbs = [coarse["rgb"] for coarse, _ in groups["seen"] if coarse is not None]
    final_rgbs = [final["rgb"] for _, final in groups["seen"]]
    terms = {"colour": colour_term(final_rgbs, coarse_rgbs or None, targets)}
    total = terms["colour"]

    if entropy:
        rays = entropy_rays(groups, entropy_all, entropy_ignore_smoothing)
        alphas = [ray["alpha"] for ray in rays]
        accs = [ray["acc"] for ray in rays]
        terms["entropy"] = entropy_term(alphas, accs, entropy_threshold, entropy_kind, entropy_log_scaling)
        total = total + entropy_lambda * terms["entropy"]

    if smoothing:
        alphas, neighbour_alphas = neighbour_pairs(groups)
        terms["smoothing"] = kl_term(alphas, neighbour_alphas, smoothing_activation)
        total = total + smoothing_weight * terms["smoothing"]

    return total, terms
