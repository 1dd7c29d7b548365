"""SparseQuery against DenseQuery: the same gradients and pictures, for less work."""

import itertools
import math

import pytest
import torch

from infonerf.fields.field import CoarseFine, Field
from infonerf.rendering import sparse
from infonerf.rendering.dense import DenseQuery
from infonerf.rendering.occupancy import Occupancy
from infonerf.rendering.renderer import Renderer, Sampling
from infonerf.rendering.sparse import SparseQuery
from infonerf.scene.cameras import Rays
from infonerf.system import workers
from infonerf.training.neighbours import MovedPose, NearPixel
from infonerf.training.terms import StepView, loss_terms, needed_groups, total_loss
from support.scenes import HEIGHT, WIDTH, memory_scene, small_networks
from support.steps import make_losses, make_sampler

DOUBLE = torch.float64
SAMPLES = 8


@pytest.fixture
def set_threads():
    """Sets the number of threads until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def networks_of(kind: str, use_viewdirs: bool = True, dtype=DOUBLE) -> CoarseFine:
    """mixed: density above 0 at about half of all points. empty: nowhere. solid: rays end at their first sample."""
    networks = small_networks(6, use_viewdirs, DOUBLE)
    points = 6 * torch.rand(500, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) - 3
    with torch.no_grad():
        for network in networks:
            bias = network.alpha_linear.bias if use_viewdirs else network.output_linear.bias[3:4]
            level = network.density(network.features(points)).median()
            bias.add_({"mixed": -level, "empty": -100, "solid": 1000}[kind])
    return CoarseFine(*(network.to(dtype) for network in networks))


def gradients(networks: CoarseFine, query, *, smoothing=None, batching=False, noise=0.5, white=False, dtype=DOUBLE):
    """The loss of a step with entropy (and smoothness) and its gradient by every parameter."""
    sampler = make_sampler(memory_scene(), batching=batching, neighbourhood=smoothing, n_seen=5, n_unseen=4)
    losses = make_losses(True, smoothing is not None, True)
    batch = sampler.draw(1, needed_groups(losses, 1), torch.Generator().manual_seed(1))
    groups = {name: Rays(rays.origins.to(dtype), rays.directions.to(dtype), rays.near, rays.far)
              for name, rays in batch.groups.items()}  # fmt: skip
    renderer = Renderer(networks, Sampling(SAMPLES, 6, noise_std=noise), white, query, 1000)
    renderings = renderer.groups(groups, torch.Generator().manual_seed(2))
    view = StepView.of(renderings, batch._replace(target=batch.target.to(dtype)), networks)
    loss = total_loss(loss_terms(view, losses, 1))
    return loss.detach(), torch.autograd.grad(loss, networks.parameters(), allow_unused=True)


def assert_same_gradients(ours, theirs, tolerance):
    """Each parameter's gradient, relative to its largest entry."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            scale = float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


def assert_equal_gradients(ours, theirs):
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize(
    ("smoothing", "batching", "noise", "white", "use_viewdirs"),
    itertools.product([None, NearPixel(3), MovedPose(0.1)], *[[False, True]] * 4),
)
def test_gradients(smoothing, batching, noise, white, use_viewdirs):
    networks = networks_of("mixed", use_viewdirs)
    options = {"smoothing": smoothing, "batching": batching, "noise": 0.5 * noise, "white": white}
    dense = gradients(networks, DenseQuery(), **options)
    assert_same_gradients(gradients(networks, SparseQuery(7), **options), dense, 1e-10)


@pytest.mark.parametrize("kind", ["mixed", "empty", "solid"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-10), (torch.float32, 1e-4)])
def test_gradients_of_rays_that_miss_or_hit_at_once(kind, dtype, tolerance):
    networks = networks_of(kind, dtype=dtype)
    dense = gradients(networks, DenseQuery(), white=True, dtype=dtype)
    assert_same_gradients(gradients(networks, SparseQuery(7), white=True, dtype=dtype), dense, tolerance)
    largest = max(float(gradient.abs().max()) for gradient in dense[1])
    assert (largest == 0) == (kind == "empty")


