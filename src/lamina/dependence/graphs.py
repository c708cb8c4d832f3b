"""Graphs of neighbouring areas: checked once, with the spectra that priors need.

Pure NumPy and SciPy; it knows no NumPyro.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import jax
import numpy as np

from lamina._checks import positive_size
from lamina._typing import Value


@dataclass(frozen=True, repr=False, eq=False)
class Adjacency(Value):
    """Which of c areas are neighbours: an undirected graph without weights.

    `Adjacency.from_matrix` and `Adjacency.from_edges` check what they are given; layers
    and priors take either an `Adjacency` or a matrix.

    Shapes: `edges` (e, 2) holds each pair of neighbours once, the lower code first.
    """

    num_areas: int
    edges: np.ndarray

    def __repr__(self) -> str:
        return f"Adjacency(num_areas={self.num_areas}, {len(self.edges)} edges)"

    @classmethod
    def from_edges(cls, edges: Any, num_areas: int) -> Self:
        """The graph of a list of pairs, each given once or in both directions.

        Shapes: integer `edges` (e, 2), with codes from 0 to `num_areas` - 1.
        Raises: TypeError for codes that are not integers, ValueError for another shape,
        a code that is no area, or an area that is its own neighbour.
        """
        c = positive_size("Adjacency", "num_areas", num_areas)
        pairs = np.asarray(edges)
        if pairs.size == 0:
            return cls(c, _frozen(np.zeros((0, 2), np.int64)))
        if pairs.dtype.kind not in "iu":
            raise TypeError(
                f"edges have dtype {pairs.dtype}, but areas are known by integer codes "
                f"from 0 to {c - 1}. Encode their names first."
            )
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(
                f"edges have shape {pairs.shape}, but each is a pair of neighbours: "
                "give shape (e, 2). A matrix goes to Adjacency.from_matrix."
            )
        if pairs.min() < 0 or pairs.max() >= c:
            wrong = pairs[(pairs < 0) | (pairs >= c)][0]
            raise ValueError(
                f"edges: code {wrong} is none of the {c} areas (0 to {c - 1}). Areas "
                "that no code can reach would be left out: correct it, or raise "
                "`num_areas`."
            )
        _refuse_loops(np.unique(pairs[pairs[:, 0] == pairs[:, 1], 0]))
        pairs = np.unique(np.sort(pairs.astype(np.int64), axis=1), axis=0)
        return cls(c, _frozen(pairs))

    @classmethod
    def from_matrix(cls, matrix: Any) -> Self:
        """The graph of a symmetric matrix of zeros and ones, dense or of SciPy's sparse.

        Shapes: `matrix` (c, c), with a one where two areas are neighbours.
        Raises: ValueError for a matrix that is not square or not symmetric, for entries
        besides 0 and 1, and for an area that is its own neighbour.
        """
        sparse = hasattr(matrix, "tocoo")
        entries: Any = matrix.tocoo() if sparse else np.asarray(matrix)
        if len(entries.shape) != 2 or entries.shape[0] != entries.shape[1]:
            raise ValueError(
                f"the adjacency has shape {tuple(entries.shape)}, but every area has a "
                "row and a column: give a square matrix, or a list of pairs to "
                "Adjacency.from_edges."
            )
        if sparse:
            entries.sum_duplicates()
            rows, columns, values = entries.row, entries.col, entries.data
            kept = values != 0
            rows, columns, values = rows[kept], columns[kept], values[kept]
        else:
            if entries.dtype.kind not in "biuf":
                raise ValueError(
                    f"the adjacency holds {entries.dtype}, not numbers. Give 1 where two "
                    "areas are neighbours, and 0 elsewhere."
                )
            rows, columns = np.nonzero(entries)
            values = entries[rows, columns]
        odd = np.flatnonzero(values != 1)
        if odd.size:
            i, j, seen = rows[odd[0]], columns[odd[0]], values[odd[0]]
            raise ValueError(
                f"the adjacency of areas {i} and {j} is {seen}, but two areas are "
                "neighbours, 1, or are not, 0. Weights and distances are not "
                "understood: set those that count as neighbours to 1."
            )
        c = positive_size("Adjacency", "num_areas", int(entries.shape[0]))
        one_way = np.setdiff1d(
            rows * np.int64(c) + columns, columns * np.int64(c) + rows
        )
        if one_way.size:
            i, j = divmod(int(one_way[0]), c)
            raise ValueError(
                f"the adjacency is not symmetric: area {i} has area {j} as a neighbour, "
                f"but not {j} {i}. No joint distribution of the areas has such "
                "conditional ones: set both or neither."
            )
        return cls.from_edges(np.column_stack([rows, columns]), c)

    @property
    def neighbours(self) -> np.ndarray:
        """How many neighbours each area has, (c,)."""
        return np.bincount(self.edges.ravel(), minlength=self.num_areas)

    @property
    def islands(self) -> np.ndarray:
        """The areas that have no neighbours."""
        return np.flatnonzero(self.neighbours == 0)

    def matrix(self) -> Any:
        """The symmetric matrix of zeros and ones, as SciPy's sparse rows."""
        from scipy.sparse import csr_matrix

        first, second = self.edges.T
        rows, columns = np.r_[first, second], np.r_[second, first]
        ones = np.ones(len(rows))
        return csr_matrix((ones, (rows, columns)), shape=(self.num_areas,) * 2)

    def parts(self) -> np.ndarray:
        """For each area the number of its connected part, (c,)."""
        from scipy.sparse.csgraph import connected_components

        return connected_components(self.matrix(), directed=False)[1]


