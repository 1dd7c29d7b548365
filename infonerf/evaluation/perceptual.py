"""LPIPS (Zhang et al., CVPR 2018) by the lpips package, its backbone's weights from a file. Nothing is downloaded."""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from infonerf.system.errors import InputError


class Backbone(NamedTuple):
    """model, file: what torchvision calls it and its weights. smallest: the shorter side of a picture, in pixels."""

    model: str
    file: str
    smallest: int


BACKBONES = {"vgg": Backbone("vgg16", "vgg16-397923af.pth", 16),
             "alex": Backbone("alexnet", "alexnet-owt-7be5be79.pth", 31)}  # fmt: skip


class Lpips:
    """The distance of two pictures, h w 3 in 0..1; over the pixels of a mask, h w bool, that of the map of distances.

    net: one of BACKBONES. weights: its file, by default where torchvision would keep it. Raises InputError where the
    package or the weights cannot be used.
    """

    def __init__(self, net: str = "vgg", weights: Path | None = None):
        backbone = BACKBONES[net]
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / backbone.file
        with warnings.catch_warnings(), torch.random.fork_rng([]):  # the numbers of a training stay what they are
            warnings.simplefilter("ignore")
            try:
                import lpips
            except ImportError as error:
                raise InputError(f"LPIPS needs {error.name}, which is not installed: pip install -r "
                                 "requirements-lpips.txt") from error
            except RuntimeError as error:  # a torchvision of another torch
                raise InputError(f"LPIPS: the lpips package cannot be imported ({error}), expected the torchvision "
                                 "that belongs to this torch") from error
            features = read_features(path, backbone)
            model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        try:
            model.net.load_state_dict({name: features[name.split(".", 1)[1]] for name in model.net.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{path}: found other weights, {expected(backbone)}") from error
        self.net, self.smallest, self.model = net, backbone.smallest, model.eval()
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Lpips":
        self.model.to(device)
        self.device = device
        return self

    @torch.no_grad()
    def __call__(self, image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
        """NaN where the pictures are too small for the network, or the mask is empty."""
        if min(truth.shape[:2]) < self.smallest or (mask is not None and not mask.any()):
            return math.nan
        pair = (torch.as_tensor(np.asarray(x, np.float32)).to(self.device) for x in (image, truth))
        self.model.spatial = mask is not None
        found = self.model(*(x.movedim(-1, 0)[None] * 2 - 1 for x in pair)).cpu().numpy()
        return float(found.mean() if mask is None else found[0, 0][mask].mean())


def read_features(path: Path, backbone: Backbone) -> dict:
    """Layer -> weights of the convolutions in a file of torchvision."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {name.removeprefix("features."): value for name, value in content.items()}
    except FileNotFoundError as error:
        raise InputError(f"{path}: found no such file, {expected(backbone)}") from error
    except Exception as error:  # damaged in one of many ways
        raise InputError(f"{path}: found no weights ({type(error).__name__}), {expected(backbone)}") from error


def expected(backbone: Backbone) -> str:
    return (f"expected torchvision's {backbone.file} for LPIPS (--lpips_weights FILE): where there is a network, "
            f"torchvision.models.{backbone.model}(weights='DEFAULT') puts it into ~/.cache/torch/hub/checkpoints; see "
            f"torchvision's page \"Models and pre-trained weights\", {backbone.model}")  # fmt: skip


def lpips_if_there() -> tuple[Lpips | None, str | None]:
    """LPIPS by VGG, or None and the reason."""
    try:
        return Lpips(), None
    except InputError as error:
        return None, str(error)