@pytest.mark.parametrize(
    ("block", "threads", "blocks"), [(7, 1, set()), (10**6, 1, {1}), (10**6, 3, {3}), (14, 3, {3, 4})]
)
def test_gradients_within_a_grid(block, threads, blocks, monkeypatch, set_threads):
    """Samples that a grid leaves are evaluated twice, in blocks, or once, where a block a thread holds them all (or
    would, were its rows not a multiple of some number)."""
    kept, evaluate = [], sparse.evaluate_with_graph
    monkeypatch.setattr(sparse, "evaluate_with_graph", lambda *given: kept.append(evaluate(*given)) or kept[-1])
    monkeypatch.setattr(SparseQuery, "multiple", lambda query, device: 4)
    monkeypatch.setattr(workers, "LEAST_WORK", 1)
    set_threads(threads)
    everywhere = Occupancy(torch.tensor([[-100.0] * 3, [100.0] * 3], dtype=DOUBLE))
    for use_viewdirs, smoothing in itertools.product((False, True), (None, NearPixel(3))):
        networks = networks_of("mixed", use_viewdirs)
        dense = gradients(networks, DenseQuery(), smoothing=smoothing)
        ours, again = (
            gradients(networks, SparseQuery(block, None, everywhere), smoothing=smoothing) for _ in range(2)
        )
        assert_same_gradients(ours, dense, 1e-10)
        assert_equal_gradients(ours, again)
    assert {len(graphs) for _, _, graphs in kept} == blocks


def test_pictures_keep_no_graph(monkeypatch):
    monkeypatch.setattr(sparse, "evaluate_with_graph", None)
    everywhere = Occupancy(torch.tensor([[-100.0] * 3, [100.0] * 3], dtype=DOUBLE))
    network, rays = networks_of("mixed").coarse, Rays(torch.zeros(2, 3, dtype=DOUBLE), torch.eye(3).double()[:2], 1, 2)
    with torch.no_grad():
        SparseQuery(10**6, None, everywhere)(network, rays, torch.ones(2, 4, dtype=DOUBLE))


@pytest.mark.parametrize("block", [1, 3, 10**6])
def test_blocks_do_not_matter(block):
    networks = networks_of("mixed")
    dense = gradients(networks, DenseQuery(), smoothing=NearPixel(3))
    assert_same_gradients(gradients(networks, SparseQuery(block), smoothing=NearPixel(3)), dense, 1e-10)


def test_threads_do_not_matter(monkeypatch, set_threads):
    """Blocks that threads of their own evaluate: the same gradients, in the same order of sums every time."""
    monkeypatch.setattr(workers, "LEAST_WORK", 1)
    networks = networks_of("mixed")
    dense = gradients(networks, DenseQuery(), smoothing=NearPixel(3))
    set_threads(3)
    ours, again = (gradients(networks, SparseQuery(7), smoothing=NearPixel(3)) for _ in range(2))
    assert torch.get_num_threads() == 3
    assert_same_gradients(ours, dense, 1e-10)
    assert_equal_gradients(ours, again)


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 25])
def test_blocks(n):
    """Every number once, in blocks of one size but for the last, and padding that repeats a number."""
    numbers = torch.arange(100, 100 + n)
    blocks = SparseQuery(10).blocks(numbers, 1)
    assert torch.equal(torch.cat([block.indices[: block.n] for block in blocks]), numbers)
    assert {len(block.indices) for block in blocks} == {10 if n else 0}
    for block in blocks:
        padding = block.indices[block.n :]
        assert torch.equal(padding, block.indices[block.n - 1 : block.n].expand(len(padding)))


