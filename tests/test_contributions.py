"""What layers add to a predictor, against products of draws and data."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lamina
from lamina import (
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
    gaussian_link,
)
from lamina.links import poisson_link

RNG = np.random.default_rng(8)
N, C = 30, 4
X, G = RNG.normal(size=(N, 2)), np.arange(N) % C
KNOWN = RNG.normal(size=N)
Y = 1.0 + X @ [1.0, -2.0] + KNOWN + RNG.normal(size=C)[G] + RNG.normal(size=N)
DATA = {"x": X, "g": G, "known": KNOWN, "y": Y}


def additive(x, g, known, y=None):
    mu = (
        InterceptLayer()("a")
        + FixedPriorLayer()("b", x)
        + RandomEffectsLayer(num_categories=C)("g", g)
    )
    return gaussian_link(mu, y, offset=known)


@pytest.fixture(scope="module")
def posterior():
    return lamina.fit(
        additive, DATA, num_steps=300, num_draws=50, progress_bar=False, seed=1
    )


def pooled(posterior, site):
    values = posterior.draws[site]
    return values.reshape(-1, *values.shape[2:])


def test_each_is_the_product_of_its_coefficients_and_data(posterior):
    found = posterior.contributions(draws=True)
    assert list(found) == ["a", "b", "g", "rest"]
    slopes = pooled(posterior, "b.beta")[..., 0]
    assert_allclose(found["b"].draws, slopes @ X.T, atol=1e-5)
    assert_allclose(found["g"].draws, pooled(posterior, "g.theta")[:, G, 0], atol=1e-6)
    constant = np.repeat(pooled(posterior, "a.beta")[:, :, 0], N, axis=1)
    assert_allclose(found["a"].draws, constant, atol=1e-6)
    assert_allclose(found["rest"].mean, KNOWN, atol=1e-6)
    assert_allclose(found["b"].mean, slopes.mean(0) @ X.T, atol=1e-5)
    assert_allclose(found["b"].sd, (slopes @ X.T).std(0, ddof=1), atol=1e-5)


@pytest.mark.parametrize("chunk_rows", ["auto", 2, None])
def test_they_sum_to_the_predictor_unseen_levels_included(posterior, chunk_rows):
    new = {"x": X[:5], "g": np.array([0, -1, 2, -2, -1]), "known": KNOWN[:5]}
    parts = posterior.contributions(new, seed=3, draws=True, chunk_rows=chunk_rows)
    linear = posterior.predict(new, kind="linear", seed=3, draws=True)
    total = sum(part.draws for part in parts.values())
    assert_allclose(total, linear.draws, atol=1e-5)


def test_units_have_contributions_of_their_own():
    def model(x, y=None):
        mu = InterceptLayer(units=2)("a") + FixedPriorLayer(units=2)("b", x)
        return gaussian_link(mu, y)

    y = np.column_stack([Y, -Y])
    posterior = lamina.fit(model, {"x": X, "y": y}, method="map")
    parts = posterior.contributions()
    by_hand = X @ pooled(posterior, "b.beta")[0]
    assert_allclose(parts["b"].mean, by_hand, atol=1e-5)


def two_outcomes(x, y=None, z=None):
    f = FixedPriorLayer()("f", x)
    poisson_link(FixedPriorLayer()("b", x), z, name="z")
    return gaussian_link(f, y)


def test_one_of_several_outcomes_is_named():
    data = {"x": X, "y": Y, "z": RNG.poisson(2.0, N)}
    posterior = lamina.fit(two_outcomes, data, observed=("y", "z"), method="map")
    with pytest.raises(ValueError, match=r"outcomes are \['z', 'obs'\]"):
        posterior.contributions()
    parts = posterior.contributions(outcome="z")
    assert_allclose(parts["f"].mean, 0.0)
    assert_allclose(
        parts["b"].mean, X @ pooled(posterior, "b.beta")[0, :, 0], atol=1e-5
    )


def scaled(x, y=None):
    return gaussian_link(InterceptLayer()("a") * FixedPriorLayer()("b", x), y)


def beside_a_large_constant(x, y=None):
    product = FixedPriorLayer()("b", x) * FixedPriorLayer()("c", x)
    return gaussian_link(1e4 + InterceptLayer()("a") + product, y)


def inside(x, y=None):
    return gaussian_link(jnp.exp(FixedPriorLayer()("b", x)), y)


@pytest.mark.parametrize("model", [scaled, beside_a_large_constant, inside])
def test_terms_that_do_not_add_up_are_refused(model):
    posterior = lamina.fit(
        model, {"x": X, "y": Y}, num_steps=50, num_draws=5, progress_bar=False
    )
    with pytest.raises(ValueError, match="do not add up to the predictor"):
        posterior.contributions()
