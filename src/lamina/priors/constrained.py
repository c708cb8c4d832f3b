"""Coefficients that obey a constraint: a sign, an order, a sum of zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import HalfNormal, ZeroSumNormal

from lamina._typing import Array, Family, Prior, Shape, show
from lamina.priors.families import (
    UNIT_SCALE,
    PriorForm,
    Sites,
    learned_scale,
    require_scale,
    spread,
)
from lamina.priors.independent import Adaptive, Fixed


def positive() -> Adaptive:
    """Positive coefficients of one learned scale for each unit."""
    return Adaptive(coef_dist=HalfNormal, coef_kwargs={})


@dataclass(frozen=True, repr=False, eq=False)
class Signed(PriorForm):
    r"""Coefficients of a known sign: $\beta_{du} = s_d\, b_{du}$ with $b_{du} > 0$.

    `sign` is 1 or -1 for all columns, or one of them for each; `prior` is that of the
    sizes $b$, which must be positive: any with a half distribution. By default

    $$b_{du} \sim \text{HalfNormal}(\lambda_u), \qquad
      \lambda_u \sim \text{HalfNormal}(1)$$

    Prices that can only lower demand, for one: `AdaptiveLayer(prior=Signed(-1))`. Columns
    of either sign belong in a layer of their own, whose term is added.

    Shapes: `(name, shape)` gives `shape`, the deterministic site `{name}.beta`; the
    sampled sites are those of `prior`, with `{name}.beta_size` for its coefficients.
    Units: $\beta$ is in units of the predictor over units of the column.
    Raises: ValueError for other signs or a prior that draws negative numbers, at
    construction; for signs that are not as many as the columns.
    Source: Gelfand, Smith and Lee (1992), Bayesian Analysis of Constrained Parameter and
    Truncated Data Problems Using Gibbs Sampling.
    """

    sign: int | Sequence[int] | np.ndarray = 1
    prior: Prior | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        signs = np.asarray(self.sign)
        if signs.ndim > 1 or not np.isin(signs, (-1, 1)).all() or not signs.size:
            raise ValueError(
                f"Signed: `sign` is {self.sign!r}, but a sign is 1 or -1: give one for "
                "all columns, or one for each. Columns of either sign belong in a layer "
                "of their own."
            )
        known = tuple(signs.astype(int).tolist()) if signs.ndim else int(signs)
        object.__setattr__(self, "sign", known)
        require_positive("Signed: `prior`", self.prior)

    @property
    def joint(self) -> bool:
        return getattr(self.prior, "joint", False)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        site = sites.own
        signs = np.asarray(self.sign)
        if signs.ndim:
            if len(signs) != shape[0]:
                raise ValueError(
                    f"{site}: `sign` has {len(signs)} entries, but the coefficients have "
                    f"shape {shape}: {shape[0]} columns. Give each column its sign, or "
                    "one for all."
                )
            signs = signs.reshape(-1, *(1,) * (len(shape) - 1))
        prior = positive() if self.prior is None else self.prior
        size = _part(prior, sites, shape, "size", shared)
        signs = np.broadcast_to(signs, np.shape(size))
        return numpyro.deterministic(site, size * signs.astype(size.dtype))


@dataclass(frozen=True, repr=False, eq=False)
class Ordered(PriorForm):
    r"""Coefficients that increase from column to column, or decrease.

    $$\beta_{1u} = b_{1u}, \qquad \beta_{du} = \beta_{d-1,u} + \delta_{du}, \quad
      \delta_{du} > 0$$

    For columns that are the steps of a scale: indicators of ordered categories, or bins
    of a column in which the effect is known to be monotone. `start` is the prior of
    $b_1$ (default Normal(0, 1)), `steps` that of the steps $\delta$, which must be
    positive (default HalfNormal($\lambda_u$), $\lambda_u \sim$ HalfNormal(1)).
    `decreasing=True` subtracts the steps.

    Shapes: `(name, shape)` gives `shape`, increasing along its first axis, the
    deterministic site `{name}.beta`; the sampled sites are those of `start` and `steps`,
    with `{name}.beta_start` (1, ...) and `{name}.beta_steps` (d - 1, ...) for their
    coefficients.
    Units: all are in units of the predictor over units of the column.
    Raises: ValueError for steps that can be negative, at construction.
    Source: Gelfand, Smith and Lee (1992), Bayesian Analysis of Constrained Parameter and
    Truncated Data Problems Using Gibbs Sampling, on ordered parameters.
    """

    start: Prior | None = None
    steps: Prior | None = None
    decreasing: bool = False

    @property
    def joint(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("Ordered: `steps`", self.steps)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        d, *rest = shape
        first = Fixed() if self.start is None else self.start
        beta = _part(first, sites, (1, *rest), "start", shared)
        if d > 1:
            prior = positive() if self.steps is None else self.steps
            steps = _part(prior, sites, (d - 1, *rest), "steps", shared)
            axis = beta.ndim - len(shape)
            steps = -steps if self.decreasing else steps
            beta = jnp.cumsum(jnp.concatenate([beta, steps], axis), axis)
        return numpyro.deterministic(sites.own, beta)


@dataclass(frozen=True, repr=False, eq=False)
class SumToZero(PriorForm):
    r"""Coefficients that sum to zero over the columns, with a learned scale.

    $$\beta_{\cdot u} = \lambda_u z_u, \qquad
      z_u \sim \text{Normal}(0, I - \tfrac{1}{d} J), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    with $J$ full of ones: independent Normals less their mean. The effects of all levels
    of a factor beside an intercept, for one: what all share is the intercept's, and only
    it can move it. The levels are then those of the data and no others, so an unseen
    level has no draw.

    Shapes: `(name, shape)` gives `shape`, which sums to zero along its first axis, the
    deterministic site `{name}.beta`; the sampled sites are `{name}.lmbda` (the last axis
    of `shape`, or `scale_shape`) and `{name}.beta_decentered`, $z$ with the first axis
    of `shape` last.
    Units: $\lambda$ and $\beta$ are in units of the predictor over units of the column.
    Raises: ValueError for a single column, which could only be zero; for `lmbda_dist` as
    Adaptive, at construction.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 3, on the
    constraint; NumPyro's ZeroSumNormal is the prior.
    """

    lmbda_dist: Family = HalfNormal
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE

    @property
    def joint(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale(self.lmbda_dist, self.lmbda_kwargs)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        site = sites.own
        d, *rest = shape
        if d < 2 or not rest:
            raise ValueError(
                f"{site}: the coefficients have shape {shape}, and coefficients that sum "
                "to zero need at least two along their first axis, and units behind it: "
                "one alone could only be zero. Use another prior for it."
            )
        lmbda = learned_scale(sites, self.lmbda_dist, self.lmbda_kwargs, shared)
        contrasts = ZeroSumNormal(1.0, event_shape=(d,)).expand(tuple(rest))
        z = numpyro.sample(f"{site}_decentered", contrasts.to_event(len(rest)))
        z = jnp.moveaxis(z, -1, z.ndim - len(shape))
        return numpyro.deterministic(site, spread(lmbda, shared, shape) * z)


def _part(prior: Prior, sites: Sites, shape: Shape, part: str, shared: Shape) -> Array:
    """What another prior draws for a part of the coefficients."""
    coefficient = f"{sites.coefficient}_{part}"
    return prior(
        sites.name, shape, coefficient, suffix=sites.suffix, scale_shape=shared
    )


def require_positive(where: str, prior: Any) -> None:
    """Raise for a prior that is known to draw negative numbers."""
    if getattr(prior, "positive", True):
        return
    raise ValueError(
        f"{where} is {show(prior)}, which draws negative numbers, where positive ones are "
        "needed. Give it a half distribution: Adaptive(coef_dist=HalfNormal, "
        "coef_kwargs={}), or Fixed(HalfNormal, {'scale': 1.0})."
    )
