"""Fits in standard units, against closed forms and against other units of the same data."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

import lamina
from fit_helpers import conjugate, with_ones
from lamina import (
    AdaptiveLayer,
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
    gaussian_link,
)
from lamina.layers import HorseshoeLayer, MLPLayer, RandomSlopesLayer
from lamina.links import gamma_link, mixture_link, poisson_link, student_t_link

RNG = np.random.default_rng(3)
N, C = 60, 5
X = np.column_stack([RNG.normal(50.0, 4.0, N), RNG.normal(-2.0, 0.01, N)])
G = np.arange(N) % C
Y = 300.0 + X @ [2.0, 400.0] + 5.0 * RNG.normal(size=C)[G] + 3.0 * RNG.normal(size=N)


def grouped(x, g, y=None):
    mu = (
        InterceptLayer()("a")
        + FixedPriorLayer()("b", x)
        + RandomEffectsLayer(num_categories=C)("g", g)
    )
    return gaussian_link(mu, y)


def fit(model, data=None, **options):
    data = {"x": X, "g": G, "y": Y} if data is None else data
    return lamina.fit(model, data, standardize=True, method="map", **options)


def draw(posterior, site):
    """The single estimate of a site."""
    return posterior.draws[site][0, 0]


def test_the_posterior_mode_is_the_closed_form_in_standard_units():
    def model(x, y=None):
        mu = InterceptLayer()("a") + FixedPriorLayer()("b", x)
        return gaussian_link(mu, y, scale=3.0)

    posterior = fit(model, {"x": X, "y": Y})
    z, v = (X - X.mean(0)) / X.std(0), (Y - Y.mean()) / Y.std()
    mean, _ = conjugate(with_ones(z), v, noise=3.0 / Y.std())
    slopes = mean[1:] * Y.std() / X.std(0)
    assert_allclose(draw(posterior, "b.beta")[:, 0], slopes, rtol=1e-4)
    intercept = Y.mean() + Y.std() * mean[0] - X.mean(0) @ slopes
    assert_allclose(draw(posterior, "a.beta"), [[intercept]], rtol=1e-4)


SHORT = {
    "map": {},
    "vi": {"num_steps": 500, "progress_bar": False},
    "mcmc": {"num_warmup": 200, "num_samples": 200, "progress_bar": False},
}


@pytest.mark.parametrize(
    "method",
    ["map", *(pytest.param(m, marks=pytest.mark.slow) for m in ("vi", "mcmc"))],
)
def test_other_units_change_nothing_but_the_coefficients(method):
    found = []
    for times in (1.0, 1000.0):
        data = {"x": X * [1.0, times], "g": G, "y": Y}
        posterior = lamina.fit(
            grouped, data, standardize=True, method=method, **SHORT[method]
        )
        found.append((posterior, posterior.predict(kind="mean").mean))
    (one, first), (other, second) = found
    assert_allclose(first, second, rtol=2e-3)
    means = [p.draws["b.beta"].mean((0, 1))[:, 0] for p in (one, other)]
    sd = one.draws["b.beta"].std((0, 1))[:, 0]
    loose = 1e-2 * np.abs(means[0]) if method == "map" else 0.3 * sd
    assert np.all(np.abs(means[0] - means[1] * [1.0, 1000.0]) < loose)


def test_units_of_the_outcome_scale_every_site():
    first = fit(grouped)
    second = fit(grouped, {"x": X, "g": G, "y": 10.0 * Y + 7.0})
    for site in ("b.beta", "g.theta", "g.lmbda", "sigma"):
        assert_allclose(
            draw(second, site), 10.0 * draw(first, site), rtol=0.02, atol=0.2
        )
    assert_allclose(
        draw(second, "a.beta"), 10.0 * draw(first, "a.beta") + 7.0, rtol=2e-3
    )


def test_reported_draws_make_the_predictions():
    posterior = fit(grouped)
    new = {"x": X[:7] + 1.0, "g": G[:7]}
    by_hand = (
        draw(posterior, "a.beta")[0, 0]
        + new["x"] @ draw(posterior, "b.beta")[:, 0]
        + draw(posterior, "g.theta")[new["g"], 0]
    )
    for kind in ("linear", "mean"):
        assert_allclose(posterior.predict(new, kind=kind).mean, by_hand, rtol=1e-4)


def test_slopes_by_group_are_reported_in_the_units_of_their_columns():
    def model(x, g, y=None):
        mu = (
            InterceptLayer()("a")
            + FixedPriorLayer()("b", x)
            + RandomSlopesLayer(num_categories=C)("s", x, g)
        )
        return gaussian_link(mu, y)

    posterior = fit(model)
    rows = draw(posterior, "s.theta")[G]
    by_hand = (
        draw(posterior, "a.beta")[0, 0]
        + X @ draw(posterior, "b.beta")[:, 0]
        + rows[:, 0]
        + (X * rows[:, 1:]).sum(axis=1)
    )
    assert_allclose(posterior.predict(kind="linear").mean, by_hand, rtol=1e-4)
    assert not any("standard units" in note for note in posterior.notes)


def test_without_an_intercept_nothing_is_centred():
    def model(x, y=None):
        return gaussian_link(FixedPriorLayer()("b", x), y, scale=3.0)

    posterior = fit(model, {"x": X, "y": Y})
    assert_allclose(posterior.standards["b.columns"].location, 0.0)
    assert_allclose(posterior.standards["obs.units"].location, 0.0)
    mean, _ = conjugate(X / X.std(0), Y / Y.std(), noise=3.0 / Y.std())
    slopes = draw(posterior, "b.beta")[:, 0]
    assert_allclose(slopes, mean * Y.std() / X.std(0), rtol=1e-3)


def test_a_constant_column_stays_as_it_is():
    def model(x, y=None):
        return gaussian_link(InterceptLayer()("a") + FixedPriorLayer()("b", x), y)

    posterior = fit(model, {"x": with_ones(X), "y": Y})
    standard = posterior.standards["b.columns"]
    assert standard.location[0] == 0.0
    assert standard.scale[0] == 1.0
    assert_allclose(standard.scale[1:], X.std(0), rtol=1e-5)


def test_one_layer_for_mean_and_log_scale_has_each_unit_in_its_own_units():
    def model(x, y=None):
        f = FixedPriorLayer(units=2)("f", x)
        mu = InterceptLayer()("a") + f[..., :1]
        return gaussian_link(mu, y, log_scale=f[..., 1:])

    first = fit(model, {"x": X, "y": Y})
    second = fit(model, {"x": X, "y": 10.0 * Y})
    ratio = draw(second, "f.beta") / draw(first, "f.beta")
    assert_allclose(ratio[:, 0], 10.0, rtol=0.02)
    assert_allclose(ratio[:, 1], 1.0, rtol=0.05)
    assert_allclose(first.standards["f.columns"].location, 0.0)


def test_a_known_scale_and_an_offset_are_in_the_outcomes_units():
    def model(x, known, y=None):
        mu = InterceptLayer()("a") + FixedPriorLayer()("b", x)
        return gaussian_link(mu, y, scale=3.0, offset=known)

    known = 100.0 * RNG.normal(size=N)
    with_offset = fit(model, {"x": X, "known": known, "y": Y})
    predicted = with_offset.predict(kind="linear").mean
    by_hand = (
        draw(with_offset, "a.beta")[0, 0]
        + X @ draw(with_offset, "b.beta")[:, 0]
        + known
    )
    assert_allclose(predicted, by_hand, rtol=1e-3)


@pytest.mark.slow
def test_a_log_mean_is_shifted_by_the_mean():
    def model(x, y=None):
        return gamma_link(InterceptLayer()("a") + FixedPriorLayer()("b", x), y)

    y = RNG.gamma(4.0, size=N)
    first, second = (fit(model, {"x": X, "y": y * times}) for times in (1.0, 1e4))
    assert_allclose(draw(second, "b.beta"), draw(first, "b.beta"), rtol=0.05)
    difference = draw(second, "a.beta") - draw(first, "a.beta")
    assert_allclose(difference, [[np.log(1e4)]], rtol=1e-2)


def test_counts_have_no_units_but_their_columns_have():
    def model(x, y=None):
        return poisson_link(InterceptLayer()("a") + FixedPriorLayer()("b", x), y)

    posterior = fit(model, {"x": X, "y": RNG.poisson(3.0, N)})
    assert list(posterior.standards) == ["b.columns"]
    linear = draw(posterior, "a.beta")[0, 0] + X @ draw(posterior, "b.beta")[:, 0]
    assert_allclose(posterior.predict(kind="mean").mean, np.exp(linear), rtol=1e-3)


@pytest.mark.slow
def test_minibatches_and_new_rows_use_the_units_of_all_training_rows():
    posterior = lamina.fit(
        grouped,
        {"x": X, "g": G, "y": Y},
        standardize=True,
        batch_size=16,
        num_steps=200,
        progress_bar=False,
    )
    assert_allclose(posterior.standards["b.columns"].location, X.mean(0))
    row = {"x": X[:1], "g": G[:1]}
    many = posterior.predict(kind="linear").mean
    assert_allclose(posterior.predict(row, kind="linear").mean, many[:1], rtol=1e-5)


@pytest.mark.slow
def test_what_is_no_multiple_of_a_coefficient_is_named():
    def model(x, y=None):
        return gaussian_link(InterceptLayer()("a") + MLPLayer(hidden=(3,))("net", x), y)

    posterior = fit(model, {"x": X, "y": Y})
    (note,) = (note for note in posterior.notes if "standard units" in note)
    assert "net.beta1" in note
    assert "a.beta" not in note


@pytest.mark.slow
def test_one_scale_for_columns_of_different_units_is_named():
    def model(x, y=None):
        return gaussian_link(InterceptLayer()("a") + AdaptiveLayer()("b", x), y)

    posterior = fit(model, {"x": X, "y": Y})
    assert any("['b.lmbda'] are in standard units" in note for note in posterior.notes)
    single = fit(model, {"x": X[:, :1], "y": Y})
    assert not any("standard units" in note for note in single.notes)


def test_prior_predictions_in_standard_units_fit_the_data():
    data = {"x": X, "g": G, "y": Y}
    drawn = lamina.prior_predictive(grouped, data, standardize=True, num_draws=400)
    # sd of an outcome: intercept 1, two columns 1 each, groups 1, noise sqrt(2), in sds
    assert_allclose(drawn["obs"].mean(), Y.mean(), atol=0.3 * Y.std())
    assert_allclose(drawn["obs"].std(), np.sqrt(6.0) * Y.std(), rtol=0.15)
    assert_allclose(drawn["b.beta"].std(0)[:, 0], Y.std() / X.std(0), rtol=0.15)
    with pytest.raises(ValueError, match=r"units of \['y'\]"):
        lamina.prior_predictive(grouped, {"x": X, "g": G}, standardize=True)


def two_outcomes(x, y=None, z=None):
    f = AdaptiveLayer()("f", x)
    student_t_link(InterceptLayer()("a") + f, y)
    return gaussian_link(InterceptLayer()("c") + f, z, name="z")


def own_site(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    return gaussian_link(a + AdaptiveLayer()("f", x), y)


def plain(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("obs", dist.Normal(x @ b, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "observed", "message"),
    [
        (two_outcomes, ("y", "z"), r"term 'f' is part of \['obs', 'z'\]"),
        (own_site, "y", r"predictor of \['obs'\] has a part that is no layer's"),
        (plain, "y", "finds nothing to rescale"),
    ],
)
def test_models_whose_units_cannot_be_told_raise(model, observed, message):
    data = {"x": X, "y": Y, **({"z": Y} if "z" in observed else {})}
    with pytest.raises(ValueError, match=message):
        fit(model, data, observed=observed)


@pytest.mark.slow
def test_components_of_a_mixture_are_in_the_units_of_the_outcome():
    def model(x, y=None):
        low = InterceptLayer()("low")
        high = InterceptLayer()("high") + FixedPriorLayer()("b", x)
        return mixture_link(
            [partial(gaussian_link, eta) for eta in (low, high)],
            y,
            probabilities=np.array([0.01, 0.99]),
        )

    posterior = fit(model, {"x": X, "y": Y})
    linear = draw(posterior, "high.beta")[0, 0] + X @ draw(posterior, "b.beta")[:, 0]
    mean = 0.01 * draw(posterior, "low.beta")[0, 0] + 0.99 * linear
    assert_allclose(posterior.predict(kind="mean").mean, mean, rtol=1e-3)


@pytest.mark.slow
def test_layers_in_scopes_are_told_apart():
    def model(x, g, y=None):
        mu = InterceptLayer()("a")
        for k in range(2):
            with numpyro.handlers.scope(prefix=f"part{k}"):
                mu = mu + FixedPriorLayer()("b", x[:, k])
        return gaussian_link(mu, y)

    posterior = fit(model)
    by_hand = draw(posterior, "a.beta")[0, 0] + sum(
        X[:, k] * draw(posterior, f"part{k}/b.beta")[0, 0] for k in range(2)
    )
    assert_allclose(posterior.predict(kind="linear").mean, by_hand, rtol=1e-4)
    assert_allclose(
        posterior.standards["part1/b.columns"].scale, X[:, 1].std(), rtol=1e-4
    )


def test_a_local_scale_is_no_standard_deviation_of_coefficients():
    def model(x, y=None):
        return gaussian_link(InterceptLayer()("a") + HorseshoeLayer()("b", x), y)

    posterior = fit(model, {"x": X, "y": Y})
    for site in ("b.lmbda", "b.tau"):
        assert_allclose(posterior.draws[site], posterior.model_draws[site])
    ratio = posterior.draws["b.beta"] / posterior.model_draws["b.beta"]
    assert_allclose(ratio[0, 0, :, 0], Y.std() / X.std(0), rtol=1e-4)


def test_a_layer_on_what_another_gives_keeps_its_units():
    def model(x, y=None):
        h = jnp.tanh(FixedPriorLayer(units=2)("h", x))
        return gaussian_link(InterceptLayer()("a") + FixedPriorLayer()("out", h), y)

    posterior = fit(model, {"x": X, "y": Y})
    assert set(posterior.standards) == {"h.columns", "obs.units"}
    out = draw(posterior, "out.beta") / posterior.model_draws["out.beta"][0, 0]
    assert_allclose(out, Y.std(), rtol=1e-4)
