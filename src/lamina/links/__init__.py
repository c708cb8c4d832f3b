"""Links: predictor in, observation site out.

In the speech of generalised linear models a link is the mean's transform alone; here
the word covers the whole likelihood with its inverse link. A link named `obs` (the
default) names its parameters `sigma`, `df`, ...; any other name prefixes them
(`visits.sigma`), so that several outcomes live in one model.

Shapes, for all: the predictor is (n, u), and (1, u) is expanded to the rows of `y`. For
u = 1, `y` may be (n,) or (n, 1) and keeps its shape; without `y` the site is (n,), or
(n, u) for u > 1. Each of the n times u entries is scored once, so links are called
outside of plates over rows, or inside one on the rows' own axis with known parameters.

Every parameter of a family is learned (a distribution), known (a number or an array) or
a layer's output, under its transform: `scale=` or `log_scale=`, `zero=` or `logit_zero=`.
Every link takes the options `weights`, `offset`, `exposure`, `censored` and `truncated`
(see `Options`) where its family can have them.
"""

from lamina.links.binary import (
    beta_binomial_link,
    binomial_link,
    cloglog_link,
    logit_link,
    probit_link,
)
from lamina.links.categories import categorical_link, ordinal_link
from lamina.links.counts import (
    LogNegativeBinomial,
    LogPoisson,
    hurdle_negative_binomial_link,
    hurdle_poisson_link,
    negative_binomial_link,
    poisson_link,
    zero_inflated_negative_binomial_link,
    zero_inflated_poisson_link,
)
from lamina.links.mixtures import mixture_link
from lamina.links.outcome import (
    Options,
    Outcome,
    as_outcome,
    observe,
    require_plates_fit,
)
from lamina.links.parameters import learned_or_known, parameter
from lamina.links.positive import (
    exponential_link,
    gamma_link,
    inverse_gaussian_link,
    lognormal_link,
    weibull_link,
)
from lamina.links.proportions import (
    beta_link,
    von_mises_link,
    zero_one_inflated_beta_link,
)
from lamina.links.real import (
    gaussian_link,
    gaussian_link_exp,
    quantile_link,
    skew_normal_link,
    student_t_link,
)
from lamina.links.vectors import (
    dirichlet_multinomial_link,
    multivariate_gaussian_link,
)

__all__ = [
    "LogNegativeBinomial",
    "LogPoisson",
    "Options",
    "Outcome",
    "as_outcome",
    "beta_binomial_link",
    "beta_link",
    "binomial_link",
    "categorical_link",
    "cloglog_link",
    "dirichlet_multinomial_link",
    "exponential_link",
    "gamma_link",
    "gaussian_link",
    "gaussian_link_exp",
    "hurdle_negative_binomial_link",
    "hurdle_poisson_link",
    "inverse_gaussian_link",
    "learned_or_known",
    "logit_link",
    "lognormal_link",
    "mixture_link",
    "multivariate_gaussian_link",
    "negative_binomial_link",
    "observe",
    "ordinal_link",
    "parameter",
    "poisson_link",
    "probit_link",
    "quantile_link",
    "require_plates_fit",
    "skew_normal_link",
    "student_t_link",
    "von_mises_link",
    "weibull_link",
    "zero_inflated_negative_binomial_link",
    "zero_inflated_poisson_link",
    "zero_one_inflated_beta_link",
]
