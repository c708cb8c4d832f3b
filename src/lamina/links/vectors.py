"""Links for outcomes whose columns belong together."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import Distribution, constraints

from lamina._checks import as_jax, concrete
from lamina._typing import Array, Shape
from lamina.links.binary import known_trials
from lamina.links.families import at_least_tiny
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import (
    CONCENTRATION,
    SCALE,
    learned,
    parameter,
    require_outside_plates,
)
from lamina.links.special import log_rising


def multivariate_gaussian_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    scale: Any = None,
    log_scale: Array | None = None,
    correlation: Any = None,
    **options: Unpack[Options],
) -> Array:
    r"""$y_n \sim \text{Normal}_u(\eta_n,\, \text{diag}(\sigma)\,L L^\top
    \text{diag}(\sigma))$: outputs whose residuals are correlated.

    `scale` is learned where it is a distribution of one number (default
    Exponential(1)), for each output its own, under the site `sigma` (u,); it is known
    where it is a number or an array; `log_scale` is the predictor of its log.
    `correlation` is learned where it is a distribution of Cholesky factors (default
    LKJCholesky(u, 1), uniform over correlation matrices) under the site
    `correlation_cholesky`, and known where it is a correlation matrix.

    Shapes: `eta` and `y` (n, u) with u of at least 2; `log_scale` (n, u) or (1, u).
    Units: $\eta$ and $\sigma$ are in units of `y`.
    Raises: ValueError when the shapes of `y` and `eta` differ, for one output, or for a
    matrix that is no correlation matrix.
    Source: Lewandowski, Kurowicka and Joe (2009), Generating random correlation
    matrices based on vines and extended onion method.
    """
    outcome = Outcome.read(name, eta, y, options, vectors=True)
    units = _require_units(outcome, eta)
    if isinstance(scale, Distribution) or (scale is None and log_scale is None):
        prior = SCALE.default() if scale is None else scale
        sigma = learned(parameter(name, "sigma"), prior, shape=(units,))
    else:
        sigma = SCALE(name, scale, log_scale, outcome.eta)
    sigma = jnp.broadcast_to(
        jnp.reshape(sigma, (1,) * (outcome.eta.ndim - jnp.ndim(sigma)) + sigma.shape),
        outcome.eta.shape,
    )
    factor = _correlation(name, correlation, units)
    factor = jnp.reshape(factor, (1,) * (outcome.eta.ndim - 1) + factor.shape)
    fn = dist.MultivariateNormal(outcome.eta, scale_tril=sigma[..., None] * factor)
    return outcome.observe(fn)


def _require_units(outcome: Outcome, eta: Any) -> int:
    units = jnp.shape(eta)[-1]
    if units < 2:
        raise ValueError(
            f"outcome {outcome.name!r}: the predictor has shape {jnp.shape(eta)}, one "
            "column, and columns that belong together are at least two. Set the "
            "layers' `units`, or choose a link for one column."
        )
    return units


def _correlation(name: str, correlation: Any, units: int) -> Array:
    """The Cholesky factor of the correlation: learned, or of a known matrix."""
    site = parameter(name, "correlation_cholesky")
    if correlation is None:
        correlation = dist.LKJCholesky(units, 1.0)
    if isinstance(correlation, Distribution):
        if correlation.shape() != (units, units):
            raise ValueError(
                f"`{site}`: its prior has shape {correlation.shape()}, but there are "
                f"{units} outputs. Give LKJCholesky({units}, concentration)."
            )
        require_outside_plates(site)
        return numpyro.sample(site, correlation)
    matrix = as_jax(correlation)
    known = concrete(matrix)
    if matrix.shape != (units, units) or (
        known is not None
        and not (
            np.allclose(known, known.T, atol=1e-5)
            and np.allclose(np.diag(known), 1.0, atol=1e-5)
            and np.linalg.eigvalsh(known).min() > 0
        )
    ):
        raise ValueError(
            f"`{site}`: `correlation` has shape {matrix.shape} and must be a symmetric "
            f"({units}, {units}) matrix with ones on its diagonal and positive "
            "eigenvalues. Correct it, or give LKJCholesky to learn it."
        )
    return jnp.linalg.cholesky(matrix)


def dirichlet_multinomial_link(
    eta: Array,
    y: Any = None,
    *,
    trials: Any = None,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Counts of k categories among $N_n$ trials, whose shares vary from row to row.

    $$P(y_n) = \frac{N!\,\Gamma(\phi)}{\Gamma(N+\phi)}
      \prod_j \frac{\Gamma(y_{nj} + \phi p_{nj})}{y_{nj}!\,\Gamma(\phi p_{nj})},
      \qquad p_n = \text{softmax}(\eta_n)$$

    `trials` ($N$) is data, and needed where `y` is to be drawn; otherwise it is the sum
    of the row. `concentration` ($\phi$) is learned where it is a distribution (default
    Exponential(0.1)), known where it is a number or (n,) array; `log_concentration` is
    the predictor of its log. Every category has a predictor of its own. The variance is
    $(N+\phi)/(1+\phi)$ times the multinomial's, which is the limit of large $\phi$.

    The mean of `predict(kind="mean")` is the (n, k) expected counts.

    Shapes: `eta` and `y` (n, k), `trials` (n,) or one number.
    Units: $\eta$ is in log odds; `y` counts.
    Raises: ValueError when the shapes differ, when `y` or `trials` are no counts, or
    when the counts of a row do not sum to its trials.
    Source: Mosimann (1962), On the compound multinomial distribution.
    """
    outcome = Outcome.read(name, eta, y, options, vectors=True)
    _require_units(outcome, eta)
    if trials is None:
        if y is None:
            raise TypeError(
                f"outcome {name!r}: `trials` is missing, and no counts are there to sum "
                "where the outcome is drawn. Give the number of trials of each row."
            )
        trials = np.sum(y, -1) if concrete(y) is not None else jnp.sum(y, -1)
    total = known_trials(outcome, trials)
    phi = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    phi = jnp.broadcast_to(phi, outcome.entries.shape)
    return outcome.observe(DirichletMultinomial(outcome.eta, phi, total))


