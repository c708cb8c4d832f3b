"""Guards against answers that look right: found by trying to break fits."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import lamina
from lamina import AdaptiveLayer, FixedPriorLayer, gaussian_link_exp
from lamina.infer import Batched_Trace_ELBO, svi_run_batched


def regression(x, y=None):
    return gaussian_link_exp(AdaptiveLayer()("x", x), y)


@pytest.mark.parametrize("shape", [(1, 20), (1, 3)])
def test_a_single_row_beside_many_is_refused(shape):
    with pytest.raises(ValueError, match="a single row, where the outcome has 20"):
        lamina.fit(regression, {"x": np.ones(shape), "y": np.zeros(20)})


def crossed(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * x[:, None], 1.0), obs=y)


@pytest.mark.parametrize("batch_size", [10, 1000])
def test_the_loop_refuses_rows_against_rows_at_any_batch_size(batch_size):
    data = {"x": np.ones(40), "y": np.zeros(40)}
    svi = SVI(crossed, AutoNormal(crossed), optax.adam(0.01), Trace_ELBO())
    with pytest.raises(ValueError, match="obs"):
        svi_run_batched(svi, 0, 10, batch_size=batch_size, **data)


def piloted(x, pilot, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("pilot", dist.Normal(b, 1.0).expand([len(pilot)]), obs=pilot)
    numpyro.sample("obs", dist.Normal(b * x, 1.0), obs=y)


def test_a_constant_as_long_as_the_batch_keeps_its_weight_when_named():
    """By hand: 8 rows stand for 80, the pilot's 8 numbers for themselves."""
    rng = np.random.default_rng(0)
    x, pilot, y = rng.normal(size=(3, 8))
    guide = AutoNormal(piloted)
    loss = Batched_Trace_ELBO(80, constants=("pilot",))
    svi = SVI(piloted, guide, optax.adam(0.01), loss)
    state = svi.init(jax.random.key(0), x, pilot=pilot, y=y)
    params = {"b_auto_loc": 0.3, "b_auto_scale": 1e-6}
    key = jax.random.key(1)
    found = loss.loss(key, params, piloted, guide, x, pilot=pilot, y=y)

    def normal(value, mean, sd=1.0):
        z = (value - mean) / sd
        return np.sum(-0.5 * z**2 - np.log(sd) - 0.5 * np.log(2 * np.pi))

    entropy = 0.5 * np.log(2 * np.pi * np.e) + np.log(1e-6)
    fixed = normal(0.3, 0.0) + normal(pilot, 0.3)
    wanted = 10.0 * normal(y, 0.3 * x) + fixed + entropy
    assert state is not None
    # one draw's log q differs from minus the entropy by (1 - z**2) / 2
    assert float(found) == pytest.approx(-wanted, abs=6.0)
    assert abs(float(found) + wanted + 9.0 * normal(pilot, 0.3)) > 50.0


def test_a_prior_of_the_wrong_signature_is_refused_at_construction():
    def ridge(name, shape):
        return numpyro.sample(name, dist.Normal().expand(shape))

    with pytest.raises(TypeError, match=r"called as prior\(name, shape"):
        FixedPriorLayer(prior=ridge)


def test_the_mode_of_a_hierarchical_model_says_that_it_is_local():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = x @ [3.0, -2.0] + 0.5 * rng.normal(size=200)
    posterior = lamina.fit(regression, {"x": x, "y": y}, method="map")
    assert any("local mode" in note for note in posterior.notes)


def test_a_learning_rate_too_small_to_move_is_noted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = x @ [3.0, -2.0] + 0.5 * rng.normal(size=200)
    posterior = lamina.fit(regression, {"x": x, "y": y}, learning_rate=1e-8)
    assert any("never fell" in note for note in posterior.notes)
