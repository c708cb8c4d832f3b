"""Predictions and summaries of a posterior, from draws that the tests choose."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import lamina.posterior
import lamina.prediction
from fit_helpers import QUICK, narrowest, refused, rows_of
from lamina import (
    EmbeddingLayer,
    Fixed,
    FixedPriorLayer,
    InterceptLayer,
    Posterior,
    RandomEffectsLayer,
    fit,
    gaussian_link,
    gaussian_link_exp,
    logit_link,
    poisson_link,
    student_t_link,
)
from lamina.data import read_data
from lamina.fitting import inspect

CHAINS, DRAWS = 2, 150
S = CHAINS * DRAWS
DATA = rows_of(20, [1.0, -0.5], intercept=0.3)
X, Y = DATA["x"], DATA["y"]
COUNTS = np.array([0, 1, 3, 2] * 5)
FLIPS = COUNTS % 2
NEW = {"x": np.array([[0.0, 0.0], [1.0, 2.0], [-0.5, 0.3]])}


def posterior_of(model, data, draws, *, observed="y", row_latents=()):
    """A posterior with these draws, (draw, ...) each, in two chains."""
    dataset = read_data(data, observed)
    chains = {
        k: np.array(v, np.float32).reshape(CHAINS, -1, *np.shape(v)[1:])
        for k, v in draws.items()
    }
    return Posterior(
        model=model,
        method="given",
        draws=chains,
        data=dataset,
        outcomes=inspect(model, dataset).observed,
        sampled=tuple(k for k in draws if k not in row_latents),
        row_latents=tuple(row_latents),
    )


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


A = normal(S, 1, 1, seed=1)
B = normal(S, 2, 1, seed=2, scale=0.3)
SIGMA = np.exp(normal(S, seed=3, scale=0.2))
GIVEN = {"a.beta": A, "b.beta": B}


def line(x):
    """Each draw's predictor of each row: (draw, row)."""
    return A[:, 0] + np.einsum("nd,sdu->sn", x, B)


def assert_standard_noise(noise):
    """Standard Normal, new for each draw and each column: (draw, column)."""
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    between = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert np.abs(between).max() < 5.5 / np.sqrt(len(noise))


def predictor(x):
    return InterceptLayer()("a") + FixedPriorLayer()("b", x)


def gaussian_model(x, y=None):
    return gaussian_link_exp(predictor(x), y)


def known_noise(x, y=None):
    return gaussian_link(predictor(x), y, scale=0.5)


def log_scale_model(x, y=None):
    log_scale = FixedPriorLayer()("s", x)
    return gaussian_link(predictor(x), y, log_scale=log_scale)


def student_model(x, y=None):
    return student_t_link(predictor(x), y, df=8.0)


def logit_model(x, y=None):
    return logit_link(predictor(x), y)


def poisson_model(x, y=None):
    return poisson_link(predictor(x), y)


LOG_SCALE = {"s.beta": normal(S, 2, 1, seed=4, scale=0.2)}
LINKS = {
    # model, its y, further draws, mean of eta, variance of the outcome given a draw
    "gaussian_link_exp": (
        gaussian_model,
        Y,
        {"sigma": SIGMA},
        lambda eta: eta,
        lambda eta, x: np.broadcast_to(SIGMA[:, None] ** 2, eta.shape),
    ),
    "gaussian_link": (
        known_noise,
        Y,
        {},
        lambda eta: eta,
        lambda eta, x: np.full(eta.shape, 0.25),
    ),
    "gaussian_link, log_scale": (
        log_scale_model,
        Y,
        LOG_SCALE,
        lambda eta: eta,
        lambda eta, x: np.exp(2 * np.einsum("nd,sdu->sn", x, LOG_SCALE["s.beta"])),
    ),
    "student_t_link": (
        student_model,
        Y,
        {"sigma": SIGMA},
        lambda eta: eta,
        lambda eta, x: np.broadcast_to(SIGMA[:, None] ** 2 * 8 / 6, eta.shape),
    ),
    "logit_link": (
        logit_model,
        FLIPS,
        {},
        lambda eta: 1 / (1 + np.exp(-eta)),
        lambda eta, x: np.exp(-eta) / (1 + np.exp(-eta)) ** 2,
    ),
    "poisson_link": (
        poisson_model,
        COUNTS,
        {},
        np.exp,
        lambda eta, x: np.exp(eta),
    ),
}


