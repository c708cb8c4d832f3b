"""`fit` and `prior_predictive`: exact answers, repeatable ones, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLaplaceApproximation,
    AutoNormal,
)
from numpyro.optim import Adam

import lamina
from fit_helpers import (
    QUICK,
    assert_moments,
    compilations,
    conjugate,
    pooled,
    refused,
    rows_of,
    with_ones,
)
from lamina import (
    AdaptiveLayer,
    EmbeddingLayer,
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
    fit,
    gaussian_link,
    gaussian_link_exp,
    logit_link,
    poisson_link,
    prior_predictive,
)
from lamina.infer.fitted import Fitted
from lamina.infer.methods import METHODS

SLOW = pytest.mark.slow
NOISE = 0.7
DATA = rows_of(60, [1.0, -0.5], intercept=0.3, noise=NOISE)
MEAN, COVARIANCE = conjugate(with_ones(DATA["x"]), DATA["y"], noise=NOISE)
SD = np.sqrt(np.diag(COVARIANCE))
SITES = ("a.beta", "b.beta")


def linear(x, y):
    """A conjugate regression, its outcome without a default."""
    mu = InterceptLayer()("a") + FixedPriorLayer()("b", x)
    return gaussian_link(mu, y, scale=NOISE)


def learned_noise(x, y=None):
    return gaussian_link_exp(AdaptiveLayer()("b", x), y)


def plain(x, y=None):
    """The conjugate regression without a layer."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.deterministic("line", a + x @ b)
        numpyro.sample("obs", dist.Normal(a + x @ b, NOISE), obs=y)
    numpyro.deterministic("total", b.sum())


def coin(flips):
    bias = numpyro.sample("bias", dist.Beta(10.0, 10.0))
    with numpyro.plate("flip", len(flips)):
        numpyro.sample("obs", dist.Bernoulli(bias), obs=flips)


def coin_guide(flips):
    positive = dist.constraints.positive
    a = numpyro.param("a", 15.0, constraint=positive)
    b = numpyro.param("b", 15.0, constraint=positive)
    numpyro.sample("bias", dist.Beta(a, b))


FLIPS = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def full_rank():
    return fit(linear, DATA, guide="full_rank", num_draws=20_000)


# --- exact answers


def test_a_full_rank_guide_is_exact_for_a_conjugate_regression(full_rank):
    draws = pooled(full_rank, *SITES)
    assert_moments(draws, MEAN, SD, mean_error=0.1, sd_error=0.05)
    wanted = COVARIANCE / np.outer(SD, SD)
    assert_allclose(np.corrcoef(draws.T), wanted, atol=0.05)
    assert full_rank.estimators == dict.fromkeys(SITES, "reparameterization")


def test_a_mean_field_guide_has_the_mean_and_the_conditional_sds():
    """Bishop (2006), section 10.1.2: each factor has the precision's own diagonal."""
    posterior = fit(linear, DATA, num_draws=20_000)
    conditional = 1 / np.sqrt(np.diag(np.linalg.inv(COVARIANCE)))
    draws = pooled(posterior, *SITES)
    assert_moments(draws, MEAN, conditional, mean_error=0.1, sd_error=0.05)
    assert set(posterior.estimators) == set(SITES)
    assert posterior.estimators["b.beta"] == "local reparameterization"


@pytest.mark.parametrize("guide", ["full_rank", "mean_field"])
@pytest.mark.parametrize(
    ("n", "batch", "options"),
    [
        (129, 128, {}),
        (129, 1024, {}),
        (1000, 1, {"averaged_epochs": 1000, "num_steps": 3_000_000}),
    ],
)
@pytest.mark.slow
def test_minibatches_have_the_full_batch_posterior(n, batch, options, guide):
    """In one column without intercept, mean-field and full-rank guides are both exact."""
    data = rows_of(n, [0.8], noise=NOISE, seed=n)
    mean, covariance = conjugate(data["x"], data["y"], noise=NOISE)

    def model(x, y=None):
        return gaussian_link(FixedPriorLayer()("b", x), y, scale=NOISE)

    for seed in (0, 1):
        posterior = fit(
            model,
            data,
            guide=guide,
            batch_size=batch,
            num_draws=20_000,
            seed=seed,
            **options,
        )
        draws = pooled(posterior, "b.beta")
        sd = np.sqrt(np.diag(covariance))
        assert_moments(draws, mean, sd, mean_error=0.1, sd_error=0.05)
        assert posterior.settings["batch_size"] == min(n, batch)


@pytest.mark.slow
def test_minibatches_have_the_full_batch_posterior_of_many_coefficients():
    data = rows_of(129, [1.0, -0.5, 0.3], intercept=0.7, noise=NOISE)
    mean, covariance = conjugate(with_ones(data["x"]), data["y"], noise=NOISE)
    sd = np.sqrt(np.diag(covariance))
    for options in ({"batch_size": 128}, {"batch_size": 16, "averaged_epochs": 1000}):
        posterior = fit(linear, data, guide="full_rank", num_draws=20_000, **options)
        draws = pooled(posterior, *SITES)
        assert_moments(draws, mean, sd, mean_error=0.1, sd_error=0.05)


