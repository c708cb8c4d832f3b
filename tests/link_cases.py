"""Every link that tests share: how it is called, and its density in NumPy and SciPy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpyro import handlers
from scipy import special, stats

from lamina import links

K = 4
"""Categories, and columns of vectors."""


@dataclass(frozen=True)
class Case:
    """A link at known parameters.

    `outcomes(rng, n)` draws outcomes of the right kind; `density(y, eta)` is the log
    density of each, `moments(eta)` their mean and variance, all by NumPy and SciPy;
    `outside` is an outcome that the link must refuse, with words of the message.
    `columns` are the predictor's, and `event` whether `y` has them too.
    """

    link: Callable[..., Any]
    outcomes: Callable[..., np.ndarray]
    density: Callable[..., np.ndarray]
    moments: Callable[..., tuple[np.ndarray, np.ndarray]]
    outside: tuple[Any, str]
    arguments: dict[str, Any] = field(default_factory=dict)
    columns: int = 1
    event: bool = False
    kind: str = "number"
    log_mean: bool = False
    """whether the predictor is the log of what grows with an exposure"""
    learned: tuple[str, ...] = ()
    """the sites of the link's parameters, where they are left to their defaults"""

    def __call__(self, eta, y=None, **kwargs):
        """The link at the case's known parameters."""
        return self.link(eta, y, **{**self.arguments, **kwargs})

    def predictors(self, rng, n):
        """Predictors of n rows."""
        return rng.normal(size=(n, self.columns))

    def expected(self, eta):
        """The mean and variance of the outcomes at the predictors (n, columns)."""
        return self.moments(eta if self.columns > 1 else eta[:, 0])

    def reference(self, y, eta):
        """The log density of y, (n,) or (n, k), at the predictors (n, columns)."""
        y, eta = np.asarray(y), np.asarray(eta)
        return self.density(y, eta if self.columns > 1 else eta[:, 0])


def real(rng, n):
    return 2.0 * rng.normal(size=n)


def positive(rng, n):
    return rng.gamma(2.0, 1.0, size=n)


def share(rng, n):
    return rng.beta(2.0, 2.0, size=n)


def share_with_ends(rng, n):
    return np.where(
        rng.uniform(size=n) < 0.5, rng.integers(0, 2, size=n), share(rng, n)
    )


def binary(rng, n):
    return rng.integers(0, 2, size=n)


def counts(rng, n):
    return rng.poisson(2.0, size=n)


def few(rng, n):
    return rng.integers(0, TRIALS + 1, size=n)


def codes(rng, n):
    return rng.integers(0, K, size=n)


def angle(rng, n):
    return rng.uniform(-np.pi, np.pi, size=n)


def vectors(rng, n):
    return rng.normal(size=(n, K))


def tables(rng, n):
    return rng.multinomial(TRIALS, np.full(K, 1.0 / K), size=n)


SCALE, CONCENTRATION, DF, ALPHA, QUANTILE = 0.7, 2.5, 5.0, -3.0, 0.8
ZERO, ENDS, ONE, TRIALS = 0.3, 0.4, 0.6, 7
CUTS = np.array([-1.0, 0.2, 1.5])
CORRELATION = 0.5 * np.eye(K) + 0.5
SCALES = np.array([0.5, 1.0, 1.5, 2.0])
SHARES = np.array([0.3, 0.7])


def moments_of(family):
    return lambda eta: (family(eta).mean(), family(eta).var())


def by(family, name="logpdf"):
    return lambda y, eta: getattr(family(eta), name)(y)


def scipy_case(link, outcomes, family, outside, *, pmf=False, **options):
    """A case whose density and moments SciPy knows, from the predictor."""
    density = by(family, "logpmf" if pmf else "logpdf")
    return Case(link, outcomes, density, moments_of(family), outside, **options)


def asymmetric_laplace(eta):
    """SciPy's asymmetry is that of the two sides' rates, whose ratio is the odds."""
    kappa = np.sqrt(QUANTILE / (1.0 - QUANTILE))
    scale = SCALE / np.sqrt(QUANTILE * (1.0 - QUANTILE))
    return stats.laplace_asymmetric(kappa, loc=eta, scale=scale)


