import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats

from lamina import links
from lamina.handlers import predicting, record_outcomes
from lamina.layers import AdaptiveLayer, InterceptLayer
from support import enable_x64, log_prob, run, shape_of, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

SIGMA, DF = 0.7, 5.0
SITES = {"sigma": np.array(SIGMA), "df": np.array(DF)}


def real(rng, *shape):
    return rng.normal(size=shape)


def binary(rng, *shape):
    return rng.integers(0, 2, size=shape)


def counts(rng, *shape):
    return rng.poisson(2.0, size=shape)


def sigmoid(eta):
    return 1.0 / (1.0 + np.exp(-eta))


# the link, what its outcomes look like, and its density by SciPy
LINKS = {
    "gaussian_link": (
        links.gaussian_link,
        real,
        lambda y, eta: stats.norm.logpdf(y, eta, SIGMA),
    ),
    "gaussian_link_exp": (
        links.gaussian_link_exp,
        real,
        lambda y, eta: stats.norm.logpdf(y, eta, SIGMA),
    ),
    "student_t_link": (
        links.student_t_link,
        real,
        lambda y, eta: stats.t.logpdf(y, 4.0, eta, SIGMA),
    ),
    "logit_link": (
        links.logit_link,
        binary,
        lambda y, eta: stats.bernoulli.logpmf(y, sigmoid(eta)),
    ),
    "poisson_link": (
        links.poisson_link,
        counts,
        lambda y, eta: stats.poisson.logpmf(y, np.exp(eta)),
    ),
}


@pytest.fixture(params=LINKS)
def case(request):
    """A link, a sampler of its outcomes, and its log density."""
    return LINKS[request.param]


@pytest.mark.parametrize("n", [1, 3])
def test_several_units_score_each_entry_once(case, n):
    link, outcomes, expected = case
    rng = np.random.default_rng(n)
    eta, y = rng.normal(size=(n, 3)), outcomes(rng, n, 3)
    found = log_prob(link, "obs", eta, y, values=SITES)
    assert_allclose(found, expected(y, eta), rtol=1e-6, atol=1e-6)


