"""Censored and truncated outcomes, by SciPy's tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from lamina import links
from lamina.handlers import record_outcomes
from link_cases import (
    CASES,
    CONCENTRATION,
    SCALE,
    ZERO,
    asymmetric_laplace,
    beta,
    negative_binomial,
    poisson,
)
from support import run, trace

pytestmark = pytest.mark.usefixtures("float64")


class Zeros:
    """A count distribution with zeros of its own, with SciPy's names."""

    def __init__(self, family, share, cut):
        self.family, self.share, self.cut = family, share, cut

    def pmf(self, y):
        none = self.family.pmf(0) if self.cut else 0.0
        inside = self.family.pmf(y) / (1.0 - none)
        own = np.where(y == 0, 0.0, inside) if self.cut else inside
        return np.where(y == 0, self.share, 0.0) + (1.0 - self.share) * own

    def cdf(self, y):
        return np.array([self.pmf(np.arange(k + 1)).sum() for k in np.ravel(y)])

    def sf(self, y):
        return 1.0 - self.cdf(y)

    def logpmf(self, y):
        return np.log(self.pmf(y))


class Mixed:
    """Two normals."""

    def __getattr__(self, which):
        def mixed(y):
            one, two = stats.norm(0.4, SCALE), stats.norm(3.4, 2.0)
            return 0.3 * getattr(one, which)(y) + 0.7 * getattr(two, which)(y)

        return mixed


ETA = 0.4

# link, its known parameters, its family by SciPy at ETA, three outcomes and their ends
FAMILIES = {
    "gaussian": (links.gaussian_link, {"scale": SCALE}, stats.norm(ETA, SCALE), "real"),
    "student": (
        links.student_t_link,
        {"scale": SCALE, "df": 3.0},
        stats.t(3.0, ETA, SCALE),
        "real",
    ),
    "quantile": (
        links.quantile_link,
        CASES["quantile_link"].arguments,
        asymmetric_laplace(ETA),
        "real",
    ),
    "mixture": (CASES["mixture_link"].link, {}, Mixed(), "real"),
    "lognormal": (
        links.lognormal_link,
        {"scale": SCALE},
        stats.lognorm(SCALE, scale=np.exp(ETA)),
        "positive",
    ),
    "gamma": (
        links.gamma_link,
        {"concentration": CONCENTRATION},
        stats.gamma(CONCENTRATION, scale=np.exp(ETA) / CONCENTRATION),
        "positive",
    ),
    "inverse gaussian": (
        links.inverse_gaussian_link,
        {"concentration": CONCENTRATION},
        stats.invgauss(np.exp(ETA) / CONCENTRATION, scale=CONCENTRATION),
        "positive",
    ),
    "weibull": (
        links.weibull_link,
        {"concentration": CONCENTRATION},
        stats.weibull_min(CONCENTRATION, scale=np.exp(ETA)),
        "positive",
    ),
    "exponential": (
        links.exponential_link,
        {},
        stats.expon(scale=np.exp(ETA)),
        "positive",
    ),
    "beta": (links.beta_link, {"concentration": CONCENTRATION}, beta(ETA), "share"),
    "poisson": (links.poisson_link, {}, poisson(ETA), "count"),
    "negative binomial": (
        links.negative_binomial_link,
        {"concentration": CONCENTRATION},
        negative_binomial(ETA),
        "count",
    ),
    "zero-inflated": (
        links.zero_inflated_poisson_link,
        {"zero": ZERO},
        Zeros(poisson(ETA), ZERO, cut=False),
        "count",
    ),
    "zero-inflated negative binomial": (
        links.zero_inflated_negative_binomial_link,
        {"zero": ZERO, "concentration": CONCENTRATION},
        Zeros(negative_binomial(ETA), ZERO, cut=False),
        "count",
    ),
    "hurdle of a poisson": (
        links.hurdle_poisson_link,
        {"zero": ZERO},
        Zeros(poisson(ETA), ZERO, cut=True),
        "count",
    ),
    "hurdle": (
        links.hurdle_negative_binomial_link,
        {"zero": ZERO, "concentration": CONCENTRATION},
        Zeros(negative_binomial(ETA), ZERO, cut=True),
        "count",
    ),
}
SEEN = {
    "real": ([-1.5, 0.1, 2.0, 0.9], [0.5, 0.6, 3.5, 1.4], (-2.0, 3.0)),
    "positive": ([0.4, 1.5, 3.0, 0.9], [0.9, 2.5, 4.0, 1.4], (0.2, 4.5)),
    "share": ([0.2, 0.5, 0.9, 0.4], [0.4, 0.7, 0.95, 0.6], (0.1, 0.95)),
    "count": ([1, 2, 4, 0], [2, 5, 6, 3], (0, 6)),
}
CODES = np.array([-1, 0, 1, 2])


