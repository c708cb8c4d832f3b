"""Rows that change one another are found on real rows, whatever ties them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import lamina
from lamina.handlers.separable import require_separate_rows

N, B = 600, 100


def rows_of(seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=N), "y": rng.normal(size=N)}


def plain(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * x, 1.0), obs=y)


def event(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * x, 1.0).to_event(1), obs=y)


def lagged(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * jnp.roll(x, 7), 1.0), obs=y)


def centred(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("obs", dist.Normal(b * (x - x.mean()), 1.0), obs=y)


def table(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    codes = jnp.arange(len(y))
    numpyro.sample("obs", dist.Normal(b * jnp.sort(x)[codes], 1.0), obs=y)


def latent(x, y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    numpyro.sample("obs", dist.Normal(z, 1.0), obs=y)


@pytest.mark.parametrize("model", [plain, event, latent])
def test_rows_on_their_own_pass(model):
    require_separate_rows(lambda rows: model(**rows), rows_of(), B)


@pytest.mark.parametrize("batch_size", [1, B, N - 1])
@pytest.mark.parametrize("model", [lagged, centred, table])
def test_rows_that_change_one_another_are_refused(model, batch_size):
    with pytest.raises(ValueError, match="'obs': the density of a row changes"):
        require_separate_rows(lambda rows: model(**rows), rows_of(), batch_size)


def test_a_fit_by_minibatches_refuses_a_lag_and_all_rows_take_it():
    with pytest.raises(ValueError, match="does not stand for all rows"):
        lamina.fit(lagged, rows_of(), batch_size=B)
    posterior = lamina.fit(lagged, rows_of(), num_steps=1000)
    assert posterior.settings["batch_size"] == N


def test_a_constant_of_n_entries_is_named_as_the_remedy():
    with pytest.raises(ValueError, match="`constants`"):
        lamina.fit(table, rows_of(), batch_size=B)
