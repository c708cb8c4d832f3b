"""Which of a call's arguments hold rows, and which are arrays at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax


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


def split_arguments(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    num_obs: int | None = None,
    constants: Iterable[str | int] = (),
) -> Arguments:
    """Set the arguments that hold rows apart from the constants.

    Arrays of one leading length hold rows. Where lengths differ, `batch_size` settles
    it: arrays of that length hold rows or, failing those, arrays of length `num_obs`.
    `constants` names arguments, or counts positions, that hold none whatever their length.

    Raises: ValueError where the lengths leave open which arguments hold rows.
    """
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    fixed = set(constants)
    owners = jax.tree.leaves(
        (
            [jax.tree.map(lambda _, i=i: i in fixed, a) for i, a in enumerate(args)],
            {k: jax.tree.map(lambda _, k=k: k in fixed, a) for k, a in kwargs.items()},
        )
    )
    lengths = {
        str(i): leaf.shape[0]
        for i, (leaf, constant) in enumerate(zip(leaves, owners, strict=True))
        # numbers, strings and flags have no rows
        if getattr(leaf, "ndim", 0) >= 1 and not constant
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
        # by num_obs alone, a constant of that length would pass for the batch
        sizes = () if batch_size is None else (batch_size, num_obs)
        wanted = [n for n in sizes if n in seen]
        if not wanted:
            raise ValueError(
                f"the arguments' leading lengths are {sorted(seen)}, so it is open which "
                "hold rows and what a row weighs. Give the loss its batch_size=, or "
                "bind constant arrays with functools.partial."
            )
        rows = wanted[0]
    chosen = {i: leaves[int(i)] for i, length in lengths.items() if length == rows}
    return Arguments(chosen, leaves, tree)
