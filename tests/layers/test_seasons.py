"""Seasons: waves and cyclic walks, of one period or several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lamina
from lamina.layers import InterceptLayer, SeasonalLayer
from support import enable_x64, run, shapes


def effects_of(layer, times):
    """The matrix from independent coefficients to the term, column after column."""
    sites = shapes(layer, "s", times)
    columns = []
    for k in range(sites["s.beta"][0]):
        beta = np.eye(sites["s.beta"][0])[:, k : k + 1]
        columns.append(run(layer, "s", times, values={"s.beta": beta})[:, 0])
    return np.stack(columns, axis=1)


def test_a_cyclic_walk_has_the_covariance_of_its_precision():
    period = 5
    precision = np.zeros((period, period))
    for p in range(period):
        step = np.zeros(period)
        step[p], step[(p + 1) % period] = -1.0, 1.0
        precision += np.outer(step, step)
    layer = SeasonalLayer(periods=period, harmonics="walk")
    times = np.array([5, 1, 7, 13, -1])  # the five places, in other turns
    with enable_x64():
        found = effects_of(layer, times)
    assert_allclose(found @ found.T, np.linalg.pinv(precision), atol=1e-10)


def test_several_periods_add_up_under_numbered_sites():
    layer = SeasonalLayer(periods=(7, 30.5), harmonics=("walk", 3), units=2)
    times = np.arange(40)
    assert shapes(layer, "s", times) == {
        "s.lmbda1": (2,),
        "s.beta1": (6, 2),
        "s.lmbda2": (2,),
        "s.beta2": (6, 2),
    }
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 6, 2))
    found = run(layer, "s", times, values={"s.beta1": one, "s.beta2": two})
    week = SeasonalLayer(periods=7, harmonics="walk", units=2)
    month = SeasonalLayer(periods=30.5, harmonics=3, units=2)
    parts = run(week, "s", times, values={"s.beta": one}) + run(
        month, "s", times, values={"s.beta": two}
    )
    assert_allclose(found, parts, atol=1e-5)


@pytest.mark.parametrize("harmonics", [2, "walk"])
def test_seasons_come_back_after_a_period_at_any_distance(harmonics):
    layer = SeasonalLayer(periods=7, harmonics=harmonics)
    shape = {
        "s.beta": np.random.default_rng(1).normal(size=(4 if harmonics == 2 else 6, 1))
    }
    near = np.arange(-7, 7)
    for times in (near, near.astype(np.int8), near + 7_000_000, jnp.asarray(near)):
        found = run(layer, "s", times, values=shape)
        assert_allclose(found[:7], found[7:], atol=1e-5)
        assert_allclose(found, run(layer, "s", near, values=shape), atol=1e-5)
    compiled = jax.jit(lambda t: run(layer, "s", t, values=shape))
    assert_allclose(compiled(near), run(layer, "s", near, values=shape), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": 0}, "`periods` is 0"),
        ({"periods": (7, -1.0)}, "`periods` is -1.0"),
        ({"periods": np.inf}, "`periods` is inf"),
        ({"periods": "week"}, "`periods` is 'week'"),
        ({"harmonics": 0}, "`harmonics` is 0"),
        ({"harmonics": "waves"}, "`harmonics` is 'waves'"),
        ({"periods": 7.5, "harmonics": "walk"}, "which is 7.5. Give a whole period"),
        ({"periods": 1, "harmonics": "walk"}, "which is 1. Give a whole period"),
        ({"periods": (7, 12), "harmonics": (1, 2, 3)}, "2 `periods` and 3 `harmonics`"),
        ({"periods": (), "harmonics": 1}, "0 `periods`"),
    ],
)
def test_seasons_that_cannot_be_meant_raise_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        SeasonalLayer(**options)


@pytest.mark.parametrize(
    ("harmonics", "times", "error", "message"),
    [
        ("walk", [0.0, 1.0], TypeError, "dtype float64.*each of 7 places"),
        (4, [0, 1], ValueError, "4 harmonics of period 7 at whole times.*at most 3"),
        (2, [0.0, np.nan], ValueError, "1 of 2 values, in rows 1 of the times"),
        (2, [1.7e9, 1.8e9], ValueError, r"rounded by 2.*Subtract an origin"),
        (2, [0, 2**40], ValueError, "wrap around"),
        (2, ["mon", "tue"], TypeError, "not numbers"),
        (2, [[0, 1]], ValueError, r"shape \(1, 2\)"),
    ],
)
def test_times_that_cannot_be_meant_raise(harmonics, times, error, message):
    layer = SeasonalLayer(periods=7, harmonics=harmonics)
    with pytest.raises(error, match=message):
        run(layer, "s", np.array(times))


@pytest.mark.slow
def test_two_seasons_are_recovered_and_go_on():
    rng = np.random.default_rng(2)
    t = np.arange(200)
    week = np.array([1.0, 0.5, 0.0, -0.5, -1.0, -0.6, 0.6])
    truth = 3.0 + week[t % 7] + 0.8 * np.sin(2 * np.pi * t / 36.5)
    y = truth + 0.3 * rng.normal(size=200)

    def model(t, y=None):
        mu = InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 5.0})("a")
        seasonal = SeasonalLayer(periods=(7, 36.5), harmonics=("walk", 2))
        return lamina.gaussian_link_exp(mu + seasonal("s", t), y)

    posterior = lamina.fit(
        model,
        {"t": t[:150], "y": y[:150]},
        method="mcmc",
        num_warmup=300,
        num_samples=300,
        num_chains=1,
    )
    found = posterior.predict({"t": t}, kind="mean")
    error = np.asarray(found.mean) - truth
    assert np.sqrt(np.mean(error**2)) < 0.15
    assert np.mean((truth > found.lower) & (truth < found.upper)) > 0.7
