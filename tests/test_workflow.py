"""The workflow of an ordinary NumPyro regression, through Lamina's functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import hpdi
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.autoguide import AutoMultivariateNormal

import lamina

NOISE, PRIOR = 0.7, 2.0
NEW = np.array([[-1.0, 0.5], [0.0, 0.0], [2.0, 1.0]])


def regression(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, PRIOR).expand([2]).to_event(1))
    numpyro.sample("obs", dist.Normal(x @ b, NOISE), obs=y)


def coin(flips):
    bias = numpyro.sample("bias", dist.Beta(10.0, 10.0))
    with numpyro.plate("flip", len(flips)):
        numpyro.sample("obs", dist.Bernoulli(bias), obs=flips)


def coin_guide(flips):
    positive = dist.constraints.positive
    a = numpyro.param("a", 15.0, constraint=positive)
    b = numpyro.param("b", 15.0, constraint=positive)
    numpyro.sample("bias", dist.Beta(a, b))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(60, 2))
    return {"x": x, "y": x @ [1.0, -0.5] + NOISE * rng.normal(size=60)}


@pytest.fixture(scope="module")
def exact(data):
    """Mean and covariance: Bishop (2006), eqs 3.53 and 3.54."""
    precision = data["x"].T @ data["x"] / NOISE**2 + np.eye(2) / PRIOR**2
    covariance = np.linalg.inv(precision)
    return covariance @ data["x"].T @ data["y"] / NOISE**2, covariance


@pytest.fixture(scope="module")
def nuts(data):
    return lamina.fit(regression, data, method="mcmc", num_warmup=500)


def errors(sd, draws):
    """Four Monte Carlo errors of a mean of independent draws."""
    return 4.0 * np.asarray(sd) / np.sqrt(draws)


def test_prior_predictive_has_the_marginal_moments(data):
    drawn = lamina.prior_predictive(regression, data, num_draws=4000)
    sd = np.sqrt(PRIOR**2 * (data["x"] ** 2).sum(1) + NOISE**2)
    assert drawn["obs"].shape == (4000, 60)
    assert np.all(abs(drawn["obs"].mean(0)) < errors(sd, 4000))
    np.testing.assert_allclose(drawn["obs"].std(0), sd, rtol=0.06)
    own = Predictive(regression, num_samples=4000)(jax.random.key(1), data["x"], None)
    np.testing.assert_allclose(drawn["obs"].std(0), own["obs"].std(0), rtol=0.09)


def test_nuts_agrees_with_numpyro_and_the_closed_form(data, exact, nuts):
    mean, covariance = exact
    sd = np.sqrt(np.diag(covariance))
    ours = nuts.draws["b"].reshape(-1, 2)
    assert np.all(abs(ours.mean(0) - mean) < 0.1 * sd)
    # of 4,000 draws that follow one another, at least 2,000 count: four errors of each
    scaled = (np.cov(ours.T) - covariance) / np.outer(sd, sd)
    assert np.all(abs(scaled) < 4.0 * np.sqrt(2.0 / 2000))
    sampler = MCMC(
        NUTS(regression), num_warmup=500, num_samples=4000, progress_bar=False
    )
    sampler.run(jax.random.key(2), jnp.asarray(data["x"]), jnp.asarray(data["y"]))
    theirs = np.asarray(sampler.get_samples()["b"])
    assert np.all(abs(ours.mean(0) - theirs.mean(0)) < 0.15 * sd)


def test_interval_of_the_regression_line_is_the_hpdi_of_its_draws(nuts):
    line = nuts.predict({"x": NEW}, kind="mean", interval=0.89)
    draws = nuts.draws["b"].reshape(-1, 2) @ NEW.T
    low, high = hpdi(draws, 0.89)
    np.testing.assert_allclose(line.mean, draws.mean(0), atol=1e-5)
    np.testing.assert_allclose(line.lower, low, atol=1e-5)
    np.testing.assert_allclose(line.upper, high, atol=1e-5)


def test_posterior_predictive_has_the_exact_moments(nuts, exact):
    """Bishop (2006), eqs 3.58 and 3.59."""
    mean, covariance = exact
    drawn = nuts.predict({"x": NEW})
    sd = np.sqrt(np.einsum("nd,de,ne->n", NEW, covariance, NEW) + NOISE**2)
    assert np.all(abs(drawn.mean - NEW @ mean) < errors(sd, nuts.num_draws))
    np.testing.assert_allclose(drawn.sd, sd, rtol=0.06)


def test_maximum_likelihood_is_least_squares(data):
    found = lamina.fit(regression, data, method="mle").draws["b"][0, 0]
    wanted = np.linalg.lstsq(data["x"], data["y"], rcond=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_posterior_mode_is_the_conjugate_mean(data, exact):
    found = lamina.fit(regression, data, method="map").draws["b"][0, 0]
    np.testing.assert_allclose(found, exact[0], atol=1e-5)


def test_vi_with_an_automatic_guide(data, exact):
    mean, covariance = exact
    posterior = lamina.fit(
        regression, data, guide=AutoMultivariateNormal, num_draws=20_000
    )
    sd = np.sqrt(np.diag(covariance))
    drawn = posterior.draws["b"][0]
    assert np.all(abs(drawn.mean(0) - mean) < 0.1 * sd)
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.05)
    response = posterior.predict({"x": NEW})
    spread = np.sqrt(np.einsum("nd,de,ne->n", NEW, covariance, NEW) + NOISE**2)
    np.testing.assert_allclose(response.sd, spread, rtol=0.05)


def test_vi_with_a_hand_written_guide_is_exact_for_a_coin():
    """Beta(10, 10) and 6 heads of 10 give Beta(16, 14)."""
    flips = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    posterior = lamina.fit(
        coin, {"flips": flips}, observed="flips", guide=coin_guide, num_draws=20_000
    )
    bias, exact = posterior.draws["bias"].ravel(), dist.Beta(16.0, 14.0)
    sd = float(jnp.sqrt(exact.variance))
    assert abs(bias.mean() - 16 / 30) < 0.1 * sd
    assert bias.std() == pytest.approx(sd, rel=0.05)