def test_nuts_is_exact_for_a_conjugate_regression():
    posterior = fit(linear, DATA, method="mcmc", num_warmup=500, num_samples=1000)
    table = posterior.summary()
    assert min(table.columns["ess"]) > 1500
    assert max(table.columns["r_hat"]) < 1.01
    draws = pooled(posterior, *SITES)
    assert_moments(draws, MEAN, SD, mean_error=0.1, sd_error=0.08)
    assert posterior.draws["b.beta"].shape == (4, 1000, 2, 1)
    assert posterior.num_draws == 4000
    assert posterior.losses is None
    assert posterior.estimators == {}
    assert posterior.statistics["diverging"].shape == (4, 1000)
    assert not posterior.statistics["diverging"].any()
    with pytest.raises(ValueError, match="read-only"):
        posterior.statistics["energy"][0] = 0.0
    text = repr(posterior)
    assert "Posterior by mcmc: 4 chains of 1000 draws, 60 rows" in text
    assert "b.beta (2, 1)" in text


def test_the_mode_of_a_conjugate_regression_is_its_mean():
    draws = pooled(fit(linear, DATA, method="map"), *SITES)
    assert_allclose((draws[0] - MEAN) / SD, np.zeros(3), atol=1e-3)


def test_maximum_likelihood_is_least_squares():
    draws = pooled(fit(linear, DATA, method="mle"), *SITES)
    wanted = np.linalg.lstsq(with_ones(DATA["x"]), DATA["y"], rcond=None)[0]
    assert_allclose((draws[0] - wanted) / SD, np.zeros(3), atol=1e-3)


def test_maximum_likelihood_of_the_noise_is_the_root_mean_square():
    posterior = fit(learned_noise, DATA, method="mle")
    best = np.linalg.lstsq(DATA["x"], DATA["y"], rcond=None)[0]
    wanted = np.sqrt(np.mean((DATA["y"] - DATA["x"] @ best) ** 2))
    assert_allclose(posterior.draws["sigma"], wanted, rtol=1e-4)


def test_maximum_likelihood_leaves_out_what_only_priors_hold():
    """The likelihood says nothing of a prior's scale; any number would be made up."""
    posterior = fit(learned_noise, DATA, method="mle")
    assert "b.lmbda" not in posterior.draws
    assert any("['b.lmbda']" in note for note in posterior.notes)


@pytest.mark.parametrize("guide", [coin_guide, pytest.param("mean_field", marks=SLOW)])
def test_a_coin_has_the_beta_posterior(guide):
    """Beta(10, 10) and 6 heads of 10: Beta(16, 14)."""
    posterior = fit(
        coin, {"flips": FLIPS}, observed="flips", guide=guide, num_draws=20_000
    )
    sd = np.array([np.sqrt(16 * 14 / 30**2 / 31)])
    draws = pooled(posterior, "bias")
    assert_moments(draws, 16 / 30, sd, mean_error=0.1, sd_error=0.05)
    assert posterior.settings["guide"] == (
        "own" if guide is coin_guide else "AutoNormal"
    )


def test_the_modes_of_a_coin():
    """Of Beta(16, 14) and of the likelihood; densities on (0, 1), no Jacobian."""
    for method, wanted in (("map", 15 / 28), ("mle", 0.6)):
        posterior = fit(coin, {"flips": FLIPS}, observed="flips", method=method)
        assert_allclose(posterior.draws["bias"], wanted, rtol=1e-4)


@pytest.mark.slow
def test_the_coin_by_nuts():
    posterior = fit(coin, {"flips": FLIPS}, observed="flips", method="mcmc")
    sd = np.array([np.sqrt(16 * 14 / 30**2 / 31)])
    draws = pooled(posterior, "bias")
    assert_moments(draws, 16 / 30, sd, mean_error=0.12, sd_error=0.08)


def test_two_outcomes_in_one_model_are_two_regressions():
    other = rows_of(60, [0.4, 2.0], noise=NOISE, seed=5)["y"]

    def both(x, first, second):
        gaussian_link(FixedPriorLayer()("f", x), first, name="one", scale=NOISE)
        gaussian_link(FixedPriorLayer()("s", x), second, name="two", scale=NOISE)

    data = {"x": DATA["x"], "first": DATA["y"], "second": other}
    posterior = fit(both, data, observed=("first", "second"), method="map")
    for site, y in (("f.beta", DATA["y"]), ("s.beta", other)):
        mean, _ = conjugate(DATA["x"], y, noise=NOISE)
        assert_allclose(pooled(posterior, site)[0], mean, rtol=1e-3)
    predicted = posterior.predict(kind="mean")
    assert set(predicted) == {"one", "two"}
    wanted = DATA["x"] @ conjugate(DATA["x"], other, noise=NOISE)[0]
    assert_allclose(predicted["two"].mean, wanted, rtol=1e-3, atol=1e-4)


# --- plain NumPyro


def test_a_plain_model_gives_the_same_answer_as_one_of_layers():
    posterior = fit(plain, DATA, method="map")
    assert_allclose((pooled(posterior, "a", "b")[0] - MEAN) / SD, 0.0, atol=1e-3)
    assert_allclose(posterior.draws["total"][0, 0], MEAN[1:].sum(), rtol=1e-3)


def test_deterministic_sites_of_rows_are_left_out_and_others_kept():
    posterior = fit(plain, DATA, method="mcmc", **QUICK)
    assert set(posterior.draws) == {"a", "b", "total"}
    assert posterior.draws["total"].shape == (2, 100)
    assert_allclose(
        posterior.draws["total"], posterior.draws["b"].sum(-1), rtol=1e-5, atol=1e-6
    )


def flat_intercept(x, y=None):
    a = numpyro.param("a", 0.0)
    return gaussian_link(a + FixedPriorLayer()("b", x), y, scale=NOISE)


FLAT_MEAN, _ = conjugate(
    with_ones(DATA["x"]), DATA["y"], noise=NOISE, prior=[1e6, 1.0, 1.0]
)


