r"""Pure products of data and coefficients: array algebra that knows no NumPyro.

Letters: n rows, d (and e) columns, u units, l low rank, m embedding dimension,
c categories. Coefficients may have leading axes, written `...`, for replicates; the
result has the same. Every product maps each row of the data on its own.

The annotations are jaxtyping's, which only the tests need: they check them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from lamina._typing import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def affine(
    x: Float[Array, "*q n d"], beta: Float[Array, "*r d u"]
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \sum_d x_{nd}\,\beta_{du}$.

    Shapes: `x` (n, d) and `beta` (..., d, u) give (..., n, u); an `x` that replicates
    have made, such as a hidden layer's, is (..., n, d).
    """
    return jnp.einsum("...nd,...du->...nu", x, beta)


def pairs(
    x: Float[Array, "n d"], theta: Float[Array, "*r d l u"]
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \sum_{i<j} x_{ni} x_{nj} \sum_l \theta_{ilu}\theta_{jlu}$.

    Half of the square of the sum less the sum of the squares, so linear in d.

    Shapes: `x` (n, d) and `theta` (..., d, l, u) give (..., n, u).
    Source: Rendle (2010), Factorization Machines, eq. 1 and Lemma 3.1.
    """
    total = jnp.einsum("nd,...dlu->...nlu", x, theta)
    squares = jnp.einsum("nd,...dlu->...nlu", x**2, theta**2)
    return 0.5 * (total**2 - squares).sum(axis=-2)


def triples(
    x: Float[Array, "n d"], theta: Float[Array, "*r d l u"]
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \sum_{i<j<k} x_{ni} x_{nj} x_{nk}
    \sum_l \theta_{ilu}\theta_{jlu}\theta_{klu}$.

    From the sums of the first three powers of $x_{ni}\theta_{ilu}$, so linear in d:
    $(p_1^3 - 3 p_1 p_2 + 2 p_3) / 6$. A column far larger than the rest costs digits.

    Shapes: `x` (n, d) and `theta` (..., d, l, u) give (..., n, u).
    Source: Blondel, Ishihata, Fujino and Ueda (2016), Polynomial Networks and
    Factorization Machines, the ANOVA kernel of degree 3.
    """
    p1, p2, p3 = (
        jnp.einsum("nd,...dlu->...nlu", x**power, theta**power) for power in (1, 2, 3)
    )
    return (p1**3 - 3.0 * p1 * p2 + 2.0 * p3).sum(axis=-2) / 6.0


def low_rank(
    x: Float[Array, "n d"],
    z: Float[Array, "n e"],
    theta1: Float[Array, "*r d l u"],
    theta2: Float[Array, "*r e l u"],
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \sum_l (\sum_d x_{nd}\theta^1_{dlu}) (\sum_e z_{ne}\theta^2_{elu})$.

    Shapes: `x` (n, d), `z` (n, e), `theta1` (..., d, l, u), `theta2` (..., e, l, u)
    give (..., n, u).
    """
    left = jnp.einsum("nd,...dlu->...nlu", x, theta1)
    right = jnp.einsum("ne,...elu->...nlu", z, theta2)
    return (left * right).sum(axis=-2)


def bilinear(
    x: Float[Array, "n d"], z: Float[Array, "n e"], beta: Float[Array, "*r d e u"]
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \sum_{de} x_{nd}\, z_{ne}\,\beta_{deu}$.

    Shapes: `x` (n, d), `z` (n, e) and `beta` (..., d, e, u) give (..., n, u).
    """
    half = jnp.einsum("nd,...deu->...neu", x, beta)
    return jnp.einsum("ne,...neu->...nu", z, half)


def lookup(
    codes: Int[Array, " n"], table: Float[Array, "*r c m"]
) -> Float[Array, "*r n m"]:
    r"""$f_{nm} = \theta_{c_n m}$: the table's row for each code.

    A code outside the table, negative ones included, reads NaN: no code clamps or
    wraps to another category.

    Shapes: `codes` (n,) and `table` (..., c, m) give (..., n, m).
    """
    return (
        jnp.asarray(table)
        .at[..., codes, :]
        .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )
