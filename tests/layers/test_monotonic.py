"""Monotonic effects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lamina
from lamina.layers import InterceptLayer, MonotonicLayer
from support import log_prob, run, shapes

LAYER = MonotonicLayer(num_categories=4)
VALUES = {"m.beta": np.array([[-2.0]]), "m.zeta": np.array([[0.5, 0.1, 0.4]])}


def test_the_effect_falls_from_zero_to_its_coefficient():
    found = run(LAYER, "m", np.array([0, 1, 2, 3]), values=VALUES)
    assert_allclose(found[:, 0], [0.0, -1.0, -1.2, -2.0], rtol=1e-6)


def test_two_categories_have_no_simplex():
    layer = MonotonicLayer(num_categories=2, units=3)
    assert shapes(layer, "m", np.array([0, 1])) == {"m.lmbda": (3,), "m.beta": (1, 3)}
    beta = np.array([[1.0, -2.0, 0.5]])
    found = run(layer, "m", np.array([1, 0]), values={"m.beta": beta})
    assert_allclose(found, [beta[0], np.zeros(3)])


@pytest.mark.parametrize("concentration", [1.0, 3.5])
def test_the_simplex_is_dirichlet(concentration):
    layer = MonotonicLayer(num_categories=4, concentration=concentration)
    found = log_prob(layer, "m.zeta", "m", np.array([0]), values=VALUES)
    expected = stats.dirichlet.logpdf(VALUES["m.zeta"][0], [concentration] * 3)
    assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan, (1.0, 1.0)])
def test_a_concentration_that_is_not_positive_raises(bad):
    with pytest.raises(ValueError, match="`concentration` is"):
        MonotonicLayer(concentration=bad)


@pytest.mark.parametrize(
    ("c", "codes", "error", "message"),
    [
        (1, [0], ValueError, "`num_categories` is 1, but an effect that rises"),
        (4, [0, 4], ValueError, "MonotonicLayer 'm': code 4 is past its table of 4"),
        (4, [-1], ValueError, "code -1 is negative"),
        (4, [0.5], TypeError, "dtype float64"),
    ],
)
def test_codes_that_cannot_be_meant_raise(c, codes, error, message):
    with pytest.raises(error, match=message):
        run(LAYER.__class__(), "m", np.array(codes), num_categories=c)


def test_traced_codes_outside_the_scale_give_nan():
    found = jax.jit(lambda codes: run(LAYER, "m", codes, values=VALUES))(
        jnp.array([3, 4, -1])
    )
    assert_allclose(found[0], [-2.0], rtol=1e-6)
    assert np.isnan(found[1:]).all()


@pytest.mark.slow
def test_a_monotonic_effect_is_recovered():
    """Against the means of the categories, which the data alone give."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 4, size=400)
    truth = np.array([0.0, 1.5, 1.6, 3.0])
    y = 1.0 + truth[code] + 0.5 * rng.normal(size=400)

    def model(code, y=None):
        a = InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 5.0})("a")
        wide = lamina.priors.Fixed(coef_kwargs={"loc": 0.0, "scale": 5.0})
        effect = MonotonicLayer(num_categories=4, prior=wide)("m", code)
        return lamina.gaussian_link_exp(a + effect, y)

    posterior = lamina.fit(
        model,
        {"code": code, "y": y},
        method="mcmc",
        num_warmup=300,
        num_samples=400,
        num_chains=1,
    )
    found = posterior.predict({"code": np.arange(4)}, kind="mean").mean
    means = [y[code == k].mean() for k in range(4)]
    assert_allclose(found, means, atol=0.1)
    draws = posterior.draws["m.zeta"].reshape(-1, 3)
    assert_allclose(draws.sum(axis=1), 1.0, rtol=1e-5)
    assert_allclose(draws.mean(axis=0), np.diff(truth) / 3.0, atol=0.05)
