"""What is written of COLMAP's model, where that needs no COLMAP."""

import numpy as np

from infonerf.capture.dataset import folds
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
