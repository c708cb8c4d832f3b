"""A random walk at irregular times: learned once, bridged between, gone on from."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lamina._checks import as_array, as_jax, as_times, concrete, is_numeric
from lamina._typing import Array
from lamina.brownian import CELLS, between, cell_of, ends_of_cells
from lamina.effects import prediction, remember, term
from lamina.layers._fresh import RememberSites, key_of, over_replicates
from lamina.layers._sequence import BEFORE, Draw, SequenceForm, standing
from lamina.processes import Walk

APART = 8
"""Neighbouring times are this many units of rounding apart, or more."""


class Clock(NamedTuple):
    """The times of a fit, in order, and what they say about steps and forecasts."""

    times: Array
    gaps: Array
    unit: Array
    rounding: Array

    def places(self, t: Array) -> tuple[Array, Array]:
        """The last fitted time up to each of `t`, and whether it is that time (or -1)."""
        c = self.times.shape[0]
        after = jnp.searchsorted(self.times, t, side="right")
        k = jnp.clip(after - 1, 0, c - 1)
        following = jnp.minimum(k + 1, c - 1)
        exact = jnp.where(
            abs(t - self.times[k]) <= self.rounding,
            k,
            jnp.where(abs(t - self.times[following]) <= self.rounding, following, -1),
        )
        return k, exact


def clock_of(times: np.ndarray) -> Clock:
    """The clock of learned times; the first step is one unit of time."""
    span = float(times[-1] - times[0])
    return Clock(
        jnp.asarray(times, float),
        jnp.asarray(np.concatenate([[1.0], np.diff(times)]), float),
        jnp.asarray(span / (len(times) - 1) if len(times) > 1 else 1.0, float),
        jnp.asarray(rounding_of(times), float),
    )


def rounding_of(times: np.ndarray) -> float:
    """By how much a time may differ between two computations of it."""
    digits = float(jnp.finfo(jnp.result_type(float)).eps)
    return 2.0 * digits * max(float(np.abs(times).max()), 1e-30)


def learn_times(where: str, x: np.ndarray) -> np.ndarray:
    """The times of all rows, each once, in order.

    Raises: ValueError for times too close to tell apart.
    """
    times = np.unique(x.astype(float))
    gaps = np.diff(times)
    if len(gaps) and gaps.min() < APART * rounding_of(times):
        at = int(gaps.argmin())
        raise ValueError(
            f"{where}: times {times[at]} and {times[at + 1]} are closer than numbers of "
            "this size can tell apart. Subtract an origin from the times, round those "
            "that are meant to be one, or enable double precision."
        )
    return times


def is_times(x: Any) -> bool:
    """Whether `x` holds floating numbers, which are times and no codes."""
    x = as_array(x)
    return is_numeric(x) and jnp.issubdtype(x.dtype, jnp.floating)


def walk_at_times(
    layer: SequenceForm,
    name: str,
    x: Any,
    m: int,
    group: Any,
    num_groups: int | None,
) -> Array:
    """A walk whose steps have the variance of the gaps between its times."""
    where, asked = layer.label(name), prediction()
    x = as_times(where, x)
    layer.outside_rows(name, x.shape[0])
    learned = remember(f"{name}.times", partial(learn_times, where), x)
    clock = clock_of(np.asarray(learned))
    t = as_jax(x).astype(clock.times.dtype)
    groups, lead = layer.group_codes(name, group, num_groups, t, asked)
    c = clock.times.shape[0]
    place, exact = clock.places(t)
    require_times(where, x, np.asarray(learned), asked is None)
    with RememberSites() as sites:
        steps = layer.coefficients(name, (*lead, c, m), "theta", scale_shape=())
    roots = jnp.reshape(jnp.sqrt(clock.gaps), (1,) * (steps.ndim - 2) + (c, 1))
    path = Walk().path(roots * steps)
    output = standing(exact, groups, path)
    if asked is None:
        return term(name, output)

    def one(key: Array, known: Any) -> Array:
        path, values = known
        draw = layer.drawing(name, (*lead, c, m), key, values)
        table = path if lead else path[None]
        return elsewhere(clock, draw, table, t, place, groups, layer.unseen)

    replicates = path.shape[: path.ndim - len(lead) - 2]
    key = key_of(where, asked.key, sites)
    new = exact < 0 if groups is None else (exact < 0) | (groups < 0)
    other = over_replicates(one, replicates, key, (path, sites.values))
    return term(name, jnp.where(new[:, None], other, output))


def elsewhere(
    clock: Clock,
    draw: Draw,
    path: Array,
    t: Array,
    place: Array,
    groups: Array | None,
    unseen: str,
) -> Array:
    """Where the walks (g, c, m) stand at times that were not fitted: (n, m).

    Between fitted times a bridge, after them Brownian motion, before them NaN. Groups
    that were not fitted have a walk of their own, from the first time on.
    """
    g, c, _ = path.shape
    codes = jnp.zeros_like(place) if groups is None else groups
    of = jnp.clip(codes, 0, g - 1)
    following = jnp.minimum(place + 1, c - 1)
    inner = t < clock.times[-1]
    cell, part = cell_of(jnp.maximum(t - clock.times[-1], 0.0) / clock.unit)
    ends = stretches(clock, draw, path[:, -1], jnp.arange(g), c)
    inside = jnp.where(inner, clock.times[following] - clock.times[place], 1.0)
    side = inner[:, None]
    left = jnp.where(side, path[of, place], ends[of, cell])
    right = jnp.where(side, path[of, following], ends[of, cell + 1])
    at = jnp.where(inner, (t - clock.times[place]) / inside, part)
    span = jnp.where(inner, inside, clock.unit * jnp.exp2(cell.astype(t.dtype)))
    which = jnp.where(inner, place, c + cell)
    new = codes < 0
    if groups is not None and unseen == "draw":
        start = draw(codes, BEFORE, 0)
        cell, part = cell_of(jnp.maximum(t - clock.times[0], 0.0) / clock.unit)
        own = stretches(clock, draw, start, codes, c)
        rows = jnp.arange(t.shape[0])
        left = jnp.where(new[:, None], own[rows, cell], left)
        right = jnp.where(new[:, None], own[rows, cell + 1], right)
        at = jnp.where(new, part, at)
        span = jnp.where(new, clock.unit * jnp.exp2(cell.astype(t.dtype)), span)
        which = jnp.where(new, c + cell, which)
    found = between(left, right, span, at, lambda node: draw(codes, which, node))
    early = t < clock.times[0] - clock.rounding
    found = jnp.where((early | (codes >= g))[:, None], jnp.nan, found)
    if unseen == "zero":
        return jnp.where(new[:, None], 0.0, found)
    return found


def stretches(clock: Clock, draw: Draw, level: Array, groups: Array, c: int) -> Array:
    """Where walks at `level` (w, m) stand at the ends of the stretches after it."""
    steps = jax.vmap(lambda k: draw(groups, c + k, 0))(jnp.arange(CELLS))
    return ends_of_cells(level, clock.unit, jnp.swapaxes(steps, 0, 1))


def require_times(where: str, x: Any, times: np.ndarray, in_fit: bool) -> None:
    """Raise for times that a fit did not learn, or that are before all that it did."""
    known = concrete(x)
    if known is None or not known.size:
        return
    rounding = rounding_of(times)
    if known.min() < times[0] - rounding:
        raise ValueError(
            f"{where}: time {known.min()} is before the first fitted one, {times[0]}, "
            "where the walk begins. Predict from there on."
        )
    at = np.searchsorted(times, known - rounding).clip(max=len(times) - 1)
    other = abs(known - times[at]) > rounding
    if in_fit and other.any():
        raise ValueError(
            f"{where}: time {known[other][0]} is none of the {len(times)} that were "
            f"learned (from {times[0]} to {times[-1]}). Learn them from the same rows."
        )
