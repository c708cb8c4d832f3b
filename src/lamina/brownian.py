r"""Brownian motion at any time, by a tree of midpoints: pure, and the same in any order.

A path between two known ends is halved again and again towards a time; each midpoint is
drawn given its two ends by a node of a tree that has one number for each midpoint. So two
times share the midpoints above both, and one time gives one value, whatever is asked
beside it.

Source: Lévy's construction; Gaines and Lyons (1997), Variable step size control in the
numerical solution of stochastic differential equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from lamina._typing import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Int

HALVINGS = 20
"""Between neighbours of the last halving the path is a line."""
CELLS = 40
"""Stretches after the last known time; each is twice as long as the one before."""


def between(
    left: Float[Array, "n m"],
    right: Float[Array, "n m"],
    span: Float[Array, " n"],
    at: Float[Array, " n"],
    step: Callable[[Int[Array, " n"]], Float[Array, "n m"]],
) -> Float[Array, "n m"]:
    """A Brownian bridge from `left` to `right` over `span`, at the fraction `at` of it.

    `step(node)` draws a step of unit time for each row's node, from 1.

    Shapes: ends (n, m), `span` and `at` (n,), in units of time and in [0, 1], give (n, m).
    """

    def halve(_: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        left, right, span, at, node = carry
        middle = 0.5 * (left + right) + 0.5 * jnp.sqrt(span)[:, None] * step(node)
        after = at >= 0.5
        side = after[:, None]
        return (
            jnp.where(side, middle, left),
            jnp.where(side, right, middle),
            0.5 * span,
            jnp.where(after, 2.0 * at - 1.0, 2.0 * at),
            2 * node + after,
        )

    start = (left, right, span, at, jnp.ones(at.shape, jnp.int32))
    left, right, _, at, _ = lax.fori_loop(0, HALVINGS, halve, start)
    return left + at[:, None] * (right - left)


def cell_of(ahead: Float[Array, " n"]) -> tuple[Array, Array]:
    """The stretch that holds each time after the last, and the fraction of it passed.

    Stretch k runs from 2^k - 1 to 2^(k + 1) - 1.

    Shapes: `ahead` (n,), not negative, in units of the first stretch.
    """
    cell = jnp.floor(jnp.log2(1.0 + ahead)).astype(jnp.int32)
    cell = jnp.clip(cell, 0, CELLS - 1)
    length = jnp.exp2(cell.astype(ahead.dtype))
    return cell, jnp.clip((ahead + 1.0 - length) / length, 0.0, 1.0)


def ends_of_cells(
    last: Float[Array, "w m"], unit: Array, steps: Float[Array, "w k m"]
) -> Float[Array, "w k+1 m"]:
    """Where each walker stands at the ends of the stretches, from its `last` level.

    Shapes: `last` (w, m) and `steps` (w, k, m), of unit time, give (w, k + 1, m).
    """
    k = jnp.arange(steps.shape[1], dtype=steps.dtype)
    lengths = unit * jnp.exp2(k)
    moves = jnp.sqrt(lengths)[None, :, None] * steps
    moves = jnp.concatenate([last[:, None, :], moves], axis=1)
    return jnp.cumsum(moves, axis=1)
