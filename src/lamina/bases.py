r"""Pure bases of smooth functions: what training rows teach them, their columns for any.

NumPy and SciPy learn, once; JAX evaluates, so that rows may be traced. Letters: n rows,
k basis functions, q functions that a penalty leaves alone, d columns.

A spline's columns are $B(z)\,T$: the B-splines of a scaled column times a transform
that the training rows taught. Over these rows the columns are orthogonal; the first q
are the constant and (unless cyclic) the line, the others carry the penalty, which is the
plain sum of their squared coefficients.

Sources: Eilers and Marx (1996), Flexible Smoothing with B-splines and Penalties; Wood
(2017), Generalized Additive Models, 2nd edition, sections 5.4.2, 5.6 and 5.8; Fahrmeir,
Kneib, Lang and Marx (2013), Regression, section 8.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lamina._typing import Array

if TYPE_CHECKING:
    from jaxtyping import Float

SMALLEST_VARIANCE = 1e-8
ROWS_AT_ONCE = 4096


class Margin(NamedTuple):
    """The B-splines of one column: how many, of which degree, and where."""

    num_basis: int
    degree: int
    knots: Any = None
    period: float | None = None

    @property
    def num_null(self) -> int:
        """How many functions the penalty leaves alone: the constant, and the line."""
        return 2 if self.period is None else 1

    def learn(self, where: str, x: np.ndarray) -> dict[str, np.ndarray]:
        """Range, knots and transform from one column of training rows (n,).

        `variance` holds the mean square of each penalised column; they sum to one, so a
        unit scale gives curves of unit expected variance over the training rows.

        Raises: ValueError for a column that is constant, not finite or of too few
        distinct values, and for knots outside of it or not increasing.
        """
        within, breaks = self._breaks(where, x)
        knots = extended(breaks, self.degree)
        penalty = differences(knots, self.degree, self.period is not None)
        design = self.design(x, within, knots)
        gram = (design.T @ design).toarray() / len(x)

        null = np.ones((gram.shape[0], 1))
        if self.period is None:
            line = greville(knots, self.degree)
            line = line - null[:, 0] @ gram @ line
            null = np.column_stack([null, line / np.sqrt(line @ gram @ line)])
        values, vectors = np.linalg.eigh(penalty.T @ penalty)
        rough = vectors[:, self.num_null :] / np.sqrt(values[self.num_null :])
        rough = rough - null @ (null.T @ gram @ rough)
        rough = rough / np.sqrt(np.trace(rough.T @ gram @ rough))
        variance, rotation = np.linalg.eigh(rough.T @ gram @ rough)
        return {
            "range": within,
            "knots": knots,
            "transform": np.hstack([null, (rough @ rotation)[:, ::-1]]),
            "variance": np.maximum(variance[::-1], 0.0),
        }

    def _breaks(self, where: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the column starts and its width; the knots in it, scaled to [0, 1]."""
        if not np.isfinite(x).all():
            raise ValueError(
                f"{where}: {int((~np.isfinite(x)).sum())} of {x.size} training values "
                "are not finite, and knots are placed over the range of all. Leave "
                "those rows out, or fill them."
            )
        if self.period is not None:
            x = np.mod(x, self.period)
        distinct = np.unique(x)
        if distinct.size < 2:
            raise ValueError(
                f"{where}: the training column is constant ({distinct}), so no curve "
                "over it can be learned. Leave the smooth out, or fit it to rows that "
                "differ."
            )
        start, width = float(distinct[0]), float(distinct[-1] - distinct[0])
        count = self.num_basis
        if self.knots is not None:
            inner = np.asarray(self.knots, float)
            require_knots(where, inner, start, start + width)
            count = inner.size + self.degree + 1
            breaks = np.concatenate([[0.0], (inner - start) / width, [1.0]])
        elif self.period is not None:
            start, width = 0.0, float(self.period)
            breaks = np.linspace(0.0, 1.0, count + 1)
        else:
            breaks = np.linspace(0.0, 1.0, count - self.degree + 1)
        if distinct.size < count:
            enough = distinct.size >= self.degree + 2
            remedy = (
                f"Set num_basis={distinct.size}, or fewer knots"
                if enough
                else ("Use a linear layer")
            )
            raise ValueError(
                f"{where}: the training column has {distinct.size} distinct values, "
                f"fewer than the smooth's {count} basis functions, which could not be "
                f"told apart. {remedy}, or give the values integer codes for "
                "RandomWalkLayer."
            )
        return np.array([start, width]), breaks

    def design(self, x: np.ndarray, within: np.ndarray, knots: np.ndarray) -> Any:
        """The B-splines of training rows, (n, k), a sparse matrix of SciPy's."""
        from scipy.interpolate import BSpline
        from scipy.sparse import csr_array

        z = (x - within[0]) / within[1]
        z = np.clip(z, 0.0, 1.0) if self.period is None else np.mod(z, 1.0)
        design = csr_array(BSpline.design_matrix(z, knots, self.degree))
        if self.period is None:
            return design
        many = knots.size - 2 * self.degree - 1
        rows = np.arange(many + self.degree)
        folded = csr_array((np.ones(rows.size), (rows, rows % many)))
        return design @ folded

    def columns(
        self, x: Float[Array, " n"], learned: Mapping[str, Any]
    ) -> Float[Array, "n k"]:
        """The spline's columns for any rows: the q unpenalised ones first."""
        start, width = (float(v) for v in learned["range"])
        z = (x - start) / width
        if self.period is None:
            basis = bspline(z, learned["knots"], self.degree)
        else:
            basis = cyclic_bspline(z, learned["knots"], self.degree)
        return basis @ jnp.asarray(learned["transform"], basis.dtype)


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
    chapter X, eq. 15 for the slopes.
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
    Source: Eilers and Marx (1996), section 3; Li and Cao (2022), General P-splines for
    Non-uniform B-splines, for uneven knots.
    """
    if cyclic:
        eye = np.eye(knots.size - 2 * degree - 1)
        return np.roll(eye, 1, axis=1) - 2.0 * eye + np.roll(eye, -1, axis=1)
    gaps = np.diff(greville(knots, degree))
    slopes = np.diff(np.eye(gaps.size + 1), axis=0) / gaps[:, None]
    return np.diff(slopes, axis=0) * gaps.mean()


def require_knots(where: str, knots: np.ndarray, start: float, end: float) -> None:
    """Raise unless the knots increase, inside the range of the training column."""
    if knots.ndim != 1 or not (np.isfinite(knots).all() and np.all(np.diff(knots) > 0)):
        raise ValueError(
            f"{where}: `knots` are {knots.tolist()}, but knots are finite numbers, each "
            "larger than the one before. Sort them, and give each once."
        )
    outside = knots[(knots <= start) | (knots >= end)]
    if outside.size:
        raise ValueError(
            f"{where}: knots {outside.tolist()} are not inside the training column's "
            f"range, {start:g} to {end:g}; no row would tell their coefficients. Give "
            "knots between these; the two ends are added."
        )


def tensor_index(margins: Sequence[Margin], sizes: Sequence[int]) -> np.ndarray:
    """Each tensor column's place in every margin, the last margin fastest (p, d)."""
    places = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    return np.stack(places, axis=-1).reshape(-1, len(margins))