def as_adjacency(given: Any) -> Adjacency:
    """An `Adjacency`, or the one of a matrix."""
    if isinstance(given, jax.core.Tracer):
        raise TypeError(
            "the adjacency is being traced by JAX, so it cannot be checked, and its "
            "eigenvectors would be computed anew at every step. Make the layer outside "
            "of the model, from a NumPy array, not from an argument of the model."
        )
    return given if isinstance(given, Adjacency) else Adjacency.from_matrix(given)


def require_neighbours(where: str, adjacency: Adjacency) -> None:
    """Raise where an area has no neighbours, and its effect no distribution."""
    if adjacency.islands.size:
        raise ValueError(
            f"{where}: areas {adjacency.islands[:5].tolist()} have no neighbours "
            f"({adjacency.islands.size} of {adjacency.num_areas} areas), so an effect "
            "given the neighbours' is not defined for them. Give each island its nearest "
            "area as a neighbour, or use BYM2Layer, in which islands have independent "
            "effects."
        )


@lru_cache(maxsize=16)
def proper_spectrum(adjacency: Adjacency) -> tuple[np.ndarray, np.ndarray]:
    r"""$B$ and $\omega$ with $(D - \alpha W)^{-1} = B\,\text{diag}(1/(1-\alpha\omega))B^T$.

    `W` is the adjacency and `D` its diagonal of numbers of neighbours; `omega` are the
    eigenvalues of $D^{-1/2} W D^{-1/2}$, the largest of which is 1.

    Shapes: (c, c) and (c,).
    """
    root = 1.0 / np.sqrt(adjacency.neighbours)
    omega, vectors = np.linalg.eigh(
        root[:, None] * adjacency.matrix().toarray() * root[None, :]
    )
    return _frozen(root[:, None] * vectors), _frozen(np.clip(omega, -1.0, 1.0))


@lru_cache(maxsize=16)
def intrinsic_spectrum(
    adjacency: Adjacency, scaled: bool
) -> tuple[np.ndarray, np.ndarray]:
    r"""Orthonormal $U$ and $s$ with $U\,\text{diag}(s)\,U^T$ the covariance of an ICAR.

    It is the generalised inverse of $D - W$, in which the effects of every connected part
    sum to zero: $s$ is zero once for each part. `scaled` divides it, part by part, by
    the geometric mean of its marginal variances; an island then has variance 1.

    Shapes: (c, c) and (c,).
    Source: Sorbye and Rue (2014), Scaling intrinsic Gaussian Markov random field priors;
    for parts and islands Freni-Sterrantino, Ventrucci and Rue (2018), A note
    on intrinsic conditional autoregressive models for disconnected graphs.
    """
    c, labels = adjacency.num_areas, adjacency.parts()
    w = adjacency.matrix()
    basis, variances = np.zeros((c, c)), np.zeros(c)
    for part in range(labels.max() + 1):
        (inside,) = np.nonzero(labels == part)
        if len(inside) == 1:
            basis[inside, inside] = variances[inside] = 1.0
            continue
        links = w[inside][:, inside].toarray()
        values, vectors = np.linalg.eigh(np.diag(links.sum(axis=1)) - links)
        inverse = np.r_[0.0, 1.0 / values[1:]]  # one zero to a connected part
        if scaled:
            inverse /= np.exp(np.log(vectors**2 @ inverse).mean())
        basis[np.ix_(inside, inside)] = vectors
        variances[inside] = inverse
    return _frozen(basis), _frozen(variances)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _refuse_loops(loops: np.ndarray) -> None:
    if loops.size:
        raise ValueError(
            f"the adjacency has areas {loops[:5].tolist()} as their own neighbours. An "
            "area's effect would be conditioned on itself: set the diagonal to 0."
        )
