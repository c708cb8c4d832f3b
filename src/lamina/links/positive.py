r"""Links for positive outcomes: durations, amounts, concentrations.

Weibull and exponential are accelerated failure times: $\eta$ shifts the log of time.
With `censored=` they are survival models.
"""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln, log_ndtr
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array, Shape
from lamina.links.families import Family, LogMeanFamily, at_least_tiny
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import CONCENTRATION, SCALE
from lamina.links.special import (
    log1mexp_of_exp,
    log_difference,
    log_gammainc,
    log_mills,
    safe_exp,
)
from lamina.links.tails import Tails, log_tails, size_biased


def lognormal_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$\log y_{nu} \sim \text{Normal}(\eta_{nu}, \sigma)$.

    `scale` and `log_scale` are as in `gaussian_link`. The mean is
    $e^{\eta + \sigma^2/2}$, the median $e^{\eta}$.

    Shapes: as `gaussian_link`.
    Units: $\eta$ and $\sigma$ are in units of $\log y$.
    Raises: as `gaussian_link`; ValueError when `y` is not positive.
    Source: Aitchison and Brown (1957), The Lognormal Distribution, chapter 2.
    """
    outcome = Outcome.read(name, eta, y, options)
    sigma = outcome.parameter(SCALE, scale, log_scale)
    return outcome.observe(dist.LogNormal(outcome.eta, sigma))


def gamma_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{Gamma}$ with mean $e^{\eta_{nu}}$ and concentration $a$.

    $$p(y) = \frac{(a/\mu)^a}{\Gamma(a)}\, y^{a-1} e^{-a y/\mu}, \quad \mu = e^{\eta}$$

    `concentration` is learned where it is a distribution (default Exponential(0.1)),
    known where it is a number or array; `log_concentration` is the predictor of its log.
    The coefficient of variation is $1/\sqrt{a}$.

    Shapes: as `gaussian_link`.
    Units: $\eta$ is the log of the expected outcome.
    Raises: as `gaussian_link`; ValueError when `y` is not positive.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 8.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    a = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(MeanGamma(outcome.eta, a))


def inverse_gaussian_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{InverseGaussian}$ with mean $\mu = e^{\eta_{nu}}$.

    $$p(y) = \sqrt{\frac{\lambda}{2\pi y^3}}
      \exp\Big(-\frac{\lambda (y-\mu)^2}{2\mu^2 y}\Big)$$

    `concentration` ($\lambda$) and `log_concentration` are as in `gamma_link`; the
    variance is $\mu^3/\lambda$.

    Shapes: as `gaussian_link`.
    Units: $\eta$ is the log of the expected outcome, $\lambda$ in units of `y`.
    Raises: as `gaussian_link`; ValueError when `y` is not positive.
    Source: Chhikara and Folks (1989), The Inverse Gaussian Distribution.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    shape = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(InverseGaussian(outcome.eta, shape))


def weibull_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{Weibull}$ with scale $e^{\eta_{nu}}$ and concentration $k$.

    $$P(y > t) = \exp\big(-(t\,e^{-\eta})^k\big)$$

    `concentration` ($k$) and `log_concentration` are as in `gamma_link`. The hazard
    rises where $k > 1$ and falls where $k < 1$; the mean is $e^{\eta}\,\Gamma(1 + 1/k)$.

    Shapes: as `gaussian_link`.
    Units: $\eta$ is the log of the time by which 63.2 % have failed.
    Raises: as `gaussian_link`; ValueError when `y` is not positive.
    Source: Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time
    Data, chapter 2.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    k = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(LogWeibull(outcome.eta, k))


def exponential_link(
    eta: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Exponential}$ with mean $e^{\eta_{nu}}$: a constant hazard.

    It is `weibull_link` at concentration 1.

    Shapes: as `gaussian_link`.
    Units: $\eta$ is the log of the expected outcome.
    Raises: as `weibull_link`.
    Source: Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time
    Data, chapter 2.
    """
    return weibull_link(eta, y, name=name, concentration=1.0, **options)