@pytest.fixture(scope="module", params=LINKS.values(), ids=LINKS)
def link(request):
    """A posterior of each link, its inverse link, and its variance."""
    model, y, more, mean, variance = request.param
    return posterior_of(model, {"x": X, "y": y}, {**GIVEN, **more}), mean, variance


# --- what is predicted


def test_the_linear_kind_is_the_predictor_of_every_draw(link):
    posterior, _, _ = link
    predicted = posterior.predict(NEW, kind="linear", draws=True)
    wanted = line(NEW["x"])
    assert_allclose(predicted.draws, wanted, rtol=1e-5, atol=1e-5)
    assert_allclose(predicted.mean, wanted.mean(0), rtol=1e-5, atol=1e-5)
    assert_allclose(predicted.sd, wanted.std(0, ddof=1), rtol=1e-5)


def test_the_mean_kind_is_the_inverse_link_of_every_draw(link):
    posterior, mean, _ = link
    predicted = posterior.predict(NEW, kind="mean", draws=True)
    wanted = mean(line(NEW["x"]))
    assert_allclose(predicted.draws, wanted, rtol=1e-5, atol=1e-5)
    assert_allclose(predicted.mean, wanted.mean(0), rtol=1e-5, atol=1e-5)


def test_responses_have_the_moments_of_the_predictive_distribution(link):
    """E[y] = E[mean], Var[y] = E[variance] + Var[mean], over the draws."""
    posterior, mean, variance = link
    repeated = {"x": np.repeat(NEW["x"][1:2], 400, axis=0)}
    predicted = posterior.predict(repeated, draws=True)
    eta = line(NEW["x"][1:2])
    expected = mean(eta)
    spread = variance(eta, NEW["x"][1:2]).mean() + expected.var()
    # 400 rows share each draw's mean, so the noise alone is what averages out
    noise = np.sqrt(variance(eta, NEW["x"][1:2]).mean() / predicted.draws.size)
    assert_allclose(predicted.mean.mean(), expected.mean(), atol=5 * noise)
    assert_allclose(predicted.draws.var(), spread, rtol=0.05)


def test_intervals_are_the_narrowest_of_their_probability(link):
    posterior, _, _ = link
    for kind, interval in (("response", 0.9), ("mean", 0.5), ("linear", 0.8)):
        predicted = posterior.predict(NEW, kind=kind, interval=interval, draws=True)
        for row, values in enumerate(predicted.draws.T):
            low, high = narrowest(values, interval)
            assert_allclose(predicted.lower[row], low, rtol=1e-6)
            assert_allclose(predicted.upper[row], high, rtol=1e-6)


def test_the_fitted_rows_are_predicted_where_no_others_are_given(link):
    posterior, mean, _ = link
    predicted = posterior.predict(kind="mean")
    assert_allclose(predicted.mean, mean(line(X)).mean(0), rtol=1e-4, atol=1e-5)
    again = posterior.predict({"x": X}, kind="mean")
    assert_array_equal(predicted.mean, again.mean)


@pytest.fixture(scope="module")
def gaussian():
    return posterior_of(gaussian_model, DATA, {**GIVEN, "sigma": SIGMA})


def test_noise_follows_its_seed(gaussian):
    one, again, other = (gaussian.predict(NEW, seed=s).mean for s in (1, 1, 2))
    assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert_array_equal(one, gaussian.predict(NEW, seed=jax.random.key(1)).mean)


def test_noise_is_new_for_every_draw_and_row(gaussian):
    draws = gaussian.predict(draws=True).draws
    assert_standard_noise((draws - line(X)) / SIGMA[:, None])


