"""Smooths: penalised splines of one column, of several, by a column, by level."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, LogNormal

from lamina._checks import as_array, as_columns, positive_number, positive_size
from lamina._typing import Array, Prior, show
from lamina.bases import row_by_row, tensor
from lamina.effects import product, remember, term
from lamina.layers._base import AdaptiveForm, each, one_each
from lamina.layers.groups import GroupForm
from lamina.margins import Margin, learn_tensor, tensor_index
from lamina.priors import Fixed, sample_shaped
from lamina.products import affine


@dataclass(frozen=True, repr=False, eq=False)
class CurveForm(AdaptiveForm):
    """Penalised B-splines of one column, shared by the layers that draw curves."""

    _: KW_ONLY
    num_basis: int = 20
    degree: int = 3
    knots: Any = None
    cyclic: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        require_basis(where, self.num_basis, self.degree)
        require_period(where, self.cyclic)
        if self.knots is not None:
            require_places(where, self.knots)
        if self.knots is not None and self.cyclic is not None:
            raise ValueError(
                f"{where}: `knots` and `cyclic` are both given, but a cyclic smooth has "
                "its knots evenly over the period. Give one of them."
            )

    def basis(self, name: str, x: Any) -> tuple[Array, int]:
        """The columns of the spline, (n, q + k), and how many have no penalty, q."""
        columns = self.columns(name, x)
        if columns.shape[1] != 1:
            raise ValueError(
                f"{self.label(name)}: `x` has {columns.shape[1]} columns, but this is a "
                "smooth of one. Add one layer for each column, or use "
                "TensorSplineLayer for a surface over all of them."
            )
        margin = Margin(self.num_basis, self.degree, self.knots, self.cyclic)
        learned = remember(
            f"{name}.basis",
            lambda known: margin.learn(
                self.label(name), np.reshape(known, -1).astype(float)
            ),
            as_array(x),
        )
        return margin.columns(columns[:, 0], learned), margin.num_null


@dataclass(frozen=True, repr=False, eq=False)
class SplineLayer(CurveForm):
    r"""A smooth curve of one column: a line, and a penalised departure from it.

    $$f_{nu} = \tilde x_n \beta_u + \sum_k Z_k(x_n)\,\theta_{ku}, \qquad
      \beta_u \sim \text{Normal}(0, 1), \quad
      \theta_{ku} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    The curve is a spline of `num_basis` B-splines of this `degree`, with evenly spaced
    knots over the training rows' range, or with inner `knots` of your own. A Normal prior
    on $\theta$ is a second-order random walk on the B-splines' coefficients, written in
    orthogonal directions $Z$, broad ones first. Over the training rows the curve sums to
    zero and the departure is orthogonal to the line. Outside of them it continues as a
    straight line. With `cyclic`, the period in units of `x`, both ends meet and there is
    no line.

    `by` makes it a varying coefficient, $f_{nu} = w_n g_u(x_n)$ for a column $w$. Then the
    curve $g$ has a constant too, $\beta$ of two rows (one if cyclic), and is not centred.

    Range, knots and directions are learned from the training rows once.

    Shapes: `x` and `by` (n,) or (n, 1) give (n, u); the sites are `{name}.lmbda` (u,),
    `{name}.theta` (k, u) and `{name}.beta` (1, u), where k is `num_basis` - 2. If cyclic
    k is `num_basis` - 1, and `{name}.beta` is left out.
    Units: $\lambda^2$ is the departure's expected variance over the training rows, and
    $\beta$ the change of $f$ for one standard deviation of `x`, both with `by` for each
    unit of it; `linear_prior` is $\beta$'s, `prior` that of $\lambda$ and $\theta$.
    Raises: ValueError for a training column that is constant or has fewer distinct
    values than basis functions, for knots outside of its range or not increasing, and
    for `by` of another length.
    Source: Eilers and Marx (1996), Flexible Smoothing with B-splines and Penalties; as a
    mixed model Wood (2017), Generalized Additive Models, chapter 5.
    """

    units: int = 1
    _: KW_ONLY
    linear_prior: Prior = Fixed()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_prior(type(self).__name__, self.linear_prior)

    def __call__(self, name: str, x: Any, by: Any = None) -> Array:
        columns, q = self.basis(name, x)
        if by is None:
            columns, q = columns[:, 1:], q - 1
        else:
            columns = columns * column(self.label(name), by, columns)
        return term(name, self.curve(name, columns, q))

    def curve(self, name: str, columns: Array, q: int) -> Array:
        """The first q columns under `linear_prior`, the others under the layer's."""
        shape = (columns.shape[1] - q, self.units)
        theta = self.coefficients(name, shape, "theta")
        output = product(affine, columns[:, q:], theta)
        if q == 0:
            return output
        beta = self.linear_prior(name, (q, self.units))
        return output + product(affine, columns[:, :q], beta)


