r"""Logarithms that stay finite where their arguments underflow. No NumPyro.

The incomplete gamma and beta functions are given by the logarithms of both tails, so
that neither is ever one minus the other's rounding error; their derivatives are
computed forwards, so that a loop of unknown length keeps nothing in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, log_ndtr

from lamina._typing import Array

LONGEST = 10_000
"""Terms after which a series or continued fraction is taken as it is."""


def safe_exp(x: Array) -> Array:
    """`exp(x)`, and its tangent from where the square would overflow.

    Value and slope stay finite, and the slope keeps its direction.
    """
    most = 0.4 * jnp.log(jnp.finfo(jnp.result_type(x)).max)
    return jnp.exp(jnp.minimum(x, most)) * (1.0 + jnp.maximum(x - most, 0.0))


def log1mexp(x: Array) -> Array:
    """`log(1 - exp(-x))` for x > 0, exact near zero and far away.

    Source: Maechler (2012), Accurately computing log(1 - exp(-|a|)).
    """
    near = x < 0.6931472
    small, large = jnp.where(near, x, 0.5), jnp.where(near, 1.0, x)
    tiny = jnp.finfo(jnp.result_type(x)).tiny
    return jnp.where(
        near,
        jnp.log(jnp.maximum(-jnp.expm1(-small), tiny)),
        jnp.log1p(-jnp.exp(-large)),
    )


def log1mexp_of_exp(t: Array) -> Array:
    """`log(1 - exp(-exp(t)))`: linear in `t` where `exp(t)` underflows."""
    low = t < -12.0
    middle = jnp.clip(jnp.where(low, 0.0, t), -12.0, 6.0)
    small = jnp.where(low, t, -12.0)
    known = jnp.where(t > 6.0, 0.0, log1mexp(jnp.exp(middle)))
    return jnp.where(low, small - 0.5 * jnp.exp(small), known)


def log_softplus(t: Array) -> Array:
    """`log(log(1 + exp(t)))`: linear in `t` where `exp(t)` underflows."""
    low = t < -12.0
    small = jnp.where(low, t, -12.0)
    known = jnp.log(jax.nn.softplus(jnp.where(low, 0.0, t)))
    return jnp.where(low, small - 0.5 * jnp.exp(small), known)


def log_difference(larger: Array, smaller: Array) -> Array:
    """`log(exp(larger) - exp(smaller))`, finite where the difference rounds to zero."""
    tiny = jnp.finfo(jnp.result_type(larger)).tiny
    apart = larger - jnp.maximum(smaller, -1e30)
    return larger + log1mexp(jnp.maximum(apart, tiny))


def log_rising(a: Array, k: Array) -> Array:
    r"""$\log \Gamma(a + k) - \log \Gamma(a)$, exact where `a` dwarfs `k`.

    Source: Abramowitz and Stegun (1964), section 6.1, Stirling's series, of which the
    difference is taken.
    """
    large = a > 30.0
    big, small = jnp.where(large, a, 30.0), jnp.where(large, 30.0, a)

    def rest(z: Array) -> Array:
        return (1.0 - (1.0 / 30.0 - 1.0 / (105.0 * z**2)) / z**2) / (12.0 * z)

    stirling = (big - 0.5) * jnp.log1p(k / big) + k * jnp.log(big + k) - k
    return jnp.where(
        large,
        stirling + rest(big + k) - rest(big),
        gammaln(small + k) - gammaln(small),
    )


def log_mills(u: Array) -> Array:
    r"""$\log(\Phi(-u)\,e^{u^2/2})$ for $u \ge 0$, where the exponents would cancel.

    Source: Abramowitz and Stegun (1964), section 26.2.
    """
    large = u > 12.0
    big, small = jnp.where(large, u, 12.0), jnp.where(large, 0.0, u)
    t = 1.0 / big**2
    series = jnp.log1p(-t * (1.0 - t * (3.0 - t * (15.0 - t * (105.0 - 945.0 * t)))))
    return jnp.where(
        large,
        series - jnp.log(big) - 0.5 * jnp.log(2.0 * jnp.pi),
        log_ndtr(-small) + 0.5 * small**2,
    )


def log_ndtr_between(low: Array, high: Array) -> Array:
    r"""$\log(\Phi(high) - \Phi(low))$, by the tail in which both are small."""
    mirrored = low + high > 0.0
    upper = jnp.where(mirrored, -low, high)
    lower = jnp.where(mirrored, -high, low)
    return log_difference(log_ndtr(upper), log_ndtr(lower))


def elementwise(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of numbers, entry by entry, with the derivatives of all arguments forwards."""
    inner = jax.custom_jvp(fn)

    @inner.defjvp
    def forward(primals: Any, tangents: Any) -> Any:
        def along(*direction: Array) -> Any:
            return jax.jvp(fn, primals, direction)[1]

        # all arguments in one loop: a direction for each of them
        unit = jnp.eye(len(primals), dtype=primals[0].dtype)
        directions = (
            jnp.broadcast_to(
                jnp.reshape(row, (-1, *(1,) * jnp.ndim(x))), (len(primals), *x.shape)
            )
            for row, x in zip(unit, primals, strict=True)
        )
        slopes = jax.vmap(along)(*directions)
        moved = jnp.stack(tangents, axis=0)
        return inner(*primals), jax.tree.map(lambda s: (s * moved).sum(axis=0), slopes)

    @functools.wraps(fn)
    def broadcast(*args: Any) -> Any:
        kind = jnp.result_type(float, *args)
        shape = jnp.broadcast_shapes(*map(jnp.shape, args))
        return inner(*(jnp.broadcast_to(jnp.asarray(a, kind), shape) for a in args))

    return broadcast


