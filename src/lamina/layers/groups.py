"""Group layers: a row of coefficients for each category, and for unseen ones."""

from __future__ import annotations

import math
import zlib
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina._checks import as_codes, concrete
from lamina._typing import Array, show
from lamina.effects import prediction, product, term
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
        asked = prediction()
        allowed = asked is not None and self.unseen != "error"
        codes = as_codes(self.label(name), x, c, unseen=allowed)
        self.outside_rows(name, codes.shape[0])
        with RememberSites() as sites:
            table = self.coefficients(name, (c, m), "theta", scale_shape=())
        output = product(lookup, codes, table)
        if asked is None or not allowed or none_negative(x):
            return term(name, output)
        if self.unseen == "zero":
            fresh = jnp.zeros_like(output)
        elif getattr(self._resolved, "joint", False):  # type: ignore[attr-defined]
            self.require_fitted(name, x)
            fresh = jnp.full_like(output, jnp.nan)
        else:
            fresh = self.unseen_rows(asked.key, name, table, sites, codes)
        return term(name, jnp.where((codes < 0)[:, None], fresh, output))

    def require_fitted(self, name: str, x: Any) -> None:
        """Raise for codes known to be negative, under a prior that ties all levels."""
        if concrete(x) is not None:  # else what is compiled was checked before
            prior = self._resolved  # type: ignore[attr-defined]
            raise ValueError(
                f"{self.label(name)}: its prior, {show(prior)}, ties all levels together, "
                "so a level that was not fitted has no draw of its own. Set "
                "unseen='zero', or use a prior of independent levels, such as Adaptive()."
            )

    def unseen_rows(
        self,
        key: Array | None,
        name: str,
        table: Array,
        sites: RememberSites,
        codes: Array,
    ) -> Array:
        """A draw from the prior for each code, given what all levels share.

        The prior runs once more out of sight of the stack. Sites whose shape does not
        grow with the number of levels keep this draw's value, so a learned scale is
        the posterior's; the rest are new, one draw to a code, the same in any chunk of
        rows.
        """
        if key is None:
            raise ValueError(
                f"{self.label(name)}: levels that were not fitted are drawn, and there "
                "is no key to draw them with. Run the model under "
                "numpyro.handlers.seed, give `predicting` a key, or set unseen='zero'."
            )
        *replicates, c, m = table.shape
        key = jax.random.fold_in(key, zlib.crc32(sites.outer_name.encode()))
        rows = 2 if c == 1 else 1  # another number of levels, so that shapes tell

        def one_level(key: Array, values: dict[str, Array], code: Array) -> Array:
            def shared(message: dict[str, Any]) -> Array | None:
                value = values.get(message["name"])
                kept = value is not None and jnp.shape(value) == message["fn"].shape()
                return value if kept else None

            fresh = handlers.seed(rng_seed=jax.random.fold_in(key, code))
            known = handlers.substitute(substitute_fn=shared)
            with handlers.block(), fresh, known:
                again = self.coefficients(name, (rows, m), "theta", scale_shape=())
            return again[0]

        draw = jax.vmap(one_level, (None, None, 0))
        index = jnp.maximum(-codes, 0).astype(jnp.uint32)
        if not replicates:
            return draw(key, sites.values, index)
        # sites in plates of replicates have the plates' axes in front
        many = math.prod(replicates)
        values = {
            k: jnp.reshape(v, (many, *jnp.shape(v)[len(replicates) :]))
            for k, v in sites.values.items()
        }
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(many))
        fresh = jax.vmap(draw, (0, 0, None))(keys, values, index)
        return jnp.reshape(fresh, (*replicates, *fresh.shape[1:]))


@dataclass(frozen=True, repr=False, eq=False)
class EmbeddingLayer(GroupForm):
    r"""A vector of m coefficients for each category, all of one learned scale.

    $$f_{nm} = \theta_{c_n m}, \qquad \theta_{cm} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    A negative code is an unseen level, different codes different levels. In a fit it
    raises; when predicting, `unseen` decides: "draw" takes a fresh draw from the prior
    at this draw's scale, "zero" adds nothing, "error" raises.

    Shapes: integer `x` (n,) or (n, 1) gives (n, m); the sites are `{name}.lmbda` () and
    `{name}.theta` (c, m).
    Units: $\theta$ and $\lambda$ are in units of the predictor.
    Raises: TypeError for codes that are not integers, ValueError for codes past the
    table or negative where they may not be. `num_categories` and `embedding_dim` are
    given once, in the constructor or the call.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 12, for
    m = 1.
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


def none_negative(x: Any) -> bool:
    """Whether the codes are known and all seen, so that no level need be drawn."""
    known = concrete(x)
    return known is not None and not bool((known < 0).any())
