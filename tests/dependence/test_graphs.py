"""Adjacencies: what is refused, and the spectra against plain inverses."""

import pickle

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from lamina.dependence import Adjacency
from lamina.dependence.graphs import (
    as_adjacency,
    intrinsic_spectrum,
    proper_spectrum,
)

# a triangle with a tail, a pair, and an island
EDGES = [(0, 1), (1, 2), (2, 0), (2, 3), (4, 5)]
MATRIX = np.zeros((7, 7))
for a, b in EDGES:
    MATRIX[a, b] = MATRIX[b, a] = 1.0


def laplacian(matrix):
    return np.diag(matrix.sum(axis=1)) - matrix


@pytest.mark.parametrize(
    "given",
    [
        MATRIX,
        MATRIX.astype(int),
        MATRIX.astype(bool),
        MATRIX.tolist(),
        sparse.csr_matrix(MATRIX),
        sparse.coo_array(MATRIX),
        Adjacency.from_edges(EDGES, 7),
        Adjacency.from_edges(np.array([(b, a) for a, b in EDGES + EDGES[:2]]), 7),
        Adjacency.from_edges(EDGES + [(b, a) for a, b in EDGES], 7),
    ],
)
def test_all_ways_to_give_a_graph_are_equal(given):
    graph = as_adjacency(given)
    assert graph == as_adjacency(MATRIX)
    assert hash(graph) == hash(as_adjacency(MATRIX))
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert_array_equal(graph.matrix().toarray(), MATRIX)
    assert_array_equal(graph.neighbours, MATRIX.sum(axis=1))
    assert_array_equal(graph.islands, [6])
    assert_array_equal(graph.edges, sorted(tuple(sorted(e)) for e in EDGES))
    assert repr(graph) == "Adjacency(num_areas=7, 5 edges)"


def test_graphs_of_other_edges_or_areas_differ():
    graphs = [
        Adjacency.from_edges(EDGES, 7),
        Adjacency.from_edges(EDGES, 8),
        Adjacency.from_edges(EDGES[:-1], 7),
        Adjacency.from_edges([], 7),
    ]
    assert len(set(graphs)) == 4


def test_a_graph_cannot_be_changed():
    given = np.array(EDGES)
    graph = Adjacency.from_edges(given, 7)
    given[0] = 3
    assert graph == Adjacency.from_edges(EDGES, 7)
    with pytest.raises(ValueError, match="read-only"):
        graph.edges[0] = 3


def changed(row, column, value):
    matrix = MATRIX.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.coo_matrix])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (changed(0, 4, 1.0), "not symmetric: area 0 has area 4"),
        (changed(3, 2, 0.0), "not symmetric: area 2 has area 3"),
        (changed(3, 3, 1.0), r"areas \[3\] as their own neighbours"),
        (changed(0, 1, 2.0), "areas 0 and 1 is 2.0"),
        (changed(0, 1, -1.0), "areas 0 and 1 is -1.0"),
        (changed(5, 4, np.nan), "areas 5 and 4 is nan"),
        (MATRIX[:3], r"shape \(3, 7\).*square"),
    ],
)
def test_matrices_that_are_no_graph_raise(form, matrix, message):
    with pytest.raises(ValueError, match=message):
        as_adjacency(form(matrix))


@pytest.mark.parametrize("given", [np.zeros(3), np.full((2, 2), "a"), 5.0])
def test_what_is_no_matrix_raises(given):
    with pytest.raises(ValueError, match=r"the adjacency has shape|holds <U1"):
        as_adjacency(given)


@pytest.mark.parametrize(
    ("edges", "num_areas", "error", "message"),
    [
        ([(0, 1), (2, 2)], 3, ValueError, r"areas \[2\] as their own"),
        ([(0, 3)], 3, ValueError, "code 3 is none of the 3 areas"),
        ([(0, -1)], 3, ValueError, "code -1 is none of the 3 areas"),
        ([(0, 1, 2)], 3, ValueError, r"shape \(1, 3\)"),
        ([0, 1], 3, ValueError, r"shape \(2,\)"),
        ([(0.0, 1.0)], 3, TypeError, "dtype float64"),
        ([(0, 1)], 0, ValueError, "`num_areas` is 0"),
        ([(0, 1)], 2.0, ValueError, "`num_areas` is 2.0"),
    ],
)
def test_edges_that_are_no_graph_raise(edges, num_areas, error, message):
    with pytest.raises(error, match=message):
        Adjacency.from_edges(edges, num_areas)


def test_a_traced_adjacency_is_refused_with_the_reason():
    with pytest.raises(TypeError, match=r"traced by JAX.*outside of the model"):
        jax.jit(as_adjacency)(MATRIX)


def test_the_proper_spectrum_inverts_the_precision():
    inside = MATRIX[:6, :6]
    basis, omega = proper_spectrum(as_adjacency(inside))
    for alpha in (0.0, 0.3, 0.99):
        precision = np.diag(inside.sum(axis=1)) - alpha * inside
        found = basis @ np.diag(1.0 / (1.0 - alpha * omega)) @ basis.T
        assert_allclose(found, np.linalg.inv(precision), rtol=1e-9, atol=1e-12)
    assert omega.max() == pytest.approx(1.0)
    assert omega.min() >= -1.0


def test_the_intrinsic_spectrum_is_the_generalised_inverse_by_parts():
    basis, variances = intrinsic_spectrum(as_adjacency(MATRIX), scaled=False)
    found = basis @ np.diag(variances) @ basis.T
    assert_allclose(
        found[:6, :6], np.linalg.pinv(laplacian(MATRIX))[:6, :6], atol=1e-12
    )
    assert_allclose(basis.T @ basis, np.eye(7), atol=1e-12)
    assert (variances == 0).sum() == 2  # one for each part of two areas or more


def test_scaling_makes_the_geometric_mean_of_variances_one_in_each_part():
    basis, variances = intrinsic_spectrum(as_adjacency(MATRIX), scaled=True)
    found = basis @ np.diag(variances) @ basis.T
    plain = np.linalg.pinv(laplacian(MATRIX))
    for part in ([0, 1, 2, 3], [4, 5]):
        diagonal = np.diag(found)[part]
        assert np.exp(np.log(diagonal).mean()) == pytest.approx(1.0)
        ratio = diagonal / np.diag(plain)[part]
        assert_allclose(ratio, ratio[0], rtol=1e-9)
        assert_allclose(found[part].sum(axis=1), 0.0, atol=1e-12)
    assert_allclose(found[6], np.eye(7)[6])