@given(
    n=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(list(LINKS)),
)
def test_densities_agree_with_scipy_at_any_predictor(n, seed, name):
    link, outcomes, expected = LINKS[name]
    rng = np.random.default_rng(seed)
    eta, y = 3.0 * rng.normal(size=(n, 1)), outcomes(rng, n)
    with enable_x64():
        found = log_prob(link, "obs", eta, y, values=SITES)
    assert_allclose(found, expected(y, eta[:, 0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "u"), [(1, 1), (4, 1), (1, 2), (4, 2)])
def test_without_y_the_outcome_is_drawn_flat_for_one_unit(case, n, u):
    link, _, _ = case
    eta = np.zeros((n, u))
    assert shapes(link, eta)["obs"] == ((n,) if u == 1 else (n, u))
    assert shape_of(run, link, eta) == ((n,) if u == 1 else (n, u))


@pytest.mark.parametrize("y_shape", [(1,), (5,), (1, 1), (5, 1)])
def test_an_intercept_is_expanded_to_the_rows_of_y(case, y_shape):
    link, outcomes, expected = case
    y = outcomes(np.random.default_rng(0), *y_shape)
    found = log_prob(link, "obs", np.array([[0.3]]), y, values=SITES)
    assert_allclose(found, expected(y, 0.3), rtol=1e-6, atol=1e-6)


def test_an_intercept_of_several_units_is_expanded_to_the_rows_of_y():
    y = np.random.default_rng(0).normal(size=(4, 3))
    eta = np.array([[0.0, 1.0, 2.0]])
    found = log_prob(links.gaussian_link, "obs", eta, y, values=SITES)
    assert_allclose(found, stats.norm.logpdf(y, eta, SIGMA))


@pytest.mark.parametrize("num_rows", [1, 5])
def test_an_intercept_is_expanded_to_the_rows_of_a_prediction(num_rows, key):
    def model():
        return links.gaussian_link(InterceptLayer(units=2)("a"))

    fixed = predicting(model, key=key, num_rows=num_rows)
    assert shape_of(run, fixed) == (num_rows, 2)


MISMATCHES = {
    "other rows": ((4, 1), (5,)),
    "rows against rows": ((4, 1), (4, 4)),
    "a row for a column": ((4, 1), (1, 4)),
    "one outcome for all": ((4, 1), (1,)),
    "a single number": ((4, 1), ()),
    "flat y, several units": ((4, 3), (4,)),
    "other units": ((4, 3), (4, 2)),
    "one unit of several": ((4, 3), (4, 1)),
    "one row, other units": ((1, 3), (4, 2)),
    "three axes": ((4, 1), (4, 1, 1)),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_shapes_that_do_not_match_raise_with_both_and_a_remedy(case, name):
    link, outcomes, _ = case
    eta, y = MISMATCHES[name]
    with pytest.raises(ValueError, match=r"outcome 'obs'.*`y` has shape.*`units`") as e:
        run(link, np.zeros(eta), outcomes(np.random.default_rng(0), *y))
    assert str(y) in str(e.value)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_flat_predictor_raises(case, shape):
    with pytest.raises(ValueError, match=r"links take \(n, u\).*eta\[:, None\]"):
        run(case[0], np.zeros(shape), np.zeros(4))


@pytest.mark.parametrize("name", ["", None, 3])
def test_an_outcome_needs_a_name(case, name):
    with pytest.raises(TypeError, match="`name` is"):
        run(case[0], np.zeros((2, 1)), name=name)


OUTSIDE = {
    "gaussian_link": ([0.0, np.nan], "finite numbers"),
    "gaussian_link_exp": ([np.inf, 0.0], "finite numbers"),
    "student_t_link": ([0.0, -np.inf], "finite numbers"),
    "logit_link": ([0, 2], "0 and 1"),
    "poisson_link": ([1.5, 2.0], "the counts 0, 1, 2"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outcomes_outside_the_support_raise(name):
    y, words = OUTSIDE[name]
    with pytest.raises(ValueError, match=f"1 of 2 values.*{words}"):
        run(LINKS[name][0], np.zeros((2, 1)), np.array(y))


@pytest.mark.parametrize("y", [np.array(["a", "b"]), np.array([1.0, None])])
def test_outcomes_that_are_no_numbers_raise(case, y):
    with pytest.raises(TypeError, match="not numbers"):
        run(case[0], np.zeros((2, 1)), y)


@pytest.mark.parametrize(
    ("name", "y"),
    [
        ("logit_link", np.array([True, False, True])),
        ("logit_link", np.array([1.0, 0.0, 1.0])),
        ("poisson_link", np.array([1.0, 0.0, 3.0])),
        ("gaussian_link", np.array([1, 0, 3])),
        ("gaussian_link", [1.0, 0.0, 3.0]),
        ("gaussian_link", pd.Series([1.0, 0.0, 3.0])),
        ("gaussian_link", jnp.array([1.0, 0.0, 3.0])),
    ],
)
def test_outcomes_of_any_number_type_score_alike(name, y):
    link, _, expected = LINKS[name]
    eta = np.array([[0.1], [0.2], [-0.3]])
    found = log_prob(link, "obs", eta, y, values=SITES)
    expected = expected(np.asarray(y).astype(int), eta[:, 0])
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("link", [links.gaussian_link, links.student_t_link])
@pytest.mark.parametrize(
    ("eta", "y", "scale"),
    [
        ((4, 1), (4,), ()),
        ((4, 1), (4,), (4,)),
        ((4, 1), (4,), (4, 1)),
        ((4, 1), (4,), (1, 1)),
        ((4, 1), (4, 1), (4,)),
        ((4, 1), (4, 1), (4, 1)),
        ((1, 1), (1,), (1,)),
        ((1, 1), (1, 1), (1,)),
        ((4, 1), None, (4,)),
        ((4, 3), (4, 3), (4, 3)),
        ((4, 3), (4, 3), (4, 1)),
        ((4, 3), (4, 3), (1, 3)),
        ((1, 3), (1, 3), (1, 3)),
    ],
)
def test_a_known_scale_is_matched_by_its_axes(link, eta, y, scale):
    rng = np.random.default_rng(0)
    eta, sigma = rng.normal(size=eta), rng.uniform(0.5, 2.0, size=scale)
    y = None if y is None else rng.normal(size=y)
    sites = trace(link, eta, y, scale=sigma)
    assert list(sites) == ["obs"]
    y = np.asarray(sites["obs"]["value"]).reshape(eta.shape)
    scale = sigma[:, None] if sigma.shape == (len(eta),) else sigma
    family = stats.norm if link is links.gaussian_link else stats.t(4.0)
    z = (y - eta) / scale
    expected = (family.logpdf(z) - np.log(scale * np.ones_like(z))).reshape(-1)
    found = sites["obs"]["fn"].log_prob(sites["obs"]["value"])
    assert_allclose(np.reshape(found, -1), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("eta", "y", "scale"),
    [
        ((4, 1), (4,), (3,)),
        ((4, 1), (4,), (1, 4)),
        ((4, 3), (4, 3), (4,)),
        ((4, 3), (4, 3), (3,)),
        ((3, 3), (3, 3), (3,)),
        ((4, 1), (4,), (4, 2)),
    ],
)
def test_a_scale_that_could_set_rows_against_rows_raises(eta, y, scale):
    with pytest.raises(ValueError, match=r"`sigma` has shape.*rows against rows"):
        run(links.gaussian_link, np.zeros(eta), np.zeros(y), scale=np.ones(scale))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, np.array([1.0, 0.0])])
def test_a_known_scale_is_positive_and_finite(scale):
    with pytest.raises(ValueError, match=r"`sigma`: 1 of .* not positive finite"):
        run(links.gaussian_link, np.zeros((2, 1)), np.zeros(2), scale=scale)


def test_a_learned_scale_has_the_prior_that_is_given():
    eta, y = np.zeros((3, 1)), np.zeros(3)
    default = log_prob(links.gaussian_link, "sigma", eta, y, values=SITES)
    assert_allclose(default, stats.expon.logpdf(SIGMA))
    half = trace(links.gaussian_link, eta, y, scale=dist.HalfNormal(2.0), values=SITES)[
        "sigma"
    ]["fn"]
    assert_allclose(half.log_prob(SIGMA), stats.halfnorm.logpdf(SIGMA, 0.0, 2.0))


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (dist.Normal(0.0, 1.0), ValueError, r"Normal\(loc=0.0, .* allows negative"),
        (dist.HalfNormal(np.ones(3)), ValueError, r"has shape \(3,\)"),
        (dist.HalfNormal, TypeError, r"the class HalfNormal.*HalfNormal\(\.\.\.\)"),
    ],
)
def test_a_prior_that_is_no_positive_number_raises(scale, error, message):
    with pytest.raises(error, match=f"`sigma`: .*{message}"):
        run(links.gaussian_link, np.zeros((3, 1)), np.zeros(3), scale=scale)


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("n", [1, 4])
def test_a_modelled_scale_is_the_exponential_of_its_predictor(n, units):
    rng = np.random.default_rng(1)
    eta, log_scale = rng.normal(size=(2, n, units))
    y = rng.normal(size=(n, units))
    found = log_prob(links.gaussian_link, "obs", eta, y, log_scale=log_scale)
    assert_allclose(found, stats.norm.logpdf(y, eta, np.exp(log_scale)), rtol=1e-9)