def skew_normal(eta):
    delta = ALPHA / np.sqrt(1.0 + ALPHA**2)
    omega = SCALE / np.sqrt(1.0 - 2.0 * delta**2 / np.pi)
    return stats.skewnorm(ALPHA, eta - omega * delta * np.sqrt(2.0 / np.pi), omega)


def negative_binomial(eta):
    r = CONCENTRATION
    return stats.nbinom(r, r / (r + np.exp(eta)))


def beta(eta):
    p = special.expit(eta)
    return stats.beta(p * CONCENTRATION, (1.0 - p) * CONCENTRATION)


def beta_binomial(eta):
    p = special.expit(eta)
    return stats.betabinom(TRIALS, p * CONCENTRATION, (1.0 - p) * CONCENTRATION)


def with_zeros(family, inflated):
    def density(y, eta):
        none, pmf = family(eta).pmf(0), family(eta).pmf(y)
        if inflated:
            return np.log(np.where(y == 0, ZERO, 0.0) + (1.0 - ZERO) * pmf)
        return np.log(np.where(y == 0, ZERO, (1.0 - ZERO) * pmf / (1.0 - none)))

    def moments(eta):
        share = 1.0 - ZERO
        if not inflated:
            share = share / (1.0 - family(eta).pmf(0))
        first = share * family(eta).mean()
        second = share * (family(eta).var() + family(eta).mean() ** 2)
        return first, second - first**2

    return {"density": density, "moments": moments}


def poisson(eta):
    return stats.poisson(np.exp(eta))


def ends_density(y, eta):
    ends = np.where(y == 1, np.log(ENDS * ONE), np.log(ENDS * (1.0 - ONE)))
    at_end = (y == 0) | (y == 1)
    inside = beta(eta).logpdf(np.where(at_end, 0.5, y))
    return np.where(at_end, ends, np.log1p(-ENDS) + inside)


def ends_moments(eta):
    first = ENDS * ONE + (1.0 - ENDS) * beta(eta).mean()
    square = beta(eta).var() + beta(eta).mean() ** 2
    return first, ENDS * ONE + (1.0 - ENDS) * square - first**2


def picked(log_p, y):
    return np.array([row[code] for row, code in zip(log_p, y, strict=True)])


def softmax_case(reference):
    def log_p(eta):
        if reference:
            eta = np.concatenate([np.zeros((len(eta), 1)), eta], axis=1)
        return special.log_softmax(eta, axis=1)

    return {
        "density": lambda y, eta: picked(log_p(eta), y),
        "moments": lambda eta: (np.exp(log_p(eta)), None),
        "outside": (K, f"whole numbers from 0 to {K - 1}"),
        "kind": "codes",
    }


def ordinal_case(ordering, transform):
    cdf = {"logit": special.expit, "probit": stats.norm.cdf}[transform]

    def probabilities(eta):
        below = cdf(CUTS[None, :] - eta[:, None])
        n = len(eta)
        if ordering == "cumulative":
            edges = np.concatenate([np.zeros((n, 1)), below, np.ones((n, 1))], axis=1)
            return np.diff(edges, axis=1)
        if ordering == "sequential":
            p, left = [], np.ones(n)
            for stop in below.T:
                p.append(left * stop)
                left = left * (1.0 - stop)
            return np.stack([*p, left], axis=1)
        steps = np.cumsum(eta[:, None] - CUTS[None, :], axis=1)
        return special.softmax(np.concatenate([np.zeros((n, 1)), steps], 1), axis=1)

    return Case(
        links.ordinal_link,
        codes,
        lambda y, eta: np.log(picked(probabilities(eta), y)),
        lambda eta: (probabilities(eta), None),
        (K, f"whole numbers from 0 to {K - 1}"),
        {"cutpoints": CUTS, "ordering": ordering, "transform": transform},
        kind="codes",
    )


def gaussian_vectors(y, eta):
    cov = SCALES[:, None] * CORRELATION * SCALES[None, :]
    zero = np.zeros(K)
    return np.array([stats.multivariate_normal(zero, cov).logpdf(e) for e in y - eta])


def counted_vectors(y, eta):
    alpha = CONCENTRATION * special.softmax(eta, axis=1)
    rows = zip(alpha, y, strict=True)
    return np.array([stats.dirichlet_multinomial(a, TRIALS).logpmf(k) for a, k in rows])