def test_a_parameter_is_estimated_beside_the_mode():
    """A parameter is a latent value with a flat prior."""
    posterior = fit(flat_intercept, DATA, method="map")
    assert_allclose(posterior.draws["a"], FLAT_MEAN[0], atol=1e-3)


@pytest.mark.slow
def test_a_parameter_is_learned_beside_a_guide():
    posterior = fit(flat_intercept, DATA, guide="full_rank")
    assert posterior.draws["a"].shape == (1, 1000)
    assert_allclose(posterior.draws["a"], FLAT_MEAN[0], atol=0.1 * SD[0])
    predicted = posterior.predict({"x": np.zeros((1, 2))}, kind="mean")
    assert_allclose(predicted.mean, posterior.draws["a"].mean(), atol=1e-5)


def test_a_model_of_parameters_alone_is_fitted_too():
    def model(x, y=None):
        numpyro.sample("obs", dist.Normal(numpyro.param("a", 0.0) * x, 1.0), obs=y)

    x, y = DATA["x"][:, 0], DATA["y"]
    wanted = x @ y / (x @ x)
    by_hand = fit(model, {"x": x, "y": y}, guide=lambda x, y: None)
    for posterior in (by_hand, fit(model, {"x": x, "y": y}, method="mle")):
        assert_allclose(posterior.draws["a"], wanted, rtol=1e-3)
        predicted = posterior.predict({"x": [2.0]}, kind="mean")
        assert_allclose(predicted.mean, 2 * wanted, rtol=1e-3)


@pytest.mark.filterwarnings("error")
def test_parameters_may_be_trees_as_a_networks_are():
    def model(x, y=None):
        w = numpyro.param("w", {"slope": jnp.zeros(2), "level": jnp.zeros(())})
        numpyro.sample("obs", dist.Normal(x @ w["slope"] + w["level"], 1.0), obs=y)
        numpyro.sample("unused", dist.Normal(0.0, 1.0))

    posterior = fit(model, DATA, method="map")
    wanted = np.linalg.lstsq(with_ones(DATA["x"]), DATA["y"], rcond=None)[0]
    predicted = posterior.predict({"x": np.eye(2)}, kind="mean").mean
    assert_allclose(predicted, wanted[0] + wanted[1:], atol=1e-3)


def test_latent_sites_that_a_method_does_not_draw_are_noted(monkeypatch):
    """As where a method sums out what is discrete."""

    def model(x, y=None):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("obs", dist.Normal(x @ b + k, 1.0), obs=y)

    def summing(model, rows, constants, *, key):
        return Fitted(model, {"b": np.zeros((1, 5, 2))})

    monkeypatch.setitem(METHODS, "summing", summing)
    posterior = fit(model, DATA, method="summing")
    assert posterior.notes == (
        "['k'] have no draws: predictions draw them from their priors.",
    )


def test_a_likelihood_may_be_a_factor():
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        lamina.row_factor("terms", dist.Normal(x * b, 1.0).log_prob(y))

    x, y = DATA["x"][:, 0], DATA["y"]
    posterior = fit(model, {"x": x, "y": y}, method="map")
    assert_allclose(posterior.draws["b"], x @ y / (1 + x @ x), rtol=1e-3)


def test_masks_and_scales_count():
    x, y = DATA["x"][:, 0], DATA["y"]
    some = x > 0

    def model(x, some, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.handlers.scale(scale=3.0), numpyro.handlers.mask(mask=some):
            numpyro.sample("obs", dist.Normal(x * b, 1.0), obs=y)

    posterior = fit(model, {"x": x, "some": some, "y": y}, method="map")
    wanted = 3 * (x * some) @ y / (1 + 3 * (x * some) @ x)
    assert_allclose(posterior.draws["b"], wanted, rtol=1e-4)


def test_names_inside_a_scope_are_the_scopes():
    def model(x, y=None):
        with numpyro.handlers.scope(prefix="s"):
            return gaussian_link(FixedPriorLayer()("b", x), y, scale=NOISE)

    posterior = fit(model, DATA, method="map")
    assert list(posterior.draws) == ["s/b.beta"]
    mean, _ = conjugate(DATA["x"], DATA["y"], noise=NOISE)
    predicted = posterior.predict({"x": np.eye(2)}, kind="linear")
    assert_allclose(predicted.mean, mean, rtol=1e-3)


@pytest.mark.slow
def test_data_may_be_picked_by_a_random_index():
    """NumPy's arrays cannot be, so a model that does it is given JAX's."""

    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(x), subsample_size=20) as rows:
            numpyro.sample("obs", dist.Normal(b * x[rows], 1.0), obs=y[rows])

    x, y = DATA["x"][:, 0], DATA["y"]
    posterior = fit(model, {"x": x, "y": y}, learning_rate=0.01, num_draws=4000)
    sd = np.array([1 / np.sqrt(1 + x @ x)])
    draws = pooled(posterior, "b")
    wanted = x @ y / (1 + x @ x)
    assert_moments(draws, wanted, sd, mean_error=0.3, sd_error=0.15)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "map"},
        pytest.param({"method": "mcmc", **QUICK}, marks=SLOW),
    ],
)
def test_arguments_may_have_any_name(options):
    def model(method, seed, guide, extra_fields, y=None):
        mu = FixedPriorLayer()("b", method) + seed * 0.0 + extra_fields[:, None] * 0.0
        return gaussian_link(mu + guide * 0.0, y, scale=NOISE)

    data = {
        "method": DATA["x"],
        "seed": 1,
        "guide": 2.0,
        "extra_fields": DATA["y"],
        "y": DATA["y"],
    }
    posterior = fit(model, data, **options)
    assert posterior.predict(kind="mean").mean.shape == (60,)


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        posterior = fit(linear, DATA, method="map")
        draws = pooled(posterior, *SITES)
        assert draws.dtype == np.float64
        assert_allclose((draws[0] - MEAN) / SD, np.zeros(3), atol=1e-5)