@pytest.mark.parametrize("name", CASES)
def test_a_link_has_its_tails_here_or_refuses(name):
    case = CASES[name]
    if name == "gaussian_link_exp" or case.link in {f[0] for f in FAMILIES.values()}:
        return  # the first is gaussian_link
    rng = np.random.default_rng(0)
    eta, y = case.predictors(rng, 3), case.outcomes(rng, 3)
    for options in ({"censored": [0, 0, 1]}, {"truncated": (None, 100)}):
        with pytest.raises(ValueError, match="need a cumulative distribution function"):
            run(case, eta, y, **options)


OTHER_ZEROS = ("zero-inflated negative binomial", "hurdle of a poisson")
"""Made of the same parts as two others."""


@pytest.fixture(
    params=[
        pytest.param(k, marks=pytest.mark.slow) if k in OTHER_ZEROS else k
        for k in FAMILIES
    ]
)
def family(request):
    link, arguments, reference, kind = FAMILIES[request.param]
    return lambda *args, **kw: link(*args, **arguments, **kw), reference, kind


def log_prob(link, y, **options):
    """The log density of each row at the predictor ETA."""
    site = trace(link, np.full((len(y), 1), ETA), y, **options)["obs"]
    return np.asarray(site["fn"].log_prob(site["value"]))


def density(reference, y, discrete):
    return reference.pmf(y) if discrete else reference.pdf(y)


def test_censored_rows_have_the_tails_of_the_family(family):
    """Both ends count: at least, at most, from .. to."""
    link, reference, kind = family
    y, upper, _ = map(np.array, SEEN[kind])
    count = kind == "count"
    under = reference.cdf(y - 1) if count else reference.cdf(y)
    expected = np.choose(
        [0, 1, 2, 3],
        [
            reference.cdf(y),
            density(reference, y, count),
            1.0 - under,
            reference.cdf(upper) - under,
        ],
    )
    found = log_prob(link, y, censored=CODES, upper=upper)
    assert_allclose(found, np.log(expected), rtol=1e-6)


def test_truncated_outcomes_are_rescaled_to_their_bounds(family):
    link, reference, kind = family
    y, _, (low, high) = SEEN[kind]
    y, count = np.array(y), kind == "count"
    under = reference.cdf(low - 1) if count and low else reference.cdf(low)
    under = 0.0 if count and not low else under
    top = density(reference, y, count)
    for bounds, mass in (
        ((low, high), reference.cdf(high) - under),
        ((None, high), reference.cdf(high)),
        ((low, None), 1.0 - under),
    ):
        found = log_prob(link, y, truncated=bounds)
        assert_allclose(found, np.log(top / mass), rtol=1e-6)


@pytest.mark.slow
def test_truncated_draws_stay_inside_and_follow_the_family(family):
    """The distribution function of the draws is uniform (continuous) or agrees."""
    link, reference, kind = family
    low, high = SEEN[kind][2]
    eta = np.full((4000, 1), ETA)
    drawn = np.asarray(run(link, eta, truncated=(low, high)))
    assert drawn.min() >= low
    assert drawn.max() <= high
    if kind == "count":
        k = np.arange(low, high + 1)
        share = reference.pmf(k) / reference.pmf(k).sum()
        found = (drawn[:, None] == k).mean(axis=0)
        assert np.all(np.abs(found - share) < 4.5 * np.sqrt(share / len(drawn)))
        return
    bottom = reference.cdf(low)
    u = (reference.cdf(drawn) - bottom) / (reference.cdf(high) - bottom)
    assert stats.kstest(u, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    "name", ["gaussian", "lognormal", "gamma", "poisson", "negative binomial"]
)
def test_truncated_means_are_sums_and_integrals(name):
    link, arguments, reference, kind = FAMILIES[name]
    low, high = SEEN[kind][2]
    if kind == "count":
        k = np.arange(1, high + 1)
        expected = (k * reference.pmf(k)).sum() / reference.pmf(k).sum()
        low = 1
    else:
        top, _ = integrate.quad(lambda y: y * reference.pdf(y), low, high)
        expected = top / (reference.cdf(high) - reference.cdf(low))
    sites = trace(
        record_outcomes(link), np.full((2, 1), ETA), truncated=(low, high), **arguments
    )
    assert_allclose(sites["obs.mean"]["value"], expected, rtol=1e-7)