def counted_moments(eta):
    p = special.softmax(eta, axis=1)
    wider = (TRIALS + CONCENTRATION) / (1.0 + CONCENTRATION)
    return TRIALS * p, TRIALS * p * (1.0 - p) * wider


def mixture(eta, y=None, *, name="obs", probabilities=SHARES, **options):
    """Two normals, of which the second is three further up and wider."""
    parts = [
        partial(links.gaussian_link, eta, scale=SCALE),
        partial(links.gaussian_link, eta + 3.0, scale=2.0),
    ]
    return links.mixture_link(
        parts, y, name=name, probabilities=probabilities, **options
    )


def mixture_density(y, eta):
    one, two = stats.norm.pdf(y, eta, SCALE), stats.norm.pdf(y, eta + 3.0, 2.0)
    return np.log(SHARES[0] * one + SHARES[1] * two)


def mixture_moments(eta):
    first = SHARES[0] * eta + SHARES[1] * (eta + 3.0)
    squares = (SCALE**2 + eta**2, 4.0 + (eta + 3.0) ** 2)
    return first, SHARES[0] * squares[0] + SHARES[1] * squares[1] - first**2


def scale_out_of_sight(eta, y=None, **options):
    """`gaussian_link_exp`, its learned scale at a known value, and no site."""
    with handlers.block(hide=["sigma"]), handlers.substitute(data={"sigma": SCALE}):
        return links.gaussian_link_exp(eta, y, **options)


FINITE = (np.nan, "finite numbers")
ABOVE_ZERO = (-1.0, "positive numbers")
COUNT = (1.5, r"the counts 0, 1, 2")
BIT = (2, "0 and 1")
OPEN = (1.0, "numbers strictly between 0 and 1")
UP_TO = (TRIALS + 1, f"whole numbers from 0 to {TRIALS}")

spread = {"scale": SCALE}
dense = {"concentration": CONCENTRATION}

