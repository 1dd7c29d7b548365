"""Depths of surface points that are known before training: a capture's sparse points, or its depth maps."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class KnownDepths:
    """Pixels of views in which the depth of what they show is known. Axes: n pixels.

    views: n, numbers of the scene's views. cols, rows: n, places in the image in pixels, (0, 0) being the outer corner
    of its first pixel, as for COLMAP. depths: n, z-depths in the scene's world. weights: n, above 0, how far to trust
    them; of mean 1. picture: h w 3 uint8, of how they were found, to look at.
    """

    views: np.ndarray
    cols: np.ndarray
    rows: np.ndarray
    depths: np.ndarray
    weights: np.ndarray
    picture: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.views)
