"""LPIPS with a stand-in for the package, whose network is of the same shape but small, and with the package itself."""

import json
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import evaluate
from infonerf.evaluation import perceptual
from infonerf.evaluation.perceptual import Backbone, Lpips, lpips_if_there

CPU = torch.device("cpu")


class Slices(nn.Module):
    """Named as those of the package: slice, then the number of the layer in torchvision's `features`."""

    def __init__(self):
        super().__init__()
        self.slice1, self.slice2 = nn.Sequential(), nn.Sequential()
        self.slice1.add_module("0", nn.Conv2d(3, 4, 3, padding=1))
        self.slice1.add_module("1", nn.ReLU())
        self.slice2.add_module("3", nn.Conv2d(4, 4, 3, padding=1))


class Standin(nn.Module):
    def __init__(self, net="alex", spatial=False, pnet_rand=False, verbose=True):
        super().__init__()
        assert pnet_rand, "the package would download the weights"
        self.net, self.spatial = Slices(), spatial

    def forward(self, image, truth):
        assert image.shape == truth.shape and image.shape[:2] == (1, 3) and image.min() >= -1 and image.max() <= 1
        first, second = (self.net.slice2(self.net.slice1(x)) for x in (image, truth))
        found = (first - second).square().sum(1, keepdim=True)
        return found if self.spatial else found.mean([2, 3], keepdim=True)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Standin))
    monkeypatch.setattr(perceptual, "BACKBONES", {"vgg": Backbone("vgg16", "vgg.pth", 12),
                                                  "alex": Backbone("alexnet", "alex.pth", 12)})  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    """A file of torchvision's kind, with a layer that LPIPS does not need."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"features.0.weight": (4, 3, 3, 3), "features.0.bias": (4,), "features.3.weight": (4, 4, 3, 3),
              "features.3.bias": (4,), "classifier.1.weight": (2, 4)}  # fmt: skip
    path = tmp_path / "weights.pth"
    torch.save({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, path)
    return path


def pair(height=16, width=20):
    rng = np.random.default_rng(0)
    return rng.random((height, width, 3)), rng.random((height, width, 3))


def plain(path, image, truth):
    """The stand-in's map by functions, of the weights in the file: h w."""
    given = torch.load(path)
    features = []
    for x in (image, truth):
        x = torch.from_numpy(x).float().permute(2, 0, 1)[None] * 2 - 1
        x = nn.functional.conv2d(x, given["features.0.weight"], given["features.0.bias"], padding=1).relu()
        features.append(nn.functional.conv2d(x, given["features.3.weight"], given["features.3.bias"], padding=1))
    return (features[0] - features[1]).square().sum(1)[0].numpy()


def test_the_weights_are_those_of_the_file(package, weights):
    image, truth = pair()
    distance, expected = Lpips("alex", weights).to(CPU), plain(weights, image, truth)
    assert distance(image, truth) == pytest.approx(expected.mean(), rel=1e-5)
    assert distance(truth, truth) == 0
    mask = np.zeros((16, 20), bool)
    mask[3:9, 5:17] = True
    assert distance(image, truth, mask) == pytest.approx(expected[mask].mean(), rel=1e-5)
    assert distance(image, truth) == pytest.approx(expected.mean(), rel=1e-5)  # the mask is forgotten


def test_no_number_where_there_is_none(package, weights):
    distance = Lpips("vgg", weights)
    assert math.isnan(distance(*pair(), np.zeros((16, 20), bool)))
    assert math.isnan(distance(*pair(height=11)))