def test_a_model_without_a_default_outcome_predicts():
    def model(x, y):
        return gaussian_link(predictor(x), y, scale=0.5)

    posterior = posterior_of(model, DATA, GIVEN)
    assert_allclose(
        posterior.predict(NEW, kind="mean").mean, line(NEW["x"]).mean(0), rtol=1e-5
    )


# --- shapes


@pytest.mark.parametrize("n", [1, 3])
def test_a_flat_outcome_stays_flat_and_a_column_a_column(n):
    rows = {"x": NEW["x"][:n]}
    for y, shape in ((Y, (n,)), (Y[:, None], (n, 1))):
        posterior = posterior_of(known_noise, {"x": X, "y": y}, GIVEN)
        for kind in ("response", "mean", "linear"):
            predicted = posterior.predict(rows, kind=kind, draws=True)
            assert predicted.mean.shape == shape
            assert predicted.sd.shape == predicted.lower.shape == shape
            assert predicted.draws.shape == (S, *shape)
        assert_allclose(
            posterior.predict(rows, kind="mean").mean.ravel(),
            line(rows["x"]).mean(0),
            rtol=1e-5,
        )


@pytest.mark.parametrize("n", [1, 3])
def test_several_units_are_columns(n):
    def model(x, y=None):
        return gaussian_link(FixedPriorLayer(units=3)("b", x), y, scale=0.1)

    b = normal(S, 2, 3)
    posterior = posterior_of(model, {"x": X, "y": normal(20, 3)}, {"b.beta": b})
    predicted = posterior.predict({"x": NEW["x"][:n]}, kind="mean", chunk_rows=2)
    wanted = np.einsum("nd,sdu->snu", NEW["x"][:n], b).mean(0)
    assert predicted.mean.shape == (n, 3)
    assert_allclose(predicted.mean, wanted, rtol=1e-4, atol=1e-5)
    assert len(predicted.table()) == 3 * n
    assert predicted.table().names[-1] == f"{n - 1},2"


def test_an_intercept_alone_predicts_the_right_number_of_rows():
    def level(y):
        return gaussian_link(InterceptLayer()("a"), y, scale=1.0)

    posterior = posterior_of(level, {"y": Y}, {"a.beta": A})
    for kind in ("response", "mean", "linear"):
        assert posterior.predict(kind=kind).mean.shape == (20,)
        assert posterior.predict({}, kind=kind).mean.shape == (1,)
    assert_allclose(posterior.predict(kind="mean").mean, A.mean(), rtol=1e-5)
    draws = posterior.predict(draws=True).draws
    assert_standard_noise(draws - A[:, 0])


def test_an_intercept_beside_unused_rows_has_their_number():
    def level(x, y=None):
        return gaussian_link(InterceptLayer()("a"), y, scale=1.0)

    posterior = posterior_of(level, DATA, {"a.beta": A})
    for chunk_rows in ("auto", 2, None):
        predicted = posterior.predict(NEW, kind="mean", chunk_rows=chunk_rows)
        assert predicted.mean.shape == (3,)


def test_a_plain_model_of_one_level_draws_each_row_anew():
    """NumPyro takes the rows from `y`, which a prediction has not."""

    def level(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(a, 1.0), obs=y)

    a = normal(S)
    for y in (Y, Y[:, None], normal(20, 3)):
        posterior = posterior_of(level, {"y": y}, {"a": a})
        predicted = posterior.predict(draws=True)
        assert predicted.mean.shape == y.shape
        assert_standard_noise(predicted.draws.reshape(S, -1) - a[:, None])
        mean = posterior.predict(kind="mean").mean
        assert_allclose(mean, np.full(y.shape, a.mean()), rtol=1e-4)


def test_several_outcomes_are_a_dict():
    def model(x, visits, sales):
        eta = predictor(x)
        poisson_link(eta, visits, name="visits")
        gaussian_link(eta, sales, name="sales", scale=0.5)

    data = {"x": X, "visits": COUNTS, "sales": Y}
    posterior = posterior_of(model, data, GIVEN, observed=("visits", "sales"))
    predicted = posterior.predict(NEW, kind="mean", chunk_rows=2)
    assert list(predicted) == ["visits", "sales"]
    eta = line(NEW["x"])
    assert_allclose(predicted["visits"].mean, np.exp(eta).mean(0), rtol=1e-4)
    assert_allclose(predicted["sales"].mean, eta.mean(0), rtol=1e-4, atol=1e-5)


