"""Space carving: what a photograph shows as transparent is empty all along its rays (Kutulakos and Seitz, 1999). What
no training view carves away is the visual hull (Laurentini, 1994)."""

import itertools

import numpy as np

from infonerf.scene.scene import Scene


def carved_cells(scene: Scene, bounds: np.ndarray, n: int) -> np.ndarray:
    """n n n bool: the cells of a grid of n a side over `bounds` (2 3) of which some training view sees nothing but
    pixels of alpha 0. Needs alphas.

    The view must see the whole cell, unless it shows the whole object (some of its pixels are opaque, but none of its
    border's): then there is nothing beyond its frame either.
    """
    axes = [np.linspace(low, high, n + 1) for low, high in bounds.T]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # the cells' corners
    carved = np.zeros((n, n, n), bool)
    pixel_center = scene.cameras.pixel_center
    for view in scene.split.train:
        pose, (fx, fy, cx, cy) = scene.poses[view], scene.cameras.intrinsics[view].numpy()
        height, width = scene.size(view)
        x, y, z = np.moveaxis((points - pose[:, 3]) @ pose[:, :3], -1, 0)
        behind, z = z >= 0, np.where(z < 0, z, -1)
        col, row = cx - fx * x / z - pixel_center, cy + fy * y / z - pixel_center  # a pixel's ray is at whole numbers
        first_row, first_col = (np.floor(of_corners(a, np.minimum)) for a in (row, col))
        last_row, last_col = (np.ceil(of_corners(a, np.maximum)) for a in (row, col))
        seen, opaque = ~of_corners(behind, np.logical_or), scene.photographs.alpha(view) > 0
        inside = opaque[1:-1, 1:-1].sum()
        shows_whole_object = inside > 0 and inside == opaque.sum()
        if not shows_whole_object:
            seen &= (first_row >= 0) & (first_col >= 0) & (last_row < height) & (last_col < width)
        top, bottom = (a[seen].clip(0, height).astype(int) for a in (first_row, last_row + 1))
        left, right = (a[seen].clip(0, width).astype(int) for a in (first_col, last_col + 1))
        sums = np.pad(opaque, ((1, 0), (1, 0))).astype(np.int64).cumsum(0).cumsum(1)
        carved[seen] |= sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] == 0
    return carved


def of_corners(values: np.ndarray, reduce: np.ufunc) -> np.ndarray:
    """n+1 n+1 n+1 values at corners -> n n n of them at the 8 corners of each cell, reduced."""
    n = len(values) - 1
    result = values[:n, :n, :n]
    for i, j, k in itertools.product((0, 1), repeat=3):
        result = reduce(result, values[i : i + n, j : j + n, k : k + n])
    return result
