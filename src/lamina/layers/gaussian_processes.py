"""Gaussian processes by their eigenfunctions on a box, and periodic ones by Fourier's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.contrib.hsgp.laplacian import eigenfunctions
from numpyro.contrib.hsgp.spectral_densities import (
    diag_spectral_density_matern,
    diag_spectral_density_squared_exponential,
)
from numpyro.distributions import LogNormal

from lamina._checks import (
    allows_negative,
    as_array,
    concrete,
    positive_number,
    positive_size,
    where_bad,
)
from lamina._typing import Array, Family, FrozenDict, show
from lamina.bases import fourier, periodic_scales
from lamina.effects import product, remember, term
from lamina.layers._base import AdaptiveForm, each, one_each
from lamina.priors import family, sample_shaped
from lamina.products import affine

LENGTH = FrozenDict(loc=-0.7, scale=0.5)
MOST_FUNCTIONS = 2000
SMALLEST_BOUNDARY = 1.2

# The box is `wide` of the longest length scale from the centre; with a box of `c` half
# ranges, `dense` c functions carry a length scale of one half range.
RULES = {"rbf": (3.2, 1.75), "matern52": (4.1, 2.65), "matern32": (4.5, 3.42)}
PERIODIC_DENSE = 3.72


@dataclass(frozen=True, repr=False, eq=False)
class HSGPLayer(AdaptiveForm):
    r"""A Gaussian process of one or more columns, by basis functions.

    $$f_{nu} = \sum_j \phi_j(z_n) \sqrt{S(\omega_j; \ell)}\,\theta_{ju}, \qquad
      \theta_{ju} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1), \quad
      \ell_d \sim \text{LogNormal}(-0.7, 0.5)$$

    approximates the process of covariance $\lambda_u^2 k(z, z'; \ell)$: $\phi_j$ are the
    eigenfunctions of the Laplacian on the box $[-c, c]^d$, $\omega_j$ their frequencies,
    $S$ the spectral density of the kernel $k$, "rbf", "matern52" or "matern32". $z$ is
    `x` less the middle of its training range, over half of that range: both are learned
    once. With kernel "periodic" $k(x, x') = \exp(-2 \sin^2(\pi (x - x') / P) / \ell^2)$
    for the `period` P in units of `x`, and the functions are Fourier's.

    `boundary` (c) and `num_basis`, one for all columns or one for each, are chosen so
    that length scales from the 5% to the 95% point of their prior are carried. Given
    by hand, they are checked against it, and a warning says what they cannot carry.

    Shapes: `x` (n, d) or (n,) gives (n, u); the sites are `{name}.length` (d,),
    `{name}.lmbda` (u,) and `{name}.theta` (b, u) for b functions in all.
    Units: $\ell$ is in half ranges of the training column, without units for "periodic";
    $\lambda$, the process's standard deviation, and $\theta$ are in units of the predictor.
    Raises: ValueError for a training column that is constant, for rows outside of the
    box (NaN where they are traced), and for more than 2,000 functions by default.
    Source: Riutort-Mayol, Bürkner, Andersen, Solin and Vehtari (2023), Practical Hilbert
    space approximate Bayesian Gaussian processes for probabilistic programming; Solin
    and Särkkä (2020), Hilbert space methods for reduced-rank Gaussian process regression.
    """

    units: int = 1
    _: KW_ONLY
    kernel: str = "rbf"
    num_basis: int | tuple[int, ...] | None = None
    boundary: float | tuple[float, ...] | None = None
    period: float | None = None
    length_dist: Family = LogNormal
    length_kwargs: Mapping[str, Any] = LENGTH

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        if self.kernel not in (*RULES, "periodic"):
            raise ValueError(
                f"{where}: `kernel` is {self.kernel!r}; it is one of "
                f"{[*RULES, 'periodic']}."
            )
        if (self.kernel == "periodic") != (self.period is not None):
            raise ValueError(
                f"{where}: `kernel` is {self.kernel!r} and `period` is {self.period!r}. "
                "A periodic kernel has a period, in units of `x`, and no other has."
            )
        if self.period is not None:
            meaning = "it is a positive number, in units of `x`"
            positive_number(where, "period", self.period, meaning)
        if self.kernel == "periodic" and self.boundary is not None:
            raise ValueError(
                f"{where}: `boundary` is {self.boundary!r}, but a periodic process has no "
                "box. Leave it out."
            )
        for size in each(self.num_basis):
            if size is not None:
                positive_size(where, "num_basis", size)
        for c in each(self.boundary):
            if c is None:
                continue
            meaning = "it is the box's half width, a number of half ranges"
            positive_number(where, "boundary", c, meaning)
            if c < SMALLEST_BOUNDARY:
                raise ValueError(
                    f"{where}: `boundary` is {c!r}, but a box of less than "
                    f"{SMALLEST_BOUNDARY} half ranges bends the process at the ends of "
                    "the data. Raise it, or leave it to be chosen."
                )
        with numpyro.validation_enabled():
            if allows_negative(self.length_prior()):
                raise ValueError(
                    f"{where}: `length_dist` is {show(self.length_dist)}, which allows "
                    "negative values, but a length scale is positive. Choose a positive "
                    "distribution, such as LogNormal or InverseGamma."
                )

    def length_prior(self) -> Any:
        """The distribution of one length scale."""
        return family("length_dist", self.length_dist, self.length_kwargs, LENGTH)

    def __call__(self, name: str, x: Any) -> Array:
        columns = self.columns(name, x)
        d = columns.shape[1]
        if self.kernel == "periodic":
            basis, scales = self._circle(name, columns)
        else:
            basis, scales = self._box(name, columns, x)
        length = sample_shaped(f"{name}.length", self.length_prior(), (d,))
        spread = jnp.vectorize(scales, signature="(d)->(m)")(length)
        theta = self.coefficients(name, (basis.shape[1], self.units), "theta")
        return term(name, product(affine, basis, theta * spread[..., None]))

    def _circle(self, name: str, columns: Array) -> tuple[Array, Any]:
        """Fourier's functions, and their scales given the length scale."""
        if columns.shape[1] != 1:
            raise ValueError(
                f"{self.label(name)}: `x` has {columns.shape[1]} columns, but a periodic "
                "process has one. Give each column a layer of its own."
            )
        (m,) = one_each(self.label(name), "num_basis", self.num_basis, 1)
        lengths = self._lengths(name, needed=m is None)
        if m is None:
            m = math.ceil(PERIODIC_DENSE / lengths[0]) + 1
        elif lengths is not None:
            self._check_functions(name, PERIODIC_DENSE / max(m - 1, 1), lengths)
        basis = fourier(columns[:, 0], float(self.period or 1.0), m)
        return basis, partial(periodic_scales, m=m)

    def _box(self, name: str, columns: Array, x: Any) -> tuple[Array, Any]:
        """The Laplacian's eigenfunctions, and their scales given the length scales."""
        c, m = self.size_of_box(name, columns.shape[1])
        learned = remember(
            f"{name}.box", lambda known: learn_box(self.label(name), known), as_array(x)
        )
        middle = jnp.asarray(learned["middle"], columns.dtype)[None, :]
        half = jnp.asarray(learned["half"], columns.dtype)[None, :]
        z = (columns - middle) / half
        require_inside(self.label(name), x, learned, c)
        outside = (jnp.abs(z) > jnp.asarray(c, z.dtype)[None, :]).any(axis=1)
        basis = jnp.where(outside[:, None], jnp.nan, eigenfunctions(z, c, m))
        return basis, partial(root_density, self.kernel, c, m)

    def size_of_box(self, name: str, d: int) -> tuple[list[float], list[int]]:
        """Half widths c and numbers of functions m for d columns, chosen or checked."""
        where = self.label(name)
        wide, dense = RULES[self.kernel]
        boundaries = one_each(where, "boundary", self.boundary, d)
        sizes = one_each(where, "num_basis", self.num_basis, d)
        lengths = self._lengths(name, needed=None in boundaries or None in sizes)
        c, m = [], []
        for boundary, size in zip(boundaries, sizes, strict=True):
            if boundary is None:
                boundary = max(wide * lengths[1], SMALLEST_BOUNDARY)
            elif lengths is not None and wide * lengths[1] > boundary:
                warnings.warn(
                    f"{where}: with boundary={boundary} length scales above "
                    f"{boundary / wide:.2g} half ranges are not carried well, but the "
                    f"prior has 5% above {lengths[1]:.2g}. Raise it, or leave it out.",
                    stacklevel=2,
                )
            if size is None:
                size = math.ceil(dense * boundary / lengths[0])
            elif lengths is not None:
                self._check_functions(name, dense * boundary / size, lengths)
            c.append(float(boundary))
            m.append(int(size))
        if None in sizes and math.prod(m) > MOST_FUNCTIONS:
            raise ValueError(
                f"{where}: the prior of the length scales asks for "
                f"{' x '.join(map(str, m))} functions, too many to fit. Rule out short "
                "or long length scales by `length_dist`, or set `num_basis`."
            )
        return c, m

    def _check_functions(self, name: str, carried: float, lengths: Any) -> None:
        """Warn where the functions are too few for the shortest length scales."""
        if carried > lengths[0] * 1.05:  # whole numbers of functions, rounded rules
            warnings.warn(
                f"{self.label(name)}: num_basis={self.num_basis} functions carry length "
                f"scales down to {carried:.2g}, but the prior has 5% below "
                f"{lengths[0]:.2g}. Raise it, or leave it out.",
                stacklevel=2,
            )

    def _lengths(self, name: str, *, needed: bool) -> Any:
        """The 5% and 95% points of the length scale's prior, None where not known."""
        try:
            return prior_lengths(self)
        except jax.errors.JAXTypeError as error:
            if not needed:
                return None
            raise ValueError(
                f"{self.label(name)}: the prior of the length scale depends on what is "
                "sampled or traced, but the number of functions decides shapes, which "
                "are fixed before anything runs. Set `num_basis` and `boundary`."
            ) from error


