"""Links for shares between 0 and 1, and for directions."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import log_sigmoid
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array, Shape
from lamina.links.families import at_least_tiny
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import CONCENTRATION, PROBABILITY, Parameter


def _even() -> Distribution:
    return dist.Beta(1.0, 1.0)


ENDS = Parameter("ends", PROBABILITY, _even)
ONE = Parameter("one", PROBABILITY, _even)


def beta_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{Beta}(\mu\phi,\, (1-\mu)\phi)$, $\mu = 1/(1+e^{-\eta_{nu}})$.

    `concentration` ($\phi$) is learned where it is a distribution (default
    Exponential(0.1)), known where it is a number or array; `log_concentration` is the
    predictor of its log. The variance is $\mu(1-\mu)/(1+\phi)$.

    Shapes: as `gaussian_link`.
    Units: $\eta$ is in log odds of the mean; `y` is strictly between 0 and 1.
    Raises: ValueError when the rows differ, or when `y` is 0, 1 or outside of them.
    Source: Ferrari and Cribari-Neto (2004), Beta regression for modelling rates and
    proportions.
    """
    outcome = Outcome.read(name, eta, y, options)
    phi = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(mean_beta(outcome.eta, phi))


def zero_one_inflated_beta_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    ends: Any = None,
    logit_ends: Array | None = None,
    one: Any = None,
    logit_one: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Shares that may be exactly 0 or 1: an end with probability $\alpha$, else beta.

    $$P(0) = \alpha(1-\gamma), \qquad P(1) = \alpha\gamma, \qquad
      p(y) = (1-\alpha)\,\text{Beta}(y \mid \mu\phi, (1-\mu)\phi)$$

    `ends` ($\alpha$, the share of zeros and ones together) and `one` ($\gamma$, the
    share of ones among them) are learned where they are distributions (default
    Beta(1, 1) each), known where they are numbers or arrays; `logit_ends` and
    `logit_one` are predictors of their log odds. The rest is as in `beta_link`. The
    mean is $\alpha\gamma + (1-\alpha)\mu$.

    Shapes: as `gaussian_link`; `ends` and `one` like a scale.
    Units: $\eta$ is in log odds of the beta's mean.
    Raises: ValueError when the rows differ or when `y` is outside of 0 to 1.
    Source: Ospina and Ferrari (2010), Inflated beta distributions.
    """
    outcome = Outcome.read(name, eta, y, options)
    phi = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    alpha = outcome.logit(ENDS, ends, logit_ends)
    gamma = outcome.logit(ONE, one, logit_one)
    return outcome.observe(WithEnds(mean_beta(outcome.eta, phi), alpha, gamma))


def von_mises_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Directions: $y_{nu} \sim \text{VonMises}(2\arctan\eta_{nu},\, \kappa)$.

    $$p(y) = \frac{\exp(\kappa\cos(y - 2\arctan\eta))}{2\pi I_0(\kappa)}$$

    The transform takes the line once around the circle, so a predictor of 0 is the
    direction 0; for a mean direction $m$ that is known, $\eta = \tan(m/2)$.
    `concentration` ($\kappa$) is learned where it is a distribution (default
    Exponential(0.1)), known where it is a number or array; `log_concentration` is the
    predictor of its log. The mean of `predict(kind="mean")` is the mean direction.

    Shapes: as `gaussian_link`.
    Units: `y` is in radians from $-\pi$ to $\pi$.
    Raises: ValueError when the rows differ or `y` is outside of $-\pi$ to $\pi$.
    Source: Fisher and Lee (1992), Regression models for an angular response.
    """
    outcome = Outcome.read(name, eta, y, options)
    kappa = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(dist.VonMises(2.0 * jnp.arctan(outcome.eta), kappa))


class OpenBeta(dist.Beta):
    """The beta without its ends, where its density is no number."""

    support = constraints.open_interval(0.0, 1.0)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        drawn = super().sample(key, sample_shape)
        return jnp.clip(drawn, jnp.finfo(drawn.dtype).tiny, 1.0 - _gap(drawn))


def _gap(x: Array) -> float:
    return float(jnp.finfo(x.dtype).epsneg)


def mean_beta(logit_mean: Array, concentration: Array) -> OpenBeta:
    """The beta by the logit of its mean, and its concentration."""
    return OpenBeta(
        at_least_tiny(concentration * jax.nn.sigmoid(logit_mean)),
        at_least_tiny(concentration * jax.nn.sigmoid(-logit_mean)),
    )


class WithEnds(Distribution):
    """A family of shares with probabilities of exactly 0 and 1."""

    arg_constraints = {  # noqa: RUF012
        "logit_ends": constraints.real,
        "logit_one": constraints.real,
    }
    pytree_data_fields = ("base_dist", "logit_ends", "logit_one")
    support = constraints.unit_interval

    def __init__(
        self,
        base_dist: Distribution,
        logit_ends: Array,
        logit_one: Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        shape = base_dist.batch_shape
        self.base_dist = base_dist
        self.logit_ends = jnp.broadcast_to(logit_ends, shape)
        self.logit_one = jnp.broadcast_to(logit_one, shape)
        super().__init__(shape, validate_args=validate_args)

    def log_prob(self, value: Array) -> Array:
        at_end = (value == 0) | (value == 1)
        which = jnp.where(value == 1, 1.0, -1.0)
        end = log_sigmoid(self.logit_ends) + log_sigmoid(which * self.logit_one)
        inside = self.base_dist.log_prob(jnp.where(at_end, 0.5, value))
        return jnp.where(at_end, end, log_sigmoid(-self.logit_ends) + inside)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        end_key, one_key, inside_key = jax.random.split(key, 3)
        inside = self.base_dist.sample(inside_key, sample_shape)
        end = jax.random.bernoulli(
            end_key, jax.nn.sigmoid(self.logit_ends), inside.shape
        )
        one = jax.random.bernoulli(
            one_key, jax.nn.sigmoid(self.logit_one), inside.shape
        )
        return jnp.where(end, one.astype(inside.dtype), inside)

    def _moment(self, inside: Array) -> Array:
        ends, one = jax.nn.sigmoid(self.logit_ends), jax.nn.sigmoid(self.logit_one)
        return ends * one + jax.nn.sigmoid(-self.logit_ends) * inside

    @property
    def mean(self) -> Array:
        return self._moment(self.base_dist.mean)

    @property
    def variance(self) -> Array:
        square = self.base_dist.variance + self.base_dist.mean**2
        return self._moment(square) - self.mean**2
