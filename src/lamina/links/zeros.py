"""Counts with zeros of their own: beside those of a family, or in their place."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array, Shape
from lamina.links.tails import (
    Tails,
    from_zero,
    log_between,
    log_tails,
    sample_between,
)


class WithZeros(Distribution):
    """A family of counts with zeros of its own probability, by its logit."""

    arg_constraints = {"logit_zero": constraints.real}  # noqa: RUF012
    pytree_data_fields = ("base_dist", "logit_zero")
    support = constraints.nonnegative_integer

    def __init__(
        self,
        base_dist: Any,
        logit_zero: Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        shape = base_dist.batch_shape
        self.base_dist = base_dist
        self.logit_zero = jnp.broadcast_to(logit_zero, shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The family whose tails it takes."""
        return (self.base_dist,)

    @property
    def _log_other(self) -> Array:
        """The log probability of a draw from the family, by its cut where it is cut."""
        return log_sigmoid(-self.logit_zero)

    def log_prob(self, value: Array) -> Array:
        zero = jnp.broadcast_to(self._log_zero, jnp.shape(value))
        other = self._log_other + self.base_dist.log_prob(value)
        return jnp.where(value == 0, zero, other)

    @property
    def mean(self) -> Array:
        return jnp.exp(self._log_other) * self.base_dist.mean

    @property
    def variance(self) -> Array:
        square = self.base_dist.variance + self.base_dist.mean**2
        return jnp.exp(self._log_other) * square - self.mean**2

    def _is_zero(self, key: Array, shape: Shape) -> Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logit_zero), shape)


class ZeroInflated(WithZeros):
    """Zeros beside those of the family itself."""

    @property
    def _log_zero(self) -> Array:
        own = self.base_dist.log_prob(jnp.zeros(self.batch_shape))
        return jnp.logaddexp(log_sigmoid(self.logit_zero), self._log_other + own)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        zero_key, count_key = jax.random.split(key)
        counts = self.base_dist.sample(count_key, sample_shape)
        return jnp.where(self._is_zero(zero_key, counts.shape), 0, counts)


class Hurdle(WithZeros):
    """Zeros in the place of those of the family itself."""

    @property
    def _log_zero(self) -> Array:
        return log_sigmoid(self.logit_zero)

    @property
    def _log_other(self) -> Array:
        return log_sigmoid(-self.logit_zero) - self.base_dist.log_any

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        zero_key, count_key = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        counts = sample_between(self.base_dist, 1, None, count_key, shape)
        return jnp.where(self._is_zero(zero_key, shape), 0, counts)


@log_tails.register
def _(fn: WithZeros, x: Array) -> Tails:
    counts = jnp.maximum(x, 0)
    positive = log_between(fn.base_dist, 1, jnp.maximum(counts, 1))
    positive = jnp.where(counts == 0, -jnp.inf, fn._log_other + positive)
    lower = jnp.logaddexp(fn._log_zero, positive)
    upper = fn._log_other + log_tails(fn.base_dist, counts).upper
    return from_zero(jnp.asarray(x), lower, upper)
