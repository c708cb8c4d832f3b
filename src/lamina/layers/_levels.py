"""What layers with a table of levels share: reading it, unseen levels included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lamina._checks import Remedies, as_codes, concrete
from lamina._typing import Array, Prior, Shape, show
from lamina.effects import prediction, product
from lamina.layers._base import BLayer
from lamina.layers._fresh import (
    RememberSites,
    Values,
    another,
    folded,
    key_of,
    over_replicates,
    sampled_again,
)
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
        return prediction() is not None and self.unseen != "error"

    def remedies(self) -> Remedies:
        """What to do about codes outside of the table."""
        return Remedies.of_table("num_categories")

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
        asked, allowed = prediction(), self.allows_unseen()
        codes = as_codes(where, x, shape[0], unseen=allowed, remedies=self.remedies())
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
        *replicates, c, _ = table.shape

        def draw(key: Array, values: Values) -> Array:
            def one_level(code: Array) -> Array:
                return sampled_again(
                    folded(key, code), values, lambda: sample(another(c))
                )[0]

            return jax.vmap(one_level)(jnp.minimum(codes, 0))

        key = key_of(self.label(name), key, sites)
        return over_replicates(draw, tuple(replicates), key, sites.values)


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
