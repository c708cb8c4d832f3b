"""Sequences through a fit: forecasts in chunks, and Nile's published level."""

import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lamina
from lamina.layers import AR1Layer, InterceptLayer, RandomWalkLayer

RANDOM = np.random.default_rng(0)
TREND = 0.3 * np.arange(30) + np.cumsum(0.3 * RANDOM.normal(size=30))
DATA = {
    "t": np.repeat(np.arange(30), 2),
    "g": np.tile([0, 1], 30),
    "y": np.repeat(TREND, 2) + 0.3 * RANDOM.normal(size=60),
}


def by_group(t, g, y=None):
    walk = RandomWalkLayer(order=2, num_categories=30, embedding_dim=1, num_groups=2)
    noise = AR1Layer(num_categories=30, embedding_dim=1)("noise", t)
    return lamina.gaussian_link_exp(walk("walk", t, group=g) + noise, y)


@pytest.fixture(scope="module")
def posterior():
    return lamina.fit(by_group, DATA, method="vi", num_steps=50, num_draws=200)


@pytest.mark.slow
def test_chunks_of_rows_forecast_alike(posterior):
    new = {
        "t": np.array([0, 29, 30, 37, 60, 37, 30, 5]),
        "g": np.array([0, 1] * 3 + [1, -1]),
    }
    whole, rows = (
        posterior.predict(new, kind="mean", draws=True, chunk_rows=size)
        for size in (None, 1)
    )
    assert_allclose(whole.draws, rows.draws, rtol=1e-4, atol=1e-4)
    again = posterior.predict(new, kind="mean", draws=True)
    assert_allclose(whole.draws, again.draws, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_forecasts_spread_with_their_distance(posterior):
    new = {"t": np.array([29, 33, 45, 100]), "g": np.zeros(4, int)}
    sd = np.asarray(posterior.predict(new, kind="mean", draws=True).draws).std(axis=0)
    assert np.all(np.diff(sd.ravel()) > 0)


def test_a_fit_refuses_an_index_past_the_table():
    late = {**DATA, "t": DATA["t"] + 1}
    with pytest.raises(
        ValueError, match=r"code 30 is past its table of 30.*a prediction"
    ):
        lamina.fit(by_group, late, num_steps=10)


SHORT = {"num_warmup": 300, "num_samples": 300, "num_chains": 1}


@pytest.mark.slow
def test_an_autoregression_is_recovered_and_reverts():
    rng = np.random.default_rng(4)
    truth = {"f.rho": 0.8, "f.lmbda": 1.0, "sigma": 0.3}
    level = [rng.normal()]
    for _ in range(199):
        level.append(0.8 * level[-1] + 0.6 * rng.normal())
    data = {"t": np.arange(200), "y": np.array(level) + 0.3 * rng.normal(size=200)}

    def model(t, y=None):
        f = AR1Layer(num_categories=200, embedding_dim=1)("f", t)
        return lamina.gaussian_link_exp(f, y)

    posterior = lamina.fit(model, data, method="mcmc", noncentered=["f.theta"], **SHORT)
    table = posterior.summary()
    for site, value in truth.items():
        assert abs(table[site]["mean"] - value) < 3 * table[site]["sd"]
        assert table[site]["sd"] < 0.35
    draws = posterior.predict({"t": np.array([400])}, kind="mean", draws=True).draws
    scale = np.sqrt(np.mean(posterior.draws["f.lmbda"] ** 2))
    assert abs(draws.mean()) < 4.5 * scale / np.sqrt(draws.size)
    assert abs(draws.std() / scale - 1.0) < 5.0 / np.sqrt(2 * draws.size)


@pytest.mark.slow
def test_slopes_that_walk_are_recovered_for_each_group_and_go_on():
    rng = np.random.default_rng(5)
    t = np.tile(np.arange(40), 2)
    g = np.repeat([0, 1], 40)
    slopes = np.where(g == 0, 0.5, -0.2)
    truth = slopes * (t + 1.0) + np.where(g == 0, 0.01, 0.0) * t**2
    y = truth + 0.3 * rng.normal(size=80)
    known = t < 35
    layer = RandomWalkLayer(order=2, num_categories=35, embedding_dim=1, num_groups=2)

    def model(t, g, y=None):
        return lamina.gaussian_link_exp(layer("f", t, group=g), y)

    posterior = lamina.fit(
        model,
        {"t": t[known], "g": g[known], "y": y[known]},
        method="mcmc",
        noncentered=["f.theta"],
        **SHORT,
    )
    found = posterior.predict({"t": t, "g": g}, kind="mean")
    assert np.sqrt(np.mean((found.mean - truth)[known] ** 2)) < 0.2
    late = (found.mean - truth)[~known] / found.sd[~known]
    assert np.all(abs(late) < 3.0)
    assert np.all(found.sd[t == 39] > found.sd[t == 35])


# Nile: 100 annual flows, Durbin and Koopman (2012), section 2.10.

PUBLISHED = {"sigma": np.sqrt(15099.0), "level.lmbda": np.sqrt(1469.1)}


def nile(t, y=None):
    wide = {"loc": 1000.0, "scale": 1000.0}
    level = InterceptLayer(coef_kwargs=wide)("mean") + RandomWalkLayer(
        dist.HalfNormal(100.0), num_categories=100, embedding_dim=1
    )("level", t)
    return lamina.gaussian_link(level, y, scale=dist.HalfNormal(200.0))


def marginal(flow, sigma, lmbda, prior=1000.0):
    """The log density of the flows, the level summed out, up to a constant.

    Their covariance is that of a walk and of noise, in the eigenvectors of min(s, t),
    and one more direction, the mean's, by the formula of Sherman and Morrison.
    """
    t = np.arange(1.0, len(flow) + 1.0)
    values, vectors = np.linalg.eigh(np.minimum.outer(t, t))
    z, ones = vectors.T @ (flow - 1000.0), vectors.T @ np.ones_like(t)
    variance = sigma[..., None] ** 2 + lmbda[..., None] ** 2 * values
    along = 1.0 / prior**2 + (ones**2 / variance).sum(axis=-1)
    square = (z**2 / variance).sum(axis=-1)
    square = square - (z * ones / variance).sum(axis=-1) ** 2 / along
    return -0.5 * (square + np.log(variance).sum(axis=-1) + np.log(along))


def test_the_marginal_density_is_that_of_the_dense_gaussian():
    y = 1000.0 + 50.0 * np.random.default_rng(1).normal(size=6)
    t = np.arange(1.0, 7.0)

    def dense(sigma, lmbda):
        covariance = lmbda**2 * np.minimum.outer(t, t) + sigma**2 * np.eye(6) + 1e6
        return stats.multivariate_normal.logpdf(y, np.full(6, 1000.0), covariance)

    sigma, lmbda = np.array([30.0, 80.0]), np.array([20.0, 5.0])
    found = marginal(y, sigma, lmbda)
    expected = [dense(*pair) for pair in zip(sigma, lmbda, strict=True)]
    assert_allclose(np.diff(found), np.diff(expected), rtol=1e-6)


@pytest.fixture(scope="module")
def flow(data_folder):
    table = np.genfromtxt(data_folder / "nile.csv", delimiter=",", names=True)
    return table["flow_1e8_m3"]


@pytest.fixture(scope="module")
def grid(flow):
    """sigma, lmbda and the log likelihood at each pair of them."""
    sigma, lmbda = np.linspace(80, 180, 101), np.linspace(1, 160, 107)
    s, l = np.meshgrid(sigma, lmbda, indexing="ij")
    return s, l, marginal(flow, s, l)


@pytest.mark.slow
def test_the_dense_likelihood_peaks_at_the_published_estimates(grid):
    s, l, density = grid
    best = np.unravel_index(density.argmax(), density.shape)
    assert_allclose(s[best], PUBLISHED["sigma"], atol=1.5)
    assert_allclose(l[best], PUBLISHED["level.lmbda"], atol=2.5)


@pytest.mark.slow
def test_niles_level_under_nuts(flow, grid):
    posterior = lamina.fit(
        nile,
        {"t": np.arange(100), "y": flow},
        method="mcmc",
        noncentered=["level.theta"],
        num_warmup=500,
        num_samples=1000,
        num_chains=2,
    )
    s, l, density = grid
    weight = np.exp(density - density.max() - (s / 200) ** 2 / 2 - (l / 100) ** 2 / 2)
    weight /= weight.sum()
    table = posterior.summary()
    for site, value in (("sigma", s), ("level.lmbda", l)):
        mean = (weight * value).sum()
        sd = np.sqrt((weight * (value - mean) ** 2).sum())
        assert abs(table[site]["mean"] - mean) < 0.2 * sd
        assert table[site]["sd"] == pytest.approx(sd, rel=0.2)
        assert abs(mean - PUBLISHED[site]) < sd
    new = posterior.predict({"t": np.array([99, 104, 129])}, kind="mean", draws=True)
    spread = np.asarray(new.draws).reshape(-1, 3)
    lmbda = posterior.draws["level.lmbda"].ravel()
    for column, ahead in ((1, 5), (2, 30)):
        grown = (spread[:, column] - spread[:, 0]) / (lmbda * np.sqrt(ahead))
        assert abs(grown.mean()) < 4.5 / np.sqrt(len(grown))
        assert abs(grown.std() - 1.0) < 4.5 / np.sqrt(2 * len(grown))
