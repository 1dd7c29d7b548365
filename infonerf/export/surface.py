"""The surface on which a density has one value: marching cubes (Lorensen and Cline, 1987; as made topologically correct
by Lewiner et al., 2003), slab by slab; and its pieces.

Axes: n vertices, m faces. Vertices are in cells of a grid. Seen from where density is low, faces are counterclockwise.
"""

from collections.abc import Iterable

import numpy as np

LEAST_PIECE = 0.01  # of the largest piece's area: smaller ones are floaters


def isosurface(slabs: Iterable[tuple[int, np.ndarray]], threshold: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Vertices n 3 (float32), faces m 3 (int64), and the greatest density of all slabs (`density.density_slabs`)."""
    from skimage.measure import marching_cubes

    vertices, faces, seams = [np.empty((0, 3), np.float32)], [np.empty((0, 3), np.int64)], []
    n, greatest = 0, -np.inf
    for first, values in slabs:
        seams.append(first)
        greatest = max(greatest, float(values.max()))
        if not values.min() < threshold < values.max():
            continue
        found, triangles, _, _ = marching_cubes(values, threshold, gradient_direction="ascent")
        found[:, 0] += first
        vertices.append(found)
        faces.append(triangles.astype(np.int64) + n)
        n += len(found)
    return *welded(np.concatenate(vertices), np.concatenate(faces), np.array(seams, np.float32)), greatest


def welded(vertices: np.ndarray, faces: np.ndarray, seams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surface whose vertices at the same place of a seam, a plane that two slabs share, are one. Both slabs compute
    them from the same numbers, hence exactly alike."""
    shared = np.flatnonzero(np.isin(vertices[:, 0], seams))
    _, first, which = np.unique(vertices[shared], axis=0, return_index=True, return_inverse=True)
    target = np.arange(len(vertices))
    target[shared] = shared[first[which.reshape(-1)]]
    faces = target[faces]
    a, b, c = faces.T
    return used_only(vertices, faces[(a != b) & (b != c) & (c != a)])


def used_only(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the vertices of no face."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


# Its pieces.


def areas_and_volumes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each face, m: its area, and its part of the signed volume of a closed surface."""
    a, b, c = (vertices[corner].astype(np.float64) for corner in faces.T)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2, np.einsum("ni,ni->n", a, np.cross(b, c)) / 6


def pieces_of(faces: np.ndarray, n: int) -> np.ndarray:
    """The number of the connected piece that each of n vertices belongs to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges), np.int8), edges.T), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def without_floaters(
    vertices: np.ndarray, faces: np.ndarray, viewpoints: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The surface without small pieces, and without cavities within what is solid, which nobody sees: those around no
    viewpoint (k 3, in cells). Also how many floaters and cavities were removed.

    A piece is small below LEAST_PIECE of the area of the largest one. A cavity has a negative volume.
    """
    piece = pieces_of(faces, len(vertices))
    area, volume = (np.bincount(piece[faces[:, 0]], part) for part in areas_and_volumes(vertices, faces))
    low, high = np.full((len(area), 3), np.inf), np.full((len(area), 3), -np.inf)
    np.minimum.at(low, piece, vertices)
    np.maximum.at(high, piece, vertices)
    cavity = volume < 0
    for number in np.flatnonzero(cavity):
        cavity[number] = not ((viewpoints >= low[number]) & (viewpoints <= high[number])).all(-1).any()
    small = ~cavity & (area < LEAST_PIECE * area[~cavity].max())
    kept = ~(small | cavity)
    return *used_only(vertices, faces[kept[piece[faces[:, 0]]]]), int(small.sum()), int(cavity.sum())


def simplified(vertices: np.ndarray, faces: np.ndarray, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """The surface in about n_faces faces, where it has more, by quadric error (Garland and Heckbert, 1997)."""
    if len(faces) <= n_faces:
        return vertices, faces
    from fast_simplification import simplify

    vertices, faces = simplify(vertices.astype(np.float32), faces.astype(np.int32), target_count=n_faces)
    return used_only(vertices, faces.astype(np.int64))


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """n 3: normals of vertices, the means of their faces' by area, not normalised."""
    a, b, c = (vertices[corner].astype(np.float64) for corner in faces.T)
    normals = np.cross(b - a, c - a)
    sums = [sum(np.bincount(corner, axis, len(vertices)) for corner in faces.T) for axis in normals.T]
    return np.stack(sums, axis=-1)