def tensor(columns: Sequence[Any]) -> Any:
    """All products of one column from each margin: (n, a), (n, b) give (n, a b)."""
    first, *others = columns
    for other in others:
        pairs = first[:, :, None] * other[:, None, :]
        first = pairs.reshape(first.shape[0], first.shape[1] * other.shape[1])
    return first


def learn_tensor(
    where: str, margins: Sequence[Margin], x: np.ndarray
) -> dict[str, Any]:
    """What the margins learn, each on its column, and the tensor's centre and size.

    The margins' penalised columns are scaled to unit mean square; `rough` (d, p) holds
    how much each margin's penalty weighs a tensor column, zero where it is a line.
    """
    learned, rough = [], []
    for j, margin in enumerate(margins):
        one = margin.learn(f"{where}, column {j}", x[:, j])
        variance = np.maximum(one["variance"], SMALLEST_VARIANCE * one["variance"][0])
        q = margin.num_null
        transform = one["transform"].copy()
        transform[:, q:] /= np.sqrt(variance)
        learned.append({**one, "transform": transform})
        rough.append(np.concatenate([np.zeros(q), 1.0 / variance]))
    index = tensor_index(margins, [len(r) for r in rough])
    weights = np.stack([r[index[:, j]] for j, r in enumerate(rough)])

    total, squares = np.zeros(len(index)), np.zeros(len(index))
    for first in range(0, len(x), ROWS_AT_ONCE):
        rows = x[first : first + ROWS_AT_ONCE]
        block = tensor(
            [
                margin.design(rows[:, j], one["range"], one["knots"]) @ one["transform"]
                for j, (margin, one) in enumerate(zip(margins, learned, strict=True))
            ]
        )
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    centre = total / len(x)
    bent = weights.sum(axis=0) > 0
    spread = (squares / len(x) - np.square(centre))[bent]
    size = np.sqrt((spread / weights[:, bent].sum(axis=0)).sum())
    return {"margins": learned, "rough": weights, "centre": centre, "size": size}


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
    and State Space Models, section 3; Abramowitz and Stegun (1964), 9.6.26.
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
