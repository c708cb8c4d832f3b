"""What layers learn from the training data stays what it was, wherever they run."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

from lamina import BLayer, InterceptLayer, fit, gaussian_link, prior_predictive
from lamina.effects import product, remember, term
from lamina.handlers import learn, predicting, remembering
from lamina.infer import svi_run_batched
from lamina.products import affine


@dataclass(frozen=True, repr=False, eq=False)
class CentredLayer(BLayer):
    """A line through the mean of the training data."""

    def __call__(self, name, x):
        centre = remember(f"{name}.centre", lambda known: known.mean(axis=0), x)
        beta = self.coefficients(name, (1, 1))
        return term(name, product(affine, self.columns(name, x) - centre, beta))


def model(x, y=None):
    numpyro.deterministic("b", CentredLayer()("s", x))
    return gaussian_link(InterceptLayer()("a") + CentredLayer()("s2", x), y, scale=0.1)


def plain(x, y=None):
    return gaussian_link(CentredLayer()("s", x), y, scale=0.1)


RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=300) + 5.0
Y = 2.0 * (X - X.mean()) + 0.1 * RANDOM.normal(size=300)
DATA = {"x": X, "y": Y}


def on_log(x, y=None):
    return plain(jnp.log(x), y)


@pytest.mark.parametrize(
    "method",
    ["map", *(pytest.param(m, marks=pytest.mark.slow) for m in ("vi", "mcmc"))],
)
def test_predictions_use_what_the_fit_learned(method):
    options = {"vi": {"batch_size": 100}, "mcmc": {"num_chains": 1}}.get(method, {})
    posterior = fit(plain, DATA, method=method, **options)
    new = posterior.predict({"x": np.array([5.0, 9.0])}, kind="mean").mean
    slope = (X - X.mean()) @ Y / np.sum((X - X.mean()) ** 2)
    assert_allclose(new, slope * (np.array([5.0, 9.0]) - X.mean()), atol=0.05)


def test_data_that_the_model_transforms_are_learned_from():
    assert_allclose(learn(on_log, DATA)["s.centre"], np.log(X).mean(), rtol=1e-5)
    posterior = fit(on_log, DATA, method="map")
    one = posterior.predict({"x": X[:1]}, kind="mean").mean
    assert_allclose(one, posterior.predict(kind="mean").mean[:1], rtol=1e-5)


def test_minibatches_use_what_all_rows_taught():
    svi = SVI(plain, AutoNormal(plain), optax.adam(0.01), Trace_ELBO())
    run = svi_run_batched(svi, jax.random.key(0), 3000, batch_size=10, **DATA)
    slope = (X - X.mean()) @ Y / np.sum((X - X.mean()) ** 2)
    assert_allclose(run.params["s.beta_auto_loc"].item(), slope, atol=0.1)


def test_the_prior_predicts_with_what_its_own_data_teach():
    draws = prior_predictive(plain, {"x": X}, num_draws=50)
    assert draws["obs"].shape == (50, 300)
    residual = draws["obs"][3] - (X - X.mean()) * draws["s.beta"][3].item()
    assert abs(residual).max() < 0.6


def test_a_prediction_without_memory_raises():
    with pytest.raises(ValueError, match=r"'s.centre' is learned from the training"):
        Predictive(plain, num_samples=2)(jax.random.key(0), x=X[:3])
    with pytest.raises(ValueError, match=r"remembering\(model, values\)"):
        handlers.seed(predicting(plain), 0)(x=X[:3])
    kept = remembering(plain, learn(plain, DATA))
    assert Predictive(kept, num_samples=2)(jax.random.key(0), x=X[:3])["obs"].shape == (
        2,
        3,
    )


def test_traced_data_without_memory_raise():
    with pytest.raises(ValueError, match="not known inside a compiled function"):
        jax.jit(lambda x: handlers.seed(plain, 0)(x))(X)


def test_numpyros_own_nuts_learns_from_its_data():
    sampler = MCMC(NUTS(plain), num_warmup=50, num_samples=50, progress_bar=False)
    sampler.run(jax.random.key(0), **DATA)
    slope = (X - X.mean()) @ Y / np.sum((X - X.mean()) ** 2)
    assert_allclose(sampler.get_samples()["s.beta"].mean(), slope, atol=0.05)


def test_one_name_for_two_memories_raises():
    def twice(x, y=None):
        a = remember("k", lambda known: known.mean(), x)
        b = remember("k", lambda known: known.max(), x)
        numpyro.sample("z", dist.Normal(a + b, 1.0))

    with pytest.raises(ValueError, match="two layers learn 'k' from different data"):
        learn(twice, {"x": X})


def test_equal_memories_under_one_name_are_one():
    assert set(learn(model, DATA)) == {"s.centre", "s2.centre"}
