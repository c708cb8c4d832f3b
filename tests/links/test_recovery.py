"""Simulated coefficients come back under NUTS, one link of each kind."""

from functools import partial

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from lamina import links
from lamina.layers import AdaptiveLayer, FixedPriorLayer, InterceptLayer

pytestmark = pytest.mark.slow

N = 400
SLOPE, START = 0.8, -0.3


def simulated(name, rng, x):
    """Outcomes at the linear predictor, and what the link needs beside them."""
    eta = START + SLOPE * x[:, 0]
    mu = np.exp(eta)
    if name == "gamma":
        return rng.gamma(3.0, mu / 3.0), links.gamma_link
    if name == "weibull, censored":
        time, end = mu * rng.weibull(1.5, size=N), rng.exponential(2.0, size=N)
        link = partial(links.weibull_link, censored=time > end)
        return np.minimum(time, end), link
    if name == "negative binomial":
        return rng.poisson(rng.gamma(2.0, mu / 2.0)), links.negative_binomial_link
    if name == "zero-inflated":
        y = np.where(rng.uniform(size=N) < 0.3, 0, rng.poisson(mu))
        return y, links.zero_inflated_poisson_link
    if name == "beta":
        p = 1.0 / (1.0 + np.exp(-eta))
        y = rng.beta(8.0 * p, 8.0 * (1.0 - p)).clip(1e-6, 1.0 - 1e-6)
        return y, links.beta_link
    if name == "ordinal":
        latent = SLOPE * x[:, 0] + rng.logistic(size=N)
        y = np.digitize(latent, [-1.0, 0.5, 2.0])
        return y, partial(links.ordinal_link, num_categories=4)
    y = rng.normal(eta, 1.0)
    while np.any(y < -0.5):  # recorded above the bound only
        y = np.where(y < -0.5, rng.normal(eta, 1.0), y)
    return y, partial(links.gaussian_link, truncated=(-0.5, None))


@pytest.mark.parametrize(
    "name",
    [
        "gamma",
        "weibull, censored",
        "negative binomial",
        "zero-inflated",
        "beta",
        "ordinal",
        "truncated gaussian",
    ],
)
def test_a_slope_comes_back(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 1))
    y, link = simulated(name, rng, x)

    def model():
        eta = AdaptiveLayer()("x", x)
        if name != "ordinal":
            eta = eta + InterceptLayer()("a")
        link(eta, y)

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=300, progress_bar=False)
    mcmc.run(jax.random.key(0))
    slope = np.asarray(mcmc.get_samples()["x.beta"]).ravel()
    assert abs(slope.mean() - SLOPE) < 3.0 * slope.std()
    assert slope.std() < 0.25


def test_scale_and_correlation_come_back():
    """Residuals of two outputs that are correlated by 0.6, one with a modelled scale."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, 1))
    noise = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]], size=N)
    y = SLOPE * x + noise * np.array([0.5, 2.0])

    def model():
        eta = FixedPriorLayer(units=2)("x", x)
        links.multivariate_gaussian_link(eta, y, correlation=dist.LKJCholesky(2, 2.0))

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=300, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples()
    factor = np.asarray(draws["correlation_cholesky"])
    correlation = factor[:, 1, 0]
    assert abs(correlation.mean() - 0.6) < 3.0 * correlation.std()
    sigma = np.asarray(draws["sigma"])
    assert np.all(np.abs(sigma.mean(0) - [0.5, 2.0]) < 3.0 * sigma.std(0))