def test_bfloat16_counts_as_half_the_work(set_threads):
    set_threads(2)
    point, network = torch.zeros(1, 3), networks_of("mixed").coarse
    assert network.multiplications == sum(parameter.numel() for parameter in network.parameters())
    enough = math.ceil(2 * workers.LEAST_WORK / network.multiplications)
    for n, dtype, expected in ((enough, None, 2), (enough - 1, None, 1), (2 * enough, torch.bfloat16, 2),
                               (2 * enough - 2, torch.bfloat16, 1)):  # fmt: skip
        assert SparseQuery(8192, dtype).workers(point.expand(n, 3), network) == expected


def test_blocks_are_never_greater_than_asked_for():
    assert max(len(block.indices) for block in SparseQuery(700).blocks(torch.arange(3000), 2)) == 640


@pytest.mark.parametrize("use_viewdirs", [True, False])
def test_where_all_is_skipped_the_gradients_are_those_of_empty_networks(use_viewdirs):
    grid = Occupancy(torch.tensor([[100.0] * 3, [101.0] * 3]))
    ours = gradients(networks_of("mixed", use_viewdirs), SparseQuery(7, None, grid))
    assert_same_gradients(ours, gradients(networks_of("empty", use_viewdirs), DenseQuery()), 1e-10)


class Cut(Field):
    """A network without density where a grid says that space is empty, for DenseQuery."""

    def __init__(self, network, grid):
        super().__init__()
        self.network, self.grid = network, grid

    def forward(self, points, viewdirs):
        raw_rgb, raw_density = self.network(points, viewdirs)
        occupied = self.grid.occupied(points.flatten(0, 1)).view(raw_density.shape)
        return raw_rgb, torch.where(occupied, raw_density, -torch.inf)


@pytest.mark.parametrize("use_viewdirs", [True, False])
def test_a_grid_does_what_it_says_and_no_more(use_viewdirs):
    grid = Occupancy(torch.tensor([[-1.5] * 3, [1.5] * 3]))
    grid.density, grid.in_use = torch.rand(grid.density.shape, generator=torch.Generator().manual_seed(0)) / 5, True
    networks = networks_of("mixed", use_viewdirs)
    dense = gradients(CoarseFine(*(Cut(network, grid) for network in networks)), DenseQuery(), smoothing=NearPixel(3))
    ours = gradients(networks, SparseQuery(7, None, grid), smoothing=NearPixel(3))
    assert_same_gradients(ours, dense, 1e-10)
    assert any(gradient.any() for gradient in dense[1] if gradient is not None)


def test_changed_weights_have_no_gradients():
    """The backward pass evaluates again: with other weights, it would be gradients of something else."""
    rays = memory_scene().cameras.image_rays(2)
    network = networks_of("mixed").coarse
    _, raw_density = SparseQuery(100)(network, rays, some_z(rays))
    with torch.no_grad():
        network.alpha_linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        raw_density.sum().backward()


def test_frozen_weights():
    networks = networks_of("mixed")
    for parameter in networks.parameters()[::2]:
        parameter.requires_grad_(False)
    rays = memory_scene().cameras.image_rays(2)
    found = []
    for query in (DenseQuery(), SparseQuery(100)):
        raw_rgb, raw_density = query(networks.coarse, rays, some_z(rays))
        networks.coarse.zero_grad()
        ((raw_rgb.sum(-1) + 1) * raw_density.relu()).sum().backward()
        found.append([parameter.grad for parameter in networks.coarse.parameters()])
    assert [gradient is None for gradient in found[0]] == [i % 2 == 0 for i in range(len(found[0]))]
    torch.testing.assert_close(found[1][1::2], found[0][1::2], rtol=1e-9, atol=1e-9)
    assert found[1][::2] == found[0][::2]


@pytest.mark.parametrize("kind", ["mixed", "empty", "solid"])
@pytest.mark.parametrize("white", [False, True])
def test_images(kind, white):
    networks, rays = networks_of(kind), memory_scene().cameras.image_rays(2)
    dense, ours = (Renderer(networks, Sampling(SAMPLES, 6), white, query, 30).last_pass(rays)
                   for query in (DenseQuery(), SparseQuery(11)))  # fmt: skip
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


