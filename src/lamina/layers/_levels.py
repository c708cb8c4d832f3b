"""What layers with a table of levels share: reading it, unseen levels included."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina import effects
from lamina._checks import as_codes, concrete
from lamina._typing import Array, Prior, Shape, show
from lamina.effects import product
from lamina.layers._base import BLayer
from lamina.products import lookup

Unseen = Literal["draw", "zero", "error"]


class Levels(BLayer):
    """Tables with one row for each level, and a policy for unseen ones."""

    unseen: Unseen
    _resolved: Prior

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unseen not in ("draw", "zero", "error"):
            raise ValueError(
                f"{type(self).__name__}: `unseen` is {self.unseen!r}; it is 'draw' (a "
                "fresh draw from the prior), 'zero' or 'error'."
            )

    def allows_unseen(self) -> bool:
        """Whether codes may be negative here."""
        return effects.prediction() is not None and self.unseen != "error"

    def table_rows(
        self,
        name: str,
        x: Any,
        shape: tuple[int, int],
        *,
        suffix: str = "",
        scale_shape: Shape | None = (),
        where: str | None = None,
    ) -> Array:
        """The row for each code of a table of this shape (c, m), unseen levels too.

        The table is the site `{name}.theta{suffix}`; `where` is what errors call it.
        """
        where = where or self.label(name)
        asked, allowed = effects.prediction(), self.allows_unseen()
        codes = as_codes(where, x, shape[0], unseen=allowed)
        drawn = asked is not None and allowed and not none_negative(x)
        joint = self.unseen == "draw" and getattr(self._resolved, "joint", False)
        if drawn and joint:
            refuse_known(where, x, self._resolved)
        self.outside_rows(name, codes.shape[0])

        def sample(rows: int) -> Array:
            return self.coefficients(
                name,
                (rows, shape[1]),
                "theta",
                suffix=suffix,
                scale_shape=scale_shape,
            )

        with RememberSites() as sites:
            table = sample(shape[0])
        output = product(lookup, codes, table)
        if asked is None or not drawn or joint:  # a negative code reads NaN
            return output
        if self.unseen == "zero":
            fresh = jnp.zeros_like(output)
        else:
            fresh = self.unseen_rows(asked.key, name, sample, table, sites, codes)
        return jnp.where((codes < 0)[:, None], fresh, output)

    def unseen_rows(
        self,
        key: Array | None,
        name: str,
        sample: Callable[[int], Array],
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
        *replicates, c, _ = table.shape
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
                return sample(rows)[0]

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


def refuse_known(where: str, x: Any, prior: Prior) -> None:
    """Raise for known negative codes where the prior could draw no level alone."""
    known = concrete(x)
    if known is not None:
        raise ValueError(
            f"{where}: code {known.min()} is a level that was not fitted, and its "
            f"prior, {show(prior)}, ties all levels together: how a new one is related to "
            "them is not known. "
            "Include it when fitting, in `num_categories` and in the covariance or "
            "adjacency where there is one (a level without rows is drawn given the "
            "others), or set unseen='zero'."
        )
