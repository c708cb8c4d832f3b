"""What was not fitted, drawn from the prior given what all levels or steps share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina._typing import Array

Values: TypeAlias = Mapping[str, Array]


class RememberSites(Messenger):
    """name -> value, by the names used inside: scopes rename a message on its way up.

    Other handlers may also rewrite a message, as reparameterization does, so the name
    used inside is kept here and not on the message.
    """

    def __enter__(self) -> RememberSites:
        super().__enter__()
        self.values: dict[str, Array] = {}
        self.outer_name = ""
        self._names: dict[int, str] = {}
        return self

    def process_message(self, message: Any) -> None:
        if message["type"] == "sample":
            self._names[id(message)] = message["name"]

    def postprocess_message(self, message: Any) -> None:
        name = self._names.pop(id(message), None)
        if name is not None:
            self.values[name] = message["value"]
            self.outer_name = message["name"]


def key_of(where: str, key: Array | None, sites: RememberSites) -> Array:
    """The key of a layer's further draws: this draw's, folded with the site's name.

    Raises: ValueError where there is no key.
    """
    if key is None:
        raise ValueError(
            f"{where}: what was not fitted is drawn, and there is no key to draw it "
            "with. Run the model under numpyro.handlers.seed, give `predicting` a key, or "
            "set `unseen` to 'zero' where the layer has it."
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
