"""Code written for the published library, changed in the package's name alone.

Data come from known coefficients; each must be found again within four standard errors.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from numpy.testing import assert_allclose
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoDiagonalNormal

from lamina.infer import Batched_Trace_ELBO, svi_run_batched
from lamina.layers import (
    AdaptiveLayer,
    EmbeddingLayer,
    FixedPriorLayer,
    FMLayer,
    InteractionLayer,
    InterceptLayer,
    LowRankInteractionLayer,
    RandomEffectsLayer,
    RandomWalkLayer,
)
from lamina.links import gaussian_link_exp

N, SIGMA = 4000, 0.5
BETA = np.array([1.5, -0.7, 0.2])
SQUARES = np.array([0.3, 0.0, -0.4])
FACTORS = np.array([[0.8, 0.1], [0.5, -0.6], [-0.7, 0.4]])
LEFT, RIGHT = np.array([[0.9], [-0.5], [0.4]]), np.array([[1.0], [-0.8]])
EFFECTS = np.array([1.0, -0.5, 0.3, 0.0, -0.8])
STEPS = np.array([0.5, 0.3, -0.4, 0.2, 0.6])


@pytest.fixture(scope="module")
def simulated():
    """Columns, codes, and noise to add to any mean."""
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(N, 3)),
        "z": rng.normal(size=(N, 2)),
        "code": rng.integers(0, 5, size=N),
        "noise": SIGMA * rng.normal(size=N),
    }


def fit(model_fn, num_steps=5000, **model_data):
    """The published fit, from the schedule to the posterior's draws."""
    schedule = optax.cosine_onecycle_schedule(
        transition_steps=num_steps,
        peak_value=5e-2,
        pct_start=0.1,
        div_factor=25,
    )
    loss_instance = Batched_Trace_ELBO(
        num_obs=len(model_data["y"]),
        batch_size=1000,
    )
    guide = AutoDiagonalNormal(model_fn)
    svi = SVI(model_fn, guide, optax.adam(schedule), loss=loss_instance)
    rng_key = random.PRNGKey(2)
    svi_result = svi_run_batched(
        svi,
        rng_key,
        num_steps,
        batch_size=1000,
        **model_data,
    )
    assert len(svi_result.losses) == num_steps
    draws = guide.sample_posterior(
        random.PRNGKey(1), params=svi_result.params, sample_shape=(1000,)
    )
    return {name: np.asarray(value) for name, value in draws.items()}


def recovers(draws, truth, *regressors):
    """The mean is within four standard errors of the truth, and the noise is found."""
    size = np.mean(np.prod([np.abs(r) for r in regressors], axis=0) ** 2, axis=0)
    error = SIGMA / np.sqrt(N * size)
    found = draws.mean(axis=0)
    assert found.shape == np.shape(truth)
    assert np.all(np.abs(found - truth) < 4.0 * error)


def finds_the_noise(draws):
    assert abs(draws["sigma"].mean() - SIGMA) < 4.0 * SIGMA / np.sqrt(2 * N)


def test_the_adaptive_model(simulated):
    x = simulated["x"]
    y = x @ BETA + simulated["noise"]

    def model(x, y):
        mu = AdaptiveLayer()("mu", x)
        return gaussian_link_exp(mu, y)

    draws = fit(model, x=x, y=y)
    recovers(draws["mu.beta"][..., 0], BETA, x)
    finds_the_noise(draws)
    # the guide's spread is the posterior's: columns are nearly orthogonal
    spread = draws["mu.beta"][..., 0].std(axis=0)
    assert_allclose(spread, SIGMA / np.sqrt(N), rtol=0.15)


def test_the_fixed_prior_model(simulated):
    x = simulated["x"]
    y = x @ BETA + simulated["noise"]

    def model(x, y):
        mu = FixedPriorLayer()("mu", x)
        return gaussian_link_exp(mu, y)

    draws = fit(model, x=x, y=y)
    recovers(draws["mu.beta"][..., 0], BETA, x)
    finds_the_noise(draws)


def pair_weights(theta):
    """(draws, d, d): what a factorization machine gives each pair of columns."""
    return np.einsum("sil,sjl->sij", theta[..., 0], theta[..., 0])


def test_the_factorization_machine_model(simulated):
    x = simulated["x"]
    weights = FACTORS @ FACTORS.T
    upper = np.triu_indices(3, 1)
    pairs = np.stack([x[:, i] * x[:, j] for i, j in zip(*upper, strict=True)], axis=1)
    y = x @ BETA + x**2 @ SQUARES + pairs @ weights[upper] + simulated["noise"]

    def model(x, y):
        mu = (
            AdaptiveLayer()("x", x)
            + AdaptiveLayer()("x2", x**2)
            + FMLayer(low_rank_dim=3)("xx", x)
        )
        return gaussian_link_exp(mu, y)

    draws = fit(model, x=x, y=y)
    recovers(draws["x.beta"][..., 0], BETA, x)
    recovers(draws["x2.beta"][..., 0], SQUARES, x**2)
    found = pair_weights(draws["xx.theta"])[:, upper[0], upper[1]]
    recovers(found, weights[upper], pairs)
    finds_the_noise(draws)


