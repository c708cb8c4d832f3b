r"""Pure bases of functions: B-splines, their differences and products, and Fourier's.

JAX evaluates them, so that rows may be traced; what knots alone decide is NumPy's.
Letters: n rows, k basis functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lamina._typing import Array

if TYPE_CHECKING:
    from jaxtyping import Float


def bspline(
    x: Float[Array, " n"], knots: np.ndarray, degree: int
) -> Float[Array, "n k"]:
    r"""The B-splines of strictly increasing knots, continued by their tangents.

    Inside, by the recursion over degrees
    $B_{i,p}(x) = \frac{x - t_i}{t_{i+p} - t_i} B_{i,p-1}(x) +
    \frac{t_{i+p+1} - x}{t_{i+p+1} - t_{i+1}} B_{i+1,p-1}(x)$; outside of
    $[t_p, t_k]$ linear, so any combination of them is.

    Shapes: `x` (n,) and `knots` (k + degree + 1,) give (n, k).
    Source: de Boor (2001), A Practical Guide to Splines, chapter IX, eq. 14, and
    chapter X, eq. 12 for the slopes.
    """
    t = jnp.asarray(knots, x.dtype)
    k = t.size - degree - 1
    inside = jnp.clip(x, t[degree], t[k])
    ends = jnp.stack([t[degree], t[k]])
    lower = recursion(ends, t, degree, degree - 1)
    ratio = lower * degree / (t[degree : degree + k + 1] - t[: k + 1])[None, :]
    slopes = ratio[:, :-1] - ratio[:, 1:]
    beyond = (x - inside)[:, None]
    outside = (
        jnp.minimum(beyond, 0.0) * slopes[:1] + jnp.maximum(beyond, 0.0) * (slopes[1:])
    )
    return recursion(inside, t, degree, degree) + outside


def cyclic_bspline(
    x: Float[Array, " n"], knots: np.ndarray, degree: int
) -> Float[Array, "n k"]:
    """B-splines of period one: those that leave at 1 enter again at 0.

    Shapes: `x` (n,) and `knots` (k + 2 degree + 1,) give (n, k).
    """
    t = jnp.asarray(knots, x.dtype)
    k = t.size - 2 * degree - 1
    values = recursion(x - jnp.floor(x), t, degree, degree)
    return values[:, :k].at[:, :degree].add(values[:, k:])


def recursion(
    x: Float[Array, " n"], t: Float[Array, " t"], degree: int, upto: int
) -> Float[Array, "n k"]:
    """B-splines of degree `upto`, in the knots' interval that holds each row."""
    last = t.size - degree - 2
    interval = (x[:, None] >= t[None, :]).sum(axis=1) - 1
    # at the right end the last interval is meant, not the one after it
    values = jax.nn.one_hot(jnp.clip(interval, degree, last), t.size - 1, dtype=t.dtype)
    for p in range(1, upto + 1):
        up = (x[:, None] - t[None, : -p - 1]) / (t[p:-1] - t[: -p - 1])[None, :]
        down = (t[None, p + 1 :] - x[:, None]) / (t[p + 1 :] - t[1:-p])[None, :]
        values = up * values[:, :-1] + down * values[:, 1:]
    return values


def extended(breaks: np.ndarray, degree: int) -> np.ndarray:
    """Knots in [0, 1] with `degree` more on either side, as far apart as the nearest."""
    steps = np.arange(1, degree + 1)
    left = breaks[0] - steps[::-1] * (breaks[1] - breaks[0])
    right = breaks[-1] + steps * (breaks[-1] - breaks[-2])
    return np.concatenate([left, breaks, right])


def greville(knots: np.ndarray, degree: int) -> np.ndarray:
    r"""Where each B-spline stands: $\sum_i \xi_i B_i(x) = x$ for these $\xi_i$ (k,)."""
    return np.convolve(knots[1:-1], np.ones(degree), "valid") / degree


