"""Correlated coefficients of a level, and what all dependent priors share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import HalfNormal

from lamina._checks import concrete
from lamina._typing import Array, Family, Shape
from lamina.priors import UNIT_SCALE, sample_shaped, spread
from lamina.priors.families import PriorForm, Sites, learned_scale, require_scale


@dataclass(frozen=True, repr=False, eq=False)
class Scaled(PriorForm):
    """What these priors share: a learned scale, given as `Adaptive` takes it."""

    lmbda_dist: Family = field(default=HalfNormal, kw_only=True)
    lmbda_kwargs: Mapping[str, Any] = field(default=UNIT_SCALE, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale(self.lmbda_dist, self.lmbda_kwargs)

    def scales(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        """The learned scale of each coefficient."""
        lmbda = learned_scale(sites, self.lmbda_dist, self.lmbda_kwargs, shared)
        return spread(lmbda, shared, shape)


@dataclass(frozen=True, repr=False, eq=False)
class Correlated(Scaled):
    r"""The coefficients of a level are correlated, and have one learned scale each.

    $$\theta_c \sim \text{Normal}(0, \text{diag}(\lambda)\,LL^T\,\text{diag}(\lambda)),
      \qquad L \sim \text{LKJCholesky}(\eta)$$

    `concentration` is $\eta$: 1 makes every correlation matrix as likely, more draws them
    towards independence. By default non-centred, $\theta_c = \text{diag}(\lambda)\,L\,z_c$;
    `centered=True` samples $\theta$ itself, which is better where every level has much
    data. A single coefficient has no correlation, and no site for it.

    Shapes: `(name, (c, k))` gives (c, k), from the sites `{name}.lmbda` (k,) or
    `scale_shape`, `{name}.corr` (k, k), the Cholesky factor of the correlations, and
    `{name}.z` (c, k); `{name}.theta` (c, k) is then a deterministic value.
    Units: $\lambda$ and $\theta$ are in units of the predictor over units of the column.
    Raises: ValueError for a concentration that is not positive, and as `Adaptive` for
    its scales.
    Source: Lewandowski, Kurowicka and Joe (2009), Generating random correlation matrices
    based on vines and extended onion method.
    """

    concentration: float = 1.0
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        known = concrete(self.concentration)
        if known is not None and not (known.ndim == 0 and 0 < known < np.inf):
            raise ValueError(
                f"Correlated: `concentration` is {self.concentration!r}, but it is one "
                "positive number: 1 for all correlations alike, 2 or more to doubt "
                "strong ones."
            )

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        k = shape[-1]
        scales = self.scales(sites, shape, shared)
        corr = None
        if k > 1:
            lkj = dist.LKJCholesky(k, self.concentration)
            corr = numpyro.sample(sites.of("corr"), lkj)
            # an axis of 1 for every level, behind the axes of replicates
            lead = jnp.shape(corr)[:-2] + (1,) * (len(shape) - 1)
            corr = jnp.reshape(corr, (*lead, k, k))
        if self.centered and corr is not None:
            fn = dist.MultivariateNormal(0.0, scale_tril=scales[..., None] * corr)
            return numpyro.sample(sites.own, fn.to_event(len(shape) - 1))
        if self.centered:
            return sample_shaped(sites.own, dist.Normal(0.0, scales), shape)
        z = sample_shaped(sites.of("z"), dist.Normal(0.0, 1.0), shape)
        mixed = z if corr is None else (corr * z[..., None, :]).sum(axis=-1)
        return numpyro.deterministic(sites.own, scales * mixed)
