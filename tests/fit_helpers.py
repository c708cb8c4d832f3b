"""What tests of fits share: closed forms, Monte Carlo errors, and counted compilations."""

from contextlib import contextmanager

import jax
import numpy as np
import pytest

QUICK = {"num_warmup": 200, "num_samples": 100, "num_chains": 2}
"""Options of a short run of NUTS, for tests in which any draws will do."""


def rows_of(n, coefficients, *, intercept=0.0, noise=1.0, seed=0):
    """Rows of a linear regression: x (n, d) and y (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(coefficients)))
    y = intercept + x @ coefficients + noise * rng.normal(size=n)
    return {"x": x, "y": y}


def conjugate(design, y, *, noise=1.0, prior=1.0):
    """Mean and covariance of the coefficients: Bishop (2006), eqs 3.50 and 3.51.

    `prior` is the coefficients' sd, one for all or one for each column.
    """
    precision = design.T @ design / noise**2
    precision += np.diag(np.broadcast_to(1.0 / np.square(prior), design.shape[1]))
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y / noise**2, covariance


def with_ones(x):
    """`x` with a column of ones in front, as an intercept has it."""
    return np.column_stack([np.ones(len(x)), x])


def pooled(posterior, *sites):
    """Draws of the named sites side by side: (draw, number)."""
    parts = [posterior.draws[k] for k in sites]
    return np.hstack([v.reshape(v.shape[0] * v.shape[1], -1) for v in parts])


def assert_moments(draws, mean, sd, *, mean_error, sd_error):
    """Means within `mean_error` sds, and sds within `sd_error` of themselves."""
    np.testing.assert_allclose(
        (draws.mean(axis=0) - mean) / sd, np.zeros(np.shape(mean)), atol=mean_error
    )
    np.testing.assert_allclose(draws.std(axis=0) / sd, np.ones_like(sd), atol=sd_error)


def narrowest(values, probability):
    """The narrowest interval of sorted values that spans `probability` of them."""
    ordered = np.sort(np.asarray(values))
    inside = int(probability * len(ordered))
    pairs = list(zip(ordered[: len(ordered) - inside], ordered[inside:], strict=True))
    return min(pairs, key=lambda pair: pair[1] - pair[0])


compilations: list[str] = []
"""The names of all functions that XLA compiled, since this module was imported."""


def _heard(event, _duration, **details):
    if event == "/jax/core/compile/backend_compile_duration":
        compilations.append(details.get("fun_name", "?"))


jax.monitoring.register_event_duration_secs_listener(_heard)


@contextmanager
def refused(error, match):
    """Expect `error`, and nothing compiled before it."""
    jax.random.key(0)  # what makes a key from a seed is compiled once, ahead
    before = len(compilations)
    with pytest.raises(error, match=match):
        yield
    assert compilations[before:] == [], compilations[before:]
