"""How terms are put together in a model, without a class for each way."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina import fit
from lamina.effects import product, term
from lamina.handlers import record_terms
from lamina.layers import AdaptiveLayer, FixedPriorLayer, RandomEffectsLayer
from lamina.links import gaussian_link, logit_link, poisson_link
from lamina.priors import Adaptive
from lamina.products import affine, lookup
from support import log_prob, run, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes")


def two_parameters(x, y=None):
    """One layer of two units: a mean and a log scale."""
    f = AdaptiveLayer(units=2)("f", x)
    return gaussian_link(f[..., :1], y, log_scale=f[..., 1:])


@pytest.mark.parametrize("n", [1, 6])
def test_one_layer_feeds_two_parameters(n):
    rng = np.random.default_rng(0)
    x, y, beta = rng.normal(size=(n, 3)), rng.normal(size=n), rng.normal(size=(3, 2))
    found = log_prob(two_parameters, "obs", x, y, values={"f.beta": beta})
    f = x @ beta
    expected = stats.norm.logpdf(y, f[:, 0], np.exp(f[:, 1]))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert shapes(two_parameters, x)["f.lmbda"] == (2,)


def scaled_by_group(x, group, y=None):
    """A slope for all groups, times a factor of each group's own."""
    factor = jnp.exp(RandomEffectsLayer()("factor", group, 4))
    return gaussian_link(factor * AdaptiveLayer()("f", x), y)


@pytest.mark.parametrize("n", [1, 6])
def test_a_term_is_scaled_by_group(n):
    rng = np.random.default_rng(0)
    x, group, y = rng.normal(size=(n, 3)), rng.integers(0, 4, n), rng.normal(size=n)
    values = {
        "f.beta": rng.normal(size=(3, 1)),
        "factor.theta": rng.normal(size=(4, 1)),
        "sigma": np.array(0.7),
    }
    found = log_prob(scaled_by_group, "obs", x, group, y, values=values)
    mean = np.exp(values["factor.theta"][group, 0]) * (x @ values["f.beta"])[:, 0]
    assert_allclose(found, stats.norm.logpdf(y, mean, 0.7), rtol=1e-4, atol=1e-4)


def matches(home, away, y=None, teams=5):
    """Bradley and Terry: one skill for each team, wherever it plays."""
    skill = Adaptive()("skill", (teams, 1), "theta")
    mu = term("home", product(lookup, home, skill))
    mu = mu - term("away", product(lookup, away, skill))
    return logit_link(mu, y)


@pytest.mark.parametrize("n", [1, 6])
def test_two_products_share_one_set_of_coefficients(n):
    rng = np.random.default_rng(0)
    home, away, y = rng.integers(0, 5, n), rng.integers(0, 5, n), rng.integers(0, 2, n)
    theta = rng.normal(size=(5, 1))
    sites = trace(record_terms(matches), home, away, y, values={"skill.theta": theta})
    assert_allclose(sites["home.term"]["value"], theta[home], rtol=1e-6)
    assert_allclose(sites["away.term"]["value"], theta[away], rtol=1e-6)
    odds = (theta[home] - theta[away])[:, 0]
    expected = stats.bernoulli.logpmf(y, 1.0 / (1.0 + np.exp(-odds)))
    found = sites["obs"]["fn"].log_prob(jnp.asarray(y))
    assert_allclose(found, expected, rtol=1e-4)
    sampled = {k for k, s in sites.items() if s["type"] == "sample"}
    assert sampled == {"skill.lmbda", "skill.theta", "obs"}


def test_shared_coefficients_are_right_in_replicates():
    rng = np.random.default_rng(0)
    x, z, beta = (
        rng.normal(size=(4, 2)),
        rng.normal(size=(4, 2)),
        rng.normal(size=(3, 2, 1)),
    )

    def model():
        with numpyro.plate("replicates", 3):
            shared = Adaptive()("mu", (2, 1))
        return product(affine, x, shared) + product(affine, z, shared)

    found = run(model, values={"mu.beta": beta})
    assert_allclose(found, np.einsum("nd,rdu->rnu", x + z, beta), rtol=1e-4, atol=1e-5)


def counts(x, exposure, y=None):
    """A rate by time at risk: its log is added, with no coefficient."""
    return poisson_link(jnp.log(exposure)[:, None] + FixedPriorLayer()("f", x), y)


@pytest.mark.parametrize("n", [1, 6])
def test_an_offset_is_an_array_that_is_added(n):
    rng = np.random.default_rng(0)
    x, exposure, y = rng.normal(size=(n, 2)), rng.uniform(1, 9, n), rng.poisson(3.0, n)
    beta = np.array([[0.3], [-0.2]])
    found = log_prob(counts, "obs", x, exposure, y, values={"f.beta": beta})
    rate = exposure * np.exp(x @ beta)[:, 0]
    assert_allclose(found, stats.poisson.logpmf(y, rate), rtol=1e-4)


def test_a_flat_offset_that_would_set_rows_against_rows_raises():
    def model(x, offset, y):
        with jax.numpy_rank_promotion("allow"):
            return poisson_link(offset + FixedPriorLayer()("f", x), y)

    with pytest.raises(ValueError, match=r"`y` has shape \(3,\).* shape \(3, 3\)"):
        run(model, np.ones((3, 2)), jnp.ones(3), np.ones(3, int))


def nuts(model, data, **more):
    with jax.numpy_rank_promotion("allow"):
        return fit(
            model,
            data,
            method="mcmc",
            num_chains=1,
            num_warmup=300,
            num_samples=300,
            progress_bar=False,
            **more,
        )


@pytest.mark.slow
def test_nuts_recovers_combined_terms():
    rng = np.random.default_rng(0)
    n = 400
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    truth = np.array([[1.0, -0.5], [0.7, 0.4]])
    f = x @ truth
    y = f[:, 0] + np.exp(f[:, 1]) * rng.normal(size=n)
    draws = nuts(two_parameters, {"x": x, "y": y}).draws["f.beta"]
    mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    assert np.all(np.abs(mean - truth) < 4.0 * sd)
    assert np.all(sd < 0.1)

    skill = np.array([1.5, 0.5, 0.0, -0.5, -1.5])
    home, away = rng.integers(0, 5, 800), rng.integers(0, 5, 800)
    odds = skill[home] - skill[away]
    won = (rng.uniform(size=800) < 1.0 / (1.0 + np.exp(-odds))).astype(int)
    found = nuts(matches, {"home": home, "away": away, "y": won})
    draws = found.draws["skill.theta"][..., 0]
    draws = draws - draws.mean(axis=-1, keepdims=True)
    mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    assert np.all(np.abs(mean - skill) < 4.0 * sd)
    with jax.numpy_rank_promotion("allow"):
        predicted = found.predict({"home": [0], "away": [4]}, kind="mean")
    assert abs(predicted.mean[0] - 1.0 / (1.0 + np.exp(-3.0))) < 0.05