# --- the same seed, the same answer


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_steps": 400}, id="vi", marks=SLOW),
        pytest.param({"num_steps": 400, "batch_size": 8}, id="minibatch"),
        pytest.param({"method": "mcmc", **QUICK}, id="mcmc", marks=SLOW),
        pytest.param({"method": "map", "num_steps": 3}, id="map"),
    ],
)
def test_a_seed_decides_everything(options):
    one = fit(linear, DATA, seed=7, **options)
    again = fit(linear, DATA, seed=jax.random.key(7), **options)
    for site in one.draws:
        assert_array_equal(one.draws[site], again.draws[site])
    if one.losses is not None:
        assert_array_equal(one.losses, again.losses)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_steps": 400}, id="vi", marks=SLOW),
        pytest.param({"num_steps": 400, "batch_size": 8}, id="minibatch", marks=SLOW),
        pytest.param({"method": "mcmc", **QUICK}, id="mcmc", marks=SLOW),
        pytest.param({"method": "map", "num_steps": 3}, id="map"),
    ],
)
def test_another_seed_gives_another_answer(options):
    one, other = (fit(linear, DATA, seed=seed, **options) for seed in (7, 8))
    assert not np.array_equal(one.draws["b.beta"], other.draws["b.beta"])


def test_what_is_no_seed_raises():
    for seed in ("a", 1.5, None, True):
        with pytest.raises(TypeError, match="give an int or a JAX random key"):
            fit(linear, DATA, seed=seed)


# --- guides, estimators, optimizers


@pytest.mark.parametrize(
    ("guide", "name"),
    [
        ("low_rank", "AutoLowRankMultivariateNormal"),
        ("flow", "AutoIAFNormal"),
        (AutoDiagonalNormal, "AutoDiagonalNormal"),
        (AutoNormal(linear), "AutoNormal"),
    ],
    ids=["low_rank", "flow", "class", "instance"],
)
@pytest.mark.slow
def test_guides_by_name_class_and_instance_find_the_mean(guide, name):
    posterior = fit(linear, DATA, guide=guide, num_draws=4000)
    assert posterior.settings["guide"] == name
    draws = pooled(posterior, *SITES)
    assert_allclose((draws.mean(axis=0) - MEAN) / SD, 0.0, atol=0.2)


@pytest.mark.slow
def test_a_point_guide_is_the_mode():
    posterior = fit(linear, DATA, guide=AutoDelta)
    assert_allclose((pooled(posterior, *SITES) - MEAN) / SD, 0.0, atol=0.05)


@pytest.mark.slow
def test_a_guide_of_its_own_takes_the_models_data():
    def model(x, y=None):
        return gaussian_link(FixedPriorLayer()("b", x[:, :1]), y, scale=NOISE)

    def guide(x, y):
        positive = dist.constraints.positive
        loc = numpyro.param("loc", jnp.zeros((1, 1)))
        scale = numpyro.param("scale", jnp.ones((1, 1)), constraint=positive)
        numpyro.sample("b.beta", dist.Normal(loc + 0.0 * x[0, 0], scale).to_event(2))

    mean, covariance = conjugate(DATA["x"][:, :1], DATA["y"], noise=NOISE)
    posterior = fit(model, DATA, guide=guide, num_draws=20_000)
    sd = np.sqrt(np.diag(covariance))
    draws = pooled(posterior, "b.beta")
    assert_moments(draws, mean, sd, mean_error=0.1, sd_error=0.05)


@pytest.mark.slow
def test_the_plain_estimator_can_be_asked_for():
    posterior, local = (
        fit(linear, DATA, estimator=name, num_draws=20_000)
        for name in ("reparameterization", "local")
    )
    assert posterior.estimators == dict.fromkeys(SITES, "reparameterization")
    ours, theirs = (pooled(p, *SITES) for p in (posterior, local))
    assert_moments(ours, theirs.mean(0), theirs.std(0), mean_error=0.1, sd_error=0.06)


GROUPS = np.arange(60) % 6
GROUPED = {
    "group": GROUPS,
    "y": DATA["y"] + np.array([0.5, -1.0, 0.2, 0.9, -0.4, 0.0])[GROUPS],
}


def grouped(group, y=None):
    mu = RandomEffectsLayer(num_categories=6)("g", group)
    return gaussian_link(mu, y, scale=NOISE)


def test_noncentred_sites_are_sampled_in_another_form_and_kept_in_their_own():
    posterior = fit(grouped, GROUPED, method="mcmc", noncentered=True, **QUICK)
    assert set(posterior.draws) == {"g.lmbda", "g.theta", "g.theta_decentered"}
    theta = posterior.draws["g.theta"]
    scale = posterior.draws["g.lmbda"][..., None, None]
    assert_allclose(theta, scale * posterior.draws["g.theta_decentered"], rtol=1e-5)
    predicted = posterior.predict({"group": [2]}, kind="mean")
    assert_allclose(predicted.mean, theta[:, :, 2].mean(), rtol=1e-4)