@dataclass(frozen=True, repr=False, eq=False)
class FactorSplineLayer(CurveForm, GroupForm):
    r"""A smooth curve of one column for each category, all equally smooth.

    $$f_{n1} = \sum_q N_q(x_n)\,\theta^1_{c_n q} + \sum_k Z_k(x_n)\,\theta^2_{c_n k},
      \qquad \theta^1_{cq} \sim \text{Normal}(0, \lambda^1_q), \quad
      \theta^2_{ck} \sim \text{Normal}(0, \lambda^2)$$

    $N$ is the constant and (unless cyclic) the line, so each category has a random
    intercept, a random slope and a departure $Z$ from that line, as in SplineLayer; all
    shrink to zero. Add a SplineLayer of the same column for the curve they share.

    A negative code is an unseen level, as in EmbeddingLayer: "draw" gives it a curve from
    the prior at this draw's scales, "zero" none.

    Shapes: `x` (n,) or (n, 1) and integer `codes` (n,) or (n, 1) give (n, 1); the sites
    are `{name}.lmbda1` (2,), `{name}.theta1` (c, 2), `{name}.lmbda2` () and
    `{name}.theta2` (c, k), where k is `num_basis` - 2. If cyclic, 1 is for 2 in each.
    Units: $\lambda^1$ are the categories' standard deviations of level and of slope (for
    one standard deviation of `x`); $(\lambda^2)^2$ is the departures' expected variance.
    Raises: as SplineLayer for `x`, as EmbeddingLayer for `codes`.
    Source: Pedersen and others (2019), Hierarchical generalized additive models in
    ecology, model S, and with that SplineLayer model GS.
    """

    def __call__(
        self, name: str, x: Any, codes: Any, num_categories: int | None = None
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        columns, q = self.basis(name, x)
        if np.shape(as_array(codes))[:1] != columns.shape[:1]:
            raise ValueError(
                f"{self.label(name)}: `x` has {columns.shape[0]} rows and `codes` has "
                f"shape {np.shape(as_array(codes))}. Each row has one code: give both "
                "the same rows."
            )
        k = columns.shape[1] - q
        broad = self.table_rows(name, codes, (c, q), suffix="1", scale_shape=(q,))
        rough = self.table_rows(name, codes, (c, k), suffix="2", scale_shape=())
        output = product(row_by_row, columns[:, :q], broad)
        return term(name, output + product(row_by_row, columns[:, q:], rough))


@dataclass(frozen=True, repr=False, eq=False)
class TensorSplineLayer(AdaptiveForm):
    r"""A smooth surface over several columns, each with a smoothness of its own.

    $$f_{nu} = \sum_q N_q(x_n)\,\beta_{qu} + \sum_p Z_p(x_n)\,s_p\,\theta_{pu}, \qquad
      s_p^{-2} = \sum_d \gamma_d^{-2} r_{dp}, \quad
      \theta_{pu} \sim \text{Normal}(0, \lambda_u)$$

    The columns $N, Z$ are all products of one column from each margin's spline, centred
    over the training rows. $r_{dp}$ is how strongly the second-order penalty of margin d
    weighs on direction p, so that $\lambda_u \gamma_d$ is margin d's scale, $\gamma_1 = 1$
    and the other $\gamma_d \sim \text{LogNormal}(0, 1)$. What no margin penalises, the
    products of lines, has `linear_prior`. Main effects are within the surface.

    `num_basis` and `cyclic` (a period, or None) are one for all margins or one for each.

    Shapes: `x` (n, d) gives (n, u); the sites are `{name}.ratio` (e,) for the e columns
    after the first, `{name}.lmbda` (u,), `{name}.theta` (p, u) and `{name}.beta` (q, u).
    Without periods q is $2^d - 1$; p + q is the product of the `num_basis` less one.
    Units: at equal scales $\lambda^2$ is the expected variance, over the training rows,
    of all but the products of lines; $\beta$ is in units of the predictor.
    Raises: ValueError for fewer than two columns, and as SplineLayer for each of them.
    Source: Wood (2017), Generalized Additive Models, chapter 5; Currie, Durban and
    Eilers (2006), Generalized linear array models.
    """

    units: int = 1
    _: KW_ONLY
    num_basis: int | tuple[int, ...] = 7
    degree: int = 3
    cyclic: float | tuple[float | None, ...] | None = None
    linear_prior: Prior = Fixed()

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        for one in each(self.num_basis):
            require_basis(where, one, self.degree)
        for one in each(self.cyclic):
            require_period(where, one)
        require_prior(where, self.linear_prior)

    def __call__(self, name: str, x: Any) -> Array:
        columns = self.columns(name, x)
        margins = self.margins(name, columns.shape[1])
        learned = remember(
            f"{name}.basis",
            lambda known: learn_tensor(
                self.label(name), margins, np.asarray(known, float)
            ),
            as_array(x),
        )
        parts = [
            margin.columns(columns[:, j], one)
            for j, (margin, one) in enumerate(
                zip(margins, learned["margins"], strict=True)
            )
        ]
        index = tensor_index(margins, [part.shape[1] for part in parts])
        num_null = np.array([[margin.num_null for margin in margins]])
        null: np.ndarray = np.all(index < num_null, axis=1)
        centred = tensor(parts) - jnp.asarray(learned["centre"], columns.dtype)[None, :]
        theta = self.surface(name, learned["rough"][:, ~null], learned["size"])
        output = product(affine, centred[:, ~null], theta)
        null[0] = False  # the constant
        if null.any():
            beta = self.linear_prior(name, (int(null.sum()), self.units))
            output = output + product(affine, centred[:, null], beta)
        return term(name, output)

    def margins(self, name: str, d: int) -> list[Margin]:
        """One spline for each column of `x`."""
        if d < 2:
            raise ValueError(
                f"{self.label(name)}: `x` has {d} column, but a tensor product takes two "
                "or more. Use SplineLayer for a curve of one column."
            )
        return [
            Margin(num_basis, self.degree, None, period)
            for num_basis, period in zip(
                one_each(self.label(name), "num_basis", self.num_basis, d),
                one_each(self.label(name), "cyclic", self.cyclic, d),
                strict=True,
            )
        ]

    def surface(self, name: str, rough: np.ndarray, size: float) -> Array:
        """Coefficients of the penalised columns (..., p, u), given all margins' scales."""
        ratio = sample_shaped(
            f"{name}.ratio", LogNormal(0.0, 1.0), (rough.shape[0] - 1,)
        )
        first = jnp.ones((*ratio.shape[:-1], 1), ratio.dtype)
        weight = jnp.concatenate([first, ratio**-2], axis=-1)
        precision = jnp.einsum(
            "...d,dp->...p", weight, jnp.asarray(rough, weight.dtype)
        )
        theta = self.coefficients(name, (rough.shape[1], self.units), "theta")
        return theta / (jnp.sqrt(precision) * float(size))[..., None]


def column(where: str, by: Any, columns: Array) -> Array:
    """`by` as one column (n, 1), with the rows of the smooth's own columns."""
    by = as_columns(where, by, "by")
    if by.shape != (columns.shape[0], 1):
        raise ValueError(
            f"{where}: `by` has shape {by.shape} and `x` has {columns.shape[0]} rows. "
            "The curve is multiplied by one number in each row: give `by` one column "
            "with the rows of `x`, and one layer to each column."
        )
    return by


def require_basis(where: str, num_basis: Any, degree: Any) -> None:
    """Raise unless the B-splines are enough for their degree and a penalty."""
    positive_size(where, "degree", degree)
    if positive_size(where, "num_basis", num_basis) < degree + 2:
        raise ValueError(
            f"{where}: `num_basis` is {num_basis}, but a penalised spline of degree "
            f"{degree} has at least {degree + 2} basis functions. Raise it; how smooth "
            "the curve is, its scale learns."
        )


def require_period(where: str, period: Any) -> None:
    """Raise unless the period is missing or a positive number."""
    if period is not None:
        meaning = (
            "it is the period, a positive number in units of `x`: cyclic=365.25 for days "
            "of the year"
        )
        positive_number(where, "cyclic", period, meaning)


def require_places(where: str, knots: Any) -> None:
    """Raise unless the knots are a list of numbers."""
    try:
        listed = np.ndim(np.asarray(knots, float)) == 1
    except (TypeError, ValueError):
        listed = False
    if not listed:
        raise ValueError(
            f"{where}: `knots` is {knots!r}, but it lists the places of inner knots in "
            "units of `x`, such as (0.5, 2.0). For a number of even ones set `num_basis`."
        )


def require_prior(where: str, prior: Any) -> None:
    """Raise unless `linear_prior` is one."""
    if isinstance(prior, type | Distribution) or not callable(prior):
        raise TypeError(
            f"{where}: `linear_prior` is {show(prior)}, which cannot be called with a "
            "name and a shape. Give a prior: Fixed(dist.Normal(0.0, 1.0))."
        )