def test_outcomes_on_another_axis_are_predicted_as_they_are():
    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        mean = b[:, None] * x
        numpyro.sample("obs", dist.Normal(mean, 1.0), obs=None if y is None else y.T)

    b, x = normal(S, 3), X[:, 0]
    posterior = posterior_of(model, {"x": x, "y": normal(20, 3)}, {"b": b})
    predicted = posterior.predict({"x": x[:5]}, kind="mean", chunk_rows=2)
    assert predicted.mean.shape == (3, 5)
    assert_allclose(predicted.mean, b.mean(0)[:, None] * x[:5], rtol=1e-4, atol=1e-5)


# --- chunks


@pytest.mark.parametrize("chunk_rows", [1, 2, 7, 19, 20, 1000, None, "auto"])
def test_chunks_change_nothing_in_the_mean_and_the_predictor(gaussian, chunk_rows):
    for kind in ("mean", "linear"):
        whole = gaussian.predict(kind=kind, chunk_rows=None, draws=True)
        parts = gaussian.predict(kind=kind, chunk_rows=chunk_rows, draws=True)
        assert parts.draws.shape == (S, 20)
        for name in ("mean", "sd", "lower", "upper", "draws"):
            assert_allclose(
                getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6
            )


def test_chunks_of_responses_are_draws_of_the_same_distribution(gaussian):
    draws = gaussian.predict(chunk_rows=3, draws=True).draws
    assert_standard_noise((draws - line(X)) / SIGMA[:, None])


def test_no_array_of_rows_times_draws_is_kept(gaussian, monkeypatch):
    """Chunks hold a fixed number of entries; what stays has one for each row."""
    sizes = []
    summarised = lamina.summary.summarised

    def watched(values, *args, **kwargs):
        sizes.append(values.size)
        return summarised(values, *args, **kwargs)

    monkeypatch.setattr(lamina.posterior, "summarised", watched)
    monkeypatch.setattr(lamina.prediction, "NUMBERS_AT_ONCE", 16 * S)
    rows = {"x": np.tile(X, (50, 1))}
    for kind in ("response", "mean"):
        sizes.clear()
        predicted = gaussian.predict(rows, kind=kind)
        assert predicted.draws is None
        assert predicted.mean.shape == (1000,)
        assert max(sizes) <= 16 * S
        assert len(sizes) == -(-1000 // 16)
    assert_allclose(
        gaussian.predict(rows, kind="mean").mean,
        np.tile(line(X).mean(0), 50),
        rtol=1e-4,
        atol=1e-5,
    )


def test_several_units_count_in_a_chunk(monkeypatch):
    def model(x, y=None):
        return gaussian_link(FixedPriorLayer(units=4)("b", x), y, scale=0.1)

    b = normal(S, 2, 4)
    posterior = posterior_of(model, {"x": X, "y": normal(20, 4)}, {"b.beta": b})
    monkeypatch.setattr(lamina.prediction, "NUMBERS_AT_ONCE", 8 * S)
    posterior.predict(kind="mean")
    assert {key[3] for key in posterior._compiled if key[0] == "draws"} == {2}


@pytest.mark.slow
def test_memory_does_not_grow_with_rows_times_draws():
    """100 times the rows of a chunk take hardly more memory than ten times."""
    import tracemalloc

    posterior = posterior_of(gaussian_model, DATA, {**GIVEN, "sigma": SIGMA})
    peaks = []
    for rows in (140_000, 1_400_000):
        new = {"x": np.zeros((rows, 2), np.float32)}
        posterior.predict({"x": new["x"][:20]}, kind="mean")
        tracemalloc.start()
        posterior.predict(new, kind="mean")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    of_rows = 1_400_000 * 8 * 12  # some numbers for each row
    assert peaks[1] < peaks[0] + of_rows
    assert peaks[1] < 1_400_000 * S * 4 / 3


def gathered(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(jnp.cumsum(b * x), 1.0), obs=y)


def centred(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * (x - x.mean()), 1.0), obs=y)