@pytest.mark.slow
def test_noncentred_or_not_the_posterior_is_the_same():
    options = {"method": "mcmc", "num_warmup": 500, "num_samples": 1000}
    centred, other = (
        fit(grouped, GROUPED, noncentered=chosen, **options)
        for chosen in (False, "g.theta")
    )
    one, two = (pooled(p, "g.lmbda", "g.theta") for p in (centred, other))
    assert_moments(two, one.mean(0), one.std(0), mean_error=0.2, sd_error=0.15)


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(0.05), pytest.param(Adam(0.05), marks=SLOW)],
    ids=["optax", "numpyro"],
)
def test_an_optimizer_of_ones_own_runs_for_exactly_its_steps(optimizer):
    posterior = fit(linear, DATA, optimizer=optimizer, num_steps=1234, num_draws=20_000)
    assert posterior.losses.shape == (1234,)
    assert posterior.settings["num_steps"] == 1234
    draws = pooled(posterior, *SITES)
    assert_allclose((draws.mean(axis=0) - MEAN) / SD, 0.0, atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 7])
@pytest.mark.parametrize("most", [8, 100, 1000])
def test_num_steps_is_the_most_in_all(most, batch):
    posterior = fit(linear, DATA, num_steps=most, batch_size=batch, num_draws=10)
    assert 0 < len(posterior.losses) <= most
    assert any("still falling" in note for note in posterior.notes)


def test_losses_are_negative_elbos_in_nats(full_rank):
    """At the exact posterior the ELBO is the evidence: Bishop (2006), eq. 10.2."""
    design = with_ones(DATA["x"])
    covariance = NOISE**2 * np.eye(60) + design @ design.T
    _, logdet = np.linalg.slogdet(covariance)
    square = DATA["y"] @ np.linalg.solve(covariance, DATA["y"])
    evidence = -0.5 * (60 * np.log(2 * np.pi) + logdet + square)
    assert_allclose(full_rank.losses[-2000:].mean(), -evidence, atol=0.1)


def test_the_loss_that_is_nan_stops_the_fit_with_its_step_and_causes():
    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(jnp.log(b * x - 100.0), 1.0), obs=y)

    data = {"x": DATA["x"][:, 0], "y": DATA["y"]}
    with pytest.raises(
        FloatingPointError, match=r"loss is nan at step 0\. Likely.*rate"
    ):
        fit(model, data, optimizer=optax.adam(0.1), num_steps=50)


def test_an_objective_without_a_maximum_says_so():
    """One row met exactly: the density grows without bound as sigma goes to zero."""
    one = {"x": DATA["x"][:1], "y": DATA["y"][:1]}
    with pytest.raises(FloatingPointError, match="has no maximum"):
        fit(learned_noise, one, method="map")


# --- what a posterior is


def test_a_posterior_cannot_be_changed(full_rank):
    with pytest.raises(AttributeError, match="cannot assign"):
        full_rank.draws = {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        full_rank.draws["a.beta"] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        full_rank.draws["a.beta"][0, 0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        full_rank.losses[0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        full_rank.data.rows["x"][0, 0] = 0.0
    assert full_rank.draws["b.beta"].shape == (1, 20_000, 2, 1)
    assert full_rank.num_draws == 20_000
    assert len(full_rank.losses) == full_rank.settings["num_steps"]


def test_a_posterior_does_not_follow_changes_of_the_users_arrays():
    data = {k: v.copy() for k, v in DATA.items()}
    posterior = fit(linear, data, method="map")
    before = posterior.predict(kind="mean").mean
    data["x"][:] = 1e6
    assert_array_equal(posterior.predict(kind="mean").mean, before)


@pytest.mark.slow
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("chain_method", ["auto", "sequential", "vectorized"])
def test_chains_run_in_any_way(num_chains, chain_method):
    posterior = fit(
        linear,
        DATA,
        method="mcmc",
        num_warmup=50,
        num_samples=20,
        num_chains=num_chains,
        chain_method=chain_method,
    )
    assert posterior.draws["a.beta"].shape == (num_chains, 20, 1, 1)
    assert np.isfinite(posterior.draws["a.beta"]).all()


# --- one row


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"guide": "full_rank", "num_draws": 4000}, 0.15),
        ({"method": "map"}, 1e-3),
        pytest.param(
            {"method": "mcmc", "num_warmup": 300, "num_samples": 500}, 0.3, marks=SLOW
        ),
    ],
    ids=["vi", "map", "mcmc"],
)
def test_one_row_is_fitted_and_predicted(options, error):
    one = {"x": DATA["x"][:1], "y": DATA["y"][:1]}
    mean, covariance = conjugate(with_ones(one["x"]), one["y"], noise=NOISE)
    sd = np.sqrt(np.diag(covariance))
    posterior = fit(linear, one, **options)
    draws = pooled(posterior, *SITES)
    assert_allclose((draws.mean(axis=0) - mean) / sd, 0.0, atol=error)
    for rows in (None, {"x": np.zeros((1, 2))}, {"x": np.zeros((3, 2))}):
        n = 1 if rows is None else len(rows["x"])
        assert posterior.predict(rows).mean.shape == (n,)


@pytest.mark.parametrize("options", [{"num_steps": 400}, {"method": "mcmc", **QUICK}])
@pytest.mark.slow
def test_one_row_with_a_learned_scale_and_one_level(options):
    def model(code, y=None):
        mu = RandomEffectsLayer(num_categories=1)("g", code)
        return gaussian_link_exp(mu, y)

    data = {"code": np.array([0]), "y": np.array([0.4])}
    posterior = fit(model, data, **options)
    assert set(posterior.draws) == {"g.lmbda", "g.theta", "sigma"}
    assert np.isfinite(posterior.predict({"code": [0, -1]}).sd).all()


# --- missing rows


