r"""Margins of smooths: what training rows teach a spline, and its columns for any rows.

NumPy and SciPy learn, once; JAX evaluates. Letters: n rows, k basis functions, q
functions that a penalty leaves alone, d columns, p columns of a tensor.

A spline's columns are $B(z)\,T$: the B-splines of a scaled column times a transform
that the training rows taught. Over these rows the columns are orthogonal; the first q
are the constant and (unless cyclic) the line, the others carry the penalty, which is the
plain sum of their squared coefficients.

Sources: Eilers and Marx (1996), Flexible Smoothing with B-splines and Penalties; Wood
(2017), Generalized Additive Models, 2nd edition, chapter 5; Fahrmeir, Kneib, Lang and
Marx (2013), Regression, chapter 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lamina._typing import Array
from lamina.bases import (
    bspline,
    cyclic_bspline,
    differences,
    extended,
    greville,
    tensor,
)

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
