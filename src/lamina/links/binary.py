"""Links for yes or no, and for how many of so many."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, log_ndtr
from numpyro.distributions import constraints

from lamina._checks import as_jax, concrete, where_bad
from lamina._typing import Array, Shape
from lamina.links.families import Family, at_least_tiny
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import CONCENTRATION, like
from lamina.links.special import log1mexp_of_exp, log_rising, safe_exp


def logit_link(
    eta: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Bernoulli}(1 / (1 + e^{-\eta_{nu}}))$.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u).
    Units: $\eta$ is in log odds; `y` is 0 or 1, or boolean.
    Raises: ValueError when the rows of `y` and `eta` differ or `y` is not 0 or 1.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 4.
    """
    outcome = Outcome.read(name, eta, y, options)
    return outcome.observe(dist.Bernoulli(logits=outcome.eta))


def probit_link(
    eta: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Bernoulli}(\Phi(\eta_{nu}))$.

    Shapes: as `logit_link`.
    Units: $\eta$ is in standard deviations of a latent normal; `y` is 0 or 1.
    Raises: as `logit_link`.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 4.
    """
    outcome = Outcome.read(name, eta, y, options)
    eta = outcome.eta
    return outcome.observe(LogBernoulli(log_ndtr(eta), log_ndtr(-eta)))


def cloglog_link(
    eta: Array, y: Any = None, *, name: str = "obs", **options: Unpack[Options]
) -> Array:
    r"""$y_{nu} \sim \text{Bernoulli}(1 - \exp(-e^{\eta_{nu}}))$.

    The probability of at least one event where their number is Poisson: `exposure=`
    multiplies its mean.

    Shapes: as `logit_link`.
    Units: $\eta$ is the log of the expected number of events; `y` is 0 or 1.
    Raises: as `logit_link`.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 4.
    """
    outcome = Outcome.read(name, eta, y, options, log_mean=True)
    eta = outcome.eta
    return outcome.observe(LogBernoulli(log1mexp_of_exp(eta), -safe_exp(eta)))


def binomial_link(
    eta: Array,
    y: Any = None,
    *,
    trials: Any,
    name: str = "obs",
    **options: Unpack[Options],
) -> Array:
    r"""$y_{nu} \sim \text{Binomial}(N_{nu}, 1 / (1 + e^{-\eta_{nu}}))$.

    `trials` ($N$) is data: one number, or an entry for each row. The mean of
    `predict(kind="mean")` is a count, $N$ times the probability.

    Shapes: `eta` (n, u), `y` and `trials` (n,), (n, 1) or (n, u).
    Units: $\eta$ is in log odds; `y` counts the successes among the trials.
    Raises: ValueError when the rows differ, when `trials` are no counts, or when `y`
    is not a whole number from 0 to `trials`.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 4.
    """
    outcome = Outcome.read(name, eta, y, options)
    count = known_trials(outcome, trials)
    return outcome.observe(dist.Binomial(total_count=count, logits=outcome.eta))


def beta_binomial_link(
    eta: Array,
    y: Any = None,
    *,
    trials: Any,
    name: str = "obs",
    concentration: Any = None,
    log_concentration: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Binomial whose probability varies: beta with mean $p$, concentration $\phi$.

    $$P(y) = \binom{N}{y}\frac{B(y + p\phi,\; N - y + (1-p)\phi)}{B(p\phi,\; (1-p)\phi)},
      \qquad p = \frac{1}{1 + e^{-\eta}}$$

    `concentration` ($\phi$) is learned where it is a distribution (default
    Exponential(0.1)), known where it is a number or array; `log_concentration` is the
    predictor of its log. The variance is $1 + (N-1)/(\phi+1)$ times the binomial's.

    Shapes, units: as `binomial_link`.
    Raises: as `binomial_link`; ValueError when a known concentration is not positive.
    Source: Williams (1975), The analysis of binary responses from toxicological
    experiments involving
    reproduction and teratogenicity.
    """
    outcome = Outcome.read(name, eta, y, options)
    count = known_trials(outcome, trials)
    phi = outcome.parameter(CONCENTRATION, concentration, log_concentration)
    return outcome.observe(LogitBetaBinomial(count, outcome.eta, phi))


def known_trials(outcome: Outcome, trials: Any) -> Array:
    """Numbers of trials in the shape of the outcome, checked where they are known."""
    known = concrete(trials)
    if known is not None:
        good = np.isfinite(known) & (known >= 0) & (known == np.round(known))
        if not np.all(good):
            raise ValueError(
                f"outcome {outcome.name!r}: `trials` has {where_bad(~good)}, that are "
                f"no counts (seen: {known[~good].ravel()[0]}). Give the number of "
                "trials behind each `y`."
            )
    count = as_jax(trials).astype(int)
    count = like(f"{outcome.name}: trials", count, outcome.entries)
    return jnp.broadcast_to(count, outcome.entries.shape)


class LogBernoulli(Family):
    """Bernoulli by the logs of both probabilities, so that neither is rounded."""

    arg_constraints = {  # noqa: RUF012
        "log_success": constraints.real,
        "log_failure": constraints.real,
    }
    support = constraints.boolean

    def log_prob(self, value: Array) -> Array:
        return jnp.where(value == 1, self.log_success, self.log_failure)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        shape = (*sample_shape, *self.batch_shape)
        return jax.random.bernoulli(key, self.mean, shape).astype(int)

    @property
    def mean(self) -> Array:
        return jnp.exp(self.log_success)

    @property
    def variance(self) -> Array:
        return jnp.exp(self.log_success + self.log_failure)


class LogitBetaBinomial(Family):
    """The beta-binomial by the logit of its mean probability, and its concentration."""

    arg_constraints = {  # noqa: RUF012
        "total_count": constraints.nonnegative_integer,
        "logit_mean": constraints.real,
        "concentration": constraints.positive,
    }

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    def _beta(self) -> tuple[Array, Array]:
        """The two parameters of the beta distribution of the probability."""
        a = at_least_tiny(self.concentration * jax.nn.sigmoid(self.logit_mean))
        b = at_least_tiny(self.concentration * jax.nn.sigmoid(-self.logit_mean))
        return a, b

    def log_prob(self, value: Array) -> Array:
        a, b = self._beta()
        k = jnp.asarray(value, a.dtype)
        n = jnp.asarray(self.total_count, a.dtype)
        ways = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
        both = log_rising(self.concentration, n)
        return ways + log_rising(a, k) + log_rising(b, n - k) - both

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        beta_key, count_key = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        p = jax.random.beta(beta_key, *self._beta(), shape)
        n = jnp.broadcast_to(self.total_count, shape)
        return dist.Binomial(total_count=n, probs=p).sample(count_key).astype(int)

    @property
    def mean(self) -> Array:
        return self.total_count * jax.nn.sigmoid(self.logit_mean)

    @property
    def variance(self) -> Array:
        wider = 1.0 + (self.total_count - 1.0) / (self.concentration + 1.0)
        return self.mean * jax.nn.sigmoid(-self.logit_mean) * wider
