r"""Links for counts: Poisson and negative binomial, plain, zero-inflated and hurdle.

All take the log of a mean, and `exposure=` multiplies that mean.
"""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import softplus
from jax.scipy.special import gammaln
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array, Shape
from lamina.links.families import LogMeanFamily
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import CONCENTRATION, PROBABILITY, Parameter
from lamina.links.special import (
    log1mexp_of_exp,
    log_betainc,
    log_rising,
    log_softplus,
)
from lamina.links.tails import Tails, from_zero, log_tails, size_biased
from lamina.links.zeros import Hurdle, ZeroInflated

ZERO = Parameter("zero", PROBABILITY, lambda: dist.Beta(1.0, 1.0))


def poisson_link(
    eta: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Poisson}(e^{\eta_{nu}})$.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u).
    Units: $\eta$ is the log of the expected count.
    Raises: ValueError when the rows of `y` and `eta` differ or `y` is not a count.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 6.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    return outcome.observe(LogPoisson(outcome.eta))


def negative_binomial_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Counts with mean $\mu = e^{\eta_{nu}}$ and variance $\mu + \mu^2/r$.

    $$p(y) = \frac{\Gamma(y+r)}{\Gamma(r)\,y!}
      \Big(\frac{\mu}{\mu+r}\Big)^{y} \Big(\frac{r}{\mu+r}\Big)^{r}$$

    `concentration` ($r$) is learned where it is a distribution (default
    Exponential(0.1)), known where it is a number or array; `log_concentration` is the
    predictor of its log. The Poisson is the limit of large $r$.

    Shapes: as `poisson_link`.
    Units: $\eta$ is the log of the expected count; $r$ has none.
    Raises: as `poisson_link`; ValueError when a known concentration is not positive.
    Source: Cameron and Trivedi (2013), Regression Analysis of Count Data, chapter 3.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    r = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(LogNegativeBinomial(outcome.eta, r))


def zero_inflated_poisson_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    zero: Any = None,
    logit_zero: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""A zero with probability $\pi$, else $\text{Poisson}(e^{\eta_{nu}})$.

    `zero` ($\pi$, the share of zeros beyond the Poisson's own) is learned where it is a
    distribution (default Beta(1, 1)), known where it is a number or array; `logit_zero`
    is the predictor of its log odds. The mean is $(1-\pi)\,e^{\eta}$.

    Shapes: as `poisson_link`; `zero` and `logit_zero` like a scale.
    Units: $\eta$ is the log of the count expected where no zero is added.
    Raises: as `poisson_link`; ValueError when a known `zero` is not in (0, 1).
    Source: Lambert (1992), Zero-inflated Poisson regression, with an application to
    defects in manufacturing.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    pi = outcome.logit(ZERO, zero, logit_zero)
    return outcome.observe(ZeroInflated(LogPoisson(outcome.eta), pi))


def zero_inflated_negative_binomial_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    zero: Any = None,
    logit_zero: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""A zero with probability $\pi$, else a negative binomial of mean $e^{\eta_{nu}}$.

    `concentration` is as in `negative_binomial_link`, `zero` as in
    `zero_inflated_poisson_link`. The mean is $(1-\pi)\,e^{\eta}$.

    Shapes, units, raises: as both.
    Source: Cameron and Trivedi (2013), Regression Analysis of Count Data, chapter 4.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    r = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    pi = outcome.logit(ZERO, zero, logit_zero)
    return outcome.observe(ZeroInflated(LogNegativeBinomial(outcome.eta, r), pi))


def hurdle_poisson_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    zero: Any = None,
    logit_zero: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""A zero with probability $\pi$, else a positive count from a cut Poisson.

    $$P(0) = \pi, \qquad P(y) = (1-\pi)\,\frac{f(y)}{1 - f(0)} \quad (y > 0), \qquad
      f = \text{Poisson}(e^{\eta})$$

    `zero` ($\pi$, the share of all zeros) is given as in `zero_inflated_poisson_link`.
    The mean is $(1-\pi)\,e^{\eta} / (1 - f(0))$.

    Shapes: as `zero_inflated_poisson_link`.
    Units: $\eta$ is the log of the mean of $f$.
    Raises: as `zero_inflated_poisson_link`.
    Source: Mullahy (1986), Specification and testing of some modified count data
    models.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    pi = outcome.logit(ZERO, zero, logit_zero)
    return outcome.observe(Hurdle(LogPoisson(outcome.eta), pi))


def hurdle_negative_binomial_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    zero: Any = None,
    logit_zero: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""`hurdle_poisson_link` with a negative binomial in the Poisson's place.

    `concentration` is as in `negative_binomial_link`. The mean is
    $(1-\pi)\,e^{\eta} / (1 - f(0))$ with $f(0) = (1 + e^{\eta}/r)^{-r}$.

    Shapes, units, raises: as both.
    Source: Mullahy (1986), Specification and testing of some modified count data
    models.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    r = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    pi = outcome.logit(ZERO, zero, logit_zero)
    return outcome.observe(Hurdle(LogNegativeBinomial(outcome.eta, r), pi))


class LogPoisson(dist.Poisson):
    """Poisson by its log rate: its log density is finite where the rate underflows.

    Draws are integers of JAX's default type and stop at the largest of them.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    pytree_data_fields = ("log_rate", "rate")

    def __init__(self, log_rate: Array, *, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(jnp.exp(log_rate), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        # a rate past the largest integer, infinity included, would be drawn as zero
        most = jnp.iinfo(jnp.result_type(int)).max
        drawn = super().sample(key, sample_shape)
        past = jnp.broadcast_to(self.rate >= float(most), jnp.shape(drawn))
        return jnp.where(past, most, drawn)

    def log_prob(self, value: Array) -> Array:
        value = jnp.asarray(value, self.rate.dtype)
        return value * self.log_rate - self.rate - gammaln(value + 1.0)

    @property
    def log_any(self) -> Array:
        """The log probability of a positive count."""
        return log1mexp_of_exp(self.log_rate)


class LogNegativeBinomial(LogMeanFamily):
    """The negative binomial by the log of its mean, and its concentration."""

    support = constraints.nonnegative_integer

    @property
    def log_odds(self) -> Array:
        """The log of the mean over the concentration."""
        return self.log_mean - jnp.log(self.concentration)

    def log_prob(self, value: Array) -> Array:
        k = jnp.asarray(value, self.log_mean.dtype)
        r, t = self.concentration, self.log_odds
        ways = log_rising(r, k) - gammaln(k + 1.0)
        return ways - k * softplus(-t) - r * softplus(t)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        rate_key, count_key = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        rates = jax.random.loggamma(rate_key, self.concentration, shape)
        return LogPoisson(rates + self.log_odds).sample(count_key)

    @property
    def variance(self) -> Array:
        return self.mean + jnp.exp(2.0 * self.log_mean) / self.concentration

    @property
    def log_any(self) -> Array:
        """The log probability of a positive count."""
        log_none = jnp.log(self.concentration) + log_softplus(self.log_odds)
        return log1mexp_of_exp(log_none)


@log_tails.register
def _(fn: LogNegativeBinomial, x: Array) -> Tails:
    k, t = jnp.asarray(x, fn.log_mean.dtype), fn.log_odds
    lower, upper = log_betainc(
        fn.concentration, jnp.maximum(k, 0.0) + 1.0, -softplus(t), -softplus(-t)
    )
    return from_zero(k, lower, upper)


@size_biased.register
def _(fn: LogNegativeBinomial) -> Distribution:
    r = fn.concentration
    return LogNegativeBinomial(fn.log_mean + jnp.log1p(1.0 / r), r + 1.0)
