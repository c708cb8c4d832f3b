"""Logarithms in far tails, against SciPy and asymptotic series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from lamina.links.special import (
    log1mexp,
    log1mexp_of_exp,
    log_betainc,
    log_difference,
    log_gammainc,
    log_mills,
    log_ndtr_between,
    log_rising,
    log_softplus,
    safe_exp,
)

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")


def test_safe_exp_is_exp_until_it_is_its_tangent():
    x = np.array([-800.0, -1.0, 0.0, 5.0, 200.0])
    assert_allclose(safe_exp(jnp.asarray(x)), np.exp(x), rtol=1e-12)
    value, slope = jax.value_and_grad(safe_exp)(2000.0)
    assert np.isfinite(value)
    assert 0 < slope < np.inf


@pytest.mark.parametrize("fn", [log1mexp, log_difference])
def test_differences_are_exact_near_and_far(fn):
    x = np.array([1e-12, 1e-5, 0.3, 0.6931, 0.7, 3.0, 50.0])
    found = fn(x) if fn is log1mexp else fn(np.zeros_like(x), -x)
    expected = np.where(x < 1.0, np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
    assert_allclose(found, expected, rtol=1e-12)


def test_a_difference_of_nothing_is_finite():
    assert np.isfinite(log_difference(jnp.zeros(1), jnp.zeros(1))).all()
    assert_allclose(log_difference(jnp.ones(1), jnp.full(1, -jnp.inf)), 1.0)


@pytest.mark.parametrize("t", [-400.0, -30.0, -12.1, -11.9, -1.0, 0.0, 2.0])
def test_nested_logarithms(t):
    """Below -30 both are t to the last digit."""
    if t < -25:
        assert_allclose([log1mexp_of_exp(t), log_softplus(t)], t, rtol=1e-12)
        return
    assert_allclose(log1mexp_of_exp(t), np.log(-np.expm1(-np.exp(t))), rtol=1e-11)
    assert_allclose(log_softplus(t), np.log(np.log1p(np.exp(t))), rtol=1e-11)


@pytest.mark.parametrize("t", [-200.0, -12.0, 0.0, 7.0, 90.0])
def test_slopes_of_nested_logarithms_are_finite_in_float32(t):
    with jax.enable_x64(False):
        for fn in (log1mexp_of_exp, log_softplus):
            value, slope = jax.value_and_grad(fn)(jnp.float32(t))
            assert np.isfinite(value)
            assert np.isfinite(slope)


@pytest.mark.parametrize("a", [1e-6, 0.5, 29.0, 31.0, 1e3, 1e8])
def test_rising_factorials_are_sums_of_logarithms(a):
    k = np.array([0.0, 1.0, 2.0, 10.0])
    expected = [np.log(a + np.arange(int(n))).sum() for n in k]
    assert_allclose(log_rising(jnp.full(4, a), k), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (8.0, 9.0), (-9.0, -8.0), (-0.1, 0.1)]
)
def test_normal_intervals_are_exact_in_both_tails(low, high):
    near = (low, high) if high <= 0 else (-high, -low)
    expected = np.log(special.ndtr(near[1]) - special.ndtr(near[0]))
    assert_allclose(log_ndtr_between(low, high), expected, rtol=1e-11)


def test_mills_ratio_is_the_scaled_error_function():
    """erfcx is SciPy's exp(x^2) erfc(x)."""
    u = np.array([0.0, 1.0, 11.9, 12.1, 50.0, 1e6])
    expected = np.log(0.5 * special.erfcx(u / np.sqrt(2.0)))
    assert_allclose(log_mills(u), expected, rtol=1e-8)


GAMMA = [
    (a, x)
    for a in (0.3, 1.0, 5.0, 60.0, 900.0)
    for x in (0.01 * a, 0.5 * a, a, 1.3 * a + 1.0, 3.0 * a)
]


def test_incomplete_gamma_functions_agree_with_scipy():
    a, x = np.array(GAMMA).T
    lower, upper = log_gammainc(a, np.log(x))
    for found, exact in (
        (lower, special.gammainc(a, x)),
        (upper, special.gammaincc(a, x)),
    ):
        kept = exact > 1e-250
        assert_allclose(np.exp(found[kept]), exact[kept], rtol=1e-8)


def test_incomplete_gamma_functions_go_on_where_scipy_is_zero():
    """P(a, x) ~ x^a / Gamma(a + 1), Q(a, x) ~ x^(a - 1) e^-x / Gamma(a)."""
    lower, _ = log_gammainc(3.0, -500.0)
    assert_allclose(lower, 3.0 * -500.0 - np.log(6.0), rtol=1e-12)
    _, upper = log_gammainc(3.0, np.log(5000.0))
    series = 1.0 + 2.0 / 5000.0 + 2.0 / 5000.0**2
    expected = 2.0 * np.log(5000.0) - 5000.0 - np.log(2.0) + np.log(series)
    assert_allclose(upper, expected, rtol=1e-12)


BETA = [
    (a, b, x)
    for a in (0.4, 1.0, 7.0, 300.0)
    for b in (0.5, 2.0, 150.0)
    for x in (0.02, 0.4, 0.7, 0.98)
]


def test_incomplete_beta_functions_agree_with_scipy():
    a, b, x = np.array(BETA).T
    lower, upper = log_betainc(a, b, np.log(x), np.log1p(-x))
    for found, exact in (
        (lower, special.betainc(a, b, x)),
        (upper, special.betainc(b, a, 1.0 - x)),
    ):
        kept = exact > 1e-250
        assert_allclose(np.exp(found[kept]), exact[kept], rtol=1e-8)


def test_slopes_of_incomplete_functions_are_those_of_finite_differences():
    """In every argument, which JAX's own lack for the beta's parameters."""
    cases = [
        (log_gammainc, np.array([4.0, 1.2])),
        (log_gammainc, np.array([4.0, 2.4])),
        (log_betainc, np.array([2.5, 4.0, np.log(0.1), np.log(0.9)])),
        (log_betainc, np.array([2.5, 4.0, np.log(0.8), np.log(0.2)])),
    ]
    for fn, at in cases:
        both = jax.jit(lambda v, fn=fn: jnp.stack(fn(*v)))
        found = jax.jit(jax.jacobian(both))(jnp.asarray(at))
        for i, step in enumerate(1e-5 * np.eye(len(at))):
            change = both(at + step) - both(at - step)
            assert_allclose(found[:, i], change / 2e-5, rtol=1e-5, atol=1e-8)


def test_incomplete_functions_have_second_derivatives():
    found = jax.jit(jax.hessian(lambda v: log_gammainc(v[0], v[1])[0]))(
        jnp.array([3.0, 0.5])
    )
    assert np.all(np.isfinite(found))
    assert_allclose(found[0, 1], found[1, 0], rtol=1e-8)


def test_float32_is_close_to_float64():
    a, x = np.array([2.0, 2.0, 40.0]), np.array([0.5, 60.0, 45.0])
    with jax.enable_x64(False):
        found = log_gammainc(a.astype(np.float32), np.log(x).astype(np.float32))
        assert found[0].dtype == np.float32
    assert_allclose(found[0], stats.gamma.logcdf(x, a), rtol=1e-4, atol=1e-6)
    assert_allclose(found[1], stats.gamma.logsf(x, a), rtol=1e-4, atol=1e-6)
