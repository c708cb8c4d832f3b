"""Layers for areas with neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpyro.distributions import HalfNormal

from lamina._checks import Remedies
from lamina._typing import Array, Family, Prior
from lamina.dependence import BYM2, CAR
from lamina.dependence.graphs import as_adjacency
from lamina.effects import term
from lamina.layers._levels import Levels
from lamina.priors import UNIT_SCALE, Adaptive


@dataclass(frozen=True, repr=False, eq=False)
class AreaForm(Levels):
    """A constant for each area of a graph; its prior relates neighbours."""

    adjacency: Any = None
    lmbda_dist: Family = HalfNormal
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE
    unseen: Literal["zero", "error"] = field(default="error", kw_only=True)

    def __post_init__(self) -> None:
        if self.adjacency is not None:
            object.__setattr__(self, "adjacency", as_adjacency(self.adjacency))
        super().__post_init__()
        name = type(self).__name__
        if self.prior is not None:
            raise ValueError(
                f"{name}: `prior` is given, but this layer is its prior, "
                f"{name.removesuffix('Layer')}. Use RandomEffectsLayer for another prior "
                "of areas."
            )
        if self.unseen == "draw":  # type: ignore[comparison-overlap]
            raise ValueError(
                f"{name}: `unseen` is 'draw', but an area that was not fitted has no "
                "known neighbours to be drawn from. Include it in the adjacency (an area "
                "without rows is drawn given the others), or set unseen='zero'."
            )

    def default_prior(self) -> Prior:
        if self.adjacency is None:  # the call says that it is missing
            return Adaptive(self.lmbda_dist, lmbda_kwargs=self.lmbda_kwargs)
        return self.area_prior()

    def remedies(self) -> Remedies:
        return Remedies(
            past="include the area in the adjacency (without rows of data it is drawn "
            "given its neighbours)",
            negative="It stands for an area that was not fitted, whose neighbours are not "
            "known: include it in the adjacency (without rows of data it is drawn given "
            "its neighbours), or predict with unseen='zero'. Fitted rows have codes from "
            "0",
        )

    def area_prior(self) -> Prior:
        """The prior of the areas, given which are neighbours."""
        raise NotImplementedError

    def __call__(self, name: str, x: Any) -> Array:
        where = self.label(name)
        if self.adjacency is None:
            raise TypeError(
                f"{where}: `adjacency` is missing, so no area has a neighbour. Give a "
                "symmetric matrix of zeros and ones, "
                f"{type(self).__name__}(adjacency), or Adjacency.from_edges(...)."
            )
        shape = (self.adjacency.num_areas, 1)
        return term(name, self.table_rows(name, x, shape))


@dataclass(frozen=True, repr=False, eq=False)
class CARLayer(AreaForm):
    r"""A constant for each area, given its neighbours': a conditional autoregression.

    $$f_{n1} = \theta_{a_n 1}, \qquad \theta_i \mid \theta_{-i} \sim
      \text{Normal}\Big(\frac{\alpha}{n_i} \sum_{j \sim i} \theta_j,
      \frac{\lambda}{\sqrt{n_i}}\Big), \quad \alpha \sim \text{Uniform}(0, 1), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    for an area of $n_i$ neighbours. `proper=False` is the intrinsic one, $\alpha = 1$,
    whose effects sum to zero in each connected part of the map: it has no `alpha`, and
    `z` (c - parts, 1). `centered=True` samples `theta` itself, in place of `z`, and by
    sparse products, for thousands of areas or much data in each.

    It is RandomEffectsLayer with `prior=CAR(adjacency)`, which takes another prior of
    $\alpha$, too. Areas to be predicted belong in the adjacency; without rows of data they
    are drawn given their neighbours. Negative codes raise; `unseen="zero"` gives them no
    effect.

    Shapes: `adjacency` is a matrix (c, c), dense or sparse, or an `Adjacency`; integer
    `x` (n,) or (n, 1) gives (n, 1); the sites are `{name}.lmbda` (), `{name}.alpha` ()
    and `{name}.z` (c, 1), in the eigenvectors of the map; `{name}.theta` (c, 1) is a
    deterministic value.
    Units: $\theta$ and $\lambda$ are in units of the predictor; $\lambda$ is the standard
    deviation of an area of one neighbour, given that neighbour.
    Raises: ValueError for an adjacency that is not symmetric, has loops or weights, or
    has areas without neighbours, and for codes that are no area; TypeError without one.
    Source: Besag (1974), Spatial Interaction and the Statistical Analysis of Lattice
    Systems; Banerjee, Carlin and Gelfand (2014), Hierarchical Modeling and
    Analysis for Spatial Data, chapter 4.
    """

    proper: bool = field(default=True, kw_only=True)
    centered: bool = field(default=False, kw_only=True)

    def area_prior(self) -> Prior:
        return CAR(
            self.adjacency,
            proper=self.proper,
            centered=self.centered,
            lmbda_dist=self.lmbda_dist,
            lmbda_kwargs=self.lmbda_kwargs,
        )


@dataclass(frozen=True, repr=False, eq=False)
class BYM2Layer(AreaForm):
    r"""A constant for each area, part spatial and part independent.

    $$f_{n1} = \theta_{a_n 1}, \qquad
      \theta = \lambda\,(\sqrt{1 - \phi}\,v + \sqrt{\phi}\,u), \quad
      v \sim \text{Normal}(0, I), \quad u \sim \text{ICAR}, \quad
      \phi \sim \text{Beta}(1/2, 1/2), \quad \lambda \sim \text{HalfNormal}(1)$$

    $u$ is the intrinsic autoregression, scaled so that the geometric mean of its marginal
    variances is 1 in each connected part of the map. An island, an area without
    neighbours, has an independent effect of standard deviation $\lambda$. $\theta$ is
    drawn whole; $v$ and $u$ are not apart.

    It is RandomEffectsLayer with `prior=BYM2(adjacency)`, which takes another prior of
    $\phi$, too. Areas to be predicted belong in the adjacency; without rows of data they
    are drawn given their neighbours. Negative codes raise; `unseen="zero"` gives them no
    effect.

    Shapes: `adjacency` is a matrix (c, c), dense or sparse, or an `Adjacency`; integer
    `x` (n,) or (n, 1) gives (n, 1); the sites are `{name}.lmbda` (), `{name}.phi` () and
    `{name}.z` (c, 1), in the eigenvectors of the map; `{name}.theta` (c, 1) is a
    deterministic value.
    Units: $\theta$ and $\lambda$ are in units of the predictor, $\lambda$ the standard
    deviation of a typical area's effect; $\phi$ is the spatial share of its variance.
    Raises: ValueError for an adjacency that is not symmetric or has loops or weights, and
    for codes that are no area; TypeError without one.
    Source: Riebler, Sorbye, Simpson and Rue (2016), An intuitive Bayesian spatial model
    for disease mapping that accounts for scaling; islands as in
    Freni-Sterrantino, Ventrucci and Rue (2018), A note on intrinsic conditional
    autoregressive models for disconnected graphs.
    """

    def area_prior(self) -> Prior:
        return BYM2(
            self.adjacency, lmbda_dist=self.lmbda_dist, lmbda_kwargs=self.lmbda_kwargs
        )
