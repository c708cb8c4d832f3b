"""Further steps of a sequence, drawn from the prior given what all its steps share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers

from lamina._typing import Array
from lamina.layers._levels import RememberSites

Values = Mapping[str, Array]


def key_of(where: str, key: Array | None, sites: RememberSites) -> Array:
    """The key of a layer's further draws: this draw's, folded with the site's name.

    Raises: ValueError where there is no key.
    """
    if key is None:
        raise ValueError(
            f"{where}: what was not fitted is drawn, and there is no key to draw it "
            "with. Run the model under numpyro.handlers.seed, or give `predicting` a key."
        )
    return jax.random.fold_in(key, zlib.crc32(sites.outer_name.encode()))


def folded(key: Array, *numbers: Array | int) -> Array:
    """A key for each combination of integers, negative ones included."""
    for number in numbers:
        number = jnp.asarray(number, jnp.int32).astype(jnp.uint32)
        key = jax.random.fold_in(key, number)
    return key


def sampled_again(key: Array, values: Values, sample: Callable[[], Array]) -> Array:
    """`sample()` once more, out of sight of the stack, given what is shared.

    Sites that have the shape that they had before keep their value, such as a learned
    scale; the rest are new.
    """

    def shared(message: dict[str, Any]) -> Array | None:
        value = values.get(message["name"])
        kept = value is not None and jnp.shape(value) == message["fn"].shape()
        return value if kept else None

    with handlers.block(), handlers.seed(rng_seed=key):
        with handlers.substitute(substitute_fn=shared):
            return sample()


def another(size: int) -> int:
    """The smallest size that differs from `size`, so that shapes tell new from old."""
    return 2 if size == 1 else 1


def over_replicates(
    fn: Callable[..., Array], replicates: tuple[int, ...], key: Array, tree: Any
) -> Array:
    """`fn(key, tree)` for each replicate, whose axes lead in all arrays of `tree`."""
    if not replicates:
        return fn(key, tree)
    many = math.prod(replicates)
    flat = jax.tree.map(
        lambda v: jnp.reshape(v, (many, *jnp.shape(v)[len(replicates) :])), tree
    )
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(many))
    found = jax.vmap(fn)(keys, flat)
    return jnp.reshape(found, (*replicates, *found.shape[1:]))
