"""Interaction layers: products of columns, at full or low rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from lamina._checks import is_sparse, same_rows
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.products import affine, bilinear, low_rank, pairs, triples
from lamina.sparse import sparse_affine, sparse_pairs


@dataclass(frozen=True, repr=False, eq=False)
class FactorizationForm(AdaptiveForm):
    """Products of `order` different columns at low rank, and main effects on request."""

    order: ClassVar[int]
    kernel: ClassVar[Callable[[Array, Array], Array]]
    sparse_kernel: ClassVar[Callable[[Any, Array], Array] | None] = None

    units: int = 1
    _: KW_ONLY
    low_rank_dim: int | None = None
    main_effects: bool = False

    def __call__(self, name: str, x: Any, low_rank_dim: int | None = None) -> Array:
        cls = type(self)
        x = self.columns(name, x, sparse=cls.sparse_kernel is not None)
        kernel: Callable[[Any, Array], Array] = cls.kernel
        linear: Callable[[Any, Array], Array] = affine
        if cls.sparse_kernel is not None and is_sparse(x):
            kernel, linear = cls.sparse_kernel, sparse_affine
        if x.shape[1] < self.order:
            raise ValueError(
                f"{self.label(name)}: `x` has shape {x.shape}, but interactions of "
                f"order {self.order} need at least {WORDS[self.order]} columns: with "
                "fewer the term is always zero."
            )
        rank = self.size(name, "low_rank_dim", low_rank_dim)
        theta = self.coefficients(name, (x.shape[1], rank, self.units), "theta")
        output = product(kernel, x, theta)
        if self.main_effects:
            beta = self.coefficients(f"{name}.main", (x.shape[1], self.units))
            output = output + product(linear, x, beta)
        return term(name, output)


WORDS = {2: "two", 3: "three"}


@dataclass(frozen=True, repr=False, eq=False)
class FMLayer(FactorizationForm):
    r"""Every pairwise interaction of the columns of `x`, at low rank.

    $$f_{nu} = \sum_{i<j} x_{ni}\, x_{nj} \sum_l \theta_{ilu}\, \theta_{jlu}, \qquad
      \theta_{dlu} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    `main_effects=True` adds $\sum_d x_{nd}\,\beta_{du}$ with a scale of its own; without
    it there are none. At $\theta = 0$ the gradient is zero: start elsewhere, as every
    method here does by itself. The signs and the order of the l coordinates are
    arbitrary, so chains differ in them: compare predictions, not single $\theta$.

    Shapes: `x` (n, d) gives (n, u); the sites are `{name}.lmbda` (u,) and
    `{name}.theta` (d, l, u), and of main effects `{name}.main.lmbda` (u,) and
    `{name}.main.beta` (d, u). `x` may be sparse, as in AdaptiveLayer.
    Units: $\theta$ is in $\sqrt{f}/x$; standardise `x`, so that one scale suits all.
    Raises: ValueError if `x` has fewer than two columns, TypeError without
    `low_rank_dim`, which is given once, in the constructor or the call.
    Source: Rendle (2010), Factorization Machines, eq. 1, in linear time by Lemma 3.1.
    """

    order = 2
    kernel = pairs
    sparse_kernel = sparse_pairs


@dataclass(frozen=True, repr=False, eq=False)
class FM3Layer(FactorizationForm):
    r"""Every interaction of three columns of `x`, at low rank.

    $$f_{nu} = \sum_{i<j<k} x_{ni}\, x_{nj}\, x_{nk}
      \sum_l \theta_{ilu}\, \theta_{jlu}\, \theta_{klu}, \qquad
      \theta_{dlu} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    There are no pairs: add an FMLayer for them, with a name and a rank of its own.
    Main effects and the start are as in FMLayer; of the l coordinates the order alone is
    arbitrary here.

    Shapes: `x` (n, d) gives (n, u); the sites are `{name}.lmbda` (u,) and
    `{name}.theta` (d, l, u), and those of main effects as in FMLayer.
    Units: $\theta$ is in $\sqrt[3]{f}/x$; standardise `x`: one scale then suits all, and
    no column drowns the digits of the others.
    Raises: ValueError if `x` has fewer than three columns, TypeError without
    `low_rank_dim`, which is given once, in the constructor or the call.
    Source: Blondel, Ishihata, Fujino and Ueda (2016), Polynomial Networks and
    Factorization Machines: New Insights and Efficient Training Algorithms, the ANOVA
    kernel of degree 3.
    """

    order = 3
    kernel = triples


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
    Source: Tenenbaum and Freeman (2000), Separating Style and Content with
    Bilinear Models.
    """

    units: int = 1

    def __call__(self, name: str, x: Any, z: Any) -> Array:
        x, z = self.columns(name, x), self.columns(name, z, "z")
        same_rows(self.label(name), x, z)
        beta = self.coefficients(name, (x.shape[1], z.shape[1], self.units))
        return term(name, product(bilinear, x, z, beta))