def test_random_numbers_stay_what_they_are(package, weights):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Lpips("vgg", weights)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("content, found", [
    (None, "found no such file"), (b"no weights", "found no weights"), ([1, 2], "found no weights"),
    ({"features.0.weight": torch.zeros(4, 3, 3, 3)}, "found other weights"),
    ({"features.0.weight": torch.zeros(9), "features.0.bias": torch.zeros(4)}, "found other weights"),
])  # fmt: skip
def test_weights_that_cannot_be_used(package, logdir, tmp_path, capsys, content, found):
    """The line says which file, and where to get it; nothing is rendered."""
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert evaluate.main([str(logdir), "--lpips", "alex", "--lpips_weights", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate.py: error: {path}: {found}") and error.count("\n") == 1
    assert "torchvision's alex.pth" in error and "torchvision.models.alexnet" in error
    assert not list(logdir.glob("testset*"))


def test_a_package_that_is_missing_or_broken(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lpips", None)
    lpips, reason = lpips_if_there()
    assert lpips is None and "pip install -r requirements-lpips.txt" in reason
    monkeypatch.delitem(sys.modules, "lpips")
    (tmp_path / "lpips.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "nms does not exist" in lpips_if_there()[1]


def test_in_the_record_the_table_and_the_results(package, weights, logdir, trained, capsys):
    """Of a scene with masks. Other networks, or none before, begin a record anew; one that has it by now goes on."""
    record, path = logdir / "testset_000002/metrics.json", str(weights)
    assert evaluate.main([str(logdir)]) == 0
    without = json.loads(record.read_text())
    assert "lpips_net" not in without and "vgg.pth" in without["lpips_missing"]

    assert evaluate.main([str(logdir), "--lpips_weights", path]) == 0
    assert json.loads(record.with_name("metrics_1.json").read_text()) == without
    found = json.loads(record.read_text())
    assert (found["lpips_net"], found["lpips_missing"]) == ("vgg", None)
    for name in ("lpips", "lpips_masked"):
        values = [metrics[name] for metrics in found["views"].values()]
        assert min(values) > 0 and found["mean"][name] == pytest.approx(np.mean(values))
    table = capsys.readouterr().out.splitlines()[-2:]
    assert table[0].split()[-2:] == ["ssim_masked", "lpips_masked"] and "lpips" in table[0].split()
    assert table[1].split()[-1] == f"{found['mean']['lpips_masked']:.4f}"
    assert f"{found['mean']['lpips']!r}" in (logdir.parent / "results.csv").read_text()

    assert evaluate.main([str(logdir)]) == 0  # without it
    kept = json.loads(record.read_text())
    assert (kept["views"], kept["lpips_net"]) == (found["views"], "vgg")
    assert evaluate.main([str(logdir), "--lpips", "alex", "--lpips_weights", path]) == 0
    assert json.loads(record.read_text())["lpips_net"] == "alex"
    assert json.loads(record.with_name("metrics_2.json").read_text())["views"] == found["views"]


def test_an_earlier_version_s_lpips_is_that_of_vgg(package, weights, logdir):
    path = logdir / "testset_000002/metrics.json"
    assert evaluate.main([str(logdir), "--lpips_weights", str(weights)]) == 0
    content = json.loads(path.read_text())
    del content["lpips_net"]
    path.write_text(json.dumps(content))
    assert evaluate.main([str(logdir), "--lpips_weights", str(weights)]) == 0
    assert not path.with_name("metrics_1.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_package(tmp_path):
    """With random weights: same pictures, no distance; the map's mean is about the number of the whole picture."""
    try:
        lpips = pytest.importorskip("lpips")
    except RuntimeError as error:  # a torchvision of another torch
        pytest.skip(str(error))
    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {f"features.{name.split('.', 1)[1]}": value for name, value in model.net.state_dict().items()}
    torch.save(state, tmp_path / "alex.pth")
    distance = Lpips("alex", tmp_path / "alex.pth")
    image, truth = pair(64, 64)
    pictures = (torch.from_numpy(x).float().permute(2, 0, 1)[None] for x in (image, truth))
    with torch.no_grad():
        expected = float(model(*pictures, normalize=True))
    assert distance(image, truth) == pytest.approx(expected, rel=1e-4) and expected > 0
    assert distance(image, image) == 0
    assert distance(image, truth, np.ones((64, 64), bool)) == pytest.approx(expected, rel=0.2)
    assert math.isnan(distance(*pair(30, 40))) and not math.isnan(distance(*pair(31, 31)))