class Counting(Field):
    """A network that counts the points it is asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, {"density": 0, "colour": 0, "gradient": 0}

    def features(self, points):
        self.asked["gradient" if torch.is_grad_enabled() else "density"] += len(points)
        return self.network.features(points)

    def colour(self, features, encoded):
        self.asked["colour"] += len(features) * (not torch.is_grad_enabled())
        return self.network.colour(features, encoded)

    def density(self, features):
        return self.network.density(features)

    def encode_directions(self, directions):
        return self.network.encode_directions(directions)


def some_z(rays):
    return torch.linspace(2, 6, SAMPLES, dtype=DOUBLE).expand(len(rays), -1)


def test_what_is_evaluated():
    """Density everywhere, colour where there is density, gradients where the loss has one."""
    rays = memory_scene().cameras.image_rays(2)
    network = Counting(networks_of("mixed").coarse)
    n = HEIGHT * WIDTH * SAMPLES
    _, raw_density = SparseQuery(1)(network, rays, some_z(rays))  # in blocks of one, none is padded
    dense = int((raw_density > 0).sum())
    assert 0.2 * n < dense < 0.8 * n
    assert network.asked == {"density": n, "colour": dense, "gradient": 0}
    raw_density.relu()[:5].sum().backward()
    assert network.asked["gradient"] == int((raw_density[:5] > 0).sum())


def test_without_colour():
    rays = memory_scene().cameras.image_rays(2)
    network = Counting(networks_of("mixed").coarse)
    raw_rgb, raw_density = SparseQuery(100)(network, rays, some_z(rays), None, colour=False)
    raw_density.sum().backward()
    assert raw_rgb is None
    assert network.asked["colour"] == 0
    renderer = Renderer(networks_of("mixed"), Sampling(SAMPLES, 6), query=SparseQuery(100))
    got = renderer.rays(rays, colour=False)
    assert got.fine.rgb is got.coarse.rgb is None


@pytest.mark.parametrize("n_importance", [0, 6])
def test_an_image_needs_no_coarse_colour(n_importance):
    """It is that of the last pass, and the same as with both."""
    rays = memory_scene().cameras.image_rays(2)
    renderer = Renderer(networks_of("mixed"), Sampling(SAMPLES, n_importance), query=SparseQuery(100))
    both, last = (renderer.rays(rays, coarse_colour=wanted) for wanted in (True, False))
    assert torch.equal(both.fine.rgb, last.fine.rgb)
    assert last.coarse is None or last.coarse.rgb is None


def test_the_coarse_pass_of_unseen_rays_needs_no_gradient(monkeypatch):
    """No loss depends on it: its depths are detached."""
    asked, networks = [], networks_of("mixed")
    original = sparse.gradients_of

    def spy(samples, parameters, d_outputs, *rest):
        n_active = sum(int(d.ne(0).sum()) for d in d_outputs if d is not None)
        asked.append((samples.field is networks.coarse, samples.encoded is None, n_active > 0))
        return original(samples, parameters, d_outputs, *rest)

    monkeypatch.setattr(sparse, "gradients_of", spy)
    gradients(networks, SparseQuery(100))
    assert sorted(asked) == [(False, False, True), (False, True, True), (True, False, True)]


@pytest.mark.parametrize("kind", ["mixed", "solid"])
def test_bfloat16_is_near(kind):
    """Matrix products of 8 bits: gradients point the same way; outputs, losses and gradients stay float32."""
    networks = networks_of(kind, dtype=torch.float32)
    exact = gradients(networks, DenseQuery(), dtype=torch.float32)
    loss, ours = gradients(networks, SparseQuery(64, torch.bfloat16), dtype=torch.float32)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact[0], rtol=0.02, atol=0)
    assert {gradient.dtype for gradient in ours} == {torch.float32}
    both = [torch.cat([gradient.flatten() for gradient in part]) for part in (ours, exact[1])]
    assert torch.nn.functional.cosine_similarity(*both, dim=0) > 0.98
