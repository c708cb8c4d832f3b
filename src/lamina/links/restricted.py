"""Censored and truncated outcomes, of any family whose tails are known."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from lamina._checks import as_jax, concrete, describe, is_numeric, where_bad
from lamina._typing import Array, Shape
from lamina.links.parameters import like
from lamina.links.tails import (
    Tails,
    has_tails,
    is_discrete,
    log_between,
    log_tails,
    sample_between,
    truncated_mean,
)

SEEN, LEFT, RIGHT, INTERVAL = 0, -1, 1, 2


def restrict(
    name: str,
    fn: Distribution,
    y: Any,
    entries: Any,
    *,
    truncated: Any = None,
    censored: Any = None,
    upper: Any = None,
) -> Distribution:
    """`fn` truncated to its bounds, and with the tails in place of censored densities."""
    if upper is not None and censored is None:
        raise ValueError(
            f"outcome {name!r}: `upper` ends the intervals that `censored` marks by "
            f"{INTERVAL}, and no `censored` is given. Give both, or neither."
        )
    if truncated is None and censored is None:
        return fn
    if not has_tails(fn):
        raise ValueError(
            f"outcome {name!r}: `censored` and `truncated` need a cumulative "
            f"distribution function, and {type(fn).__name__} has none here. Leave the "
            "option out, or choose another link."
        )
    if truncated is not None:
        fn = Truncated(fn, *_bounds(name, fn, truncated, entries))
    if censored is not None:
        fn = Censored(fn, *_censoring(name, y, censored, upper, entries))
    return fn


def _bounds(
    name: str, fn: Distribution, truncated: Any, entries: Any
) -> tuple[Array | None, Array | None]:
    """The bounds in the shape of the outcome, checked where they are known."""
    if not isinstance(truncated, tuple | list) or len(truncated) != 2:
        raise TypeError(
            f"outcome {name!r}: `truncated` is {truncated!r}; it is a pair of bounds "
            "(low, high), of which None is open."
        )
    known = [None if bound is None else concrete(bound) for bound in truncated]
    for bound in known:
        if bound is not None and not np.all(np.isfinite(bound)):
            raise ValueError(
                f"outcome {name!r}: `truncated` has {where_bad(~np.isfinite(bound))}, "
                "that are not finite. Leave a side open by None."
            )
    low, high = known
    if low is not None and high is not None and not np.all(low < high):
        raise ValueError(
            f"outcome {name!r}: `truncated` has a lower bound that is not below the "
            "upper one, so nothing could be observed. Correct the bounds."
        )
    if is_discrete(fn):
        for bound in known:
            if bound is not None and not np.all(bound == np.round(bound)):
                raise ValueError(
                    f"outcome {name!r}: `truncated` has bounds that are no whole "
                    "numbers, but the outcome is a count. Both bounds are included: "
                    "(1, None) leaves out zero."
                )
    first, last = (
        None if b is None else like(f"{name}: truncated", as_jax(b), entries)
        for b in truncated
    )
    return first, last


def _censoring(
    name: str, y: Any, censored: Any, upper: Any, entries: Any
) -> tuple[Array, Array | None]:
    """The codes and upper ends in the shape of the outcome, checked where known."""
    codes, ends = concrete(censored), None if upper is None else concrete(upper)
    if codes is not None:
        if not is_numeric(codes) or not np.all(
            np.isin(codes, (SEEN, LEFT, RIGHT, INTERVAL))
        ):
            raise ValueError(
                f"outcome {name!r}: `censored` is 0 or False where `y` was seen, 1 or "
                "True where the outcome is at least `y`, -1 where it is at most `y`, "
                "and 2 where it lies between `y` and `upper`. Use these codes."
            )
        if ends is None and upper is None and np.any(codes == INTERVAL):
            raise ValueError(
                f"outcome {name!r}: `censored` marks intervals by {INTERVAL}, which end "
                "at `upper`, and no `upper` is given. Give it."
            )
    given = None if y is None else concrete(y)
    if codes is not None and ends is not None and given is not None:
        shape = given.shape
        codes, ends = (_spread(v, shape) for v in (codes, ends))
        bad = (codes == INTERVAL) & ~(np.isfinite(ends) & (ends > given))
        if np.any(bad):
            raise ValueError(
                f"outcome {name!r}: `upper` has {where_bad(bad)}, that are not finite "
                "numbers above `y`, so their intervals are empty. An interval without "
                "an end is censored on the right: code 1."
            )
    marks = like(f"{name}: censored", as_jax(censored), entries).astype(int)
    if upper is None:
        return marks, None
    return marks, like(f"{name}: upper", as_jax(upper), entries)


def _spread(value: np.ndarray, shape: Shape) -> np.ndarray:
    """A known array in the shape of `y`, one entry to a row."""
    if value.ndim == len(shape) + 1:
        value = value[..., 0]
    elif value.ndim and value.ndim == len(shape) - 1:
        value = value[..., None]
    return np.broadcast_to(value, shape)


class Within(constraints.Constraint):
    """A support between bounds, both included."""

    def __init__(self, base: Any, low: Any, high: Any) -> None:
        self.base, self.low, self.high = base, low, high
        self.is_discrete = base.is_discrete

    def __call__(self, x: Any) -> Any:
        inside = self.base(x)
        if self.low is not None:
            inside = inside & (x >= self.low)
        return inside if self.high is None else inside & (x <= self.high)

    def __repr__(self) -> str:
        words = describe(self.base)
        for text, bound in (("at least", self.low), ("at most", self.high)):
            if bound is not None:
                known = concrete(bound)
                values = set() if known is None else set(known.ravel().tolist())
                words += f", {text} {min(values) if len(values) == 1 else 'its own'}"
        return words

    def feasible_like(self, prototype: Any) -> Any:
        return self.base.feasible_like(prototype)

    def tree_flatten(self) -> Any:
        return (self.base, self.low, self.high), (("base", "low", "high"), {})


class Truncated(Distribution):
    """A family between bounds, both included, of which None is open."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("base_dist", "low", "high")

    def __init__(
        self,
        base_dist: Distribution,
        low: Array | None,
        high: Array | None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.base_dist, self.low, self.high = base_dist, low, high
        super().__init__(base_dist.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        return Within(self.base_dist.support, self.low, self.high)

    def log_prob(self, value: Array) -> Array:
        return self.base_dist.log_prob(value) - self.log_mass

    @property
    def log_mass(self) -> Array:
        """The log probability of not being cut off."""
        return log_between(self.base_dist, self.low, self.high)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        shape = sample_shape + self.batch_shape
        return sample_between(self.base_dist, self.low, self.high, key, shape)

    @property
    def mean(self) -> Array:
        return truncated_mean(self.base_dist, self.low, self.high)


class Censored(Distribution):
    """A family of which some outcomes are known by bounds only.

    Draws are outcomes as they would be without censoring.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("base_dist", "censored", "upper")

    def __init__(
        self,
        base_dist: Distribution,
        censored: Array,
        upper: Array | None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.base_dist, self.censored, self.upper = base_dist, censored, upper
        super().__init__(base_dist.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        return self.base_dist.support

    def log_prob(self, value: Array) -> Array:
        base = self.base_dist
        density = base.log_prob(value)
        found = jnp.where(
            self.censored == RIGHT, log_between(base, value, None), density
        )
        found = jnp.where(self.censored == LEFT, log_between(base, None, value), found)
        if self.upper is None:
            return found
        inside = self.censored == INTERVAL
        # rows that are no intervals get one that is, so that their slopes stay finite
        end = jnp.where(inside, self.upper, value + 1)
        return jnp.where(inside, log_between(base, value, end), found)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        return self.base_dist.sample(key, sample_shape)

    @property
    def mean(self) -> Array:
        return self.base_dist.mean

    @property
    def variance(self) -> Array:
        return self.base_dist.variance


@log_tails.register
def _(fn: Truncated, x: Array) -> Tails:
    low, high, mass = fn.low, fn.high, fn.log_mass
    inside = jnp.clip(x, low, high)
    after = inside + 1 if is_discrete(fn.base_dist) else inside
    lower = log_between(fn.base_dist, low, inside) - mass
    upper = log_between(fn.base_dist, after, high) - mass
    if low is not None:
        lower = jnp.where(x < low, -jnp.inf, lower)
        upper = jnp.where(x < low, 0.0, upper)
    if high is not None:
        lower = jnp.where(x >= high, 0.0, lower)
        upper = jnp.where(x >= high, -jnp.inf, upper)
    return Tails(lower, upper)
