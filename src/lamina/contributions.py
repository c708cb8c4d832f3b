"""What each layer adds to a predictor, where the terms add up to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from numpyro.primitives import Messenger

from lamina._typing import Array, Model
from lamina.effects import scoped
from lamina.prediction import Predictor, value_of

REST = "rest"
"""What a predictor is without its terms: an offset, a number of the model's own."""


class scaling_terms(Messenger):
    """Multiply the layers' outputs by factors, those that are named, and list them."""

    def __init__(
        self, fn: Model | None = None, factors: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__(fn)
        self.factors = factors or {}
        self.terms: list[str] = []

    def process_message(self, message: Any) -> None:
        if message["type"] == "term":
            name = scoped(message["term"])
            self.terms.append(name)
            message["value"] = self.factors.get(name, 1.0) * message["value"]


class Contributor(Predictor):
    """A fitted model asked for what its terms add to the predictors of its outcomes.

    The draws of an outcome have a last axis: an entry for each of `terms`, then the rest.
    They are NaN where the terms do not add up to the predictor.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        listing = scaling_terms(self.unobserved.model)
        model = replace(self.unobserved, model=listing)
        keys = random.key(0), random.key(1)

        def run(arrays: Mapping[str, Array]) -> None:
            model.sites(self.num_rows, keys, {}, arrays)

        jax.eval_shape(run, {**self.data.rows, **self.arrays})
        self.terms = tuple(listing.terms)

    def values(
        self,
        size: int,
        keys: tuple[Array, Array],
        draw: Mapping[str, Array],
        arrays: Mapping[str, Array],
    ) -> dict[str, Array]:
        """Each outcome's terms and its rest (..., term), for one draw."""

        def linear(factors: Array) -> dict[str, Array]:
            named = dict(zip(self.terms, factors, strict=True))
            scaled = scaling_terms(self.unobserved.model, named)
            sites = replace(self.unobserved, model=scaled).sites(
                size, keys, draw, arrays
            )
            shapes = self.unobserved.shapes
            return {k: value_of(sites, k, "linear", len(shapes[k])) for k in self.names}

        ones = jnp.ones(len(self.terms))
        uneven = random.uniform(random.key(0), ones.shape, minval=0.5, maxval=1.5)
        slopes = jax.jacfwd(linear)
        parts, others, rest = slopes(ones), slopes(uneven), linear(0.0 * ones)
        return {k: added_up(parts[k], others[k], rest[k]) for k in self.names}


def added_up(parts: Array, others: Array, rest: Array) -> Array:
    """The parts and the rest (..., term), or NaN where they do not add up.

    `parts` and `others` are derivatives of the predictor by the terms' factors, at two
    places: where it is the sum of its terms these are the terms, at any place.
    """
    size = jnp.maximum(jnp.abs(parts), jnp.abs(others)).max(axis=-1, initial=0.0)
    same = (jnp.abs(parts - others) <= 1e-4 * size[..., None]).all(axis=-1)
    found = jnp.concatenate([parts, rest[..., None]], axis=-1)
    return jnp.where(same[..., None], found, jnp.nan)