def differences(knots: np.ndarray, degree: int, cyclic: bool) -> np.ndarray:
    r"""Second differences of coefficients, zero for a line (for a constant if cyclic).

    $\beta_{i+2} - 2\beta_{i+1} + \beta_i$ for even knots; for others differences of
    slopes between the $\xi_i$ where the B-splines stand, times their mean distance.

    Shapes: gives (k - 2, k), or (k, k) if cyclic.
    Source: Eilers and Marx (1996), Flexible Smoothing with B-splines and Penalties; Li
    and Cao (2022), General P-splines for Non-uniform B-splines, for uneven knots.
    """
    if cyclic:
        eye = np.eye(knots.size - 2 * degree - 1)
        return np.roll(eye, 1, axis=1) - 2.0 * eye + np.roll(eye, -1, axis=1)
    gaps = np.diff(greville(knots, degree))
    slopes = np.diff(np.eye(gaps.size + 1), axis=0) / gaps[:, None]
    return np.diff(slopes, axis=0) * gaps.mean()


def tensor(columns: Sequence[Any]) -> Any:
    """All products of one column from each margin: (n, a), (n, b) give (n, a b)."""
    first, *others = columns
    for other in others:
        pairs = first[:, :, None] * other[:, None, :]
        first = pairs.reshape(first.shape[0], first.shape[1] * other.shape[1])
    return first


def row_by_row(
    columns: Float[Array, "n k"], rows: Float[Array, "*r n k"]
) -> Float[Array, "*r n 1"]:
    r"""$f_{n1} = \sum_k b_{nk}\,\theta_{nk}$: each row has coefficients of its own.

    Shapes: `columns` (n, k) and `rows` (..., n, k) give (..., n, 1).
    """
    return jnp.einsum("nk,...nk->...n", columns, rows)[..., None]


def fourier(x: Float[Array, " n"], period: float, m: int) -> Float[Array, "n k"]:
    r"""$\cos(j \omega x)$ for j = 0 to m - 1, then $\sin(j \omega x)$ for j from 1.

    Shapes: `x` (n,) gives (n, 2 m - 1).
    """
    # the phase is taken from the nearest whole period, where it is most exact
    cycles = x / period
    turn = 2.0 * jnp.pi * (cycles - jnp.round(cycles))
    angles = turn[:, None] * jnp.arange(m, dtype=turn.dtype)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles[:, 1:])], axis=1)


def periodic_scales(length: Float[Array, " 1"], m: int) -> Float[Array, " k"]:
    r"""Standard deviations of the Fourier coefficients of a periodic Gaussian process.

    With $a = 1 / \ell^2$ the covariance $\exp(a (\cos \omega\tau - 1))$ is
    $\sum_j c_j e^{-a} I_j(a) \cos j\omega\tau$, $c_0 = 1$ and $c_j = 2$ otherwise. The
    ratios of the modified Bessel functions $I_j$ come from their recursion downwards,
    $I_j / I_{j-1} = (2 j / a + I_{j+1} / I_j)^{-1}$, in which all terms are positive.

    Shapes: `length` (1,) gives (2 m - 1,), in the order of `fourier`.
    Source: Solin and Särkkä (2014), Explicit Link Between Periodic Covariance Functions
    and State Space Models; NIST Digital Library of Mathematical Functions, 10.29.1.
    """
    a = 1.0 / jnp.square(length[0])

    def down(ratio: Array, order: Array) -> tuple[Array, Array]:
        ratio = 1.0 / (2.0 * order / a + ratio)
        return ratio, ratio

    orders = jnp.arange(1, m + 50, dtype=a.dtype)
    _, ratios = jax.lax.scan(down, jnp.zeros_like(a), orders, reverse=True)
    first = jax.scipy.special.i0e(a)
    powers = jnp.exp(0.5 * jnp.cumsum(jnp.log(ratios[: m - 1])))
    later = jnp.sqrt(2.0 * first) * powers
    return jnp.concatenate([jnp.sqrt(first)[None], later, later])
