"""What every method returns, and what they share in making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro import handlers

from lamina._typing import Array, Model, arrays_apart

DRAWS_AT_ONCE = 64


@dataclass(frozen=True)
class Fitted:
    """A method's result: draws of the latent sites of the model that it sampled."""

    model: Model
    draws: dict[str, np.ndarray]
    """site -> (chain, draw, ...)"""
    losses: np.ndarray | None = None
    statistics: dict[str, np.ndarray] = field(default_factory=dict)
    """sampler statistic -> (chain, draw)"""
    estimators: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    correlated: bool = False
    """Whether draws follow one another in chains, so that ESS and R-hat mean something."""
    notes: tuple[str, ...] = ()
    state: Any = None


def map_draws(fn: Callable[..., Any], draws: Mapping[str, Array], *more: Array) -> Any:
    """`fn(draw, *more)` for each of S draws, a few at a time."""
    count = len(jax.tree.leaves((draws, more))[0])
    # a divisor leaves no remainder, which would be compiled on its own
    size = max(k for k in range(1, DRAWS_AT_ONCE + 1) if count % k == 0)
    return lax.map(
        lambda a: fn(a[0], *a[1:]),
        (dict(draws), *more),
        batch_size=size if 4 * size > DRAWS_AT_ONCE else DRAWS_AT_ONCE,
    )


def deterministic_draws(
    model: Model,
    draws: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    names: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Draws of the named deterministic sites, given draws of the latent ones."""
    if not names:
        return {}
    lead = next(iter(draws.values())).shape[:2]
    arrays, others = arrays_apart(data)

    def one(draw: Mapping[str, Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            with handlers.substitute(data=dict(draw)):
                model(**arrays, **others)
        return {name: sites[name]["value"] for name in names}

    flat = {k: jnp.reshape(v, (-1, *v.shape[2:])) for k, v in draws.items()}
    run = jax.jit(lambda flat, arrays: map_draws(lambda d: one(d, arrays), flat))
    found = run(flat, arrays)
    return {k: np.asarray(v).reshape(*lead, *v.shape[1:]) for k, v in found.items()}
