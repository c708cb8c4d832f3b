"""What every link of the catalogue does; the cases are in link_cases.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.infer.util import log_density

from lamina import links
from lamina.handlers import predicting, record_outcomes
from link_cases import CASES, K
from support import run, shape_of, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")


@pytest.fixture(params=CASES)
def case(request):
    """A link with its reference."""
    return CASES[request.param]


def test_every_link_has_a_case():
    public = {name for name in links.__all__ if "_link" in name}
    assert public == {name.split(",")[0] for name in CASES}
    assert public == {name for name in vars(links) if "_link" in name}


def entries(fn, y):
    return np.asarray(fn.log_prob(jnp.asarray(y)))


@pytest.mark.parametrize("n", [1, 5])
def test_densities_are_those_of_the_reference(case, n):
    rng = np.random.default_rng(n)
    eta, y = case.predictors(rng, n), case.outcomes(rng, n)
    sites = trace(case, eta, y)
    found = entries(sites["obs"]["fn"], y)
    assert found.shape == (n,)
    assert_allclose(found, case.reference(y, eta), rtol=1e-6, atol=1e-12)
    assert_array_equal(sites["obs"]["value"], y)
    as_floats = trace(case, eta, y.astype(float))["obs"]  # beside a NaN, say
    assert_allclose(entries(as_floats["fn"], as_floats["value"]), found, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 4])
def test_a_column_of_outcomes_keeps_its_shape(case, n):
    if case.event:
        return
    rng = np.random.default_rng(n)
    eta, y = case.predictors(rng, n), case.outcomes(rng, n)
    site = trace(case, eta, y[:, None])["obs"]
    assert site["value"].shape == (n, 1)
    found = entries(site["fn"], y[:, None])
    assert_allclose(found, case.reference(y, eta)[:, None], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("n", [1, 4])
def test_without_an_outcome_it_is_drawn(case, n):
    eta = case.predictors(np.random.default_rng(0), n)
    drawn = np.asarray(run(case, eta))
    assert drawn.shape == ((n, K) if case.event else (n,))
    assert_array_equal(np.isfinite(entries(trace(case, eta)["obs"]["fn"], drawn)), True)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_an_intercept_is_expanded_to_the_rows(case, num_rows, key):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 1), case.outcomes(rng, num_rows)
    found = entries(trace(case, eta, y)["obs"]["fn"], y)
    eta_by_rows = np.broadcast_to(eta, (num_rows, case.columns))
    assert_allclose(found, case.reference(y, eta_by_rows), rtol=1e-6, atol=1e-12)
    predicted = predicting(lambda: case(eta), key=key, num_rows=num_rows)
    assert shape_of(run, predicted) == y.shape


@pytest.mark.slow
def test_draws_have_the_moments_of_the_family(case):
    rng = np.random.default_rng(3)
    eta, size = case.predictors(rng, 2), 20_000
    rows = np.repeat(eta, size, axis=0)
    drawn = np.asarray(run(case, rows)).reshape(2, size, -1)
    mean, variance = case.expected(eta)
    if case.kind == "codes":
        share = (drawn == np.arange(K)).mean(axis=1)
        error = np.sqrt(mean * (1.0 - mean) / size) + 1.0 / size
        assert np.all(np.abs(share - mean) < 4.5 * error)
        return
    if case.kind == "angle":
        towards = np.exp(1j * drawn).mean(axis=1)[:, 0]
        assert_allclose(np.angle(towards), mean, atol=0.03)
        return
    mean, variance = (np.reshape(v, (2, -1)) for v in (mean, variance))
    error = np.sqrt(variance / size)
    assert np.all(np.abs(drawn.mean(axis=1) - mean) < 4.5 * error)
    fourth = ((drawn - drawn.mean(axis=1, keepdims=True)) ** 4).mean(axis=1)
    error = np.sqrt((fourth - variance**2).clip(0.0) / size) + 1e-9
    assert np.all(np.abs(drawn.var(axis=1) - variance) < 4.5 * error)


@pytest.mark.parametrize("n", [1, 3])
def test_the_mean_is_the_expected_outcome(case, n):
    eta = case.predictors(np.random.default_rng(1), n)
    sites = trace(record_outcomes(case), eta)
    mean, variance = case.expected(eta)
    wanted = (n, K) if case.kind == "codes" or case.event else (n,)
    assert sites["obs.mean"]["value"].shape == wanted
    assert_allclose(sites["obs.mean"]["value"], mean, rtol=1e-6, atol=1e-12)
    if case.link.__name__ != "mixture":  # which has several
        linear = np.reshape(sites["obs.linear"]["value"], (n, -1))
        assert_allclose(linear[:, -case.columns :], eta)  # after a reference's zero
    if variance is not None and hasattr(sites["obs"]["fn"], "variance"):
        assert_allclose(sites["obs"]["fn"].variance, variance, rtol=1e-6)


def test_outcomes_outside_of_the_support_raise(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 3), case.outcomes(rng, 3).astype(float)
    bad, words = case.outside
    y[(1, 0) if case.event else 1] = bad
    with pytest.raises(ValueError, match=f"1 of 3 values, in rows 1.*{words}") as error:
        run(case, eta, y)
    assert str(bad if np.isnan(bad) else float(bad)) in str(error.value)


def test_missing_outcomes_raise(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 3), case.outcomes(rng, 3).astype(float)
    y[(1, 0) if case.event else 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 values, in rows 1.*\(seen: .*nan"):
        run(case, eta, y)


def test_rows_against_rows_raise(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 4), case.outcomes(rng, 3)
    with pytest.raises(ValueError, match=r"`y` has shape.*`units`"):
        run(case, eta, y)


def test_links_compile_and_their_slopes_are_finite(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 3), case.outcomes(rng, 3)

    @jax.jit
    def density(eta, y):
        return trace(case, eta, y)["obs"]["fn"].log_prob(y).sum()

    value, slope = jax.value_and_grad(density)(eta, y)
    assert_allclose(value, case.reference(y, eta).sum(), rtol=1e-6)
    step = 1e-5 * rng.normal(size=eta.shape)
    ahead = case.reference(y, eta + step) - case.reference(y, eta - step)
    assert_allclose((slope * step).sum(), 0.5 * ahead.sum(), rtol=1e-4, atol=1e-10)


def test_far_tails_are_finite_in_float32_with_finite_slopes(case):
    y = case.outcomes(np.random.default_rng(0), 6)

    def density(eta):
        site = trace(case, eta, y)["obs"]
        return site["fn"].log_prob(jnp.asarray(site["value"])).sum()

    with jax.enable_x64(False):
        both = jax.jit(jax.value_and_grad(density))
        for far in (-60.0, -20.0, 20.0, 60.0):
            ramp = np.linspace(0.0, far, case.columns + 1, dtype=np.float32)[1:]
            value, slope = both(np.broadcast_to(ramp, (6, case.columns)))
            assert np.isfinite(value)
            assert np.all(np.isfinite(slope))


def test_weights_multiply_the_log_density_of_their_rows(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 4), case.outcomes(rng, 4)
    weights = np.array([0.0, 1.0, 2.5, 0.5])
    found, _ = log_density(lambda: case(eta, y, weights=weights), (), {}, {})
    assert_allclose(found, weights @ case.reference(y, eta), rtol=1e-6)


def test_an_offset_is_added_to_the_predictor(case):
    if case.link.__name__ == "mixture":
        return
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 4), case.outcomes(rng, 4)
    offset = rng.normal(size=(4, case.columns))
    fn = trace(case, eta, y, offset=offset)["obs"]["fn"]
    expected = case.reference(y, eta + offset)
    assert_allclose(entries(fn, y), expected, rtol=1e-6, atol=1e-12)


def test_an_exposure_multiplies_what_the_predictor_is_the_log_of(case):
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 4), case.outcomes(rng, 4)
    exposure = np.array([0.5, 1.0, 2.0, 7.0])
    if not case.log_mean:
        with pytest.raises(ValueError, match=r"Use `offset`|Give it to the components"):
            run(case, eta, y, exposure=exposure)
        return
    fn = trace(case, eta, y, exposure=exposure)["obs"]["fn"]
    expected = case.reference(y, eta + np.log(exposure)[:, None])
    assert_allclose(entries(fn, y), expected, rtol=1e-6, atol=1e-12)


def test_parameters_left_out_are_learned_under_their_sites(case):
    if not case.learned:
        return
    known = {k: v for k, v in case.arguments.items() if k in ("trials", "quantile")}
    eta = case.predictors(np.random.default_rng(0), 2)
    assert tuple(shapes(case.link, eta, **known))[:-1] == case.learned
    named = shapes(case.link, eta, name="visits", **known)
    assert tuple(named) == (*(f"visits.{site}" for site in case.learned), "visits")


def test_an_unknown_option_raises(case):
    eta = case.predictors(np.random.default_rng(0), 2)
    with pytest.raises(TypeError, match=r"no \['weight'\].*'weights'"):
        run(case, eta, weight=1.0)
