"""Links for categories, without an order and with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid
from jax.scipy.special import log_ndtr, ndtri
from numpyro.distributions import Distribution

from lamina._checks import concrete, positive_size
from lamina._typing import Array
from lamina.links.outcome import Options, Outcome, as_predictor
from lamina.links.parameters import (
    POSITIVE,
    Parameter,
    parameter,
    require_outside_plates,
)
from lamina.links.special import log_difference, log_ndtr_between

SPREAD = Parameter("scale", POSITIVE, lambda: 1.0, site="sigma")


def categorical_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    reference: bool = False,
    **options: Unpack[Options],
) -> Array:
    r"""$P(y_n = j) = e^{\eta_{nj}} / \sum_i e^{\eta_{ni}}$, the softmax.

    Every category has a predictor of its own, and the layers' priors settle what the
    softmax leaves open, a constant added to all. With `reference=True` the predictor
    lacks a column for the first category, whose $\eta$ is zero: the others' are log odds
    against it.

    The mean of `predict(kind="mean")` is the (n, k) probabilities.

    Shapes: `eta` (n, k), or (n, k - 1) with `reference`; `y` (n,) or (n, 1).
    Units: $\eta$ is in log odds; `y` holds codes from 0 to k - 1.
    Raises: ValueError when the rows of `y` and `eta` differ, for fewer than two
    categories, or for codes outside of 0 to k - 1.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, chapter 5.
    """
    eta = as_predictor(eta, name)
    if reference:
        eta = jnp.concatenate([jnp.zeros((*eta.shape[:-1], 1), eta.dtype), eta], -1)
        options = _with_reference(options)
    if eta.shape[-1] < 2:
        raise ValueError(
            f"outcome {name!r}: the predictor has shape {eta.shape}, one column, and a "
            "category needs one of its own. Set the layers' `units` to the number of "
            "categories, or one less with reference=True."
        )
    outcome = Outcome.read(name, eta, y, options, categories=True)
    return observe_categories(outcome, jax.nn.log_softmax(outcome.eta))


def _with_reference(options: Options) -> Options:
    offset = options.get("offset")
    if offset is None or jnp.ndim(offset) == 0:
        return options
    offset = jnp.asarray(offset)
    first = jnp.zeros((*offset.shape[:-1], 1), offset.dtype)
    return {**options, "offset": jnp.concatenate([first, offset], -1)}


def observe_categories(outcome: Outcome, log_p: Array) -> Array:
    """Observe codes whose probabilities have these logs; their mean is those."""
    return outcome.observe(Categories(log_p), mean=lambda: jnp.exp(log_p))


class Categories(dist.CategoricalLogits):
    """Codes, as integers or as whole floating numbers, as they are beside a NaN."""

    def log_prob(self, value: Array) -> Array:
        codes = jnp.asarray(value).astype(int)
        found = super().log_prob(codes)
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            return found
        return jnp.where(codes == value, found, jnp.nan)


def ordinal_link(
    eta: Array,
    y: Any = None,
    *,
    num_categories: int | None = None,
    name: str = "obs",
    ordering: str = "cumulative",
    transform: str = "logit",
    probabilities: Any = None,
    cutpoints: Any = None,
    scale: Any = None,
    log_scale: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""Ordered categories 0 to k - 1, which $\eta_n$ moves up.

    With $F$ the logistic or, for `transform="probit"`, the normal distribution function,
    and cutpoints $c_1, \dots, c_{k-1}$:

    | `ordering` | |
    |---|---|
    | `cumulative` | $P(y < j) = F((c_j - \eta)/\sigma)$, with ordered cutpoints |
    | `sequential` | $P(y = j - 1 \mid y \ge j - 1) = F((c_j - \eta)/\sigma)$ |
    | `adjacent` | $\log P(y = j) / P(y = j - 1) = (\eta - c_j)/\sigma$; logit only |

    The cutpoints' prior is one on the categories' `probabilities` at $\eta = 0$, a
    distribution over simplices (default Dirichlet of ones), which is learned under the
    site `probabilities`, or known ones; they are kept as `cutpoints`. A known array of
    `cutpoints` goes in their place. There is room for one intercept only, so the
    predictor needs none. $\sigma$ is 1 unless `scale` or `log_scale` is given.

    The mean of `predict(kind="mean")` is the (n, k) probabilities.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u); `cutpoints` (k - 1,).
    Units: $\eta$ is in log odds, or standard deviations of a latent normal for probit.
    Raises: ValueError when the rows differ, for codes outside of 0 to k - 1, for
    cutpoints that do not increase (`cumulative`), and where k is not said once.
    Source: McCullagh (1980), Regression models for ordinal data, for `cumulative`;
    Tutz (1991), Sequential models in categorical regression; Agresti (2010), Analysis of
    Ordinal Categorical Data, chapter 4, for `adjacent`.
    """
    if (ordering, transform) not in ORDERED:
        raise ValueError(
            f"outcome {name!r}: `ordering` is {ordering!r} and `transform` is "
            f"{transform!r}; they are one of {list(ORDERED)}."
        )
    ordered = ORDERED[ordering, transform]
    outcome = Outcome.read(name, eta, y, options)
    sigma = outcome.parameter(SPREAD, scale, log_scale)
    c = _cutpoints(name, ordered, ordering, num_categories, probabilities, cutpoints)
    sigma = jnp.broadcast_to(sigma, outcome.eta.shape)[..., None]
    steps = jnp.reshape(c, (1,) * outcome.eta.ndim + c.shape[-1:])
    log_p = ordered.log_probabilities((steps - outcome.eta[..., None]) / sigma)
    return observe_categories(outcome, log_p)


