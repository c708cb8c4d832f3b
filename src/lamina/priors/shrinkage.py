"""Priors for many columns of which few matter: horseshoe, R2-D2, spike and slab.

All sample their coefficients in non-centred form, a standard Normal times a scale, since
the scales and what they scale are otherwise a funnel that no sampler with one step size
explores. The coefficients themselves are deterministic sites.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import (
    BetaProportion,
    Dirichlet,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    Logistic,
)

from lamina._typing import Array, Family, Shape
from lamina.priors.families import (
    UNIT_SCALE,
    PriorForm,
    Sites,
    learned_scale,
    noncentered,
    require_number,
    require_scale,
    sample_shaped,
    spread,
)


@dataclass(frozen=True, repr=False, eq=False)
class Horseshoe(PriorForm):
    r"""The regularised horseshoe: most coefficients near zero, the others hardly shrunk.

    $$\beta_{du} = z_{du} \frac{c_u \tau_u \lambda_{du}}
        {\sqrt{c_u^2 + \tau_u^2 \lambda_{du}^2}}, \qquad
      z_{du} \sim \text{Normal}(0, 1), \quad
      \lambda_{du} \sim \text{HalfCauchy}(1),$$
    $$\tau_u \sim \text{HalfCauchy}(\tau_0), \qquad
      c_u^2 \sim \text{InverseGamma}(\nu/2, \nu s^2/2)$$

    `global_scale` is $\tau_0$; `Horseshoe.expecting` finds it from the number of columns
    that matter. `slab_scale` is $s$ and `slab_df` is $\nu$: a coefficient that escapes
    from zero has a Student-t prior with them, so that separable outcomes and few rows do
    not let it run away. The default $\tau_0$ expects about a tenth of the columns to
    matter at 100 rows, and more at more rows, as `expecting` says.

    Shapes: `(name, shape)` gives `shape`, the deterministic site `{name}.beta`; the
    sampled sites are `{name}.tau` and `{name}.slab`, which is $c^2$ (the last axis of
    `shape`, or `scale_shape`), `{name}.lmbda` and `{name}.beta_decentered` (`shape`).
    Units: $\tau$, $s$ and $\beta$ are in units of the predictor over units of the column;
    standardise the columns, so that one $\tau$ suits all.
    Raises: ValueError for a scale or degrees of freedom that are not positive, at
    construction.
    Source: Piironen and Vehtari (2017), Sparsity information and regularization in the
    horseshoe and other shrinkage priors.
    """

    global_scale: Any = 0.01
    slab_scale: Any = 2.0
    slab_df: Any = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("global_scale", "slab_scale", "slab_df"):
            require_number(f"Horseshoe: `{name}`", getattr(self, name))

    @classmethod
    def expecting(
        cls,
        num_nonzero: float,
        *,
        num_columns: int,
        num_rows: int,
        noise: Any = 1.0,
        slab_scale: Any = 2.0,
        slab_df: Any = 4.0,
    ) -> Horseshoe:
        r"""The horseshoe that expects `num_nonzero` of `num_columns` to matter.

        $$\tau_0 = \frac{p_0}{D - p_0} \frac{\sigma}{\sqrt{n}}$$

        At $\tau = \tau_0$ and for uncorrelated columns of variance one, the effective
        number of non-zero coefficients, the sum of what is left of each after shrinkage,
        is $p_0$ on average; $\tau$ is learned, so the data may say otherwise.

        `num_rows` is the number of training rows, not of a batch. `noise` is the residual
        standard deviation $\sigma$, known or a sampled value; for a logistic regression
        2 is about right.

        Raises: ValueError unless 0 < `num_nonzero` < `num_columns` and the rest is
        positive.
        Source: Piironen and Vehtari (2017), as above.
        """
        require_number("Horseshoe.expecting: `num_rows`", num_rows)
        require_number("Horseshoe.expecting: `noise`", noise)
        require_number("Horseshoe.expecting: `num_columns`", num_columns)
        require_number(
            "Horseshoe.expecting: `num_nonzero`", num_nonzero, high=num_columns
        )
        odds = num_nonzero / (num_columns - num_nonzero)
        return cls(odds * noise / math.sqrt(num_rows), slab_scale, slab_df)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        half = self.slab_df / 2.0
        slab_prior = InverseGamma(half, half * self.slab_scale**2)
        tau = sample_shaped(sites.of("tau"), HalfCauchy(self.global_scale), shared)
        slab = sample_shaped(sites.of("slab"), slab_prior, shared)
        lmbda = sample_shaped(sites.of("lmbda"), HalfCauchy(1.0), shape)
        wide = spread(tau, shared, shape) * lmbda
        widest = jnp.sqrt(spread(slab, shared, shape))
        # hypot, since a square would overflow where the half-Cauchys' tails reach
        scale = wide / jnp.hypot(1.0, wide / widest)
        return noncentered(sites.own, scale, shape)


@dataclass(frozen=True, repr=False, eq=False)
class R2D2(PriorForm):
    r"""A prior on $R^2$, whose explained variance the columns share out.

    $$\beta_{du} = \sigma\, z_{du} \sqrt{\phi_{ud} \frac{R_u^2}{1 - R_u^2}}, \qquad
      z_{du} \sim \text{Normal}(0, 1),$$
    $$R_u^2 \sim \text{Beta}(\mu p, (1 - \mu) p), \qquad
      \phi_u \sim \text{Dirichlet}(\alpha, \ldots, \alpha)$$

    `mean_r2` is $\mu$ and `precision` is $p$: at the defaults $R^2$ is uniform from 0 to
    1. `concentration` is $\alpha$: below one a few columns take most of the variance,
    above one they share it alike. `noise` is the residual standard deviation $\sigma$,
    known or a sampled value: sample it first, and give it to the link as its `scale`.

    $R^2$ is that of the term for uncorrelated columns of mean zero and variance one,
    as a share of its variance and the noise's. Standardise the columns: otherwise it is
    the prior of something else.

    Shapes: `(name, shape)` gives `shape`, the deterministic site `{name}.beta`; the
    sampled sites are `{name}.r2` (the last axis of `shape`, or `scale_shape`),
    `{name}.phi`, whose last axis holds the shares of all coefficients that one $R^2$
    covers (left out where that is one), and `{name}.beta_decentered` (`shape`).
    Units: $R^2$ and $\phi$ are shares; $\sigma$ is in units of the predictor.
    Raises: ValueError for a mean outside of 0 to 1, or a precision, concentration or
    noise that is not positive, at construction.
    Source: Zhang, Naughton, Bondell and Reich (2022), Bayesian Regression Using a Prior
    on the Model Fit: The R2-D2 Shrinkage Prior, with Normal coefficients
    instead of Laplace ones, as Aguilar and Bürkner (2023), Intuitive joint priors for
    Bayesian linear multilevel models: The R2D2M2 prior.
    """

    mean_r2: Any = 0.5
    precision: Any = 2.0
    concentration: Any = 0.5
    noise: Any = 1.0

    @property
    def joint(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("R2D2: `mean_r2`", self.mean_r2, high=1.0)
        for name in ("precision", "concentration", "noise"):
            require_number(f"R2D2: `{name}`", getattr(self, name))

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        r2_prior = BetaProportion(self.mean_r2, self.precision)
        r2 = sample_shaped(sites.of("r2"), r2_prior, shared)
        unexplained = jnp.maximum(1.0 - r2, jnp.finfo(jnp.result_type(r2)).eps)
        variance = spread(r2 / unexplained, shared, shape)
        many = math.prod(shape[: len(shape) - len(shared)])
        if many > 1:
            shares = Dirichlet(jnp.full((*jnp.shape(r2), many), self.concentration))
            phi = numpyro.sample(sites.of("phi"), shares.to_event(len(shared)))
            variance = variance * shares_by_column(phi, shared, shape)
        scale = self.noise * jnp.sqrt(variance)
        return noncentered(sites.own, scale, shape)


def shares_by_column(phi: Array, shared: Shape, shape: Shape) -> Array:
    """Shares (..., *shared, D) in the shape of the coefficients (..., *shape)."""
    # a share that underflows to zero would give its root an infinite slope
    phi = jnp.maximum(phi, jnp.finfo(phi.dtype).tiny)
    lead = phi.shape[: phi.ndim - 1 - len(shared)]
    return jnp.reshape(jnp.moveaxis(phi, -1, len(lead)), (*lead, *shape))


@dataclass(frozen=True, repr=False, eq=False)
class SpikeAndSlab(PriorForm):
    r"""Spike and slab with a gate that is nearly, not quite, closed or open.

    $$\beta_{du} = w_{du}\, \lambda_u z_{du}, \qquad
      w_{du} = \frac{1}{1 + e^{-g_{du}}}, \quad
      g_{du} \sim \text{Logistic}\Big(\tfrac{1}{t} \log\tfrac{\pi}{1 - \pi},
        \tfrac{1}{t}\Big),$$
    $$z_{du} \sim \text{Normal}(0, 1), \qquad \lambda_u \sim \text{HalfNormal}(1)$$

    `inclusion` is $\pi$ and `temperature` is $t$. The weight $w$ takes the place of the
    indicator that is 1 where a column is in the model and 0 where it is not, which no
    method that follows gradients can sample. As $t$ goes to zero it becomes that
    indicator.

    What the weight means: at any $t$, $\Pr(w > 1/2) = \pi$ in the prior. In the posterior
    neither $\text{E}(w)$ nor $\Pr(w > 1/2)$ is the probability that a column is in the
    model: $w$ and $z$ are known by their product alone, so that a small coefficient is
    a closed gate as well as a small $z$ behind one half open, and the mean weight of an
    idle column stays well above zero, that of a strong one below one. Use weights to
    rank columns; to say how large an effect is, use $\beta$, such as
    $\Pr(|\beta| > \delta)$ for a $\delta$ that matters. A small $t$ is closer to the
    indicator and harder to sample: modes part, and chains no longer cross between them.

    Shapes: `(name, shape)` gives `shape`, the deterministic site `{name}.beta`, and
    `{name}.weight` beside it; the sampled sites are `{name}.lmbda` (the last axis of
    `shape`, or `scale_shape`), `{name}.gate` and `{name}.beta_decentered` (`shape`).
    Units: $\lambda$ and $\beta$ are in units of the predictor over units of the column;
    $g$ is in log odds.
    Raises: ValueError for an inclusion outside of 0 to 1 or a temperature that is not
    positive; for `lmbda_dist` as Adaptive; all at construction.
    Source: Mitchell and Beauchamp (1988), Bayesian Variable Selection in Linear
    Regression; the relaxation is Maddison, Mnih and Teh (2017), The Concrete
    Distribution, for the binary case.
    """

    inclusion: Any = 0.5
    temperature: Any = 0.5
    lmbda_dist: Family = HalfNormal
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("SpikeAndSlab: `inclusion`", self.inclusion, high=1.0)
        require_number("SpikeAndSlab: `temperature`", self.temperature)
        require_scale(self.lmbda_dist, self.lmbda_kwargs)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        lmbda = learned_scale(sites, self.lmbda_dist, self.lmbda_kwargs, shared)
        odds = jnp.log(self.inclusion) - jnp.log1p(-self.inclusion)
        gates = Logistic(odds / self.temperature, 1.0 / self.temperature)
        gate = sample_shaped(sites.of("gate"), gates, shape)
        weight = numpyro.deterministic(sites.of("weight"), jax.nn.sigmoid(gate))
        scale = weight * spread(lmbda, shared, shape)
        return noncentered(sites.own, scale, shape)
