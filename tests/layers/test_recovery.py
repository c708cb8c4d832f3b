"""Every layer finds the function that its own formula, in NumPy, made: under NUTS."""

import jax
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS, Predictive

from cases import CASES
from lamina.handlers import record_terms
from lamina.links import gaussian_link

pytestmark = pytest.mark.slow

N, NOISE = 200, 0.3
EXCHANGEABLE = {
    "AttentionLayer",
    "FM3Layer",
    "FMLayer",
    "FieldFMLayer",
    "LowRankInteractionLayer",
    "MLPLayer",
}
"""Layers of which coefficients change places without changing the function."""


def spread(draws):
    """Standard deviations by the 1% and 99% points, of draws that may have none."""
    low, high = np.quantile(draws, [0.01, 0.99], axis=0)
    return (high - low) / 4.65


@pytest.mark.parametrize("name", CASES)
def test_what_made_the_data_is_found(name):
    """The function at every row, and the coefficients that it tells.

    Each within 4 posterior sds, the function's over all rows as the posterior says, and
    known much better than before.
    """
    case = CASES[name]
    data, truth = case.arguments(N, seed=3), case.coefficients("mu", seed=4)
    truth |= {k: np.ones_like(v) for k, v in truth.items() if k.endswith(".length")}
    f = np.broadcast_to(case.expected("mu", data, truth), case.shape(case.output, N))
    rows = f if len(f) == N else np.repeat(f, N, axis=0)
    y = rows + NOISE * np.random.default_rng(5).normal(size=rows.shape)

    def model(*data, y=None):
        gaussian_link(case("mu", *data), y, scale=NOISE)

    before = Predictive(record_terms(model), num_samples=300)(jax.random.key(0), *data)
    kernel = NUTS(model, max_tree_depth=5 if name in EXCHANGEABLE else 7)
    mcmc = MCMC(kernel, num_warmup=300, num_samples=300, progress_bar=False)
    mcmc.run(jax.random.key(1), *data, y=y if y.shape[1] > 1 else y[:, 0])
    draws = mcmc.get_samples()
    after = Predictive(record_terms(model), draws)(jax.random.key(2), *data)

    found, prior = np.asarray(after["mu.term"]), np.asarray(before["mu.term"])
    sd = found.std(axis=0)
    # where a monotonic effect starts it is zero, and known
    z = (found.mean(axis=0) - f) / np.maximum(sd, 1e-5)
    assert np.median(sd) < 0.3 * np.median(spread(prior))
    assert np.abs(z).max() < 4.5  # the largest of hundreds
    assert np.sqrt(np.mean(z**2)) < 2.0
    if name in EXCHANGEABLE:
        return
    for site in truth.keys() & case.tensor_shapes("mu").keys():
        mean, sd = np.mean(draws[site], axis=0), np.std(draws[site], axis=0)
        assert np.all(np.abs(mean - truth[site]) < 4.0 * sd), site
