"""Slopes by group: new levels, forms, and a published mixed model."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lamina
from lamina.dependence import Correlated
from lamina.handlers import noncentered, predicting
from lamina.layers import FixedPriorLayer, InterceptLayer, RandomSlopesLayer
from lamina.links import gaussian_link
from support import run, shapes, trace

C, DRAWS = 3, 4000
X = np.array([0.5, -1.0, 2.0, 3.0, 0.0])
CODES = np.array([-1, 2, -5, -1, 0])
LMBDA = np.array([0.5, 2.0])
CORR = np.array([[1.0, 0.0], [-0.8, 0.6]])
Z = np.random.default_rng(1).normal(size=(C, 2))
VALUES = {"g.lmbda": LMBDA, "g.corr": CORR, "g.z": Z}
THETA = Z @ (np.diag(LMBDA) @ CORR).T
NOISE = 4.0 / np.sqrt(DRAWS)


def layer(**options):
    return RandomSlopesLayer(num_categories=C, **options)


def predict(x, codes, key, values=VALUES, **options):
    model = predicting(layer(**options), key=key)
    return np.asarray(run(model, "g", x, codes, values=values))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("d", [1, 2])
def test_every_form_has_its_sites(intercept, correlated, d):
    form = layer(intercept=intercept, correlated=correlated)
    k = d + intercept
    expected = {"g.lmbda": (k,)}
    if correlated and k > 1:
        expected |= {"g.corr": (k, k)}
    expected |= {"g.z" if correlated else "g.theta": (C, k)}
    x = np.ones((2, d))
    assert shapes(form, "g", x, np.array([0, 1])) == expected


def test_without_an_intercept_the_columns_alone_have_coefficients():
    theta = np.arange(6.0).reshape(C, 2)
    x, codes = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([2, 0])
    form = layer(intercept=False, correlated=False)
    found = run(form, "g", x, codes, values={"g.lmbda": LMBDA, "g.theta": theta})
    assert_allclose(found, [[4.0 + 10.0], [0.0 + 5.0]])


def test_independent_coefficients_can_be_noncentred_by_a_handler():
    def model(x, codes, y=None):
        return gaussian_link(layer(correlated=False)("g", x, codes), y)

    data = {"x": X[1:2], "codes": CODES[1:2]}
    wrapped = noncentered(model, ["g.theta"], **data)
    assert "g.theta_decentered" in trace(wrapped, **data)


def test_scales_may_differ_by_coefficient():
    form = layer(lmbda_kwargs={"scale": np.array([50.0, 10.0])})
    site = trace(form, "g", X[1:2], CODES[1:2], values=VALUES)["g.lmbda"]
    assert_allclose(site["fn"].base_dist.scale, [50.0, 10.0])


@pytest.mark.parametrize("unseen", ["draw", "zero", "error"])
def test_a_fit_refuses_negative_codes(unseen):
    with pytest.raises(ValueError, match="RandomSlopesLayer 'g': code -5 is negative"):
        run(layer(unseen=unseen), "g", X, CODES)


def test_a_new_level_has_one_vector_for_all_its_rows(key):
    found = predict(X, CODES, key)[:, 0]
    assert_allclose(
        found[[1, 4]], THETA[[2, 0], 0] + X[[1, 4]] * THETA[[2, 0], 1], 1e-5
    )
    # two rows of level -1 fix its line, on which a third must lie
    more = predict(np.array([0.5, 3.0, 10.0]), np.array([-1, -1, -1]), key)[:, 0]
    assert_allclose(more[:2], found[[0, 3]], rtol=1e-5)
    slope = (more[1] - more[0]) / 2.5
    assert_allclose(more[2], more[0] + 9.5 * slope, rtol=1e-4)
    other = predict(X[[0, 3]], np.array([-5, -5]), key)[:, 0]
    assert not np.any(np.isclose(other, found[[0, 3]]))


def test_new_vectors_have_the_covariance_of_their_own_draw():
    keys = jax.random.split(jax.random.key(0), DRAWS)
    scales = np.random.default_rng(0).uniform(0.2, 3.0, size=(DRAWS, 1)) * LMBDA
    x, codes = np.array([0.0, 1.0]), np.array([-3, -3])

    def one(key, lmbda):
        values = {"g.lmbda": lmbda, "g.corr": jnp.asarray(CORR), "g.z": jnp.asarray(Z)}
        return run(predicting(layer(), key=key), "g", x, codes, values=values)[:, 0]

    found = np.asarray(jax.jit(jax.vmap(one))(keys, jnp.asarray(scales)))
    theta = np.stack([found[:, 0], found[:, 1] - found[:, 0]], axis=1) / scales
    assert np.all(np.abs(theta.mean(axis=0)) < NOISE)
    assert np.all(np.abs(theta.std(axis=0) - 1.0) < NOISE)
    assert abs(np.corrcoef(theta.T)[0, 1] + 0.8) < NOISE


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("c", [1, 2])
def test_few_levels_and_centred_ones_draw_like_any_other(centered, c, key):
    form = RandomSlopesLayer(num_categories=c, prior=Correlated(centered=centered))
    last = "g.theta" if centered else "g.z"
    values = {**VALUES, last: np.full((c, 2), 1000.0)}
    values["g.lmbda"] = 1e-3 * LMBDA
    x, codes = np.zeros(3), np.array([-1, 0, -2])
    found = run(predicting(form, key=key), "g", x, codes, values=values)
    found = np.asarray(found)[:, 0]
    assert_allclose(found[1], 1000.0 if centered else 0.5)
    assert np.all(np.abs(found[[0, 2]]) < 0.01)
    assert found[0] != found[2]


@pytest.mark.parametrize("sizes", [[1] * 5, [2, 3]])
def test_chunks_of_rows_agree_eager_or_compiled(sizes, key):
    whole = predict(X, CODES, key)
    cuts = np.cumsum(sizes)[:-1]
    parts = zip(np.split(X, cuts), np.split(CODES, cuts), strict=True)
    found = np.concatenate([predict(x, c, key) for x, c in parts])
    assert_allclose(found, whole, rtol=1e-6)
    model = predicting(layer(), key=key)
    compiled = jax.jit(lambda x, c: run(model, "g", x, c, values=VALUES))
    assert_allclose(compiled(X, CODES), whole, rtol=1e-5)


def test_zero_and_error_are_the_other_policies(key):
    found = predict(X, CODES, key, unseen="zero")[:, 0]
    assert_array_equal(found[[0, 2, 3]], 0.0)
    assert_allclose(found[1], THETA[2, 0] - THETA[2, 1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"code -5 is negative.*'draw' or 'zero'"):
        predict(X, CODES, key, unseen="error")


def test_codes_outside_the_table_raise_or_read_nan(key):
    with pytest.raises(ValueError, match="code 3 is past its table of 3"):
        predict(X[:1], np.array([3]), key)
    model = predicting(layer(), key=key)
    found = jax.jit(lambda c: run(model, "g", X[:2], c, values=VALUES))(
        jnp.array([3, 1])
    )
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_rows_of_columns_and_codes_must_agree():
    with pytest.raises(
        ValueError, match=r"`x` has shape \(5, 1\) and the codes.*\(4,\)"
    ):
        run(layer(), "g", X, np.zeros(4, int))
    with pytest.raises(
        ValueError, match=r"`x` has shape \(1, 1\) and the codes.*\(4,\)"
    ):
        run(layer(), "g", X[:1], np.zeros(4, int))


@pytest.mark.parametrize(
    "given", [{"coef_dist": dist.Laplace}, {"coef_kwargs": {"loc": 1.0}}]
)
def test_correlated_coefficients_are_normal_around_zero(given):
    with pytest.raises(ValueError, match=r"correlated coefficients are Normal"):
        layer(**given)
    form = layer(correlated=False, **given)
    site = trace(form, "g", X[1:2], CODES[1:2])["g.theta"]["fn"].base_dist
    expected = dist.Laplace if "coef_dist" in given else dist.Normal
    assert isinstance(getattr(site, "base_dist", site), expected)


@pytest.fixture(scope="module")
def sleepstudy(data_folder):
    with open(data_folder / "sleepstudy.csv") as file:
        rows = list(csv.DictReader(file))
    _, subject = np.unique([row["subject"] for row in rows], return_inverse=True)
    days = np.array([float(row["days"]) for row in rows])
    return {
        "days": days,
        "subject": subject,
        "y": np.array([float(row["reaction_ms"]) for row in rows]),
    }


def reaction(days, subject, y=None):
    mu = (
        InterceptLayer(coef_kwargs={"loc": 250.0, "scale": 100.0})("a")
        + FixedPriorLayer(coef_kwargs={"loc": 0.0, "scale": 50.0})("b", days)
        + RandomSlopesLayer(
            lmbda_kwargs={"scale": np.array([50.0, 15.0])}, num_categories=18
        )("subject", days, subject)
    )
    return gaussian_link(mu, y, scale=dist.HalfNormal(100.0))


@pytest.fixture(scope="module")
def sleep_fit(sleepstudy):
    return lamina.fit(
        reaction, sleepstudy, method="mcmc", num_samples=1000, num_chains=2, seed=1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "published", "bound"),
    [
        ("a.beta", 251.405, 0.15),
        ("b.beta", 10.467, 0.15),
        ("subject.lmbda.0", 24.741, 0.6),
        ("subject.lmbda.1", 5.922, 0.6),
        ("subject.corr", 0.07, 0.6),
        ("sigma", 25.592, 0.6),
    ],
)
def test_sleepstudy_agrees_with_restricted_maximum_likelihood(
    sleep_fit, site, published, bound
):
    """Bates and others (2015), Fitting Linear Mixed-Effects Models Using lme4."""
    draws = sleep_fit.draws
    found = {
        "a.beta": draws["a.beta"],
        "b.beta": draws["b.beta"],
        "subject.lmbda.0": draws["subject.lmbda"][..., 0],
        "subject.lmbda.1": draws["subject.lmbda"][..., 1],
        "subject.corr": draws["subject.corr"][..., 1, 0],
        "sigma": draws["sigma"],
    }[site].ravel()
    assert abs(found.mean() - published) < bound * found.std()


@pytest.mark.slow
def test_sleepstudy_samples_without_divergences_and_predicts_new_subjects(sleep_fit):
    assert sleep_fit.statistics["diverging"].sum() == 0
    table = sleep_fit.summary()
    assert table["subject.lmbda[0]"]["r_hat"] < 1.02
    draws = sleep_fit.predict(
        {"days": [0.0, 9.0, 0.0], "subject": np.array([-1, -1, 4])}, kind="linear"
    )
    # a new subject's line is as wide as the fixed effects and both scales together
    lmbda = np.sqrt((sleep_fit.draws["subject.lmbda"] ** 2).mean(axis=(0, 1)))
    assert draws.sd[0] == pytest.approx(np.hypot(lmbda[0], 7.0), rel=0.15)
    assert draws.sd[1] > 1.5 * draws.sd[2]