class Ordered(NamedTuple):
    """A model of ordered categories: their log probabilities, from c - eta, and back."""

    log_probabilities: Callable[[Array], Array]
    cutpoints: Callable[[Array], Array]
    """from the probabilities at a predictor of zero"""


def _ends(below: Array, low: float, high: float) -> tuple[Array, Array]:
    """The lower and upper ends of every category's interval."""
    shape = (*below.shape[:-1], 1)
    first, last = (jnp.full(shape, end, below.dtype) for end in (low, high))
    return (
        jnp.concatenate([first, below], axis=-1),
        jnp.concatenate([below, last], axis=-1),
    )


FAR = 1e30
"""Further than any cutpoint, and still a number whose slopes are zero, not NaN."""


def _cumulative_logit(below: Array) -> Array:
    low, high = _ends(below, -FAR, FAR)
    # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)) for the logistic
    apart = jnp.minimum(high - low, 1e4)
    share = log_difference(jnp.zeros_like(apart), -apart)
    return log_sigmoid(high) + log_sigmoid(-low) + share


def _cumulative_probit(below: Array) -> Array:
    return log_ndtr_between(*_ends(below, -1e4, 1e4))


def _sequential(log_cdf: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def log_probabilities(below: Array) -> Array:
        stop, go = log_cdf(below), jnp.cumsum(log_cdf(-below), axis=-1)
        none = jnp.zeros((*below.shape[:-1], 1), below.dtype)
        return jnp.concatenate([stop, none], -1) + jnp.concatenate([none, go], -1)

    return log_probabilities


def _adjacent(below: Array) -> Array:
    none = jnp.zeros((*below.shape[:-1], 1), below.dtype)
    steps = jnp.concatenate([none, jnp.cumsum(-below, axis=-1)], axis=-1)
    return jax.nn.log_softmax(steps)


def _below(p: Array) -> tuple[Array, Array]:
    """The probabilities of lying below each cutpoint and above it, both by sums."""
    below = jnp.cumsum(p, axis=-1)[..., :-1]
    above = jnp.cumsum(p[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    return below, above


def _logit_of(part: Array, rest: Array) -> Array:
    return jnp.log(part) - jnp.log(rest)


def _probit_of(part: Array, rest: Array) -> Array:
    total = part + rest
    less = jnp.minimum(part, rest) / total
    return jnp.where(part < rest, ndtri(less), -ndtri(less))


ORDERED = {
    ("cumulative", "logit"): Ordered(
        _cumulative_logit, lambda p: _logit_of(*_below(p))
    ),
    ("cumulative", "probit"): Ordered(
        _cumulative_probit, lambda p: _probit_of(*_below(p))
    ),
    ("sequential", "logit"): Ordered(
        _sequential(log_sigmoid), lambda p: _logit_of(p[..., :-1], _below(p)[1])
    ),
    ("sequential", "probit"): Ordered(
        _sequential(log_ndtr), lambda p: _probit_of(p[..., :-1], _below(p)[1])
    ),
    ("adjacent", "logit"): Ordered(
        _adjacent, lambda p: _logit_of(p[..., :-1], p[..., 1:])
    ),
}


def _cutpoints(
    name: str,
    ordered: Ordered,
    ordering: str,
    num_categories: int | None,
    probabilities: Any,
    cutpoints: Any,
) -> Array:
    """The cutpoints: known, or from probabilities that are learned or known."""
    site = parameter(name, "cutpoints")
    if cutpoints is not None:
        if probabilities is not None:
            raise ValueError(
                f"`{site}`: both `cutpoints` and `probabilities` are given. Give one."
            )
        c = jnp.asarray(cutpoints)
        known = concrete(c)
        if c.ndim != 1 or (
            known is not None
            and (
                not np.all(np.isfinite(known))
                or (ordering == "cumulative" and not np.all(np.diff(known) > 0))
            )
        ):
            raise ValueError(
                f"`{site}` are {cutpoints}, but cutpoints are finite numbers, one "
                "less than there are categories, and increase in the cumulative model. "
                "Sort them, or give `probabilities`."
            )
        _require_size(name, num_categories, c.shape[0] + 1)
        return c
    p = learned_or_known_shares(name, num_categories, probabilities)
    return numpyro.deterministic(site, ordered.cutpoints(p))


def learned_or_known_shares(name: str, size: int | None, probabilities: Any) -> Array:
    """Probabilities of categories: a distribution is learned, an array is known."""
    site = parameter(name, "probabilities")
    if probabilities is None:
        if size is None:
            raise TypeError(
                f"outcome {name!r}: `num_categories` is missing. A batch need not hold "
                "every category, so give their number."
            )
        size = _require_size(name, size, size)
        probabilities = dist.Dirichlet(jnp.ones(size))
    if isinstance(probabilities, Distribution):
        if len(probabilities.event_shape) != 1 or probabilities.batch_shape:
            raise ValueError(
                f"`{site}`: its prior has shape {probabilities.shape()}, but it is one "
                "vector of probabilities: a Dirichlet with an entry for each category."
            )
        _require_size(name, size, probabilities.event_shape[0])
        require_outside_plates(site)
        return numpyro.sample(site, probabilities)
    p = jnp.asarray(probabilities)
    known = concrete(p)
    if p.ndim != 1 or (
        known is not None
        and not (np.all(known > 0) and np.isclose(known.sum(), 1.0, atol=1e-4))
    ):
        raise ValueError(
            f"`{site}` are {probabilities}, but they are one positive number for each "
            "category that sum to 1. Correct them, or give a Dirichlet to learn them."
        )
    _require_size(name, size, p.shape[0])
    return p


def _require_size(name: str, given: int | None, found: int) -> int:
    if given is not None:
        given = positive_size(f"outcome {name!r}", "num_categories", given)
    if found < 2 or given not in (None, found):
        raise ValueError(
            f"outcome {name!r}: cutpoints or probabilities are given for {found} "
            f"categories, where there are {given or found}. Give them for each, of which "
            "there are two at least."
        )
    return found