def _until(done: Callable[[Any], Array], step: Callable[..., Any], start: Any) -> Any:
    """Repeat `step(n, state)` until every entry is done, `LONGEST` times at most."""

    def go(carry: Any) -> Array:
        n, state = carry
        return (n < LONGEST) & ~jnp.all(done(state))

    def body(carry: Any) -> Any:
        n, state = carry
        return n + 1, step(jnp.asarray(n, jnp.result_type(float)), state)

    return jax.lax.while_loop(go, body, (jnp.int32(1), start))[1]


@elementwise
def log_gammainc(a: Array, log_x: Array) -> tuple[Array, Array]:
    r"""$\log P(a, x)$ and $\log Q(a, x)$, the regularised incomplete gamma functions.

    Source: Abramowitz and Stegun (1964), section 6.5: a series for x < a + 1, a continued
    fraction above.
    """
    x, eps = safe_exp(log_x), 0.01 * jnp.finfo(a.dtype).eps
    below = x < a + 1.0
    common = a * log_x - x - gammaln(a)

    small = jnp.where(below, x, 0.5 * a)

    def term(n: Array, state: Any) -> Any:
        last, total = state
        last = last * small / (a + n)
        return last, total + last

    _, total = _until(
        lambda s: ~(s[0] > eps * s[1]), term, (jnp.ones_like(a), jnp.ones_like(a))
    )
    log_lower = common - jnp.log(a) + jnp.log(total)

    large = jnp.where(below, a + 2.0, x)
    log_upper = common + jnp.log(
        _continued(
            large + 1.0 - a, lambda n: (-n * (n - a), large + 2.0 * n + 1.0 - a), eps
        )
    )
    lower = jnp.where(below, log_lower, -1.0)
    upper = jnp.where(below, -1.0, log_upper)
    tiny = jnp.finfo(a.dtype).tiny
    return (
        jnp.where(below, log_lower, log1mexp(jnp.maximum(-upper, tiny))),
        jnp.where(below, log1mexp(jnp.maximum(-lower, tiny)), log_upper),
    )


@elementwise
def log_betainc(
    a: Array, b: Array, log_x: Array, log_1mx: Array
) -> tuple[Array, Array]:
    r"""$\log I_x(a, b)$ and $\log(1 - I_x(a, b))$, from $\log x$ and $\log(1 - x)$.

    Source: Abramowitz and Stegun (1964), section 26.5: a continued fraction, on the side
    where it converges fast.
    """
    eps = 0.01 * jnp.finfo(a.dtype).eps
    swap = jnp.exp(log_x) > (a + 1.0) / (a + b + 2.0)
    p, q = jnp.where(swap, b, a), jnp.where(swap, a, b)
    log_y = jnp.where(swap, log_1mx, log_x)
    log_1my = jnp.where(swap, log_x, log_1mx)
    y = jnp.exp(log_y)

    def coefficients(n: Array) -> tuple[Array, Array]:
        m = jnp.floor(n / 2.0)
        even = m * (q - m) / ((p + 2.0 * m - 1.0) * (p + 2.0 * m))
        odd = -(p + m) * (p + q + m) / ((p + 2.0 * m) * (p + 2.0 * m + 1.0))
        return jnp.where(n % 2.0 == 0.0, even, odd) * y, jnp.ones_like(p)

    fraction = _continued(jnp.ones_like(p), coefficients, eps)
    log_beta = gammaln(p) - log_rising(q, p)
    tail = p * log_y + q * log_1my - log_beta - jnp.log(p) + jnp.log(fraction)
    other = log1mexp(jnp.maximum(-tail, jnp.finfo(a.dtype).tiny))
    return jnp.where(swap, other, tail), jnp.where(swap, tail, other)


def _continued(
    first: Array, coefficients: Callable[[Array], tuple[Array, Array]], eps: Any
) -> Array:
    """1 / (first + a1 / (b1 + a2 / (b2 + ...))), by Lentz's method as modified.

    Source: Thompson and Barnett (1986), Coulomb and Bessel functions of complex
    arguments and order.
    """
    tiny = 1e-30
    one = jnp.ones_like(first)
    d = 1.0 / first

    def step(n: Array, state: Any) -> Any:
        c, d, value, _ = state
        up, down = coefficients(n)
        d = down + up * d
        d = 1.0 / jnp.where(jnp.abs(d) < tiny, tiny, d)
        c = down + up / c
        c = jnp.where(jnp.abs(c) < tiny, tiny, c)
        return c, d, value * c * d, c * d

    start = (jnp.full_like(first, 1.0 / tiny), d, d, 2.0 * one)
    return _until(lambda s: ~(jnp.abs(s[3] - 1.0) > 3000.0 * eps), step, start)[2]
