"""Factorization machines over categorical fields: tables in place of indicators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from lamina._checks import Remedies, as_array, as_columns, concrete, positive_size
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers.groups import TableForm
from lamina.products import affine, lookup


@dataclass(frozen=True, repr=False, eq=False)
class FieldFMLayer(TableForm):
    r"""Main effects of categorical fields, and their pairwise interactions at low rank.

    $$f_{nu} = \sum_k b^k_{c_{nk} u}
      + \sum_{j<k} \sum_l \theta^j_{c_{nj} lu}\, \theta^k_{c_{nk} lu}, \qquad
      \theta^k_{clu} \sim \text{Normal}(0, \lambda^k_{lu}), \quad
      b^k_{cu} \sim \text{Normal}(0, \lambda^{bk}_u)$$

    with all scales HalfNormal(1): what FMLayer is to indicator columns, but each level is
    looked up. A scale for each coordinate lets the data choose the rank: spare coordinates
    shrink to zero. `main_effects=False` leaves $b$ out.

    `features` holds, for each field, columns that describe its levels, (c, e), or None.
    They move the levels' prior means, $\theta^k_c = g_c W^k + \text{residual}$ and $b$
    likewise, so that a level with few rows borrows from those like it.

    A negative code is an unseen level, as in EmbeddingLayer: `unseen` decides on its
    residual. Where its field has features, code -1 has those of row c, -2 those of row
    c + 1, and so on: give more rows when predicting.

    At $\theta = 0$ the gradient is zero: start elsewhere, as every method here does by
    itself. The signs and the order of coordinates are arbitrary, and chains differ in
    them, so compare predictions and not single $\theta$. A mean-field guide tends to shrink
    coordinates to nothing that a sampler would keep; features of the levels, or known
    scales (`prior=Fixed(...)`), keep more of them.

    Shapes: integer `x` (n, k) with a column for each field gives (n, u). For the k-th
    field, of c levels, the sites are `{name}.lmbda{k}` (lu,) and `{name}.theta{k}` (c, lu),
    coordinates in the order l, u; of main effects `{name}.main.lmbda{k}` (u,) and
    `{name}.main.theta{k}` (c, u); of features `{name}.features.lmbda{k}` (lu,) and
    `{name}.features.beta{k}` (e, lu), and alike under `{name}.main.features`, (u,) and
    (e, u).
    Units: $b$ is in units of the predictor, $\theta$ in the root of them; standardise
    features.
    Raises: TypeError for codes that are not integers, ValueError for codes past a table or
    negative where they may not be, for fewer than two fields, and for features that are
    not one row for each level. `field_sizes`, the numbers of levels, and `low_rank_dim`
    are given once, in the constructor or the call.
    Source: Rendle (2010), Factorization Machines, for indicators; Agarwal and Chen (2009),
    Regression-based Latent Factor Models, for features.
    """

    units: int = 1
    _: KW_ONLY
    field_sizes: Sequence[int] | None = None
    low_rank_dim: int | None = None
    main_effects: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.field_sizes is not None:
            sizes = as_sizes(type(self).__name__, self.field_sizes)
            object.__setattr__(self, "field_sizes", sizes)

    def __call__(
        self,
        name: str,
        x: Any,
        field_sizes: Sequence[int] | None = None,
        low_rank_dim: int | None = None,
        *,
        features: Sequence[Any] | None = None,
    ) -> Array:
        sizes = self.sizes(name, field_sizes)
        rank = self.size(name, "low_rank_dim", low_rank_dim)
        x = self.fields(name, x, sizes)
        described = self.described(name, features, x, sizes)
        factors, main = [], []
        for k, c in enumerate(sizes):
            of_field = x[:, k], c, described[k], k + 1
            if self.main_effects:
                main.append(self.level(f"{name}.main", *of_field, self.units))
            flat = self.level(name, *of_field, rank * self.units)
            shape = (*flat.shape[:-1], rank, self.units)
            factors.append(jnp.reshape(flat, shape))
        return term(name, sum(main, start=field_pairs(factors)))

    def remedies(self) -> Remedies:
        return Remedies.of_table("field_sizes")

    def level(
        self, name: str, codes: Any, c: int, features: Any, field: int, m: int
    ) -> Array:
        """The m coefficients of each row's level in one field."""
        rows = self.table_rows(
            name,
            codes,
            (c, m),
            suffix=str(field),
            scale_shape=(m,),
            where=f"{self.label(name)}, field {field}",
        )
        if features is None:
            return rows
        codes = jnp.asarray(codes)
        here = lookup(jnp.where(codes < 0, c - 1 - codes, codes), features)
        beta = self.coefficients(
            f"{name}.features", (features.shape[1], m), suffix=str(field)
        )
        return rows + product(affine, here, beta)

    def sizes(self, name: str, called: Sequence[int] | None) -> tuple[int, ...]:
        """The fields' numbers of levels, from the constructor or the call."""
        where, given = self.label(name), self.field_sizes
        if called is not None:
            called = as_sizes(where, called)
            if given is not None and called != given:
                raise ValueError(
                    f"{where}: `field_sizes` is {given} in the constructor and {called} "
                    "in the call. Give it once, at either place."
                )
        sizes = called if given is None else given
        if sizes is None:
            raise TypeError(
                f"{where}: `field_sizes` is missing. Give the number of levels of each "
                "field, in the constructor, FieldFMLayer(field_sizes=(943, 1682)), or "
                "in the call."
            )
        return tuple(sizes)

    def fields(self, name: str, x: Any, sizes: tuple[int, ...]) -> Any:
        """`x` as one column of codes for each field."""
        x = as_array(x)
        if x.ndim != 2 or x.shape[1] != len(sizes):
            raise ValueError(
                f"{self.label(name)}: codes have shape {tuple(x.shape)}, but "
                f"`field_sizes` {sizes} say {len(sizes)} fields. Give one column of "
                f"codes for each, (n, {len(sizes)})."
            )
        return x

    def described(
        self, name: str, features: Sequence[Any] | None, x: Any, sizes: tuple[int, ...]
    ) -> list[Array | None]:
        """Each field's features as floating (levels, columns), or None."""
        where = self.label(name)
        if features is None:
            return [None] * len(sizes)
        entries = len(features) if isinstance(features, Sequence | np.ndarray) else "no"
        if isinstance(features, str) or entries != len(sizes):
            raise ValueError(
                f"{where}: `features` has {entries} entries for {len(sizes)} "
                "fields. Give one for each field: columns that describe its levels, or "
                "None."
            )
        found: list[Array | None] = []
        for k, (columns, c) in enumerate(zip(features, sizes, strict=True)):
            if columns is None:
                found.append(None)
                continue
            columns = as_columns(where, columns, f"features[{k}]")
            self.require_rows(f"{where}, field {k + 1}", columns, x[:, k], c)
            found.append(columns)
        return found

    def require_rows(self, where: str, columns: Array, codes: Any, c: int) -> None:
        """Raise unless every level, fitted or not, has a row of features."""
        rows, extra = columns.shape[0], self.allows_unseen()
        if rows < c or (rows > c and not extra):
            raise ValueError(
                f"{where}: its features have {rows} rows for {c} levels. Row c describes "
                "the level with code c, so each level needs one"
                f"{', and levels that were not fitted follow' if extra else ''}."
            )
        known = concrete(codes)
        lowest = int(known.min()) if known is not None and known.size else 0
        if extra and -lowest > rows - c:
            raise ValueError(
                f"{where}: code {lowest} is an unseen level, and its features are row "
                f"{c - 1 - lowest}, but there are {rows} rows. Without them its prior is "
                "unknown: add the features of unseen levels behind those of the "
                f"{c} fitted ones, -1's first."
            )


def as_sizes(where: str, sizes: Any) -> tuple[int, ...]:
    """The numbers of levels of two fields or more."""
    listed = isinstance(sizes, Sequence | np.ndarray) and not isinstance(sizes, str)
    if not listed or len(sizes) < 2:
        raise ValueError(
            f"{where}: `field_sizes` is {sizes!r}, but it holds the number of levels of "
            "each field, and interactions need at least two fields. For one, use "
            "RandomEffectsLayer."
        )
    return tuple(positive_size(where, "field_sizes", size) for size in sizes)


def field_pairs(factors: Sequence[Array]) -> Array:
    r"""$f_{nu} = \sum_{j<k} \sum_l v^j_{nlu} v^k_{nlu}$, one array for each field.

    Shapes: (..., n, l, u) each give (..., n, u).
    """
    total, found = factors[0], jnp.zeros_like(factors[0][..., 0, :])
    for factor in factors[1:]:
        found = found + (total * factor).sum(axis=-2)
        total = total + factor
    return found