def test_skipped_rows_leave_the_fit_of_the_others():
    data = {k: v.copy() for k, v in DATA.items()}
    data["x"][5, 1] = np.nan
    data["y"][9] = np.nan
    keep = np.delete(np.arange(60), [5, 9])
    posterior = fit(linear, data, method="map", missing="skip")
    design = with_ones(DATA["x"][keep])
    mean, _ = conjugate(design, DATA["y"][keep], noise=NOISE)
    assert_allclose(pooled(posterior, *SITES)[0], mean, rtol=1e-3)
    assert posterior.notes == ("2 of 60 rows have missing values and were left out.",)
    assert "2 of 60 rows" in repr(posterior.summary())
    assert posterior.predict().mean.shape == (58,)


# --- bad input, refused before anything is compiled


def test_good_input_is_compiled_and_heard_of():
    before = len(compilations)
    fit(linear, DATA, method="map", num_steps=1)
    assert any("solve" in name for name in compilations[before:])


X, Y = DATA["x"], DATA["y"]
CODES = np.arange(60) % 5


def levels(code, y=None):
    return gaussian_link_exp(RandomEffectsLayer(num_categories=5)("g", code), y)


def named_twice(x, y=None):
    mu = FixedPriorLayer()("b", x) + FixedPriorLayer()("b", x**2)
    return gaussian_link_exp(mu, y)


def sampled_twice(x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(a + b, 1.0), obs=y)


def forgetful(x, y=None):
    return gaussian_link_exp(FixedPriorLayer()("b", x))


def forgetful_with_a_pilot(x, y=None):
    mu = FixedPriorLayer()("b", x)
    numpyro.sample("pilot", dist.Normal(mu.mean(), 1.0), obs=3.0)
    return gaussian_link_exp(mu)


def improper(x, y=None):
    flat = dist.ImproperUniform(dist.constraints.real, (), ())
    b = numpyro.sample("b", flat.expand([2]).to_event(1))
    numpyro.sample("obs", dist.Normal(x @ b, 1.0), obs=y)


def rows_against_rows(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2, 1]).to_event(2))
    numpyro.sample("obs", dist.Normal(x @ b, 1.0), obs=y)


def all_against_one(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(x[:, 0] * b, 1.0), obs=y)


def counts_levels(code, y=None):
    size = len(np.unique(code))
    return gaussian_link_exp(RandomEffectsLayer(num_categories=size)("g", code), y)


def binary(x, y=None):
    return logit_link(FixedPriorLayer()("b", x), y)


def counts(x, y=None):
    return poisson_link(FixedPriorLayer()("b", x), y)


