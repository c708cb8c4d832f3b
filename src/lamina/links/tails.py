"""The tails of families: log P(Y <= x) and log P(Y > x), and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro.distributions import Distribution, constraints

from lamina._typing import Array, Shape
from lamina.links.special import (
    log1mexp,
    log_betainc,
    log_difference,
    log_gammainc,
)


class Tails(NamedTuple):
    """log P(Y <= x) and log P(Y > x)."""

    lower: Array
    upper: Array


@singledispatch
def log_tails(fn: Any, x: Array) -> Tails:
    """Both tails of a family at `x`; a family has them by registering a function."""
    raise NotImplementedError(f"{type(fn).__name__} has no tails here.")


def has_tails(fn: Distribution) -> bool:
    """Whether a family has its tails registered, or each family that it is made of."""
    if hasattr(fn, "parts"):
        return all(map(has_tails, fn.parts))
    return log_tails.dispatch(type(fn)) is not log_tails.dispatch(object)


@log_tails.register
def _(fn: dist.Normal, x: Array) -> Tails:
    z = (x - fn.loc) / fn.scale
    return Tails(log_ndtr(z), log_ndtr(-z))


@log_tails.register
def _(fn: dist.LogNormal, x: Array) -> Tails:
    return log_tails(dist.Normal(fn.loc, fn.scale), jnp.log(x))


@log_tails.register
def _(fn: dist.StudentT, x: Array) -> Tails:
    z = (x - fn.loc) / fn.scale
    # the square may neither vanish, for its logarithm, nor overflow
    ratio = 2.0 * jnp.log(jnp.maximum(jnp.abs(z), 1e-18)) - jnp.log(fn.df)
    outside, _ = log_betainc(
        0.5 * fn.df, 0.5, -jax.nn.softplus(ratio), -jax.nn.softplus(-ratio)
    )
    tail = outside - jnp.log(2.0)
    rest = log1mexp(-tail)
    return Tails(jnp.where(z < 0, tail, rest), jnp.where(z < 0, rest, tail))


@log_tails.register
def _(fn: dist.AsymmetricLaplaceQuantile, x: Array) -> Tails:
    z, q = (x - fn.loc) / fn.scale, fn.quantile
    left = jnp.log(q) + (1.0 - q) * jnp.minimum(z, 0.0)
    right = jnp.log1p(-q) - q * jnp.maximum(z, 0.0)
    return Tails(
        jnp.where(z < 0, left, log1mexp(-right)),
        jnp.where(z < 0, log1mexp(-left), right),
    )


@log_tails.register
def _(fn: dist.Poisson, x: Array) -> Tails:
    k = jnp.asarray(x, fn.rate.dtype)
    log_rate = getattr(fn, "log_rate", None)
    log_rate = jnp.log(fn.rate) if log_rate is None else log_rate
    upper, lower = log_gammainc(jnp.maximum(k, 0.0) + 1.0, log_rate)
    return from_zero(k, lower, upper)


@log_tails.register
def _(fn: dist.Beta, x: Array) -> Tails:
    a, b = fn.concentration1, fn.concentration0
    return Tails(*log_betainc(a, b, jnp.log(x), jnp.log1p(-x)))


def from_zero(k: Array, lower: Array, upper: Array) -> Tails:
    """The tails of a count: nothing lies below zero."""
    negative = k < 0
    return Tails(jnp.where(negative, -jnp.inf, lower), jnp.where(negative, 0.0, upper))


def is_discrete(fn: Distribution) -> bool:
    """Whether a family is one of counts."""
    return bool(fn.support.is_discrete)


def log_between(fn: Distribution, low: Any, high: Any) -> Array:
    """The log probability of low <= Y <= high, by the tail where it is exact."""
    if low is None:
        return jnp.zeros(fn.batch_shape) if high is None else log_tails(fn, high).lower
    under = log_tails(fn, low - 1 if is_discrete(fn) else low)
    if high is None:
        return under.upper
    over = log_tails(fn, high)
    by_upper = under.lower > under.upper
    return log_difference(
        jnp.where(by_upper, under.upper, over.lower),
        jnp.where(by_upper, over.upper, under.lower),
    )


def sample_between(
    fn: Distribution, low: Any, high: Any, key: Array, shape: Shape
) -> Array:
    """Draw low <= Y <= high, by bisection of the distribution function.

    A draw is right however little probability the bounds leave.
    """
    u = jax.random.uniform(key, shape, minval=jnp.finfo(float).tiny)
    nothing, all_ = jnp.full(shape, -jnp.inf), jnp.zeros(shape)
    start, end = Tails(nothing, all_), Tails(all_, nothing)
    if low is not None:
        start = log_tails(fn, low - 1 if is_discrete(fn) else low)
    if high is not None:
        end = log_tails(fn, high)
    before, after = jnp.log1p(-u), jnp.log(u)
    lower = jnp.logaddexp(start.lower + before, end.lower + after)
    upper = jnp.logaddexp(start.upper + before, end.upper + after)

    def reached(x: Array) -> Array:
        at = log_tails(fn, x)
        return jnp.where(lower < upper, at.lower >= lower, at.upper <= upper)

    if is_discrete(fn):
        start_at = -1 if low is None else low - 1
        top = jnp.broadcast_to(2**30 if high is None else high, shape).astype(int)
        return _first_count(reached, jnp.broadcast_to(start_at, shape).astype(int), top)

    out, into = coordinate(fn.support)
    reach = jnp.log(jnp.finfo(float).max) - 1.0
    left = -reach if low is None else jnp.maximum(into(low), -reach)
    right = reach if high is None else jnp.minimum(into(high), reach)

    def narrow(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = ends
        middle = 0.5 * (a + b)
        yes = reached(out(middle))
        return jnp.where(yes, a, middle), jnp.where(yes, middle, b)

    ends = jnp.broadcast_to(left, shape), jnp.broadcast_to(right, shape)
    a, b = jax.lax.fori_loop(0, 64, narrow, ends)
    return jnp.clip(out(0.5 * (a + b)), low, high)


def _first_count(reached: Callable[[Array], Array], left: Array, top: Array) -> Array:
    """The first count past `left` that is reached: by doubling, then by bisection."""

    def double(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        right, done = ends
        right = jnp.where(done, right, jnp.minimum(2 * right + 1, top))
        return right, reached(right) | (right >= top)

    def halve(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = ends
        middle = (a + b) // 2
        yes = reached(middle)
        return jnp.where(yes, a, middle), jnp.where(yes, middle, b)

    first = jnp.minimum(left + 1, top)
    start = first, reached(first) | (first >= top)
    right, _ = jax.lax.while_loop(lambda ends: ~jnp.all(ends[1]), double, start)
    ends = jax.lax.while_loop(
        lambda ends: jnp.any(ends[1] - ends[0] > 1), halve, (left, right)
    )
    return ends[1]


def coordinate(support: Any) -> Any:
    """A map from the line onto a support, and back, fine near zero and far away."""
    if isinstance(support, type(constraints.positive)):
        return jnp.exp, lambda x: jnp.log(jnp.asarray(x, float))
    if isinstance(support, type(constraints.open_interval(0.0, 1.0))):
        return jax.nn.sigmoid, jax.scipy.special.logit
    return jnp.sinh, lambda x: jnp.arcsinh(jnp.asarray(x, float))


@singledispatch
def size_biased(fn: Any) -> Distribution:
    """The family with density y f(y) / E[Y], of Y less one for a count."""
    raise NotImplementedError(f"a truncated {type(fn).__name__} has no mean here.")


@size_biased.register
def _(fn: dist.LogNormal) -> Distribution:
    return dist.LogNormal(fn.loc + fn.scale**2, fn.scale)


@size_biased.register
def _(fn: dist.Poisson) -> Distribution:
    return fn


def truncated_mean(fn: Distribution, low: Any, high: Any) -> Array:
    """The mean between bounds: the size-biased family's mass there, times the mean.

    Source: Patil and Rao (1978), Weighted distributions and size-biased sampling.
    """
    mass = log_between(fn, low, high)
    if isinstance(fn, dist.Normal):
        slope = jnp.zeros(fn.batch_shape)
        if low is not None:
            slope = slope + jnp.exp(fn.log_prob(low) - mass)
        if high is not None:
            slope = slope - jnp.exp(fn.log_prob(high) - mass)
        return fn.loc + fn.scale**2 * slope
    biased, less = size_biased(fn), 1 if is_discrete(fn) else 0
    low = None if low is None else low - less
    high = None if high is None else high - less
    return fn.mean * jnp.exp(log_between(biased, low, high) - mass)