@lru_cache(maxsize=64)
def prior_lengths(layer: HSGPLayer) -> tuple[float, float]:
    """The 5% and 95% points of a length scale's prior, by 100,000 draws where need be."""
    prior = layer.length_prior()
    with jax.ensure_compile_time_eval():
        try:
            ends = np.array([prior.icdf(jnp.asarray(p)) for p in (0.05, 0.95)])
        except (
            NotImplementedError,
            AttributeError,
            ImportError,
        ):  # not known to NumPyro
            draws = np.asarray(prior.sample(jax.random.key(0), (100_000,)))
            ends = np.quantile(draws, [0.05, 0.95])
    shortest, longest = ends.min(), ends.max()
    return float(shortest), float(longest)


def learn_box(where: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """The middle and half the range of each training column."""
    x = np.asarray(x, float).reshape(len(x), -1)
    low, high = x.min(axis=0), x.max(axis=0)
    if not np.isfinite(high - low).all():
        raise ValueError(
            f"{where}: training values are not finite, and the box is laid around all of "
            "them. Leave those rows out, or fill them."
        )
    flat = np.flatnonzero(high == low)
    if flat.size:
        raise ValueError(
            f"{where}: training columns {flat.tolist()} are constant, so no process over "
            "them can be learned. Leave them out, or fit it to rows that differ."
        )
    return {"middle": (low + high) / 2.0, "half": (high - low) / 2.0}


def require_inside(where: str, x: Any, learned: Mapping[str, Any], c: Any) -> None:
    """Raise where known rows lie outside of the box."""
    known = concrete(as_array(x))
    if known is None:
        return
    known = np.asarray(known, float).reshape(len(known), -1)
    low = learned["middle"] - np.multiply(c, learned["half"])
    high = learned["middle"] + np.multiply(c, learned["half"])
    bad = (known < low) | (known > high)
    if bad.any():
        raise ValueError(
            f"{where}: `x` has {where_bad(bad)}, outside of the box {low.tolist()} to "
            f"{high.tolist()} that the training rows laid. The process is not "
            "approximated there: fit it to rows that reach as far, raise `boundary`, or "
            "use SplineLayer, which continues as a line."
        )


def root_density(kernel: str, c: list[float], m: list[int], length: Array) -> Array:
    """The root of a kernel's spectral density at each function's frequency."""
    d = len(c)
    if kernel == "rbf":
        density = diag_spectral_density_squared_exponential(1.0, length, c, m, d)
    else:
        nu = {"matern32": 1.5, "matern52": 2.5}[kernel]
        density = diag_spectral_density_matern(nu, 1.0, length, c, m, d)
    # where it underflows to zero, its root would have no finite slope
    return jnp.sqrt(jnp.maximum(density, jnp.finfo(density.dtype).tiny))