def spread(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b, 0.1 + x.std()), obs=y)


def smooth(x, y=None):
    """A Gaussian process: one density over all rows."""
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    kernel = jnp.exp(-((x[:, None] - x[None]) ** 2)) + 0.1 * jnp.eye(len(x))
    numpyro.sample("obs", dist.MultivariateNormal(b * x, kernel), obs=y)


def walk(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * x + jnp.cumsum(z), 1.0), obs=y)


def total(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample(
        "obs", dist.Normal(b * x.sum(), 1.0), obs=y if y is None else y.sum()
    )


@pytest.mark.parametrize("model", [gathered, centred, spread, smooth, walk, total])
def test_rows_that_interact_are_recognised_and_not_cut(model):
    """Also where few rows differ: in sorted, balanced and rare columns."""
    balanced = np.tile([0.0, 1.0, 1.0, 0.0], 5)
    latents = ("z",) if model is walk else ()
    draws = {"b": normal(S), **{k: normal(S, 20) for k in latents}}
    data = {"x": X[:, 0], "y": Y}
    posterior = posterior_of(model, data, draws, row_latents=latents)
    for x in (X[:, 0], np.sort(balanced), balanced, 1.0 * (np.arange(20) == 13)):
        whole = posterior.predict({"x": x}, chunk_rows=None, draws=True)
        parts = posterior.predict({"x": x}, chunk_rows=7, draws=True)
        assert_array_equal(parts.draws, whole.draws)


def apart(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(b * x + z, 1.0), obs=y)


def test_rows_with_latent_values_of_their_own_are_cut():
    posterior = posterior_of(
        apart,
        {"x": X[:, 0], "y": Y},
        {"b": normal(S), "z": normal(S, 20)},
        row_latents=("z",),
    )
    posterior.predict({"x": X[:, 0]}, chunk_rows=7)
    assert {key[3] for key in posterior._compiled if key[0] == "draws"} == {7}


def test_a_model_that_knows_its_number_of_rows_is_not_cut():
    def model(x, size, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", size):
            numpyro.sample("obs", dist.Normal(b * x, 1.0), obs=y)

    b, x = normal(S), X[:, 0]
    posterior = posterior_of(model, {"x": x, "size": 20, "y": Y}, {"b": b})
    predicted = posterior.predict(kind="mean", chunk_rows=7)
    assert_allclose(predicted.mean, b.mean() * x, rtol=1e-4, atol=1e-5)
    new = posterior.predict({"x": x[:9], "size": 9}, kind="mean", chunk_rows=4)
    assert_allclose(new.mean, b.mean() * x[:9], rtol=1e-4, atol=1e-5)


def test_a_random_part_of_the_rows_is_no_prediction():
    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(x), subsample_size=5) as i:
            numpyro.sample(
                "obs", dist.Normal(b * x[i], 1.0), obs=None if y is None else y[i]
            )

    posterior = posterior_of(model, {"x": X[:, 0], "y": Y}, {"b": normal(S)})
    with refused(ValueError, r"plates \['rows'\] pick a random part of the rows"):
        posterior.predict()


# --- constants


def scaled(x, factor, shift, y=None):
    return gaussian_link(FixedPriorLayer()("b", x) * factor + shift[0], y, scale=0.1)


def test_constants_are_remembered_and_overridden():
    data = {"x": X, "y": Y, "factor": 2.0, "shift": np.array([1.0, 0.0])}
    posterior = posterior_of(scaled, data, {"b.beta": B})
    base = np.einsum("nd,sdu->sn", NEW["x"], B).mean(0)

    def mean(**constants):
        return posterior.predict({**NEW, **constants}, kind="mean").mean

    assert_allclose(mean(), 2 * base + 1, rtol=1e-4, atol=1e-5)
    assert_allclose(mean(factor=3.0), 3 * base + 1, rtol=1e-4, atol=1e-5)
    assert_allclose(mean(shift=np.array([5.0, 0.0])), 2 * base + 5, rtol=1e-4)
    assert_allclose(mean(shift=[4.0]), 2 * base + 4, rtol=1e-4, atol=1e-5)
    assert_allclose(mean(), 2 * base + 1, rtol=1e-4, atol=1e-5)


def test_constants_that_are_equal_and_not_the_same_are_told_apart():
    """1, 1.0 and True are equal, and so would be the keys of compiled functions."""

    def model(x, flag, other, y=None):
        mu = FixedPriorLayer()("b", x) + (10.0 if flag is True else flag) + 100 * other
        return gaussian_link(mu, y, scale=0.1)

    data = {"x": X, "flag": 1, "other": 0, "y": Y}
    posterior = posterior_of(model, data, {"b.beta": B})
    zero = {"x": np.zeros((1, 2))}
    for flag, other, wanted in ((1, 0, 1), (True, 0, 10), (0, 1, 100), (1, 0, 1)):
        new = {**zero, "flag": flag, "other": other}
        found = posterior.predict(new, kind="mean").mean
        assert_allclose(found, [wanted], rtol=1e-6)


# --- levels that were never fitted


CODES = np.arange(20) % 4
THETA = normal(S, 4, 1, seed=7)
LMBDA = np.exp(normal(S, seed=8, scale=0.3))
LEVELS = {"g.theta": THETA, "g.lmbda": LMBDA, "sigma": SIGMA}


def levels(unseen="draw"):
    def model(code, y=None):
        layer = RandomEffectsLayer(num_categories=4, unseen=unseen)
        return gaussian_link_exp(layer("g", code), y)

    return posterior_of(model, {"code": CODES, "y": Y}, LEVELS)


def test_unseen_levels_are_drawn_at_each_draws_scale():
    posterior = levels()
    code = np.array([2, *range(-1, -21, -1)])
    draws = posterior.predict({"code": code}, kind="linear", draws=True).draws
    assert_allclose(draws[:, 0], THETA[:, 2, 0], rtol=1e-6)
    assert_standard_noise(draws[:, 1:] / LMBDA[:, None])


@pytest.mark.parametrize("chunk_rows", [1, 2, 5])
def test_all_chunks_agree_on_the_draws_of_unseen_levels(chunk_rows):
    posterior = levels()
    new = {"code": np.array([-1, 0, -2, -1, 3, -7, -2, -1])}
    whole = posterior.predict(new, kind="linear", draws=True, chunk_rows=None).draws
    parts = posterior.predict(new, kind="linear", draws=True, chunk_rows=chunk_rows)
    assert_allclose(parts.draws, whole, rtol=1e-5)
    for one, other in ((0, 3), (0, 7), (2, 6)):
        assert_allclose(whole[:, one], whole[:, other], rtol=1e-5)
    assert np.abs(np.corrcoef(whole[:, 0], whole[:, 2])[0, 1]) < 5 / np.sqrt(S)
    alone = posterior.predict({"code": [-2]}, kind="linear", draws=True).draws
    assert_allclose(alone[:, 0], whole[:, 2], rtol=1e-5)


def test_unseen_levels_at_zero_or_refused():
    zero = levels("zero").predict({"code": [-1, 1]}, kind="linear", draws=True).draws
    assert_array_equal(zero[:, 0], np.zeros(S))
    assert_allclose(zero[:, 1], THETA[:, 1, 0], rtol=1e-6)
    with refused(ValueError, "'g': code -1 is negative"):
        levels("error").predict({"code": [-1]})
    for unseen in ("draw", "zero", "error"):
        with refused(ValueError, "'g': code 4 is past its table of 4"):
            levels(unseen).predict({"code": [0, 4]})


def test_an_estimate_says_how_uncertain_an_unseen_level_is():
    """One draw of a new level would be no mean."""

    def model(code, y=None):
        layer = EmbeddingLayer(num_categories=4, embedding_dim=1, prior=Fixed())
        return gaussian_link(layer("g", code), y, scale=0.5)

    posterior = fit(model, {"code": CODES, "y": Y}, method="map")
    predicted = posterior.predict({"code": [1, -1]}, kind="mean")
    assert_allclose(
        predicted.mean[0], posterior.draws["g.theta"][0, 0, 1, 0], rtol=1e-5
    )
    assert predicted.sd[0] < 1e-6
    assert_allclose(predicted.mean[1], 0.0, atol=5 / np.sqrt(1000))
    assert_allclose(predicted.sd[1], 1.0, atol=0.15)


# --- estimates, and latent values of rows


def test_responses_around_an_estimate_have_their_noise():
    posterior = fit(known_noise, DATA, method="map")
    response = posterior.predict(NEW)
    mean = posterior.predict(NEW, kind="mean")
    assert_allclose(mean.sd, np.zeros(3), atol=0)
    assert_array_equal(mean.lower, mean.upper)
    assert_allclose(response.mean, mean.mean, atol=5 * 0.5 / np.sqrt(1000))
    assert_allclose(response.sd, np.full(3, 0.5), rtol=0.15)
    assert_allclose(response.upper - response.lower, 2 * 1.645 * 0.5, rtol=0.15)


def test_fitted_rows_keep_their_latent_values_and_new_rows_draw_theirs():
    z, b = normal(S, 20, seed=9), normal(S)
    x = X[:, 0]
    posterior = posterior_of(
        apart, {"x": x, "y": Y}, {"b": b, "z": z}, row_latents=("z",)
    )
    kept = posterior.predict(kind="mean", draws=True, chunk_rows=3).draws
    assert_allclose(kept, b[:, None] * x + z, rtol=1e-4, atol=1e-5)
    # the same rows, passed as new ones, are new
    drawn = posterior.predict({"x": x}, kind="mean", draws=True).draws
    assert_standard_noise(np.hstack([drawn - b[:, None] * x, z]))
    assert posterior.predict({"x": x[:3]}, kind="mean").mean.shape == (3,)
    assert posterior.predict({"x": np.tile(x, 3)}).mean.shape == (60,)


def test_a_fit_tells_latent_values_of_rows_from_the_others():
    posterior = fit(apart, {"x": X[:, 0], "y": Y}, method="mcmc", **QUICK)
    assert posterior.sampled == ("b",)
    assert posterior.row_latents == ("z",)
    x, b, z = X[:, 0], posterior.draws["b"], posterior.draws["z"]
    wanted = (b[..., None] * x + z).reshape(-1, 20).mean(0)
    assert_allclose(posterior.predict(kind="mean").mean, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_model_that_knows_its_rows_tells_them_too():
    def model(x, size, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with numpyro.plate("rows", size):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("obs", dist.Normal(x @ b + z, 1.0), obs=y)

    data = {"x": X[:6], "size": 6, "y": Y[:6]}
    posterior = fit(model, data, method="mcmc", **QUICK)
    assert posterior.sampled == ("b",)
    assert posterior.row_latents == ("z",)


# --- what cannot be predicted, refused before anything is compiled


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        ({}, ValueError, r"new data lack \['x'\]"),
        ({"x": X[:, :1]}, ValueError, r"fitted with columns \(2,\)"),
        ({"x": normal(3, 3)}, ValueError, r"shape \(3, 3\), but was fitted with"),
        ({"x": X[0]}, ValueError, "one row is an array of length 1"),
        ({"x": X[:0]}, ValueError, "no rows, so there is nothing to predict"),
        ({"x": [["a", "b"]]}, TypeError, "not real numbers"),
        ({"x": np.full((1, 2), np.nan)}, ValueError, "`x`, new data, is NaN"),
        ({**NEW, "z": 1.0}, ValueError, r"new data have \['z'\].*It takes \['x'\]"),
        ([1.0], TypeError, "`new_data` is a list"),
    ],
)
def test_bad_new_data_are_refused(gaussian, new, error, message):
    with refused(error, message):
        gaussian.predict(new)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "median"}, r"kind is 'median'; it is one of \('response', 'mean'"),
        ({"interval": 0.0}, "interval is 0.0; it is a probability"),
        ({"interval": 90}, "interval is 90; it is a probability"),
        ({"interval": True}, "interval is True"),
        ({"chunk_rows": 0}, "`chunk_rows` is 0, but a size"),
        ({"chunk_rows": 2.5}, "`chunk_rows` is 2.5, but a size"),
        ({"chunk_rows": "all"}, "`chunk_rows` is 'all', but a size"),
    ],
)
def test_bad_options_are_refused(gaussian, options, message):
    with refused(ValueError, message):
        gaussian.predict(NEW, **options)


