"""What is written of COLMAP's model, where that needs no COLMAP."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from infonerf.capture import make
from infonerf.capture.dataset import Model, folds
from infonerf.capture.photographs import Photograph
from infonerf.capture.reconstruct import Outcome
from infonerf.scene.distortion import Lens


def places(k1: float, tangential: float = 0.0) -> np.ndarray:
    """Of a pinhole image that reaches 0.7 to each side, in a photograph with that distortion: h w 2."""
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 40), np.linspace(-0.7, 0.7, 30))
    coefficients = (k1, 0.0, tangential, 0.0, 0.0, 0.0, 0.0, 0.0)
    lens = Lens(40, 30, 30.0, 30.0, 20.0, 15.0, coefficients=coefficients)
    return lens.project(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(30, 40, 2).astype(np.float32)


def test_distortions_that_fold_are_told_from_those_that_do_not():
    assert not any(folds(places(k1)) for k1 in (-0.3, -0.1, 0.0, 0.5))  # 1 + 3 k1 r^2 > 0 for r^2 < 0.98
    assert folds(places(-0.4)) and folds(places(-2.0)) and folds(places(0.0, 2.0))
    assert folds(np.full((4, 4, 2), np.nan)) and not folds(np.zeros((1, 9, 2)))


def test_a_folded_photograph_is_named_in_one_line(capsys):
    photographs = [Photograph(Path(name), name, 40, 30, (), None, True) for name in ("a.png", "b.png")]
    model = Model(("a.png", "b.png"), np.tile(np.eye(3, 4), (2, 1, 1)), np.tile([30.0, 30, 20, 15], (2, 1)),
                  np.tile([30, 40], (2, 1)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), 0.1, 9.0)  # fmt: skip
    for folded in ((), ("b.png",)):
        make.report(photographs, Outcome("usual thresholds", [2]), replace(model, folded=folded), Path("scene"))
        lines = [line for line in capsys.readouterr().out.splitlines() if "folds" in line]
        assert len(lines) == len(folded) and all("NOTE: undistorting folds b.png: the" in line for line in lines)
