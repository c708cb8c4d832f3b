"""Which of a call's arguments hold rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Arguments:
    """A call's positional and keyword arguments, with those that hold rows set apart."""

    rows: dict[str, Any]
    leaves: list[Any]
    tree: Any

    def call(self, fn: Callable[..., Any], rows: Mapping[str, Any]) -> Any:
        """Call `fn` with these rows in place of the arguments' own."""
        leaves = [rows.get(str(i), leaf) for i, leaf in enumerate(self.leaves)]
        args, kwargs = jax.tree.unflatten(self.tree, leaves)
        return fn(*args, **kwargs)

    @property
    def unknown(self) -> dict[str, Any]:
        """The arguments without rows whose numbers are not known while JAX traces."""
        return {
            str(i): leaf
            for i, leaf in enumerate(self.leaves)
            if isinstance(leaf, jax.core.Tracer) and str(i) not in self.rows
        }

    @property
    def num_rows(self) -> int:
        return next(iter(jnp.shape(value)[0] for value in self.rows.values()))


def split_arguments(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    num_obs: int | None = None,
) -> Arguments:
    """Set the arguments that hold rows apart from the constants.

    Arrays of one leading length hold rows. Where lengths differ, those of length
    `batch_size`, else `num_obs`, do.

    Raises: ValueError where the lengths leave open which arguments hold rows.
    """
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    lengths = {
        str(i): jnp.shape(leaf)[0]
        for i, leaf in enumerate(leaves)
        if jnp.ndim(leaf) >= 1
    }
    seen = set(lengths.values())
    if not seen:
        raise ValueError(
            "no argument has rows, so the batch size is unknown and the minibatch cannot "
            "be weighted. Pass the batch's arrays as arguments of the model, not through "
            "a closure."
        )
    if len(seen) == 1:
        (rows,) = seen
    else:
        wanted = [n for n in (batch_size, num_obs) if n in seen]
        if not wanted:
            raise ValueError(
                f"the arguments' leading lengths are {sorted(seen)}, so it is open which "
                "hold rows and what a row weighs. Give Batched_Trace_ELBO its "
                "batch_size=, or bind constant arrays with functools.partial."
            )
        rows = wanted[0]
    chosen = {i: leaves[int(i)] for i, length in lengths.items() if length == rows}
    return Arguments(chosen, leaves, tree)
