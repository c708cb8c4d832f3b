r"""Products of sparse data, in JAX's BCOO form: the same sums over the entries alone.

They have names of their own, apart from `lamina.products`: what handlers know of a
product, such as its variance, they know for dense data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from lamina._checks import concrete
from lamina._typing import Array

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO
    from jaxtyping import Float, Int


def sparse_affine(x: BCOO, beta: Float[Array, "*r d u"]) -> Float[Array, "*r n u"]:
    r"""`affine` for a sparse `x`, at a cost of its entries and not of n times d.

    Shapes: `x` (n, d), in BCOO form, and `beta` (..., d, u) give (..., n, u).
    """
    return _over_columns(x, beta, beta.ndim - 2)


def sparse_pairs(x: BCOO, theta: Float[Array, "*r d l u"]) -> Float[Array, "*r n u"]:
    r"""`pairs` for a sparse `x`, at a cost of its entries and not of n times d.

    Shapes: `x` (n, d), in BCOO form, and `theta` (..., d, l, u) give (..., n, u).
    """
    if not x.unique_indices:  # entries of one place add up before they are squared
        x = x.sum_duplicates(nse=x.nse)
    total = _over_columns(x, theta, theta.ndim - 3)
    x = type(x)((x.data**2, x.indices), shape=x.shape)
    squares = _over_columns(x, theta**2, theta.ndim - 3)
    return 0.5 * (total**2 - squares).sum(axis=-2)


def _over_columns(x: BCOO, coefficients: Array, axis: int) -> Array:
    """Sum the columns of a sparse `x` over one axis of the coefficients."""
    from jax.experimental.sparse import bcoo_dot_general

    contracted = ((1,), (axis,)), ((), ())
    summed = bcoo_dot_general(x, coefficients, dimension_numbers=contracted)
    return jnp.moveaxis(jnp.asarray(summed), 0, axis)


def sparse_rows(
    columns: Int[Array, "n k"], values: Float[Array, "n k"], num_columns: int
) -> BCOO:
    r"""The sparse (n, d) matrix with `values` in the given columns of each row.

    Rows of k entries are ordinary arrays, so they can be data: a minibatch takes some of
    them, and the matrix is built from those inside of the model. Rows with fewer entries
    are filled up with zeros, in any column; entries of one place add up.

    Shapes: `columns` and `values` (n, k) give (n, d), with d = `num_columns`.
    Raises: ValueError for shapes that differ, and for a column that is not in 0 to d - 1,
    where the numbers are known.
    """
    from jax.experimental.sparse import BCOO

    if jnp.ndim(columns) != 2 or jnp.shape(columns) != jnp.shape(values):
        raise ValueError(
            f"sparse_rows: `columns` has shape {jnp.shape(columns)} and `values` has shape "
            f"{jnp.shape(values)}, but each value needs its column: give both (n, k), rows "
            "with fewer than k entries filled up with zeros."
        )
    known = concrete(columns)
    if known is not None and known.size:
        low, high = known.min(), known.max()
        if known.dtype.kind not in "iu" or low < 0 or high >= num_columns:
            raise ValueError(
                f"sparse_rows: `columns` holds {known.dtype} from {low} to {high}, but the "
                f"columns are whole numbers from 0 to {num_columns - 1}. Others would be "
                "dropped without a word: correct them, or raise `num_columns`."
            )
    indices, shape = jnp.asarray(columns)[..., None], (len(values), num_columns)
    return BCOO((jnp.asarray(values), indices), shape=shape)
