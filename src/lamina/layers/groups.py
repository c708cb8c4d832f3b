"""Group layers: a row of coefficients for each category, and for unseen ones."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from lamina._checks import as_array, as_columns, concrete, where_bad
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.layers._levels import Levels, Unseen

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, repr=False, eq=False)
class TableForm(AdaptiveForm, Levels):
    """Tables of coefficients that share learned scales."""

    _: KW_ONLY
    unseen: Unseen = "draw"


@dataclass(frozen=True, repr=False, eq=False)
class GroupForm(TableForm):
    """One table of one term, shared by all group layers."""

    units: int = 1
    _: KW_ONLY
    num_categories: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units != 1:
            raise ValueError(
                f"{type(self).__name__}: `units` is {self.units}, but a table has "
                "`embedding_dim` outputs instead: use EmbeddingLayer with "
                f"embedding_dim={self.units}."
            )

    def rows_of_table(self, name: str, x: Any, c: int, m: int) -> Array:
        """The finished term: the table's row for each code."""
        return term(name, self.table_rows(name, x, (c, m)))


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
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 12.
    """

    def __call__(self, name: str, x: Any, num_categories: int | None = None) -> Array:
        return self.rows_of_table(
            name, x, self.size(name, "num_categories", num_categories), 1
        )


@dataclass(frozen=True, repr=False, eq=False)
class MultiMembershipLayer(GroupForm):
    r"""A weighted sum of the effects of several categories: a row belongs to k groups.

    $$f_{n1} = \sum_k w_{nk}\,\theta_{c_{nk} 1}, \qquad
      \theta_{c1} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    Weights are used as they are given, and are $1/k$ where they are not; those of a row
    commonly sum to one. A row of fewer members is padded by members of weight 0, whose
    codes are not read. Negative codes are unseen levels, as in EmbeddingLayer.

    Shapes: integer `x` (n, k) and `weights` (n, k), or none, give (n, 1); the sites are
    `{name}.lmbda` () and `{name}.theta` (c, 1).
    Units: $\theta$ and $\lambda$ are in units of the predictor.
    Raises: ValueError for weights that are negative, not finite, or of another shape than
    the codes, and as EmbeddingLayer for codes.
    Source: Browne, Goldstein and Rasbash (2001), Multiple membership multiple
    classification (MMMC) models.
    """

    def __call__(
        self,
        name: str,
        x: Any,
        weights: Any = None,
        num_categories: int | None = None,
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        codes = as_array(x)
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(
                f"{self.label(name)}: codes have shape {tuple(codes.shape)}, but each row "
                "has k members: give shape (n, k), shorter rows padded by weight 0. For "
                "one category to a row use RandomEffectsLayer."
            )
        weights = self.weights(name, weights, codes.shape)
        codes = without_padding(codes, weights)
        self.outside_rows(name, codes.shape[0])
        flat = self.table_rows(name, codes.reshape(-1), (c, 1))
        rows = jnp.reshape(flat, (*flat.shape[:-2], *codes.shape, 1))
        return term(name, product(weighted, weights, rows))

    def weights(self, name: str, weights: Any, shape: tuple[int, ...]) -> Array:
        """The weights as floating (n, k), checked where they are known."""
        where = self.label(name)
        if weights is None:
            return jnp.full(shape, 1.0 / shape[1])
        weights = as_columns(where, weights, "weights")
        if weights.shape != shape:
            raise ValueError(
                f"{where}: `weights` have shape {weights.shape} and the codes have shape "
                f"{tuple(shape)}. Each member of each row has one weight: give both the "
                "same shape."
            )
        known = concrete(weights)
        if known is not None:
            bad = ~(np.isfinite(known) & (known >= 0))
            if bad.any():
                raise ValueError(
                    f"{where}: `weights` have {where_bad(bad)}, that are negative or not "
                    f"finite (seen: {known[bad][0]}). A weight is the share that a "
                    "member has in a row: correct it, or give 0 to what is no member."
                )
        return weights


def without_padding(codes: Any, weights: Array) -> Any:
    """The codes, with 0 for members of weight 0, so that any number may fill a row."""
    known = concrete(weights)
    if known is not None and isinstance(codes, np.ndarray):
        return np.where(known == 0, np.zeros_like(codes), codes)
    return jnp.where(weights == 0, jnp.zeros_like(codes), codes)


def weighted(
    weights: Float[Array, "n k"], rows: Float[Array, "*r n k m"]
) -> Float[Array, "*r n m"]:
    r"""$f_{nm} = \sum_k w_{nk}\,\theta_{nkm}$: a weighted sum of each row's members."""
    return jnp.einsum("nk,...nkm->...nm", weights, rows)