def test_a_modelled_scale_may_be_an_intercept_or_shared_by_units():
    eta, y = np.zeros((4, 2)), np.ones((4, 2))
    for log_scale in (np.full((1, 1), 0.3), np.full((4, 1), 0.3), np.full((1, 2), 0.3)):
        found = log_prob(links.gaussian_link, "obs", eta, y, log_scale=log_scale)
        assert_allclose(found, stats.norm.logpdf(y, eta, np.exp(0.3)))


def test_only_one_source_of_the_scale_may_be_given():
    with pytest.raises(ValueError, match="both `scale` and `log_scale`"):
        run(
            links.gaussian_link, np.zeros((2, 1)), scale=1.0, log_scale=np.zeros((2, 1))
        )


@pytest.mark.parametrize(
    ("df", "sites"), [(7.0, []), (7, []), (dist.Gamma(2.0, 0.1), ["df"])]
)
def test_degrees_of_freedom_are_known_or_learned(df, sites):
    y = np.array([0.5, -3.0])
    found = trace(links.student_t_link, np.zeros((2, 1)), y, df=df, values=SITES)
    assert list(found) == [*sites, "sigma", "obs"]
    expected = stats.t.logpdf(y, DF if sites else 7.0, 0.0, SIGMA)
    assert_allclose(found["obs"]["fn"].log_prob(y), expected, rtol=1e-6)