def flips_in_numpyro(x, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("obs", dist.Bernoulli(logits=x @ b), obs=y)


def with_nan(values, row):
    changed = np.array(values, dtype=float)
    changed[row] = np.nan
    return changed


BAD_DATA = {
    "y shorter than x": (
        linear,
        {"x": X, "y": Y[:59]},
        ValueError,
        r"`y` has shape \(59,\), but the predictor has shape \(60,\)",
    ),
    "y of one entry": (
        linear,
        {"x": X, "y": Y[:1]},
        ValueError,
        r"`y` has shape \(1,\), but the predictor has shape \(60,\)",
    ),
    "x shorter than another": (
        lambda x, z, y: linear(x + z, y),
        {"x": X, "z": X[:59], "y": Y},
        (ValueError, TypeError),
        r"60.*59|shape",
    ),
    "a plain model's y of one entry": (
        all_against_one,
        {"x": X, "y": Y[:1]},
        ValueError,
        r"shape \(1,\), but its distribution has shape \(60,\), which would make",
    ),
    "a plain model's rows against rows": (
        rows_against_rows,
        DATA,
        ValueError,
        r"shape \(60,\), but its distribution has shape \(60, 1\).*\(60, 60\) terms",
    ),
    "a plain model's y of another length": (
        all_against_one,
        {"x": X, "y": Y[:59]},
        ValueError,
        r"shape \(59,\), but its distribution has shape \(60,\), which cannot be scored",
    ),
    "NaN in x": (
        linear,
        {"x": with_nan(X, 3), "y": Y},
        ValueError,
        r"`x` is missing \(NaN\) in 2 of 120 values, in rows 3.*missing='skip'",
    ),
    "NaN in y": (
        linear,
        {"x": X, "y": with_nan(Y, 3)},
        ValueError,
        r"`y` is missing \(NaN\) in 1 of 60 values, in rows 3",
    ),
    "infinity in x": (
        linear,
        {"x": np.where(X > 1, np.inf, X), "y": Y},
        ValueError,
        "`x` is infinite in",
    ),
    "a code past the table": (
        levels,
        {"code": CODES + 1, "y": Y},
        ValueError,
        r"'g': code 5 is past its table of 5 categories.*another level's effect",
    ),
    "a negative code": (
        levels,
        {"code": CODES - 1, "y": Y},
        ValueError,
        r"'g': code -1 is negative.*only a prediction can have",
    ),
    "float codes": (
        levels,
        {"code": CODES.astype(float), "y": Y},
        TypeError,
        r"'g': codes have dtype float64.*np\.unique",
    ),
    "a layer's name twice": (
        named_twice,
        DATA,
        ValueError,
        r"'b\.beta' is used by two sites.*a name of its own",
    ),
    "a site's name twice": (
        sampled_twice,
        DATA,
        ValueError,
        "'a' is used by two sites",
    ),
    "y that is no 0 or 1": (
        binary,
        {"x": X, "y": CODES},
        ValueError,
        r"outcome 'obs': `y` has 36 of 60 values.*which is 0 and 1 \(seen: 2\)",
    ),
    "y that is no count": (
        counts,
        {"x": X, "y": Y},
        ValueError,
        r"outcome 'obs': `y` has .*outside the support.*counts 0, 1, 2",
    ),
    "y outside a plain model's support": (
        flips_in_numpyro,
        {"x": X, "y": CODES},
        ValueError,
        "outside the support of Bernoulli",
    ),
    "text": (
        linear,
        {"x": X, "y": np.array(["a"] * 60)},
        TypeError,
        "`y` has dtype <U1, not real numbers",
    ),
    "no observation": (
        forgetful,
        DATA,
        ValueError,
        r"the model observes nothing: no site has obs=.*Pass the outcome on",
    ),
    "an outcome that enters no likelihood": (
        forgetful_with_a_pilot,
        DATA,
        ValueError,
        r"\['y'\] enter no likelihood: \['pilot'\] are the same without them",
    ),
    "an improper prior": (
        improper,
        DATA,
        ValueError,
        r"site 'b' has an improper prior.*Normal\(0, 1000\)",
    ),
    "nothing to learn": (
        lambda x, y: numpyro.sample("obs", dist.Normal(x[:, 0], 1.0), obs=y),
        DATA,
        ValueError,
        "no latent site and no parameter",
    ),
    "a size from the data": (
        counts_levels,
        {"code": CODES, "y": Y},
        ValueError,
        "takes a size, a branch, an index.*pass sizes as constants",
    ),
    "an argument that the model lacks": (
        linear,
        {**DATA, "z": Y},
        ValueError,
        r"the model takes \(x, y\), but the data have \['x', 'y', 'z'\]",
    ),
    "an argument that the data lack": (
        linear,
        {"y": Y},
        ValueError,
        r"missing a required argument: 'x'",
    ),
    "no outcome": (
        linear,
        {"x": X},
        ValueError,
        r"\['y'\] is not in `data`",
    ),
    "no rows": (
        linear,
        {"x": X[:0], "y": Y[:0]},
        ValueError,
        "no rows, so there is nothing to fit",
    ),
}


@pytest.mark.parametrize("method", ["vi", "mcmc", "map", "mle"])
@pytest.mark.parametrize("case", BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_are_refused_before_any_compilation(case, method):
    model, data, error, message = case
    with refused(error, message):
        fit(model, data, method=method)


BAD_SIZES = {
    "a table of no categories": (
        lambda: EmbeddingLayer(num_categories=0, embedding_dim=2),
        ValueError,
        "`num_categories` is 0, but a size is a whole number of at least 1",
    ),
    "a table of half a category": (
        lambda: RandomEffectsLayer(num_categories=2.5),
        ValueError,
        "`num_categories` is 2.5",
    ),
    "no units": (lambda: AdaptiveLayer(units=-1), ValueError, "`units` is -1"),
    "two sizes": (
        lambda: fit(
            lambda code, y: gaussian_link_exp(
                RandomEffectsLayer(num_categories=5)("g", code, 6), y
            ),
            {"code": CODES, "y": Y},
        ),
        ValueError,
        "`num_categories` is 5 in the constructor and 6 in the call",
    ),
    "no size": (
        lambda: fit(
            lambda code, y: gaussian_link_exp(RandomEffectsLayer()("g", code), y),
            {"code": CODES, "y": Y},
        ),
        TypeError,
        "`num_categories` is missing",
    ),
}


@pytest.mark.parametrize("case", BAD_SIZES.values(), ids=BAD_SIZES)
def test_bad_sizes_are_refused_before_any_compilation(case):
    call, error, message = case
    with refused(error, message):
        call()


def guide_without_a_site(x, y):
    numpyro.sample("a.beta", dist.Normal(jnp.zeros((1, 1)), 1.0).to_event(2))


BAD_OPTIONS = {
    "method": ({"method": "hmc"}, ValueError, r"method is 'hmc'; it is one of \['map'"),
    "missing": ({"missing": "drop"}, ValueError, "missing is 'drop'"),
    "guide": ({"guide": "banana"}, ValueError, r"guide is 'banana'; it is one of \['f"),
    "guide of no kind": ({"guide": 3}, TypeError, "guide is 3; give a name"),
    "guide of other arguments": (
        {"guide": lambda x: None},
        ValueError,
        r"the guide takes \(x\), but the data have \['x', 'y'\]",
    ),
    "guide without a site": (
        {"guide": guide_without_a_site},
        ValueError,
        r"the guide lacks \['b\.beta'\].*Sample each",
    ),
    "Laplace": (
        {"guide": AutoLaplaceApproximation},
        ValueError,
        "AutoLaplaceApproximation is a point while it is fitted",
    ),
    "estimator": (
        {"estimator": "flip"},
        ValueError,
        "estimator is 'flip'; it is one of",
    ),
    "option": (
        {"num_samples": 3},
        TypeError,
        r"method 'vi' has no options \['num_samples'\]; it has \[",
    ),
    "option of NUTS": (
        {"method": "mcmc", "num_steps": 3},
        TypeError,
        r"method 'mcmc' has no options \['num_steps'\]",
    ),
    "noncentered": (
        {"noncentered": "b.beta"},
        ValueError,
        r"noncentered: \['b\.beta'\] cannot be non-centred",
    ),
    "chain_method": (
        {"method": "mcmc", "chain_method": "threads"},
        ValueError,
        "chain_method is 'threads'; it is one of",
    ),
    "target": (
        {"method": "mcmc", "target_accept_prob": 1.5},
        ValueError,
        "target_accept_prob is 1.5",
    ),
    "learning rate": ({"learning_rate": 0.0}, ValueError, "learning_rate is 0.0"),
    "too few steps": ({"num_steps": 2}, ValueError, "num_steps is 2, but the stages"),
    **{
        f"{name}={value}": (
            {name: value, **({"method": method} if method else {})},
            ValueError,
            f"`{name}` is {value}, but a size is a whole number",
        )
        for method, names in (
            (
                None,
                ("batch_size", "num_steps", "num_draws", "num_particles"),
            ),
            ("mcmc", ("num_warmup", "num_samples", "num_chains")),
            ("map", ("num_steps",)),
        )
        for name in names
        for value in (0, -1, 2.5, True)
    },
}


@pytest.mark.parametrize("case", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_refused_before_any_compilation(case):
    options, error, message = case
    with refused(error, message):
        fit(linear, DATA, **options)


@pytest.mark.parametrize("method", ["mcmc", "map", "mle"])
def test_one_density_throughout_needs_all_rows(method):
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(x), subsample_size=20) as rows:
            numpyro.sample("obs", dist.Normal(b * x[rows, 0], 1.0), obs=y[rows])

    with refused(ValueError, r"plates \['rows'\] pick a random part of the rows"):
        fit(model, DATA, method=method)


def test_nuts_refuses_parameters_that_it_would_leave_where_they_are():
    def model(x, y=None):
        a = numpyro.param("a", 0.0)
        return gaussian_link_exp(a + FixedPriorLayer()("b", x), y)

    with refused(ValueError, r"NUTS samples no parameters.*\['a'\]"):
        fit(model, DATA, method="mcmc")


def test_a_guide_made_for_another_form_of_the_model_is_refused():
    with refused(ValueError, "the guide is an instance.*`noncentered` changes"):
        fit(learned_noise, DATA, guide=AutoNormal(learned_noise), noncentered=True)


def test_an_error_says_how_the_data_were_read():
    with pytest.raises(ValueError, match="shape") as error:
        fit(linear, {"x": X, "y": Y[:59]})
    assert any(
        "rows: y (59,); constants: x (60, 2)" in n for n in error.value.__notes__
    )


# --- prior prediction


def test_the_prior_predicts_its_own_moments():
    draws = prior_predictive(linear, {"x": X, "y": Y}, num_draws=4000)
    assert draws["obs"].shape == (4000, 60)
    assert draws["b.beta"].shape == (4000, 2, 1)
    design = with_ones(X)
    exact = np.sqrt((design**2).sum(axis=1) + NOISE**2)
    assert_allclose(draws["obs"].std(axis=0) / exact, 1.0, atol=0.06)
    assert_allclose(draws["obs"].mean(axis=0) / exact, 0.0, atol=0.08)


def test_prior_draws_hang_together():
    draws = prior_predictive(plain, {"x": X}, num_draws=20)
    line = draws["a"][:, None] + draws["b"] @ X.T
    assert_allclose(draws["line"], line, rtol=1e-4, atol=1e-5)
    assert draws["obs"].shape == (20, 60)


def test_the_prior_needs_an_outcomes_length_only():
    missing = prior_predictive(linear, {"x": X, "y": np.full(60, np.nan)}, num_draws=5)
    absent = prior_predictive(linear, {"x": X}, num_draws=5)
    given = prior_predictive(linear, DATA, num_draws=5)
    for draws in (missing, absent):
        assert_array_equal(draws["obs"], given["obs"])
    other = prior_predictive(linear, DATA, num_draws=5, seed=1)
    assert not np.array_equal(other["obs"], given["obs"])


def test_the_prior_of_an_intercept_alone_has_a_draw_for_each_row():
    def level(y):
        return gaussian_link_exp(InterceptLayer()("a"), y)

    def plainly(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(a, 1.0), obs=y)

    for model in (level, plainly):
        draws = prior_predictive(model, {"y": np.zeros(7)}, num_draws=50)["obs"]
        assert draws.shape == (50, 7)
        assert len(np.unique(draws)) == 350


def test_the_prior_without_rows_or_with_doubtful_ones_raises():
    with refused(ValueError, "no argument has rows"):
        prior_predictive(lambda size, y: linear(X, y), {"size": 3})
    with refused(ValueError, r"lengths \{'x': 60, 'knots': 4\}, so the number"):
        prior_predictive(linear, {"x": X, "knots": np.zeros(4)})
    with refused(ValueError, "`num_draws` is 0"):
        prior_predictive(linear, DATA, num_draws=0)
    with refused(ValueError, "past its table"):
        prior_predictive(levels, {"code": CODES + 1})

    def knotted(x, knots, y=None):
        return linear(x * knots.sum(), y)

    draws = prior_predictive(
        knotted, {"x": X, "knots": np.ones(4)}, constants="knots", num_draws=3
    )
    assert draws["obs"].shape == (3, 60)


def test_unseen_levels_can_be_predicted_from_the_prior():
    draws = prior_predictive(levels, {"code": np.array([0, -1, -1, -2])}, num_draws=500)
    assert draws["obs"].shape == (500, 4)
    assert np.isfinite(draws["obs"]).all()


def test_chains_that_disagree_are_noted():
    def two_modes(y=None):
        a = numpyro.sample("a", dist.Normal(0.0, 10.0))
        numpyro.sample("obs", dist.Normal(jnp.abs(a), 0.1), obs=y)

    found = fit(two_modes, {"y": np.full(9, 5.0)}, method="mcmc", seed=1, **QUICK)
    assert len(set(np.sign(found.draws["a"].mean(axis=1)))) == 2
    (note,) = (note for note in found.notes if "chains disagree" in note)
    assert "R-hat is" in note
    assert "'a'" in note
