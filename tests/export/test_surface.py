"""Marching cubes slab by slab, and pieces of a surface."""

import numpy as np
import pytest

from infonerf.export import surface

pytest.importorskip("skimage")


def noise(seed=0, shape=(20, 21, 22)):
    values = np.full(shape, -1.0, np.float32)
    values[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).normal(size=[n - 2 for n in shape])
    return values


def ball(centre, radius, n=32):
    axes = np.arange(n, dtype=np.float32)
    return radius - np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.meshgrid(*[axes] * 3, indexing="ij"), centre,
                                                                   strict=True)))  # fmt: skip


def slabs_of(values, thickness):
    return [(first, values[first : first + thickness]) for first in range(0, len(values) - 1, thickness - 1)]


def triangles(vertices, faces):
    """Corners of all faces, in an order of their own."""
    corners = vertices[faces].reshape(-1, 9)
    return corners[np.lexsort(corners.T)]


def directed_edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def is_closed(faces):
    """Whether every edge is passed as often in one direction as in the other."""
    edges = directed_edges(faces)
    forth, back = (np.unique(part, axis=0, return_counts=True) for part in (edges, edges[:, ::-1]))
    return all(np.array_equal(a, b) for a, b in zip(forth, back, strict=True))


@pytest.mark.parametrize("thickness", [2, 3, 7, 19])
def test_slabs_make_the_surface_of_the_whole(thickness):
    values = noise()
    vertices, faces, greatest = surface.isosurface([(0, values)], 0.0)
    parts = surface.isosurface(slabs_of(values, thickness), 0.0)
    assert len(parts[0]) == len(vertices) and parts[2] == greatest == values.max()
    assert is_closed(faces) and is_closed(parts[1])
    np.testing.assert_allclose(triangles(*parts[:2]), triangles(vertices, faces), atol=1e-5)


def test_a_surface_through_the_samples_themselves_is_closed():
    values = noise()
    values[5:9, 5:9, 5:9] = 0.5
    for threshold in (0.5, float(values[5, 12, 12])):
        assert is_closed(surface.isosurface(slabs_of(values, 4), threshold)[1])


def test_faces_look_outwards():
    vertices, faces, _ = surface.isosurface([(0, ball((15, 15, 15), 10))], 0.0)
    assert surface.areas_and_volumes(vertices, faces)[1].sum() == pytest.approx(4 / 3 * np.pi * 1000, rel=0.01)
    assert surface.areas_and_volumes(vertices, faces)[0].sum() == pytest.approx(4 * np.pi * 100, rel=0.02)
    normals = surface.face_normals(vertices, faces)
    outwards = (vertices - 15) / 10
    assert (np.einsum("ni,ni->n", normals, outwards) / np.linalg.norm(normals, axis=1)).min() > 0.98


def test_nothing_above_the_threshold():
    vertices, faces, greatest = surface.isosurface(slabs_of(noise(), 5), 100.0)
    assert len(vertices) == len(faces) == 0 and 2 < greatest < 5


def extracted(values):
    return surface.isosurface([(0, values)], 0.0)[:2]


def test_small_pieces_are_removed_and_large_ones_kept():
    large, other, small = ball((10, 10, 10), 7), ball((24, 24, 24), 5), ball((25, 6, 6), 0.6)
    vertices, faces, floaters, cavities = surface.without_floaters(
        *extracted(np.maximum(np.maximum(large, other), small)), np.empty((0, 3)))
    assert (floaters, cavities) == (1, 0)
    assert surface.pieces_of(faces, len(vertices)).max() == 1
    np.testing.assert_array_equal(triangles(vertices, faces), triangles(*extracted(np.maximum(large, other))))


@pytest.mark.parametrize(("viewpoint", "left"), [((15, 15, 15), 2), ((0, 0, 0), 1)])
def test_a_cavity_is_removed_unless_somebody_is_in_it(viewpoint, left):
    shell = np.minimum(ball((15, 15, 15), 12), -ball((15, 15, 15), 8))
    vertices, faces, floaters, cavities = surface.without_floaters(*extracted(shell), np.array([viewpoint]))
    assert (floaters, cavities) == (0, 2 - left)
    assert surface.pieces_of(faces, len(vertices)).max() == left - 1


def test_simplified_stays_where_it_was():
    pytest.importorskip("fast_simplification")
    vertices, faces = extracted(ball((15, 15, 15), 12))
    few, fewer = surface.simplified(vertices, faces, 600)
    assert 550 <= len(fewer) <= 600 < len(faces)
    assert abs(np.linalg.norm(few - 15, axis=1) - 12).max() < 0.3
    assert surface.simplified(vertices, faces, len(faces)) == (vertices, faces)