def test_poisson_densities_are_exact_at_extreme_rates():
    eta = np.array([[-700.0], [-50.0], [0.0], [20.0], [700.0]])
    y = np.array([3, 0, 1, 485_165_195, 0])
    found = log_prob(links.poisson_link, "obs", eta, y)
    rate = np.exp(eta[:, 0])
    expected = y * eta[:, 0] - rate - np.array([np.log(6), 0, 0, np.nan, 0])
    # ln k! by Stirling's series, exact to 1e-16 relative at this k
    k = float(y[3])
    factorial = k * np.log(k) - k + 0.5 * np.log(2 * np.pi * k) + 1 / (12 * k)
    expected[3] = y[3] * 20.0 - rate[3] - factorial
    assert_allclose(found, expected, rtol=1e-6)


def test_poisson_gradients_are_finite_where_the_rate_underflows_in_float32():
    def density(eta):
        return links.LogPoisson(eta).log_prob(jnp.float32(2.0))

    with jax.enable_x64(False):
        eta = jnp.float32(-200.0)
        assert_allclose(density(eta), -400.0 - np.log(2.0), rtol=1e-6)
        assert_allclose(jax.grad(density)(eta), 2.0)


def test_poisson_draws_stop_at_the_largest_integer():
    """NumPyro draws zero at an infinite rate."""
    with jax.enable_x64(False):
        eta = np.array([[90.0], [50.0], [22.0], [0.0]])
        drawn = np.asarray(run(links.poisson_link, eta))
    assert np.all(drawn[:3] == 2**31 - 1)
    assert 0 <= drawn[3] < 20


def test_counts_past_32_bits_are_scored_as_they_are():
    with jax.enable_x64(False):
        y = np.array([2**40])
        found = trace(links.poisson_link, np.array([[27.0]]), y)["obs"]
    assert_allclose(found["value"], [2.0**40])


def test_log_poisson_survives_expansion_and_tree_maps():
    fn = links.LogPoisson(jnp.array([0.0, 1.0])).expand((3, 2)).to_event(1)
    again = jax.tree.map(lambda x: x, fn)
    y = np.array([[0, 1], [2, 3], [4, 5]])
    expected = stats.poisson.logpmf(y, np.exp([0.0, 1.0])).sum(axis=1)
    with jax.numpy_rank_promotion("allow"):  # NumPyro's own expansion broadcasts
        assert_allclose(again.log_prob(y), expected, rtol=1e-6)


def test_links_named_obs_have_bare_sites_and_others_prefix_theirs():
    eta, y = np.zeros((3, 1)), np.zeros(3)

    def model():
        links.gaussian_link(eta, y)
        links.student_t_link(eta, y, name="height", df=dist.Gamma(2.0, 0.1))
        links.poisson_link(eta, y, name="visits")

    assert list(trace(model)) == [
        "sigma",
        "obs",
        "height.df",
        "height.sigma",
        "height",
        "visits",
    ]


