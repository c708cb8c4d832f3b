"""Aliases and small immutable values that every floor shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray
Shape: TypeAlias = tuple[int, ...]
Seed: TypeAlias = int | jax.Array
Model: TypeAlias = Callable[..., Any]
Guide: TypeAlias = Callable[..., Any]
Family: TypeAlias = type[Distribution] | Distribution


class Prior(Protocol):
    """Turns a name and a shape into coefficients, by sampling NumPyro sites.

    The sites are `{name}.{coefficient}{suffix}`, sampled or deterministic, and what it
    is made of, such as a learned scale, `{name}.lmbda{suffix}`; what all coefficients
    share has the shape `scale_shape` (default: the last axis of `shape`, one for each
    unit). All carry `to_event`. A prior with a true `joint` ties its coefficients
    together, so that none can be drawn on its own.
    """

    def __call__(
        self,
        name: str,
        shape: Shape,
        coefficient: str = "beta",
        *,
        suffix: str = "",
        scale_shape: Shape | None = None,
    ) -> Array: ...


class FrozenDict(Mapping[str, Any]):
    """A mapping that cannot change, is hashable, and equals any equal mapping."""

    __slots__ = ("_items",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._items = dict(*args, **kwargs)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._key() == FrozenDict(other)._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> frozenset[tuple[str, Any]]:
        return frozenset((k, comparable(v)) for k, v in self._items.items())


@dataclass(frozen=True, repr=False, eq=False)
class Value:
    """A frozen dataclass that is compared, hashed and shown by its fields.

    Mappings among the fields become immutable copies, so that none is shared; ready
    distributions and arrays are compared by what they hold.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, Mapping) and not isinstance(given, FrozenDict):
                object.__setattr__(self, field.name, FrozenDict(given))

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.default is MISSING
            or comparable(getattr(self, f.name)) != comparable(f.default)
        }

    def _key(self) -> tuple[Any, ...]:
        return (type(self), *(comparable(getattr(self, f.name)) for f in fields(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        shown = (f"{name}={show(value)}" for name, value in self.changed().items())
        return f"{type(self).__name__}({', '.join(shown)})"


def comparable(value: Any) -> Any:
    """What stands for `value` in comparisons and hashes: arrays by their bytes."""
    if isinstance(value, Distribution):
        leaves, tree = jax.tree.flatten(value)
        return (tree, *(comparable(leaf) for leaf in leaves))
    if isinstance(value, jax.core.Tracer):
        return id(value)
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        if array.ndim == 0:
            return array.item()
        return (array.shape, str(array.dtype), array.tobytes())
    if isinstance(value, Mapping):
        return FrozenDict(value)  # which compares its entries by this function
    if isinstance(value, list | tuple):
        return (type(value), *(comparable(item) for item in value))
    return value


def show(value: Any) -> str:
    """A short text for a distribution, its class, or any other field."""
    if isinstance(value, type):
        return value.__name__
    if not isinstance(value, Distribution):
        return repr(value)
    base = [show(value.base_dist)] if hasattr(value, "base_dist") else []
    names = type(value).arg_constraints
    shown = base + [f"{name}={getattr(value, name, None)}" for name in names]
    return f"{type(value).__name__}({', '.join(shown)})"


def arrays_apart(values: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Floating and integer arrays are traced; sizes, strings and flags are static."""
    arrays = {
        k: jnp.asarray(v)
        for k, v in values.items()
        if isinstance(v, np.ndarray | jax.Array) and jnp.ndim(v) > 0
    }
    return arrays, {k: v for k, v in values.items() if k not in arrays}
