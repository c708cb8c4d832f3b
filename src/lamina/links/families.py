"""The base of the families that NumPyro lacks, or has in a form that underflows."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array


class Family(Distribution):
    """A distribution of single numbers whose parameters are those of `arg_constraints`.

    They are given in that order and broadcast against one another.
    """

    def __init__(self, *parameters: Any, validate_args: bool | None = None) -> None:
        shape = jnp.broadcast_shapes(*map(jnp.shape, parameters))
        for name, value in zip(self.arg_constraints, parameters, strict=True):
            setattr(self, name, jnp.broadcast_to(jnp.asarray(value), shape))
        super().__init__(shape, validate_args=validate_args)


class LogMeanFamily(Family):
    """A family by the log of its mean, and its concentration."""

    arg_constraints = {  # noqa: RUF012
        "log_mean": constraints.real,
        "concentration": constraints.positive,
    }

    @property
    def mean(self) -> Array:
        return jnp.exp(self.log_mean)


def at_least_tiny(x: Array) -> Array:
    """`x`, held above zero by the smallest normal number."""
    return jnp.maximum(x, jnp.finfo(jnp.result_type(x)).tiny)
