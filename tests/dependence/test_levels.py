"""Levels of known covariance, and what is refused of it."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lamina.dependence import KnownCovariance
from lamina.layers import EmbeddingLayer, RandomEffectsLayer, RandomSlopesLayer
from support import run, shapes

pytestmark = pytest.mark.usefixtures("float64", "strict_shapes")

# two parents, two of their children, and a grandchild by the first child alone
KINSHIP = np.array(
    [
        [1.0, 0.0, 0.5, 0.5, 0.25],
        [0.0, 1.0, 0.5, 0.5, 0.25],
        [0.5, 0.5, 1.0, 0.5, 0.5],
        [0.5, 0.5, 0.5, 1.0, 0.25],
        [0.25, 0.25, 0.5, 0.25, 1.0],
    ]
)
C = len(KINSHIP)


def jacobian(prior, c, m=1, scale=2.0):
    """The linear map from z to theta, whose square is theta's covariance."""

    def effects(z):
        values = {"g.lmbda": scale, "g.z": z}
        return run(prior, "g", (c, m), "theta", scale_shape=(), values=values)

    found = jax.jacobian(effects)(np.zeros((c, m)))
    return np.asarray(found).reshape(c * m, c * m)


@pytest.mark.parametrize(
    "prior",
    [
        KnownCovariance(KINSHIP),
        KnownCovariance(cholesky=np.linalg.cholesky(KINSHIP)),
        KnownCovariance(KINSHIP.tolist()),
    ],
)
def test_the_effects_have_the_known_covariance_times_a_learned_variance(prior):
    linear = jacobian(prior, C)
    assert_allclose(linear @ linear.T, 4.0 * KINSHIP, rtol=1e-9, atol=1e-12)
    linear = jacobian(prior, C, m=2)
    expected = np.kron(4.0 * KINSHIP, np.eye(2))
    assert_allclose(linear @ linear.T, expected, rtol=1e-9, atol=1e-12)


def test_sites_on_any_layer_with_a_table():
    prior = KnownCovariance(KINSHIP)
    layer = RandomEffectsLayer(num_categories=C, prior=prior)
    assert shapes(layer, "g", np.array([0, 4])) == {"g.lmbda": (), "g.z": (C, 1)}
    layer = EmbeddingLayer(num_categories=C, embedding_dim=3, prior=prior)
    assert shapes(layer, "g", np.array([0, 4])) == {"g.lmbda": (), "g.z": (C, 3)}
    layer = RandomSlopesLayer(num_categories=C, prior=prior)
    found = shapes(layer, "g", np.ones(2), np.array([0, 4]))
    assert found == {"g.lmbda": (2,), "g.z": (C, 2)}


def test_another_number_of_levels_raises():
    layer = RandomEffectsLayer(num_categories=4, prior=KnownCovariance(KINSHIP))
    with pytest.raises(
        ValueError, match=r"g: KnownCovariance relates 5 levels.*\(4, 1\)"
    ):
        run(layer, "g", np.array([0, 1]))


def with_entry(row, column, value):
    matrix = KINSHIP.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"covariance": with_entry(0, 1, 0.3)},
            "not symmetric: levels 0 and 1 have 0.3",
        ),
        ({"covariance": np.ones((2, 2))}, "not positive definite.*1e-6"),
        ({"covariance": -np.eye(2)}, "least eigenvalue is -1"),
        ({"covariance": with_entry(1, 1, np.nan)}, "`covariance` has 1 of 25.*finite"),
        ({"covariance": KINSHIP[:3]}, r"`covariance` has shape \(3, 5\)"),
        ({"covariance": np.ones(3)}, r"`covariance` has shape \(3,\)"),
        ({"cholesky": KINSHIP}, "no lower Cholesky factor"),
        ({"cholesky": np.diag([1.0, 0.0])}, "no lower Cholesky factor"),
        ({"cholesky": np.diag([1.0, -1.0])}, "no lower Cholesky factor"),
        ({"cholesky": np.zeros((2, 3))}, r"`cholesky` has shape \(2, 3\)"),
        ({}, "one of them; none came"),
        ({"covariance": np.eye(2), "cholesky": np.eye(2)}, "one of them; both came"),
    ],
)
def test_covariances_that_are_none_raise(given, message):
    with pytest.raises(ValueError, match=message):
        KnownCovariance(**given)


def test_a_traced_covariance_is_refused_with_the_reason():
    with pytest.raises(TypeError, match=r"traced by JAX.*outside of compiled"):
        jax.jit(lambda a: KnownCovariance(a).basis())(KINSHIP)


def test_priors_are_values():
    one, same = KnownCovariance(KINSHIP), KnownCovariance(KINSHIP.copy())
    assert one == same
    assert hash(one) == hash(same)
    assert one != KnownCovariance(np.eye(C))
    assert repr(one) == "KnownCovariance(5 levels)"


def test_rounding_is_no_asymmetry():
    prior = KnownCovariance(with_entry(0, 2, 0.5 + 1e-12))
    assert_allclose(prior.basis() @ prior.basis().T, KINSHIP, atol=1e-9)
