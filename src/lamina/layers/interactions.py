"""Interaction layers: products of columns, at full or low rank."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from lamina._checks import is_sparse, same_rows
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.products import bilinear, low_rank, pairs
from lamina.sparse import sparse_pairs


@dataclass(frozen=True, repr=False, eq=False)
class FMLayer(AdaptiveForm):
    r"""Every pairwise interaction of the columns of `x`, at low rank.

    $$f_{nu} = \sum_{i<j} x_{ni}\, x_{nj} \sum_l \theta_{ilu}\, \theta_{jlu}, \qquad
      \theta_{dlu} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    There are no main effects: add an AdaptiveLayer for them.

    Shapes: `x` (n, d) gives (n, u); the sites are `{name}.lmbda` (u,) and
    `{name}.theta` (d, l, u). `x` may be sparse, as in AdaptiveLayer.
    Units: $\theta$ is in $\sqrt{f}/x$; standardise `x`, so that one scale suits all.
    Raises: ValueError if `x` has fewer than two columns, TypeError without
    `low_rank_dim`, which is given once, in the constructor or the call.
    Source: Rendle (2010), Factorization Machines, eq. 1, in linear time by Lemma 3.1.
    """

    units: int = 1
    _: KW_ONLY
    low_rank_dim: int | None = None

    def __call__(self, name: str, x: Any, low_rank_dim: int | None = None) -> Array:
        x = self.columns(name, x, sparse=True)
        if x.shape[1] < 2:
            raise ValueError(
                f"{self.label(name)}: `x` has shape {x.shape}, but interactions need at "
                "least two columns: with one the term is always zero."
            )
        rank = self.size(name, "low_rank_dim", low_rank_dim)
        theta = self.coefficients(name, (x.shape[1], rank, self.units), "theta")
        return term(name, product(sparse_pairs if is_sparse(x) else pairs, x, theta))


@dataclass(frozen=True, repr=False, eq=False)
class LowRankInteractionLayer(AdaptiveForm):
    r"""Every product of a column of `x` and a column of `z`, at low rank.

    $$f_{nu} = \sum_l \Big(\sum_d x_{nd}\,\theta^1_{dlu}\Big)
      \Big(\sum_e z_{ne}\,\theta^2_{elu}\Big), \qquad
      \theta^k \sim \text{Normal}(0, \lambda^k_u), \quad
      \lambda^k_u \sim \text{HalfNormal}(1)$$

    Shapes: `x` (n, d) and `z` (n, e) give (n, u); the sites are `{name}.lmbda1` (u,),
    `{name}.theta1` (d, l, u), `{name}.lmbda2` (u,) and `{name}.theta2` (e, l, u).
    Units: $\theta^1\theta^2$ is in $f/(xz)$; standardise both.
    Raises: ValueError if the rows of `x` and `z` differ, TypeError without
    `low_rank_dim`, which is given once, in the constructor or the call.
    Source: Koren, Bell and Volinsky (2009), Matrix Factorization Techniques, eq. 1, with
    columns in place of indicators.
    """

    units: int = 1
    _: KW_ONLY
    low_rank_dim: int | None = None

    def __call__(
        self, name: str, x: Any, z: Any, low_rank_dim: int | None = None
    ) -> Array:
        x, z = self.columns(name, x), self.columns(name, z, "z")
        same_rows(self.label(name), x, z)
        rank = self.size(name, "low_rank_dim", low_rank_dim)
        theta1, theta2 = (
            self.coefficients(
                name, (side.shape[1], rank, self.units), "theta", suffix=suffix
            )
            for side, suffix in ((x, "1"), (z, "2"))
        )
        return term(name, product(low_rank, x, z, theta1, theta2))


@dataclass(frozen=True, repr=False, eq=False)
class InteractionLayer(AdaptiveForm):
    r"""Every product of a column of `x` and a column of `z`: the full bilinear form.

    $$f_{nu} = \sum_{de} x_{nd}\, z_{ne}\,\beta_{deu}, \qquad
      \beta_{deu} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    Shapes: `x` (n, d) and `z` (n, e) give (n, u); the sites are `{name}.lmbda` (u,) and
    `{name}.beta` (d, e, u).
    Units: $\beta$ is in $f/(xz)$; standardise both.
    Raises: ValueError if the rows of `x` and `z` differ.
    Source: Tenenbaum and Freeman (2000), Separating Style and Content, eq. 1.
    """

    units: int = 1

    def __call__(self, name: str, x: Any, z: Any) -> Array:
        x, z = self.columns(name, x), self.columns(name, z, "z")
        same_rows(self.label(name), x, z)
        beta = self.coefficients(name, (x.shape[1], z.shape[1], self.units))
        return term(name, product(bilinear, x, z, beta))
