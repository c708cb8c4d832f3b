"""Posteriors of real data against published numbers and plain NumPyro."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

import lamina
from lamina.data import load_radon

pytestmark = pytest.mark.slow

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(sigma, y=None):
    """Rubin (1981), with the priors of posteriordb's eight_schools."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    prior = dist.Normal(mu, tau).expand([len(sigma)]).to_event(1)
    theta = numpyro.sample("theta", prior)
    numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def test_eight_schools_under_nuts():
    posterior = lamina.fit(
        eight_schools,
        {"sigma": ERRORS, "y": EFFECTS},
        method="mcmc",
        noncentered=["theta"],
        num_samples=2500,
    )
    table = posterior.summary()
    # mean and sd as published by posteriordb; the bounds are 4 Monte Carlo errors
    for site, mean, sd in (("mu", 4.40, 3.32), ("tau", 3.60, 3.22)):
        row = table[site]
        assert abs(row["mean"] - mean) < 4 * sd / np.sqrt(row["ess"]) + 0.03
        assert row["sd"] == pytest.approx(sd, rel=0.1)
        assert row["r_hat"] < 1.01
    assert posterior.statistics["diverging"].sum() <= 10


def test_eight_schools_centred_diverge_and_say_so():
    posterior = lamina.fit(
        eight_schools, {"sigma": ERRORS, "y": EFFECTS}, method="mcmc"
    )
    assert posterior.statistics["diverging"].sum() > 10
    assert "diverged" in repr(posterior.summary())
    assert "noncentered" in repr(posterior.summary())


def by_hand(floor, county, y):
    """The model of `layers` below, in NumPyro alone."""
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    lmbda = numpyro.sample("lmbda", dist.HalfNormal(1.0))
    with numpyro.plate("counties", 85):
        theta = numpyro.sample("theta", dist.Normal(0.0, lmbda))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    numpyro.sample("obs", dist.Normal(a + b * floor + theta[county], sigma), obs=y)


def layers(floor, county, y=None):
    weak = {"loc": 0.0, "scale": 10.0}
    mu = (
        lamina.InterceptLayer(coef_kwargs=weak)("a")
        + lamina.FixedPriorLayer(coef_kwargs=weak)("b", floor)
        + lamina.RandomEffectsLayer(num_categories=85)("county", county)
    )
    return lamina.gaussian_link_exp(mu, y)


SITES = {
    "a": ("a.beta[0,0]", 1.462),
    "b": ("b.beta[0,0]", -0.693),
    "lmbda": ("county.lmbda", 0.328),
    "sigma": ("sigma", 0.756),
}


@pytest.fixture(scope="module")
def radon():
    data = load_radon()
    return {"floor": data.floor, "county": data.county, "y": data.log_radon}


@pytest.fixture(scope="module")
def reference(radon):
    """A long run of the model written by hand: site -> draws."""
    sampler = MCMC(
        NUTS(by_hand),
        num_warmup=1000,
        num_samples=5000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(jax.random.key(11), **{k: jnp.asarray(v) for k, v in radon.items()})
    return {k: np.asarray(v) for k, v in sampler.get_samples().items()}


@pytest.mark.parametrize("name", SITES)
def test_reference_run_agrees_with_gelman_and_hill(reference, name):
    """Chapter 12 of Data Analysis Using Regression; by lmer, so scales differ a little."""
    _, published = SITES[name]
    draws = reference[name]
    assert abs(draws.mean() - published) < 0.15 * draws.std()


@pytest.fixture(scope="module")
def nuts(radon):
    return lamina.fit(layers, radon, method="mcmc", num_samples=2000, seed=3)


@pytest.fixture(scope="module")
def full_rank(radon):
    return lamina.fit(layers, radon, guide="full_rank", num_draws=20_000, seed=3)


@pytest.mark.parametrize("name", SITES)
def test_radon_under_nuts(nuts, reference, name):
    site, _ = SITES[name]
    row, draws = nuts.summary()[site], reference[name]
    assert abs(row["mean"] - draws.mean()) < 0.1 * draws.std()
    assert row["sd"] == pytest.approx(draws.std(), rel=0.1)


def test_radon_counties_under_nuts(nuts, reference):
    ours = nuts.draws["county.theta"].reshape(-1, 85)
    theirs = reference["theta"]
    assert np.all(abs(ours.mean(0) - theirs.mean(0)) < 0.1 * theirs.std(0))
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)


@pytest.mark.parametrize("name", SITES)
def test_radon_under_full_rank_vi(full_rank, reference, name):
    """Coefficients within 0.1 posterior sd; a Normal fits a scale's skew less well."""
    site, _ = SITES[name]
    row, draws = full_rank.summary()[site], reference[name]
    bound = 0.1 if name in ("a", "b") else 0.3
    assert abs(row["mean"] - draws.mean()) < bound * draws.std()


def test_radon_minibatches_agree_with_all_rows(radon, full_rank):
    """The same guide, 256 rows at a time: one ELBO, so one answer."""
    minibatch = lamina.fit(
        layers,
        radon,
        guide="full_rank",
        batch_size=256,
        averaged_epochs=4000,
        num_draws=20_000,
        seed=4,
    )
    ours, theirs = minibatch.summary(), full_rank.summary()
    for site, _ in SITES.values():
        a, b = ours[site], theirs[site]
        assert abs(a["mean"] - b["mean"]) < 0.1 * b["sd"]
        assert a["sd"] == pytest.approx(b["sd"], rel=0.1)
