r"""Pure processes: a state that a step moves from one index to the next.

A process gives the whole `path` of its levels from a table of steps, the state in which
it was `last`, and how one more step lets it `advance`: what was fitted, and what goes on
from there, are one recursion. States are tuples whose first entry is the level.

Letters: n rows, c indices, g groups, m coordinates, w walkers (sequences that go on). In
front of `c m` stand replicates, and the groups where there are some. No NumPyro here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from lamina._typing import Array
from lamina.products import lookup

if TYPE_CHECKING:
    from jaxtyping import Float, Int

State: TypeAlias = tuple[Array, ...]
BLOCK = 16
"""Indices that a forecast goes on by at a time."""


class Walk(NamedTuple):
    r"""A random walk: $f_t = f_{t-1} + \theta_t$, from $f_{-1} = 0$."""

    def path(self, steps: Float[Array, "*r c m"]) -> Float[Array, "*r c m"]:
        return jnp.cumsum(steps, axis=-2)

    def last(self, steps: Float[Array, "*r c m"]) -> State:
        return (steps.sum(axis=-2),)

    def advance(self, state: State, step: Float[Array, "w m"]) -> State:
        return (state[0] + step,)


class IntegratedWalk(NamedTuple):
    r"""A walk whose slope walks: $b_t = b_{t-1} + \theta_t$, $f_t = f_{t-1} + b_t$.

    From $f_{-1} = 0$ and the slope $b_{-1}$, of the shape of a step.
    """

    slope: Array

    def path(self, steps: Float[Array, "*r c m"]) -> Float[Array, "*r c m"]:
        return jnp.cumsum(self._slopes(steps), axis=-2)

    def last(self, steps: Float[Array, "*r c m"]) -> State:
        slopes = self._slopes(steps)
        return slopes.sum(axis=-2), slopes[..., -1, :]

    def advance(self, state: State, step: Float[Array, "w m"]) -> State:
        level, slope = state
        return level + slope + step, slope + step

    def _slopes(self, steps: Array) -> Array:
        return self.slope[..., None, :] + jnp.cumsum(steps, axis=-2)


class Autoregression(NamedTuple):
    r"""$f_0 = \theta_0$, $f_t = \rho f_{t-1} + \sqrt{1 - \rho^2}\,\theta_t$.

    Every level has the variance of a step, so the process is stationary.

    Shapes: `rho` has the replicates' axes, (...).
    """

    rho: Array

    def path(self, steps: Float[Array, "*r c m"]) -> Float[Array, "*r c m"]:
        axis = steps.ndim - 2
        rho = jnp.asarray(self.rho)
        rho = jnp.reshape(rho, rho.shape + (1,) * (steps.ndim - rho.ndim))
        rest = jnp.sqrt((1.0 - rho) * (1.0 + rho)) * steps
        first = jnp.arange(steps.shape[axis]) == 0
        first = jnp.reshape(first, (*(1,) * axis, -1, 1))
        moved = jnp.where(first, steps, rest)
        kept = jnp.broadcast_to(rho, steps.shape)
        return lax.associative_scan(_compose, (kept, moved), axis=axis)[1]

    def last(self, steps: Float[Array, "*r c m"]) -> State:
        return (self.path(steps)[..., -1, :],)

    def advance(self, state: State, step: Float[Array, "w m"]) -> State:
        rho = self.rho
        return (rho * state[0] + jnp.sqrt((1.0 - rho) * (1.0 + rho)) * step,)


Process: TypeAlias = Walk | IntegratedWalk | Autoregression


def _compose(first: State, then: State) -> State:
    """The map f -> a f + b that two such maps are, one after the other."""
    return then[0] * first[0], then[0] * first[1] + then[1]


def at_group(
    codes: Int[Array, " n"], groups: Int[Array, " n"], path: Float[Array, "*r g c m"]
) -> Float[Array, "*r n m"]:
    r"""$f_{nm}$ = path of group $g_n$ at index $c_n$; NaN outside the table.

    Shapes: `codes` and `groups` (n,) and `path` (..., g, c, m) give (..., n, m).
    """
    return path.at[..., groups, codes, :].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )


def going_on(
    process: Process,
    state: State,
    first: int,
    draw: Callable[[Array], Float[Array, "w m"]],
    walkers: Int[Array, " n"],
    targets: Int[Array, " n"],
    furthest: int,
) -> Float[Array, "n m"]:
    """The level of each row's walker at its target index, NaN for targets before `first`.

    The walkers are in `state` at index `first` - 1, and `draw` gives their steps into an
    index. They go as far as the furthest target, and no further than `furthest`; no
    target, no steps.

    Shapes: the state's entries are (w, m); `walkers` and `targets` (n,) give (n, m).
    """
    targets = jnp.where(targets > furthest, -1, targets)
    end = jnp.max(targets, initial=-1)

    def one(state: State, steps: Array) -> tuple[State, Array]:
        state = process.advance(state, steps)
        return state, state[0]

    def block(carry: tuple[Array, State, Array]) -> tuple[Array, State, Array]:
        index, state, found = carry
        steps = jax.vmap(draw)(index + jnp.arange(BLOCK))
        state, levels = lax.scan(one, state, steps)
        ahead = targets - index
        here = (ahead >= 0) & (ahead < BLOCK)
        level = levels[jnp.clip(ahead, 0, BLOCK - 1), walkers]
        return index + BLOCK, state, jnp.where(here[:, None], level, found)

    unknown = jnp.full((targets.shape[0], state[0].shape[1]), jnp.nan, state[0].dtype)
    start = (jnp.asarray(first, targets.dtype), state, unknown)
    return lax.while_loop(lambda carry: carry[0] <= end, block, start)[2]


def rising(
    codes: Int[Array, " n"],
    zeta: Float[Array, "*r u e"],
    beta: Float[Array, "*r 1 u"],
) -> Float[Array, "*r n u"]:
    r"""$f_{nu} = \beta_u \sum_{i=1}^{c_n} \zeta_{ui}$, NaN for codes outside 0 to e.

    Shapes: `codes` (n,), `zeta` (..., u, e) and `beta` (..., 1, u) give (..., n, u).
    """
    risen = jnp.cumsum(jnp.swapaxes(zeta, -1, -2), axis=-2)
    risen = jnp.concatenate([jnp.zeros_like(risen[..., :1, :]), risen], axis=-2)
    return lookup(codes, risen * beta)


def fourier(phase: Float[Array, " n"], harmonics: int) -> Float[Array, "n h"]:
    r"""$\cos(2\pi k\phi_n)$ for k = 1 to K, then $\sin(2\pi k\phi_n)$.

    Shapes: `phase` (n,), a fraction of the period, gives (n, h), with h = 2K.
    """
    k = jnp.arange(1, harmonics + 1, dtype=phase.dtype)
    angles = 2.0 * jnp.pi * phase[:, None] * k[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


def circle(place: Int[Array, " n"], period: int) -> Float[Array, "n h"]:
    r"""The cyclic random walk's eigenvectors over the roots of its eigenvalues.

    With independent coefficients of variance $\lambda^2$ a place's effects have the
    covariance $\lambda^2 R^+$, where $f^\top R f = \sum_p (f_{p+1} - f_p)^2$ around the
    circle of P places. Its eigenvalues are $4\sin^2(\pi k/P)$; the constant is left out,
    so that effects sum to zero.

    Shapes: `place` (n,), from 0 to P - 1, gives (n, h), with h = P - 1.
    Source: Rue and Held (2005), Gaussian Markov Random Fields, section 2.6.
    """
    k = jnp.arange(1, period // 2 + 1)
    # whole turns are taken off before the angle, where they would cost digits
    turns = (place[:, None] % period * k[None, :] % period) / period
    root = 2.0 * jnp.sin(jnp.pi * k / period) / jnp.sqrt(2.0 / period)
    root = jnp.where(2 * k == period, root * jnp.sqrt(2.0), root)
    cos = jnp.cos(2.0 * jnp.pi * turns) / root[None, :]
    sin = jnp.sin(2.0 * jnp.pi * turns) / root[None, :]
    return jnp.concatenate([cos, sin[:, : (period - 1) // 2]], axis=1)
