"""Links for outcomes on the whole line."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro.distributions import constraints

from lamina._typing import Array, Shape
from lamina.links.families import Family
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import (
    POSITIVE,
    PROBABILITY,
    REAL,
    SCALE,
    Parameter,
)

DF = Parameter("df", POSITIVE, lambda: 4.0)
QUANTILE = Parameter("quantile", PROBABILITY, lambda: 0.5)
ALPHA = Parameter("alpha", REAL, lambda: dist.Normal(0.0, 4.0))


def gaussian_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{Normal}(\eta_{nu}, \sigma)$.

    Exactly one source for $\sigma$: `scale` as a distribution is learned under the site
    `sigma` (default Exponential(1)), as a number or array it is known; `log_scale` is
    the predictor of $\log\sigma$, such as a layer's output.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u); a known `scale` is one number,
    (n, u), (n, 1) or (1, u), and (n,) where u = 1.
    Units: $\eta$ and $\sigma$ are in units of `y`.
    Raises: ValueError when the rows of `y` and `eta` differ, when `y` is not finite, or
    when a known scale is not positive.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 2.
    """
    outcome = Outcome.read(name, eta, y, options)
    sigma = outcome.parameter(SCALE, scale, log_scale)
    return outcome.observe(dist.Normal(outcome.eta, sigma))


def gaussian_link_exp(
    mu: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Normal}(\mu_{nu}, \sigma)$, $\sigma \sim \text{Exp}(1)$.

    The published name of `gaussian_link` at its defaults.

    Shapes, units, raises, source: as `gaussian_link`.
    """
    return gaussian_link(mu, y, name=name, **options)


def student_t_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    df: Any = None,
    log_df: Array | None = None,
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{StudentT}(\nu, \eta_{nu}, \sigma)$: heavy tails.

    `df` ($\nu$, default 4) and `scale` ($\sigma$, default Exponential(1)) are learned
    where they are distributions, under the sites `df` and `sigma`, and known where they
    are numbers or arrays; `log_df` and `log_scale` are predictors of their logs.

    Shapes: as `gaussian_link`; `df` like `scale`.
    Units: $\eta$ and $\sigma$ are in units of `y`. $\sigma$ is not the standard
    deviation, which is $\sigma\sqrt{\nu / (\nu - 2)}$ for $\nu > 2$.
    Raises: as `gaussian_link`.
    Source: Lange, Little and Taylor (1989), Robust Statistical Modeling Using the t
    Distribution.
    """
    outcome = Outcome.read(name, eta, y, options)
    df = outcome.parameter(DF, df, log_df)
    sigma = outcome.parameter(SCALE, scale, log_scale)
    return outcome.observe(dist.StudentT(df, outcome.eta, sigma))


def quantile_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    quantile: Any = None,
    logit_quantile: Array | None = None,
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Asymmetric Laplace: $\eta_{nu}$ is the `quantile` $q$ of $y_{nu}$.

    $$p(y) = \frac{q(1-q)}{\sigma}
      \exp\Big(-\frac{(y-\eta)\,(q - [y < \eta])}{\sigma}\Big)$$

    `quantile` (default 0.5, the median) is known as a rule; `scale` is as in
    `gaussian_link`. The distribution's mean, of `predict(kind="mean")`, is
    $\eta + \sigma(1-2q)/(q(1-q))$; the quantile is `kind="linear"`.

    The density stands for the check loss, not for how outcomes spread: intervals of
    coefficients are those of this working likelihood.

    Shapes: as `gaussian_link`.
    Units: $\eta$ and $\sigma$ are in units of `y`.
    Raises: as `gaussian_link`; ValueError for a quantile outside of (0, 1).
    Source: Yu and Moyeed (2001), Bayesian quantile regression.
    """
    outcome = Outcome.read(name, eta, y, options)
    q = outcome.parameter(QUANTILE, quantile, logit_quantile)
    sigma = outcome.parameter(SCALE, scale, log_scale)
    return outcome.observe(dist.AsymmetricLaplaceQuantile(outcome.eta, sigma, q))


def skew_normal_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    alpha: Any = None,
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Skew-normal with mean $\eta_{nu}$ and standard deviation $\sigma$.

    $$p(y) = \frac{2}{\omega}\,\phi(z)\,\Phi(\alpha z), \quad z = \frac{y-\xi}{\omega},
      \quad \omega = \frac{\sigma}{\sqrt{1 - 2\delta^2/\pi}},
      \quad \xi = \eta - \omega\delta\sqrt{2/\pi},
      \quad \delta = \frac{\alpha}{\sqrt{1+\alpha^2}}$$

    `alpha` bends to the right where it is positive; it is learned (default
    Normal(0, 4)), known, or a layer's output as it is. `scale` is as in `gaussian_link`.

    Shapes: as `gaussian_link`.
    Units: $\eta$ and $\sigma$ are in units of `y`; $\alpha$ has none.
    Raises: as `gaussian_link`.
    Source: Azzalini (1985), A class of distributions which includes the normal ones,
    with its moments.
    """
    outcome = Outcome.read(name, eta, y, options)
    alpha = outcome.parameter(ALPHA, alpha)
    sigma = outcome.parameter(SCALE, scale, log_scale)
    return outcome.observe(SkewNormal(outcome.eta, sigma, alpha))


class SkewNormal(Family):
    """The skew-normal by its mean, its standard deviation and `alpha`."""

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real,
        "scale": constraints.positive,
        "alpha": constraints.real,
    }
    support = constraints.real

    def _direct(self) -> tuple[Array, Array, Array]:
        """Location, scale and delta of the density's own form."""
        delta = self.alpha / jnp.sqrt(1.0 + self.alpha**2)
        omega = self.scale / jnp.sqrt(1.0 - 2.0 * delta**2 / jnp.pi)
        return self.loc - omega * delta * jnp.sqrt(2.0 / jnp.pi), omega, delta

    def log_prob(self, value: Array) -> Array:
        xi, omega, _ = self._direct()
        z = (value - xi) / omega
        normal = -0.5 * z**2 - 0.5 * jnp.log(2.0 * jnp.pi) - jnp.log(omega)
        return normal + jnp.log(2.0) + log_ndtr(self.alpha * z)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        xi, omega, delta = self._direct()
        shape = (2, *sample_shape, *self.batch_shape)
        half, other = jax.random.normal(key, shape)
        z = delta * jnp.abs(half) + jnp.sqrt(1.0 - delta**2) * other
        return xi + omega * z

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def variance(self) -> Array:
        return self.scale**2