class MeanGamma(LogMeanFamily):
    """The gamma by the log of its mean, and its concentration."""

    support = constraints.positive

    def log_prob(self, value: Array) -> Array:
        a = self.concentration
        log_ratio = jnp.log(value) - self.log_mean
        return (
            a * (jnp.log(a) + log_ratio - safe_exp(log_ratio))
            - jnp.log(value)
            - gammaln(a)
        )

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        a = self.concentration
        drawn = jax.random.loggamma(key, a, (*sample_shape, *self.batch_shape))
        return at_least_tiny(jnp.exp(drawn - jnp.log(a) + self.log_mean))

    @property
    def variance(self) -> Array:
        return jnp.exp(2.0 * self.log_mean) / self.concentration


class InverseGaussian(LogMeanFamily):
    """The inverse Gaussian by the log of its mean, and its shape."""

    support = constraints.positive

    def log_prob(self, value: Array) -> Array:
        shape = self.concentration
        apart = safe_exp(0.5 * jnp.log(value) - self.log_mean) - value**-0.5
        normal = jnp.log(shape) - jnp.log(2.0 * jnp.pi) - 3.0 * jnp.log(value)
        return 0.5 * (normal - shape * apart**2)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Source: Michael, Schucany and Haas (1976), Generating random variates."""
        shape = (*sample_shape, *self.batch_shape)
        normal_key, root_key = jax.random.split(key)
        mean = jnp.exp(self.log_mean)
        ratio = mean * jax.random.normal(normal_key, shape) ** 2 / self.concentration
        # the smaller root over the mean, written without a difference of large numbers
        root = 2.0 / (2.0 + ratio + jnp.sqrt(ratio * (ratio + 4.0)))
        small = jax.random.uniform(root_key, shape) <= 1.0 / (1.0 + root)
        return at_least_tiny(mean * jnp.where(small, root, 1.0 / root))

    @property
    def variance(self) -> Array:
        return jnp.exp(3.0 * self.log_mean) / self.concentration


class LogWeibull(Family):
    """The Weibull by the log of its scale, and its concentration."""

    arg_constraints = {  # noqa: RUF012
        "log_scale": constraints.real,
        "concentration": constraints.positive,
    }
    support = constraints.positive

    def log_hazard(self, value: Array) -> Array:
        """The log of the hazard cumulated up to `value`."""
        return self.concentration * (jnp.log(value) - self.log_scale)

    def log_prob(self, value: Array) -> Array:
        t = self.log_hazard(value)
        return jnp.log(self.concentration) - jnp.log(value) + t - safe_exp(t)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        shape = (*sample_shape, *self.batch_shape)
        hazard = jnp.log(at_least_tiny(jax.random.exponential(key, shape)))
        return at_least_tiny(jnp.exp(self.log_scale + hazard / self.concentration))

    def _moment(self, order: int) -> Array:
        log_moment = order * self.log_scale + gammaln(1.0 + order / self.concentration)
        return jnp.exp(log_moment)

    @property
    def mean(self) -> Array:
        return self._moment(1)

    @property
    def variance(self) -> Array:
        return self._moment(2) - self._moment(1) ** 2


@log_tails.register
def _(fn: MeanGamma, x: Array) -> Tails:
    a = fn.concentration
    return Tails(*log_gammainc(a, jnp.log(a) + jnp.log(x) - fn.log_mean))


@log_tails.register
def _(fn: InverseGaussian, x: Array) -> Tails:
    """Source: Shuster (1968), On the inverse Gaussian distribution function."""
    ratio, root = x * safe_exp(-fn.log_mean), jnp.sqrt(fn.concentration / x)
    first, last = root * (ratio - 1.0), root * (ratio + 1.0)
    # the second term is exp(2 lambda / mu) Phi(-last), where the exponents cancel
    bell, far = -0.5 * first**2, log_mills(last)
    right = first > 0.0
    beyond = log_difference(log_mills(jnp.where(right, first, 0.0)), far)
    within = jnp.where(right, -1.0, first)
    near = log_difference(log_ndtr(-within), -0.5 * within**2 + far)
    return Tails(
        jnp.logaddexp(log_ndtr(first), bell + far),
        jnp.where(right, bell + beyond, near),
    )


@log_tails.register
def _(fn: LogWeibull, x: Array) -> Tails:
    t = fn.log_hazard(x)
    return Tails(log1mexp_of_exp(t), -safe_exp(t))


@size_biased.register
def _(fn: MeanGamma) -> Distribution:
    a = fn.concentration
    return MeanGamma(fn.log_mean + jnp.log1p(1.0 / a), a + 1.0)
