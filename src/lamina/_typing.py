"""Aliases and small immutable values that every floor shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import jax
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

    The sites are `{name}.{coefficient}{suffix}` and, where a scale is learned,
    `{name}.lmbda{suffix}` of shape `scale_shape` (default: the last axis of `shape`,
    one scale for each unit). All carry `to_event`.
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


def comparable(value: Any) -> Any:
    """What stands for `value` in comparisons and hashes: arrays by their bytes."""
    if isinstance(value, Distribution):
        names = sorted(type(value).arg_constraints)
        parameters = tuple((k, comparable(getattr(value, k))) for k in names)
        return (type(value), value.batch_shape, value.event_shape, parameters)
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(
        value, jax.core.Tracer
    ):
        array = np.asarray(value)
        if array.ndim == 0:
            return array.item()
        return (array.shape, str(array.dtype), array.tobytes())
    return value