CASES = {
    "gaussian_link": scipy_case(
        links.gaussian_link,
        real,
        lambda eta: stats.norm(eta, SCALE),
        FINITE,
        arguments=spread,
        learned=("sigma",),
    ),
    "gaussian_link_exp": scipy_case(
        scale_out_of_sight, real, lambda eta: stats.norm(eta, SCALE), FINITE
    ),
    "student_t_link": scipy_case(
        links.student_t_link,
        real,
        lambda eta: stats.t(DF, eta, SCALE),
        FINITE,
        arguments={**spread, "df": DF},
        learned=("sigma",),
    ),
    "logit_link": scipy_case(
        links.logit_link,
        binary,
        lambda eta: stats.bernoulli(special.expit(eta)),
        BIT,
        pmf=True,
    ),
    "poisson_link": scipy_case(
        links.poisson_link, counts, poisson, COUNT, pmf=True, log_mean=True
    ),
    "lognormal_link": scipy_case(
        links.lognormal_link,
        positive,
        lambda eta: stats.lognorm(SCALE, scale=np.exp(eta)),
        ABOVE_ZERO,
        arguments=spread,
        learned=("sigma",),
    ),
    "quantile_link": scipy_case(
        links.quantile_link,
        real,
        asymmetric_laplace,
        FINITE,
        arguments={**spread, "quantile": QUANTILE},
        learned=("sigma",),
    ),
    "skew_normal_link": scipy_case(
        links.skew_normal_link,
        real,
        skew_normal,
        FINITE,
        arguments={**spread, "alpha": ALPHA},
        learned=("alpha", "sigma"),
    ),
    "gamma_link": scipy_case(
        links.gamma_link,
        positive,
        lambda eta: stats.gamma(CONCENTRATION, scale=np.exp(eta) / CONCENTRATION),
        ABOVE_ZERO,
        arguments=dense,
        log_mean=True,
        learned=("concentration",),
    ),
    "inverse_gaussian_link": scipy_case(
        links.inverse_gaussian_link,
        positive,
        lambda eta: stats.invgauss(np.exp(eta) / CONCENTRATION, scale=CONCENTRATION),
        ABOVE_ZERO,
        arguments=dense,
        log_mean=True,
        learned=("concentration",),
    ),
    "weibull_link": scipy_case(
        links.weibull_link,
        positive,
        lambda eta: stats.weibull_min(CONCENTRATION, scale=np.exp(eta)),
        ABOVE_ZERO,
        arguments=dense,
        log_mean=True,
        learned=("concentration",),
    ),
    "exponential_link": scipy_case(
        links.exponential_link,
        positive,
        lambda eta: stats.expon(scale=np.exp(eta)),
        ABOVE_ZERO,
        log_mean=True,
    ),
    "beta_link": scipy_case(
        links.beta_link,
        share,
        beta,
        OPEN,
        arguments=dense,
        learned=("concentration",),
    ),
    "zero_one_inflated_beta_link": Case(
        links.zero_one_inflated_beta_link,
        share_with_ends,
        ends_density,
        ends_moments,
        (1.1, "numbers from 0 to 1"),
        {**dense, "ends": ENDS, "one": ONE},
        learned=("concentration", "ends", "one"),
    ),
    "von_mises_link": Case(
        links.von_mises_link,
        angle,
        lambda y, eta: stats.vonmises.logpdf(y, CONCENTRATION, 2.0 * np.arctan(eta)),
        lambda eta: (2.0 * np.arctan(eta), None),
        (4.0, "angles from -pi to pi"),
        dense,
        kind="angle",
        learned=("concentration",),
    ),
    "probit_link": scipy_case(
        links.probit_link,
        binary,
        lambda eta: stats.bernoulli(stats.norm.cdf(eta)),
        BIT,
        pmf=True,
    ),
    "cloglog_link": scipy_case(
        links.cloglog_link,
        binary,
        lambda eta: stats.bernoulli(-np.expm1(-np.exp(eta))),
        BIT,
        log_mean=True,
        pmf=True,
    ),
    "binomial_link": scipy_case(
        links.binomial_link,
        few,
        lambda eta: stats.binom(TRIALS, special.expit(eta)),
        UP_TO,
        pmf=True,
        arguments={"trials": TRIALS},
    ),
    "beta_binomial_link": scipy_case(
        links.beta_binomial_link,
        few,
        beta_binomial,
        UP_TO,
        pmf=True,
        arguments={**dense, "trials": TRIALS},
        learned=("concentration",),
    ),
    "negative_binomial_link": scipy_case(
        links.negative_binomial_link,
        counts,
        negative_binomial,
        COUNT,
        pmf=True,
        arguments=dense,
        log_mean=True,
        learned=("concentration",),
    ),
    **{
        f"{prefix}_{which}_link": Case(
            getattr(links, f"{prefix}_{which}_link"),
            counts,
            outside=COUNT,
            log_mean=True,
            arguments={"zero": ZERO, **(dense if family is negative_binomial else {})},
            learned=(
                *(("concentration",) if family is negative_binomial else ()),
                "zero",
            ),
            **with_zeros(family, prefix == "zero_inflated"),
        )
        for prefix in ("zero_inflated", "hurdle")
        for which, family in (
            ("poisson", poisson),
            ("negative_binomial", negative_binomial),
        )
    },
    "categorical_link": Case(
        links.categorical_link, codes, columns=K, **softmax_case(False)
    ),
    "categorical_link, reference": Case(
        links.categorical_link,
        codes,
        columns=K - 1,
        arguments={"reference": True},
        **softmax_case(True),
    ),
    "ordinal_link": ordinal_case("cumulative", "logit"),
    "ordinal_link, probit": ordinal_case("cumulative", "probit"),
    "ordinal_link, sequential": ordinal_case("sequential", "logit"),
    "ordinal_link, sequential probit": ordinal_case("sequential", "probit"),
    "ordinal_link, adjacent": ordinal_case("adjacent", "logit"),
    "multivariate_gaussian_link": Case(
        links.multivariate_gaussian_link,
        vectors,
        gaussian_vectors,
        lambda eta: (eta, np.broadcast_to(SCALES**2, eta.shape)),
        FINITE,
        {"scale": SCALES[None, :], "correlation": CORRELATION},
        columns=K,
        event=True,
        learned=("sigma", "correlation_cholesky"),
    ),
    "dirichlet_multinomial_link": Case(
        links.dirichlet_multinomial_link,
        tables,
        counted_vectors,
        counted_moments,
        (TRIALS + 1, "counts that sum to the trials"),
        {**dense, "trials": TRIALS},
        columns=K,
        event=True,
        learned=("concentration",),
    ),
    "mixture_link": Case(mixture, real, mixture_density, mixture_moments, FINITE),
}