def test_float_codes_are_refused_in_new_data():
    with refused(TypeError, "was fitted with integers"):
        levels().predict({"code": np.array([0.0])})


def test_a_kind_that_the_model_lacks_is_refused():
    posterior = posterior_of(gathered, {"x": X[:, 0], "y": Y}, {"b": normal(S)})
    with refused(ValueError, "kind='linear' needs the predictor.*Lamina's links"):
        posterior.predict(kind="linear")
    assert posterior.predict(kind="mean").mean.shape == (20,)


class Meanless(dist.Normal):
    @property
    def mean(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (lambda b, x: Meanless(b * x, 1.0), "Meanless, .*knows no mean"),
        (lambda b, x: dist.StudentT(0.5, b * x, 1.0), None),
        (
            lambda b, x: dist.Categorical(logits=jnp.stack([b * x, 0.0 * x], -1)),
            "the mean of outcome 'obs' is NaN.*categories have no mean",
        ),
    ],
    ids=["none known", "infinite", "categories"],
)
def test_a_mean_that_does_not_exist_is_no_number(outcome, message):
    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", outcome(b, x), obs=y)

    posterior = posterior_of(model, {"x": X[:, 0], "y": FLIPS}, {"b": normal(S)})
    assert np.isfinite(posterior.predict().mean).all()
    if message is None:
        assert not np.isfinite(posterior.predict(kind="mean").mean).any()
    else:
        with pytest.raises(ValueError, match=message):
            posterior.predict(kind="mean")