class DirichletMultinomial(Distribution):
    """Counts of categories by log odds, a concentration and the number of trials."""

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "concentration": constraints.positive,
        "total_count": constraints.nonnegative_integer,
    }

    def __init__(
        self,
        logits: Array,
        concentration: Array,
        total_count: Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.concentration = logits, concentration
        self.total_count = total_count
        super().__init__(
            logits.shape[:-1], logits.shape[-1:], validate_args=validate_args
        )

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @property
    def shares(self) -> Array:
        """The expected shares of the categories."""
        return jax.nn.softmax(self.logits)

    def log_prob(self, value: Array) -> Array:
        alpha = at_least_tiny(self.concentration[..., None] * self.shares)
        k, n = (jnp.asarray(v, alpha.dtype) for v in (value, self.total_count))
        each = log_rising(alpha, k) - gammaln(k + 1.0)
        whole = log_rising(self.concentration, n) - gammaln(n + 1.0)
        return each.sum(axis=-1) - whole

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw shares, then category after category from what is left."""
        share_key, *keys = jax.random.split(key, 1 + self.event_shape[0])
        alpha = at_least_tiny(self.concentration[..., None] * self.shares)
        shape = (*sample_shape, *self.batch_shape)
        p = jax.random.dirichlet(share_key, alpha, shape)
        left, after = jnp.broadcast_to(self.total_count, shape), jnp.ones(shape)
        counts = []
        for j, step in enumerate(keys[:-1]):
            among = jnp.clip(p[..., j] / at_least_tiny(after), 0.0, 1.0)
            drawn = dist.Binomial(total_count=left, probs=among).sample(step)
            counts.append(drawn.astype(left.dtype))
            left, after = left - counts[-1], after - p[..., j]
        return jnp.stack([*counts, left], axis=-1)

    @property
    def mean(self) -> Array:
        return self.total_count[..., None] * self.shares

    @property
    def variance(self) -> Array:
        n, phi = self.total_count[..., None], self.concentration[..., None]
        return n * self.shares * (1.0 - self.shares) * (n + phi) / (1.0 + phi)
