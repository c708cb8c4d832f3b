"""Areas that are related to their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import Beta, Distribution, Uniform
from numpyro.distributions.transforms import ReshapeTransform

from lamina._checks import allows
from lamina._typing import Array, Family, FrozenDict, Shape, show
from lamina.dependence.graphs import (
    as_adjacency,
    intrinsic_spectrum,
    proper_spectrum,
    require_neighbours,
)
from lamina.dependence.levels import RelatedLevels
from lamina.priors import family, spread
from lamina.priors.families import Sites

FLAT = FrozenDict(low=0.0, high=1.0)
HALVES = FrozenDict(concentration1=0.5, concentration0=0.5)


@dataclass(frozen=True, repr=False, eq=False)
class CAR(RelatedLevels):
    r"""Areas, each given its neighbours: a conditional autoregression.

    $$\theta_i \mid \theta_{-i} \sim \text{Normal}\Big(\frac{\alpha}{n_i}
      \sum_{j \sim i} \theta_j, \frac{\lambda}{\sqrt{n_i}}\Big), \qquad
      \alpha \sim \text{Uniform}(0, 1)$$

    for an area of $n_i$ neighbours, so $\theta \sim \text{Normal}(0,
    \lambda^2 (D - \alpha W)^{-1})$. `proper=False` is the intrinsic one, of $\alpha = 1$,
    whose effects sum to zero in each connected part of the graph; parts then need
    intercepts of their own.

    By default non-centred, in the eigenvectors of the graph: c squared numbers for c
    areas. `centered=True` samples $\theta$ from `numpyro.distributions.CAR`, by sparse
    products, which is better for thousands of areas or where each has much data.

    Shapes: `adjacency` is an `Adjacency` or a matrix (c, c); `(name, (c, m))` gives
    (c, m), from the sites `{name}.lmbda`, `{name}.alpha` () and `{name}.z` (c, m);
    `{name}.theta` (c, m) is a deterministic value. The intrinsic one has no `alpha`, and
    `z` (c - parts, m).
    Units: $\lambda$ is in units of the predictor: the standard deviation of an area of
    one neighbour, given that neighbour.
    Raises: ValueError for an adjacency that is not symmetric, has loops or weights, or
    has areas without neighbours.
    Source: Besag (1974), Spatial Interaction and the Statistical Analysis of Lattice
    Systems; Banerjee, Carlin and Gelfand (2014), Hierarchical Modeling and Analysis for
    Spatial Data, chapter 4.
    """

    adjacency: Any
    proper: bool = field(default=True, kw_only=True)
    centered: bool = field(default=False, kw_only=True)
    alpha_dist: Family = field(default=Uniform, kw_only=True)
    alpha_kwargs: Mapping[str, Any] = field(default=FLAT, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "adjacency", as_adjacency(self.adjacency))
        super().__post_init__()
        require_neighbours("CAR", self.adjacency)
        self._alpha()
        if self.centered and not self.proper:
            raise ValueError(
                "CAR: `centered=True` needs a density over all areas, and the intrinsic "
                "autoregression, proper=False, has none: its effects sum to zero. Leave "
                "out one of the two."
            )

    def _alpha(self) -> Distribution:
        return unit_family("alpha_dist", self.alpha_dist, self.alpha_kwargs, FLAT)

    @property
    def num_levels(self) -> int:
        return int(self.adjacency.num_areas)

    def basis(self) -> np.ndarray:
        if self.proper:
            return proper_spectrum(self.adjacency)[0]
        basis, variances = intrinsic_spectrum(self.adjacency, scaled=False)
        free = variances > 0
        return basis[:, free] * np.sqrt(variances[free])

    def deviations(self, sites: Sites) -> Array | None:
        if not self.proper:
            return None
        alpha = numpyro.sample(sites.of("alpha"), self._alpha())
        alpha, omega = alike(alpha, proper_spectrum(self.adjacency)[1])
        return 1.0 / jnp.sqrt(1.0 - alpha * omega)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        if not self.centered:
            return super().draw(sites, shape, shared)
        self.require_shape(sites.name, shape)
        if shape[1] != 1:
            raise ValueError(
                f"{sites.name}: CAR(centered=True) draws one effect for each area, but the "
                f"coefficients have shape {shape}. Set centered=False."
            )
        lmbda = self.scales(sites, shape, shared)[..., 0, 0]
        alpha = numpyro.sample(sites.of("alpha"), self._alpha())
        w = self.adjacency.matrix()
        sparse = jnp.ndim(alpha) == 0  # NumPyro's sparse form knows no replicates
        areas = dist.CAR(
            0.0, alpha, lmbda**-2.0, w if sparse else w.toarray(), is_sparse=sparse
        )
        column = ReshapeTransform(forward_shape=shape, inverse_shape=shape[:1])
        fn = dist.TransformedDistribution(areas, column)
        return numpyro.sample(sites.own, fn)


@dataclass(frozen=True, repr=False, eq=False)
class BYM2(RelatedLevels):
    r"""Areas with an effect that is part spatial, part independent.

    $$\theta = \lambda\,(\sqrt{1 - \phi}\,v + \sqrt{\phi}\,u), \qquad
      v \sim \text{Normal}(0, I), \quad u \sim \text{Normal}(0, Q^{-}_*), \quad
      \phi \sim \text{Beta}(1/2, 1/2)$$

    where $Q^{-}_*$ is the covariance of the intrinsic autoregression, scaled so that its
    marginal variances have the geometric mean 1 in each connected part: $\lambda$ is then
    the standard deviation of an area's effect, and $\phi$ its spatial share. An island's
    structured effect is Normal(0, 1), as independent as the other. $v$ and $u$ are not
    apart: $\theta$, given $\lambda$ and $\phi$, is drawn whole, from c numbers instead of
    2c that the data could not tell apart.

    Shapes: `adjacency` is an `Adjacency` or a matrix (c, c); `(name, (c, m))` gives
    (c, m), from the sites `{name}.lmbda`, `{name}.phi` () and `{name}.z` (c, m), in the
    eigenvectors of the graph; `{name}.theta` (c, m) is a deterministic value.
    Units: $\lambda$ and $\theta$ are in units of the predictor; $\phi$ is a share.
    Raises: ValueError for an adjacency that is not symmetric or has loops or weights.
    Source: Riebler, Sorbye, Simpson and Rue (2016), An intuitive Bayesian spatial model
    for disease mapping that accounts for scaling; its prior for $\phi$ is Morris
    and others' (2019), Bayesian hierarchical spatial models:
    Implementing the Besag York Mollie model in Stan.
    """

    adjacency: Any
    phi_dist: Family = field(default=Beta, kw_only=True)
    phi_kwargs: Mapping[str, Any] = field(default=HALVES, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "adjacency", as_adjacency(self.adjacency))
        super().__post_init__()
        self._phi()

    def _phi(self) -> Distribution:
        return unit_family("phi_dist", self.phi_dist, self.phi_kwargs, HALVES)

    @property
    def num_levels(self) -> int:
        return int(self.adjacency.num_areas)

    def basis(self) -> np.ndarray:
        return intrinsic_spectrum(self.adjacency, scaled=True)[0]

    def deviations(self, sites: Sites) -> Array:
        phi = numpyro.sample(sites.of("phi"), self._phi())
        phi, variances = alike(phi, intrinsic_spectrum(self.adjacency, scaled=True)[1])
        return jnp.sqrt(1.0 + phi * (variances - 1.0))


def alike(number: Array, known: np.ndarray) -> tuple[Array, Array]:
    """A sampled number and a known vector (c,), both (..., c)."""
    number = spread(jnp.asarray(number), (), known.shape)
    return number, jnp.broadcast_to(jnp.asarray(known, number.dtype), number.shape)


def unit_family(
    argument: str, fn: Family, kwargs: Mapping[str, Any], default: Mapping[str, Any]
) -> Distribution:
    """The distribution of one number that is known to lie between 0 and 1."""
    built = family(argument, fn, kwargs, default)
    for outside in (-0.5, 1.5):
        if allows(built, outside):
            raise ValueError(
                f"{argument}: {show(fn)} allows {outside}, but this number lies between "
                "0 and 1. Choose a distribution there, such as Uniform(0, 1) or Beta."
            )
    if built.batch_shape:
        raise ValueError(
            f"{argument}: {show(fn)} has shape {built.batch_shape}, but one number is "
            "learned for all levels. Give it scalar arguments."
        )
    return built