def test_a_model_that_needs_its_outcome_says_so_when_it_predicts():
    def model(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("obs", dist.Normal(a, 1.0), obs=y)

    posterior = posterior_of(model, {"y": Y}, {"a": normal(S)})
    with pytest.raises(TypeError, match="no len") as error:
        posterior.predict()
    assert any("where y is None" in note for note in error.value.__notes__)


def test_an_outcome_that_is_no_site_of_its_own_cannot_be_predicted():
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        seen = 0.0 if y is None else y
        numpyro.sample("residual", dist.Normal(0.0, 1.0), obs=seen - b * x)

    posterior = posterior_of(model, {"x": X[:, 0], "y": Y}, {"b": normal(S)})
    with refused(ValueError, r"no outcome to predict.*samples none of \['residual'\]"):
        posterior.predict()


# --- how it looks


def test_a_prediction_is_a_table(gaussian):
    predicted = gaussian.predict(NEW, kind="mean", interval=0.955)
    assert len(predicted) == 3
    frame = predicted.to_dataframe()
    assert list(frame.columns) == ["mean", "sd", "95.5% low", "95.5% high"]
    assert_allclose(frame["mean"], predicted.mean)
    assert_allclose(predicted.table()["1"]["sd"], predicted.sd[1])
    text = repr(predicted)
    assert text.startswith("Predicted mean of shape (3,)\n")
    assert f"{predicted.mean[1]:.3f}" in text
    assert predicted._repr_html_() == f"<pre>{text}</pre>"


def test_a_summary_is_of_all_draws(gaussian):
    table = gaussian.summary(interval=0.8)
    assert_allclose(table["b.beta[1,0]"]["mean"], B[:, 1, 0].mean(), rtol=1e-4)
    low, high = narrowest(B[:, 1, 0].astype(np.float32), 0.8)
    assert_allclose(table["b.beta[1,0]"]["hdi 80% low"], low)
    assert_allclose(table["b.beta[1,0]"]["hdi 80% high"], high)
    assert "ess" not in table.columns