def test_a_truncated_family_without_a_known_mean_has_none_recorded():
    eta = np.zeros((2, 1))
    sites = trace(
        record_outcomes(links.student_t_link), eta, scale=1.0, truncated=(0.0, None)
    )
    assert "obs.linear" in sites
    assert "obs.mean" not in sites


def test_truncation_and_censoring_go_together():
    y = np.array([0.5, 1.0])
    found = log_prob(
        links.gaussian_link, y, scale=1.0, truncated=(0.0, None), censored=[1, 0]
    )
    tail = stats.norm(ETA, 1.0)
    expected = np.array([tail.sf(0.5), tail.pdf(1.0)]) / tail.sf(0.0)
    assert_allclose(found, np.log(expected), rtol=1e-9)


@pytest.mark.parametrize("censored", [True, np.array([True, True]), [1, 1]])
def test_flags_say_that_a_row_is_censored_on_the_right(censored):
    y = np.array([0.5, 2.0])
    found = log_prob(links.exponential_link, y, censored=censored)
    assert_allclose(found, -y * np.exp(-ETA), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_tails_are_finite_in_float32_with_finite_slopes(name):
    link, arguments, _, kind = FAMILIES[name]
    y, upper, bounds = (np.asarray(v) for v in SEEN[kind])

    def total(eta):
        options = {"censored": CODES, "upper": upper, "truncated": tuple(bounds)}
        site = trace(link, eta, y, **arguments, **options)["obs"]
        return site["fn"].log_prob(jnp.asarray(y)).sum()

    with jax.enable_x64(False):
        both = jax.jit(jax.value_and_grad(total))
        for far in (-20.0, 20.0):
            eta = 2.0 * far if kind == "real" else far
            value, slope = both(jnp.full((4, 1), eta, jnp.float32))
            assert np.isfinite(value)
            assert np.all(np.isfinite(slope))


REFUSED = {
    "no cdf": (
        links.logit_link,
        {"censored": [0, 1]},
        "need a cumulative distribution function",
    ),
    "codes": (links.gaussian_link, {"censored": [0, 3]}, "`censored` is 0 or False"),
    "no end": (links.gaussian_link, {"censored": [0, 2]}, "no `upper` is given"),
    "end alone": (links.gaussian_link, {"upper": [1.0, 1.0]}, "no `censored` is given"),
    "empty interval": (
        links.gaussian_link,
        {"censored": [0, 2], "upper": [0.0, 0.5]},
        "1 of 2 values, in rows 1, that are not finite numbers above `y`",
    ),
    "bounds crossed": (
        links.gaussian_link,
        {"truncated": (3.0, 2.0)},
        "a lower bound that is not below",
    ),
    "infinite bound": (
        links.gaussian_link,
        {"truncated": (-np.inf, 2.0)},
        "Leave a side open by None",
    ),
    "fraction of a count": (
        links.poisson_link,
        {"truncated": (0.5, None)},
        "no whole numbers",
    ),
    "outside of bounds": (
        links.gaussian_link,
        {"truncated": (None, 0.5)},
        "1 of 2 values.*at most 0.5",
    ),
    "exposure of a mean": (links.gaussian_link, {"exposure": 2.0}, "Use `offset`"),
    "exposure of zero": (
        links.poisson_link,
        {"exposure": [1.0, 0.0]},
        r"`exposure` has 1 of 2 values, in rows 1.*above 0",
    ),
    "negative weight": (
        links.gaussian_link,
        {"weights": [1.0, -1.0]},
        r"`weights` has 1 of 2 values, in rows 1.*at least 0 \(seen: -1.0\)",
    ),
    "infinite weight": (links.gaussian_link, {"weights": [1.0, np.nan]}, "not finite"),
    "weights of other rows": (
        links.gaussian_link,
        {"weights": [1.0, 1.0, 1.0]},
        "rows against rows",
    ),
    "offset of other rows": (
        links.gaussian_link,
        {"offset": np.zeros(3)},
        "rows against rows",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_be_meant_raise(name):
    link, options, words = REFUSED[name]
    options = {k: np.array(v) if isinstance(v, list) else v for k, v in options.items()}
    with pytest.raises(ValueError, match=words):
        run(link, np.zeros((2, 1)), np.array([0, 1]), **options)


def test_bounds_are_a_pair():
    with pytest.raises(TypeError, match="a pair of bounds"):
        run(links.gaussian_link, np.zeros((2, 1)), truncated=3.0)
