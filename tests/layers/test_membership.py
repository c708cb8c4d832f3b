"""Rows that belong to several groups, and relatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lamina
from lamina.dependence import KnownCovariance
from lamina.handlers import predicting
from lamina.layers import MultiMembershipLayer, RandomEffectsLayer
from lamina.links import gaussian_link
from support import run

pytestmark = pytest.mark.usefixtures("strict_shapes")

C = 4
LAYER = MultiMembershipLayer(num_categories=C)
TABLE = np.array([[1.0], [10.0], [100.0], [1000.0]])
VALUES = {"g.lmbda": np.array(1.0), "g.theta": TABLE}
CODES = np.array([[0, 1], [2, 2], [3, 0]])
WEIGHTS = np.array([[0.5, 0.25], [1.0, 2.0], [0.0, 1.0]])


def terms(codes, *weights, layer=LAYER, values=VALUES):
    return np.asarray(run(layer, "g", codes, *weights, values=values))


def test_weights_are_used_as_they_are():
    assert_allclose(terms(CODES, WEIGHTS)[:, 0], [3.0, 300.0, 1.0])
    assert_allclose(terms(CODES[:1], WEIGHTS[:1]), [[3.0]])
    assert_allclose(
        terms(CODES, np.array([[1, 1], [1, 0], [0, 0]]))[:, 0], [11, 100, 0]
    )


def test_members_share_a_row_where_no_weights_are_given():
    assert_allclose(terms(CODES)[:, 0], [5.5, 100.0, 500.5])
    assert_allclose(terms(CODES[:, :1]), TABLE[CODES[:, 0]])


@pytest.mark.parametrize("padding", [-1, -7, 0, 3, C, 10**6])
def test_what_has_no_weight_is_not_read(padding):
    codes = np.array([[1, padding], [padding, 2]])
    weights = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert_allclose(terms(codes, weights)[:, 0], [20.0, 100.0])
    traced = jax.jit(lambda c, w: run(LAYER, "g", c, w, values=VALUES))(codes, weights)
    assert_allclose(traced[:, 0], [20.0, 100.0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([[0.5, -0.1]]), r"1 of 2 values, in rows 0.*seen: -0.1"),
        (np.array([[0.5, np.nan]]), "NaN or infinite"),
        (np.array([[0.5, np.inf]]), "NaN or infinite"),
        (
            np.array([[0.5, 0.5, 0.0]]),
            r"shape \(1, 3\) and the codes have shape \(1, 2\)",
        ),
        (np.array([0.5]), r"shape \(1, 1\) and the codes have shape \(1, 2\)"),
        (np.array([0.5, 0.5]), r"shape \(2, 1\) and the codes have shape \(1, 2\)"),
    ],
)
def test_weights_that_cannot_be_meant_raise(weights, message):
    with pytest.raises(ValueError, match=f"MultiMembershipLayer 'g': .*{message}"):
        terms(CODES[:1], weights)


def test_codes_that_cannot_be_meant_raise():
    with pytest.raises(ValueError, match=r"shape \(2,\).*RandomEffectsLayer"):
        terms(np.array([0, 1]))
    with pytest.raises(ValueError, match="code 4 is past its table of 4"):
        terms(np.array([[0, 4]]))
    with pytest.raises(ValueError, match="code -1 is negative"):
        terms(np.array([[0, -1]]))
    with pytest.raises(TypeError, match="dtype float64"):
        terms(np.array([[0.0, 1.0]]))


def test_new_members_are_drawn_one_by_one(key):
    model = predicting(LAYER, key=key)
    codes = np.array([[-1, -1], [-1, 0], [-2, -1], [0, 1]])
    weights = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    found = np.asarray(run(model, "g", codes, weights, values=VALUES))[:, 0]
    first = found[0]
    assert_allclose(found[1], first + 2.0, rtol=1e-5)
    second = found[2] - first
    assert not np.isclose(first, second)
    assert found[3] == 11.0
    alone = run(model, "g", codes[2:3], weights[2:3], values=VALUES)
    assert_allclose(alone[0, 0], found[2], rtol=1e-6)
    single = predicting(RandomEffectsLayer(num_categories=C), key=key)
    assert_allclose(run(single, "g", codes[0, :1], values=VALUES)[0, 0], first)


def test_new_members_without_effect(key):
    layer = MultiMembershipLayer(num_categories=C, unseen="zero")
    found = run(predicting(layer, key=key), "g", np.array([[-1, 1]]), values=VALUES)
    assert_array_equal(found, [[5.0]])


def test_a_traced_code_past_the_table_reads_nan():
    found = jax.jit(lambda c: run(LAYER, "g", c, values=VALUES))(jnp.array([[0, C]]))
    assert np.isnan(found).all()


def test_a_single_row_beside_many_outcomes_is_refused():
    def model(codes, y=None):
        return gaussian_link(LAYER("g", codes), y)

    with pytest.raises(ValueError, match="a single row, where the outcome has 20"):
        lamina.fit(model, {"codes": np.array([[0, 1]]), "y": np.zeros(20)})


QUICK = {"num_warmup": 500, "num_samples": 500, "num_chains": 1}


@pytest.mark.slow
def test_memberships_are_recovered():
    rng = np.random.default_rng(0)
    n, c = 400, 12
    theta = rng.normal(size=c)
    codes = np.stack([rng.permutation(c)[:2] for _ in range(n)])
    share = rng.uniform(size=n)
    weights = np.stack([share, 1.0 - share], axis=1)
    y = (weights * theta[codes]).sum(axis=1) + 0.3 * rng.normal(size=n)

    def model(codes, weights, y=None):
        layer = MultiMembershipLayer(num_categories=c)
        return gaussian_link(layer("g", codes, weights), y)

    data = {"codes": codes, "weights": weights, "y": y}
    with jax.numpy_rank_promotion("allow"):
        draws = lamina.fit(model, data, method="mcmc", **QUICK).draws
    found = draws["g.theta"].reshape(-1, c)
    assert np.all(np.abs(found.mean(axis=0) - theta) < 4.0 * found.std(axis=0))
    assert np.all(found.std(axis=0) < 0.1)
    assert abs(draws["sigma"].mean() - 0.3) < 4.0 * draws["sigma"].std()


@pytest.mark.slow
def test_relatives_without_rows_are_predicted_from_their_families():
    """Forty families of a measured parent and four offspring, one of them measured."""
    rng = np.random.default_rng(2)
    family = 0.5 * np.eye(5) + 0.5
    kinship = np.kron(np.eye(40), family)
    theta = np.linalg.cholesky(kinship) @ rng.normal(size=200)
    measured = np.flatnonzero(np.arange(200) % 5 < 2)
    codes = np.repeat(measured, 4)
    y = theta[codes] + 0.5 * rng.normal(size=len(codes))
    prior = KnownCovariance(kinship)

    def model(codes, y=None):
        layer = RandomEffectsLayer(num_categories=200, prior=prior)
        return gaussian_link(layer("g", codes), y)

    with jax.numpy_rank_promotion("allow"):
        posterior = lamina.fit(model, {"codes": codes, "y": y}, method="mcmc", **QUICK)
    found = posterior.draws["g.theta"].reshape(-1, 200)
    lmbda = posterior.draws["g.lmbda"].ravel()
    assert abs(lmbda.mean() - 1.0) < 3.0 * lmbda.std()
    new = np.setdiff1d(np.arange(200), measured)
    # best linear prediction from both measured relatives' means, all scales known
    cross, own = np.full(2, 0.5), family[:2, :2] + np.eye(2) * 0.5**2 / 4.0
    weights = np.linalg.solve(own, cross)
    means = y.reshape(-1, 4).mean(axis=1).reshape(40, 2)
    expected = np.repeat(means @ weights, 3)
    assert np.corrcoef(found.mean(axis=0)[new], expected)[0, 1] > 0.98
    spread = np.sqrt(1.0 - cross @ weights)
    assert_allclose(found.std(axis=0)[new].mean(), spread * lmbda.mean(), rtol=0.1)