@pytest.mark.slow
def test_the_low_rank_interaction_model(simulated):
    x, z = simulated["x"], simulated["z"]
    weights = FACTORS @ FACTORS.T
    upper = np.triu_indices(3, 1)
    pairs = np.stack([x[:, i] * x[:, j] for i, j in zip(*upper, strict=True)], axis=1)
    across = x[:, :, None] * z[:, None, :]
    y = (
        x @ BETA
        + x**2 @ SQUARES
        + pairs @ weights[upper]
        + np.einsum("nde,de->n", across, LEFT @ RIGHT.T)
        + simulated["noise"]
    )

    def model(x, z, y):
        mu = (
            AdaptiveLayer()("x", x)
            + AdaptiveLayer()("x2", x**2)
            + FMLayer(low_rank_dim=3)("xx", x)
            + LowRankInteractionLayer(low_rank_dim=3)("xz", x, z)
        )
        return gaussian_link_exp(mu, y)

    draws = fit(model, x=x, z=z, y=y)
    recovers(draws["x.beta"][..., 0], BETA, x)
    found = np.einsum(
        "sdl,sel->sde", draws["xz.theta1"][..., 0], draws["xz.theta2"][..., 0]
    )
    recovers(found, LEFT @ RIGHT.T, across)
    finds_the_noise(draws)


def test_calls_with_sizes_in_their_documented_places(simulated):
    """One model with every other layer, sizes given by position in the call."""
    x, z, code = simulated["x"], simulated["z"], simulated["code"]
    across = x[:, :, None] * z[:, None, :]
    weights = np.arange(6.0).reshape(3, 2) / 5.0 - 0.5
    y = (
        0.7
        + EFFECTS[code]
        + np.einsum("nde,de->n", across, weights)
        + simulated["noise"]
    )

    def model(x, z, code, y):
        mu = (
            InterceptLayer()("alpha")
            + RandomEffectsLayer()("group", code, 5)
            + InteractionLayer()("xz", x, z)
        )
        return gaussian_link_exp(mu, y)

    draws = fit(model, 2000, x=x, z=z, code=code, y=y)
    recovers(draws["xz.beta"][..., 0], weights, across)
    level = draws["alpha.beta"][:, 0] + draws["group.theta"][..., 0]
    assert_allclose(level.mean(axis=0), 0.7 + EFFECTS, atol=4 * SIGMA / np.sqrt(N / 5))
    finds_the_noise(draws)


@pytest.mark.parametrize(
    ("layer", "truth"),
    [(EmbeddingLayer(), EFFECTS), (RandomWalkLayer(), STEPS.cumsum())],
    ids=["embedding", "walk"],
)
@pytest.mark.slow
def test_embeddings_with_sizes_in_their_documented_places(simulated, layer, truth):
    x, code = simulated["x"][:, :2], simulated["code"]
    slopes = np.stack([truth, -truth], axis=1)
    y = (x * slopes[code]).sum(axis=1) + simulated["noise"]

    def model(x, code, y):
        slope = layer("slope", code, 5, 2)
        mu = (x * slope).sum(axis=1, keepdims=True)
        return gaussian_link_exp(mu, y)

    draws = fit(model, 2000, x=x, code=code, y=y)
    theta = draws["slope.theta"]
    found = theta if isinstance(layer, EmbeddingLayer) else theta.cumsum(axis=1)
    error = SIGMA / np.sqrt(np.bincount(code)[:, None] * np.mean(x**2))
    assert np.all(np.abs(found.mean(axis=0) - slopes) < 4.0 * error)
    finds_the_noise(draws)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: FMLayer()("xx", x, 3) - FMLayer(low_rank_dim=3)("yy", x),
        lambda x: LowRankInteractionLayer()("xz", x, x, 3),
        lambda x: EmbeddingLayer(num_categories=2, embedding_dim=1)(
            "e", jnp.zeros(len(x), int)
        ),
        lambda x: RandomEffectsLayer(num_categories=2)("r", jnp.zeros(len(x), int)),
    ],
)
@pytest.mark.slow
def test_sizes_go_into_the_constructor_or_the_call(call, simulated):
    def model(x, y):
        return gaussian_link_exp(call(x), y)

    svi = SVI(
        model,
        AutoDiagonalNormal(model),
        optax.adam(1e-2),
        loss=Batched_Trace_ELBO(num_obs=20, batch_size=10),
    )
    x, y = simulated["x"][:20], simulated["noise"][:20]
    result = svi_run_batched(svi, random.PRNGKey(0), 2, batch_size=10, x=x, y=y)
    assert np.all(np.isfinite(result.losses))


def test_the_slip_in_the_published_text_is_named(simulated):
    with pytest.raises(TypeError, match=r"AdaptiveLayer\(\)\('x', \.\.\.\)"):
        AdaptiveLayer("x", simulated["x"])
