"""Group layers: one row of coefficients for each category, with a say on unseen ones."""

from __future__ import annotations

import zlib
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina import effects
from lamina._checks import as_codes, concrete
from lamina._typing import Array, Shape
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.products import lookup

Unseen = Literal["draw", "zero", "error"]


@dataclass(frozen=True, repr=False, eq=False)
class GroupForm(AdaptiveForm):
    """A table with one row for each category, shared by all group layers."""

    units: int = 1
    _: KW_ONLY
    num_categories: int | None = None
    unseen: Unseen = "draw"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units != 1:
            raise ValueError(
                f"{type(self).__name__}: `units` is {self.units}, but a table has "
                "`embedding_dim` outputs instead: use EmbeddingLayer with "
                f"embedding_dim={self.units}."
            )
        if self.unseen not in ("draw", "zero", "error"):
            raise ValueError(
                f"{type(self).__name__}: `unseen` is {self.unseen!r}; it is 'draw' (a "
                "fresh draw from the prior), 'zero' or 'error'."
            )

    def rows_of_table(self, name: str, x: Any, c: int, m: int) -> Array:
        """The table's row for each code; unseen levels as the policy says."""
        asked = effects.prediction()
        allowed = asked is not None and self.unseen != "error"
        codes = as_codes(self.label(name), x, c, unseen=allowed)
        self.outside_rows(name, codes.shape[0])
        with RememberSites() as values:
            table = self.coefficients(name, (c, m), "theta", scale_shape=())
        output = product(lookup, codes, table)
        if asked is None or not allowed or none_negative(x):
            return term(name, output)
        if self.unseen == "zero" or asked.key is None:
            fresh = jnp.zeros_like(output)
        else:
            fresh = self.unseen_rows(asked.key, name, table.shape[-2:], values, codes)
        return term(name, jnp.where((codes < 0)[:, None], fresh, output))

    def unseen_rows(
        self,
        key: Array,
        name: str,
        shape: Shape,
        values: dict[str, Array],
        codes: Array,
    ) -> Array:
        """A draw from the prior for each code, given what all levels share.

        The prior runs once more out of sight of the stack. Sites whose shape does not
        grow with the number of levels keep this draw's value, so a learned scale is the
        posterior's; the rest are new, one draw to a code, the same in any chunk of rows.
        """
        rows = 2 if shape[0] == 1 else 1
        key = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)

        def shared(message: dict[str, Any]) -> Array | None:
            value = values.get(message["name"])
            kept = value is not None and jnp.shape(value) == message["fn"].shape()
            return value if kept else None

        def one_level(code: Array) -> Array:
            fresh = handlers.seed(rng_seed=jax.random.fold_in(key, code))
            known = handlers.substitute(substitute_fn=shared)
            with handlers.block(), fresh, known:
                table = self.coefficients(
                    name, (rows, shape[1]), "theta", scale_shape=()
                )
            return table[0]

        return jax.vmap(one_level)(jnp.maximum(-codes, 0).astype(jnp.uint32))


@dataclass(frozen=True, repr=False, eq=False)
class EmbeddingLayer(GroupForm):
    r"""A vector of m coefficients for each category, all of one learned scale.

    $$f_{nm} = \theta_{c_n m}, \qquad \theta_{cm} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    A negative code is an unseen level, different codes different levels. In a fit it
    raises; when predicting, `unseen` decides: "draw" takes a fresh draw from the prior
    at this draw's scale, "zero" the prior's centre, "error" raises.

    Shapes: integer `x` (n,) or (n, 1) gives (n, m); the sites are `{name}.lmbda` () and
    `{name}.theta` (c, m).
    Units: $\theta$ and $\lambda$ are in units of the predictor.
    Raises: TypeError for codes that are not integers, ValueError for codes past the
    table or negative where they may not be. `num_categories` and `embedding_dim` are
    given once, in the constructor or the call.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 12, for m = 1.
    """

    _: KW_ONLY
    embedding_dim: int | None = None

    def __call__(
        self,
        name: str,
        x: Any,
        num_categories: int | None = None,
        embedding_dim: int | None = None,
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        m = self.size(name, "embedding_dim", embedding_dim)
        return self.rows_of_table(name, x, c, m)


@dataclass(frozen=True, repr=False, eq=False)
class RandomEffectsLayer(GroupForm):
    r"""One partially pooled constant for each category: a random intercept.

    $$f_{n1} = \theta_{c_n 1}, \qquad \theta_{c1} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    Negative codes are unseen levels, as in EmbeddingLayer.

    Shapes: integer `x` (n,) or (n, 1) gives (n, 1); the sites are `{name}.lmbda` () and
    `{name}.theta` (c, 1).
    Units: $\theta$ and $\lambda$ are in units of the predictor.
    Raises: as EmbeddingLayer.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, eq. 12.2.
    """

    def __call__(self, name: str, x: Any, num_categories: int | None = None) -> Array:
        return self.rows_of_table(
            name, x, self.size(name, "num_categories", num_categories), 1
        )


class RememberSites(Messenger):
    """name -> value, by the names used inside: scopes rename a message on its way up."""

    def __enter__(self) -> dict[str, Array]:
        super().__enter__()
        self.values: dict[str, Array] = {}
        return self.values

    def process_message(self, message: Any) -> None:
        if message["type"] == "sample":
            message["inner_name"] = message["name"]

    def postprocess_message(self, message: Any) -> None:
        if message["type"] == "sample" and "inner_name" in message:
            self.values[message["inner_name"]] = message["value"]


def none_negative(x: Any) -> bool:
    """Whether the codes are known and all seen, so that no level need be drawn."""
    known = concrete(x)
    return known is not None and not bool((known < 0).any())
