"""Levels that are related to one another by a known covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from lamina._checks import concrete, where_bad
from lamina._typing import Array, Shape
from lamina.dependence.correlated import Scaled
from lamina.priors import sample_shaped
from lamina.priors.families import Sites


class RelatedLevels(Scaled):
    r"""Levels whose covariance is known, up to a scale and at most one more number.

    With a basis $B$ (c, k) and deviations $d$ (k,), $\theta = \lambda\,B\,(d \odot z)$.
    """

    joint = True
    """The levels have one prior together: it draws no other level alone."""

    @property
    def num_levels(self) -> int:
        """How many levels the prior relates."""
        raise NotImplementedError

    def basis(self) -> np.ndarray:
        """The known matrix, (c, k)."""
        raise NotImplementedError

    def deviations(self, sites: Sites) -> Array | None:
        """What multiplies z, (..., k), with the number that it depends on sampled."""
        return None

    def require_shape(self, name: str, shape: Shape) -> None:
        """Raise unless the coefficients have one row for each level."""
        if len(shape) != 2 or shape[0] != self.num_levels:
            raise ValueError(
                f"{name}: {type(self).__name__} relates {self.num_levels} levels to one "
                f"another, but the coefficients have shape {shape}. Levels without "
                f"relations have no prior here: set `num_categories` to "
                f"{self.num_levels}, with codes in the order of its rows."
            )

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        self.require_shape(sites.name, shape)
        scales = self.scales(sites, shape, shared)
        deviations = self.deviations(sites)
        basis = self.basis()
        size = (basis.shape[1], shape[1])
        z = sample_shaped(sites.of("z"), dist.Normal(0.0, 1.0), size)
        if deviations is not None:
            z = deviations[..., None] * z
        related = jnp.einsum("ck,...km->...cm", jnp.asarray(basis, z.dtype), z)
        return numpyro.deterministic(sites.own, scales * related)


@dataclass(frozen=True, repr=False, eq=False)
class KnownCovariance(RelatedLevels):
    r"""Levels of known covariance, as by a pedigree: $\theta \sim \text{Normal}(0,
    \lambda^2 A)$.

    Give the `covariance` $A$ or its lower Cholesky factor. `num_categories` of the layer
    is the number of its rows. Levels to be predicted belong in it, too: without rows of
    data they are drawn given their relatives.

        RandomEffectsLayer(num_categories=c, prior=KnownCovariance(kinship))("g", codes)

    Shapes: both (c, c); `(name, (c, m))` gives (c, m), from the sites `{name}.lmbda` and
    `{name}.z` (c, m); `{name}.theta` (c, m) is a deterministic value.
    Units: $\lambda$ is in units of the predictor where $A$ has a diagonal of ones; for
    the additive relationship matrix of a pedigree $\lambda^2$ is the additive variance.
    Raises: ValueError for a covariance that is not square, finite, symmetric and positive
    definite, or a factor that is not lower triangular with a positive diagonal.
    Source: Henderson (1976), A simple method for computing the inverse of a numerator
    relationship matrix used in prediction of breeding values.
    """

    covariance: Any = None
    cholesky: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.covariance is None) == (self.cholesky is None):
            raise ValueError(
                "KnownCovariance: give the levels' `covariance` or its `cholesky` "
                f"factor, one of them; {'none' if self.cholesky is None else 'both'} "
                "came."
            )
        if self.cholesky is None:
            factor = factor_of(self.covariance)
        else:
            factor = require_factor(self.cholesky)
        object.__setattr__(self, "_factor", factor)

    def __repr__(self) -> str:
        return f"KnownCovariance({self.num_levels} levels)"

    @property
    def num_levels(self) -> int:
        return len(self.basis())

    def basis(self) -> np.ndarray:
        factor: np.ndarray = self._factor  # type: ignore[attr-defined]
        return factor


def factor_of(covariance: Any) -> np.ndarray:
    """The lower Cholesky factor of a covariance of levels, after its checks."""
    given = square("covariance", covariance)
    gap = np.abs(given - given.T)
    if gap.max() > 1e-6 * np.abs(given).max():
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise ValueError(
            f"KnownCovariance: `covariance` is not symmetric: levels {i} and {j} have "
            f"{given[i, j]} one way and {given[j, i]} the other. Give each pair one "
            "covariance."
        )
    try:
        return frozen(np.linalg.cholesky((given + given.T) / 2.0))
    except np.linalg.LinAlgError as error:
        least = np.linalg.eigvalsh(given)[0]
        raise ValueError(
            f"KnownCovariance: `covariance` is not positive definite (its least "
            f"eigenvalue is {least:.3g}), so some levels are combinations of others, as "
            "twins or clones listed twice are. Merge them, or add a little to the "
            "diagonal: covariance + 1e-6 * numpy.eye(c)."
        ) from error


def require_factor(cholesky: Any) -> np.ndarray:
    """A Cholesky factor of a covariance of levels, after its checks."""
    given = square("cholesky", cholesky)
    if np.any(np.triu(given, 1)) or np.any(np.diag(given) <= 0):
        raise ValueError(
            "KnownCovariance: `cholesky` is no lower Cholesky factor, which has zeros "
            "above its diagonal and positive numbers on it. Use numpy.linalg.cholesky, "
            "or give the `covariance`."
        )
    return frozen(given)


def square(argument: str, given: Any) -> np.ndarray:
    """A copy of a finite square matrix whose numbers are known."""
    matrix = concrete(given)
    if matrix is None:
        raise TypeError(
            f"KnownCovariance: `{argument}` is being traced by JAX, so it cannot be "
            "checked. Make the prior outside of compiled functions, from NumPy arrays."
        )
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            f"KnownCovariance: `{argument}` has shape {matrix.shape}, but every level "
            "has a row and a column: give a square matrix."
        )
    matrix = matrix.astype(float)
    if not np.isfinite(matrix).all():
        raise ValueError(
            f"KnownCovariance: `{argument}` has {where_bad(~np.isfinite(matrix))}, that "
            "are not finite. Leave out levels whose relations are not known, or set "
            "them to 0."
        )
    return matrix


def frozen(matrix: np.ndarray) -> np.ndarray:
    """The same array, read-only."""
    matrix.flags.writeable = False
    return matrix