def test_two_outcomes_add_their_densities():
    rng = np.random.default_rng(0)
    eta, a, b = rng.normal(size=(4, 1)), rng.normal(size=4), rng.poisson(2.0, size=4)

    def model(a, b):
        links.gaussian_link(eta, a, name="a", scale=2.0)
        links.poisson_link(eta, b, name="b")

    found, _ = log_density(model, (a, b), {}, {})
    expected = stats.norm.logpdf(a, eta[:, 0], 2.0).sum()
    expected += stats.poisson.logpmf(b, np.exp(eta[:, 0])).sum()
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("dim", "shape"), [(-1, (4,)), (-2, (4, 1)), (-2, (4, 3))])
def test_a_plate_over_rows_scores_each_entry_once(dim, shape):
    eta, y = np.zeros((4, shape[-1] if len(shape) == 2 else 1)), np.ones(shape)

    def model(y):
        with numpyro.plate("rows", 4, dim=dim):
            links.gaussian_link(eta, y, scale=2.0)

    found, _ = log_density(model, (y,), {}, {})
    assert_allclose(found, y.size * stats.norm.logpdf(1.0, 0.0, 2.0))


@pytest.mark.parametrize(("dim", "shape"), [(-1, (4, 1)), (-1, (4, 3)), (-2, (4,))])
def test_a_plate_that_would_score_rows_several_times_raises(dim, shape):
    eta, y = np.zeros((4, shape[-1] if len(shape) == 2 else 1)), np.ones(shape)

    def model():
        with numpyro.plate("rows", 4, dim=dim):
            links.gaussian_link(eta, y, scale=2.0)

    with pytest.raises(ValueError, match=r"plate 'rows' has 4 entries.*several times"):
        run(model)


def test_a_plate_does_not_learn_a_scale_for_each_row():
    def model():
        with numpyro.plate("rows", 4):
            links.gaussian_link(np.zeros((4, 1)), np.zeros(4))

    with pytest.raises(ValueError, match=r"`sigma`: it is learned inside.*'rows'"):
        run(model)


def test_a_subsampled_plate_scales_the_rows_of_its_batch():
    y = np.ones(8)

    def model(y):
        with numpyro.plate("rows", 8, subsample_size=2) as rows:
            links.gaussian_link(jnp.zeros((2, 1)), jnp.asarray(y)[rows], scale=2.0)

    with handlers.seed(rng_seed=0):
        found, _ = log_density(model, (y,), {}, {})
    assert_allclose(found, 8 * stats.norm.logpdf(1.0, 0.0, 2.0))


def test_replicates_keep_their_leading_axes():
    """Predictors (r, n, 1) score outcomes (r, n); an intercept (r, 1, 1) expands."""
    rng = np.random.default_rng(0)
    y, eta, alpha = (
        rng.normal(size=(2, 3)),
        rng.normal(size=(2, 3, 1)),
        np.ones((2, 1, 1)),
    )
    found = log_prob(links.gaussian_link, "obs", eta, y, values=SITES)
    assert_allclose(found, stats.norm.logpdf(y, eta[..., 0], SIGMA))
    found = log_prob(links.gaussian_link, "obs", alpha, y, values=SITES)
    assert_allclose(found, stats.norm.logpdf(y, 1.0, SIGMA))


def test_scopes_rename_outcomes_and_what_is_recorded():
    def model():
        with handlers.scope(prefix="left", divider="."):
            links.gaussian_link(np.zeros((2, 1)), np.zeros(2))

    assert set(trace(record_outcomes(model))) == {
        "left.sigma",
        "left.obs",
        "left.obs.linear",
        "left.obs.mean",
    }


@pytest.mark.parametrize("n", [1, 5])
def test_predictions_have_a_leading_axis_of_draws(case, n, key):
    link, _, _ = case

    def model(x, y=None):
        return link(AdaptiveLayer()("mu", x), y)

    drawn = jax.eval_shape(Predictive(model, num_samples=3), key, np.ones((n, 2)))
    assert drawn["obs"].shape == (3, n)


def test_only_the_known_parameters_are_sampled():
    eta = np.zeros((2, 1))
    assert shapes(links.gaussian_link, eta) == {"sigma": (), "obs": (2,)}
    assert shapes(links.logit_link, eta) == {"obs": (2,)}
    assert shapes(links.poisson_link, eta) == {"obs": (2,)}
