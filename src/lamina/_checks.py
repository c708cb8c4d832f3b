"""Checks that say what was seen, why it matters, what to do."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from lamina._typing import Array

SMALLEST_CODE = -(2**31) + 1


def concrete(value: Any) -> np.ndarray | None:
    """`value` as NumPy where its numbers are known, None while JAX traces it."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def as_array(value: Any) -> Any:
    """`value` as an array of NumPy or JAX: lists, series and frames become NumPy's."""
    return value if isinstance(value, np.ndarray | jax.Array) else np.asarray(value)


def as_columns(where: str, x: Any, argument: str = "x") -> Array:
    """`x` as floating (n, d); a flat (n,) is one column."""
    if is_sparse(x):
        raise TypeError(
            f"{where}: `{argument}` is a sparse {type(x).__name__}, which this layer does "
            "not compute with (AdaptiveLayer, its kin and FMLayer do). Give it dense "
            "columns, x.todense(), or another layer."
        )
    x = as_array(x)
    if not is_numeric(x):
        raise TypeError(
            f"{where}: `{argument}` holds {x.dtype}, not numbers. Encode text as "
            "integer codes for EmbeddingLayer or RandomEffectsLayer, or as indicator "
            "columns, and times as numbers in units of your choice."
        )
    if x.ndim not in (1, 2):
        raise ValueError(
            f"{where}: `{argument}` has shape {tuple(x.shape)}, but a layer takes rows "
            "and columns, (n, d), or one column, (n,). Reshape it, one row to an "
            "observation."
        )
    if x.ndim == 2 and x.shape[1] == 0:
        raise ValueError(
            f"{where}: `{argument}` has shape {tuple(x.shape)}, no columns, so its term "
            "would always be zero. Leave the layer out, or give it columns."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(float)  # before JAX, whose integers of 32 bits would wrap around
    elif isinstance(x, np.ndarray) and not np.isfinite(x).all():  # data, not a term
        raise ValueError(
            f"{where}: `{argument}` has {where_bad(~np.isfinite(x))}, that are NaN or "
            "infinite, which would make those rows' terms NaN. Leave such rows out, or "
            "fill them in."
        )
    x = jnp.asarray(x)
    return x[:, None] if x.ndim == 1 else x


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse array of JAX's; its module is imported by who makes one."""
    module = sys.modules.get("jax.experimental.sparse")
    return module is not None and isinstance(x, module.JAXSparse)


def as_sparse(where: str, x: Any, argument: str = "x") -> Any:
    """A sparse `x` as floating (n, d) in BCOO form, its entries by row or by both axes."""
    seen = f"{where}: `{argument}` is a sparse {type(x).__name__} of shape {x.shape}"
    if not isinstance(x, sys.modules["jax.experimental.sparse"].BCOO):
        raise TypeError(
            f"{seen}, but layers compute with the form BCOO. Convert it, for example by "
            "jax.experimental.sparse.BCOO.from_scipy_sparse(matrix)."
        )
    if x.ndim != 2 or x.n_dense or x.n_batch > 1 or 0 in x.shape:
        raise ValueError(
            f"{seen} with {x.n_batch} batch and {x.n_dense} dense axes, but a layer takes "
            "rows and columns, (n, d), with entries indexed by both, or by column within "
            "each row. Rebuild it as such a matrix."
        )
    if not is_numeric(x):
        raise TypeError(f"{seen} that holds {x.dtype}, not numbers. Give it real ones.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(float)
    return x


def is_numeric(x: Any) -> bool:
    """Whether an array holds real numbers or truth values."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating)
    return any(jnp.issubdtype(x.dtype, kind) for kind in kinds)


def same_rows(where: str, x: Array, z: Array) -> None:
    """Raise unless `x` and `z` have one row for each other's."""
    if x.shape[0] != z.shape[0]:
        raise ValueError(
            f"{where}: `x` has shape {x.shape} and `z` has shape {z.shape}. Their rows "
            "are multiplied one by one, so both need the same number of rows."
        )


class Remedies(NamedTuple):
    """What to do about codes outside of a table, which `as_codes` fits into a sentence."""

    past: str
    negative: str

    @classmethod
    def of_table(cls, size: str) -> Self:
        """Those of a table whose number of levels is the argument `size`."""
        return cls(
            f"raise `{size}`, or mark levels that were not fitted by negative codes when "
            "predicting",
            "Negative codes stand for unseen levels, which only a prediction can have, "
            "from a layer whose `unseen` is 'draw' or 'zero': give fitted rows codes "
            "from 0",
        )


def as_codes(
    where: str,
    x: Any,
    num_categories: int,
    *,
    unseen: bool,
    ahead: int = 0,
    remedies: Remedies | None = None,
) -> Array:
    """`x` as integer codes (n,), checked against the table where they are known.

    Negative codes stand for levels that were never fitted: allowed where `unseen`. Codes
    may be up to `ahead` past the table, where a sequence goes on.
    """
    remedies = remedies or Remedies.of_table("num_categories")
    x = as_array(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            f"{where}: codes have dtype {x.dtype}, but a category is an integer from 0 "
            f"to {num_categories - 1}. Rounding floats would merge categories: encode "
            "them, for example with np.unique(labels, return_inverse=True)."
        )
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        raise ValueError(
            f"{where}: codes have shape {tuple(x.shape)}, but each row has one code: "
            "give shape (n,) or (n, 1), and one layer to each categorical column."
        )
    known = concrete(x)
    if known is not None and known.size:
        if ahead and known.max() >= num_categories + ahead:
            raise ValueError(
                f"{where}: code {known.max()} is more than {ahead} steps past the last "
                f"fitted one ({num_categories - 1}), and a forecast draws each step. "
                "Number the steps from 0, or forecast less far."
            )
        if not ahead and known.max() >= num_categories:
            raise ValueError(
                f"{where}: code {known.max()} is past its table of {num_categories} "
                f"categories (0 to {num_categories - 1}). It would read another "
                f"level's effect: {remedies.past}."
            )
        if known.min() < 0 and not unseen:
            raise ValueError(
                f"{where}: code {known.min()} is negative. {remedies.negative} to "
                f"{num_categories - 1}."
            )
        if known.min() < SMALLEST_CODE:
            raise ValueError(
                f"{where}: code {known.min()} is below {SMALLEST_CODE}. In 32 bits it "
                "would wrap around to another level: number unseen levels -1, -2, ..."
            )
    return jnp.asarray(x)


def as_times(where: str, x: Any) -> Any:
    """`x` as finite times (n,), of an integer or floating dtype.

    Raises: TypeError or ValueError for what cannot be times.
    """
    x = as_array(x)
    if not is_numeric(x) or x.dtype == bool:
        raise TypeError(
            f"{where}: times have dtype {x.dtype}, not numbers. Count them in units of "
            "your choice from an origin, such as days since the first row."
        )
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        raise ValueError(
            f"{where}: times have shape {tuple(x.shape)}, but each row has one time: give "
            "shape (n,) or (n, 1)."
        )
    known = concrete(x)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(
            f"{where}: {where_bad(~np.isfinite(known))} of the times are not finite. Drop "
            "those rows, or give their times."
        )
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return x
    most = jnp.iinfo(jnp.result_type(int)).max
    if known is not None and known.size and np.abs(known.astype(float)).max() > most:
        raise ValueError(
            f"{where}: times run from {known.min()} to {known.max()}, beyond the integers "
            f"of JAX ({most}), in which they would wrap around. Subtract an origin, or "
            "enable double precision."
        )
    return x.astype(int)  # in narrower integers a period would wrap around


def one_size(where: str, name: str, given: int | None, called: int | None) -> int:
    """The size given at construction or at the call: once, or twice alike."""
    if given is not None and called is not None and given != called:
        raise ValueError(
            f"{where}: `{name}` is {given} in the constructor and {called} in the "
            "call. Give it once, at either place."
        )
    size = given if called is None else called
    if size is None:
        raise TypeError(
            f"{where}: `{name}` is missing. Give it in the constructor, "
            f"Layer({name}=...), or in the call."
        )
    return positive_size(where, name, size)


def positive_size(where: str, name: str, size: Any) -> int:
    """`size` as a Python int of at least one."""
    if isinstance(size, jax.Array):
        raise TypeError(
            f"{where}: `{name}` is computed by JAX, {size!r}, but sizes decide shapes, "
            "which are fixed before anything runs, and one batch need not hold every "
            "category. Compute it from all data, outside of the model."
        )
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(
            f"{where}: `{name}` is {size!r}, but a size is a whole number of at least "
            "1."
        )
    return int(size)


def positive_number(where: str, name: str, value: Any, meaning: str) -> None:
    """Raise for what is no positive finite number; `meaning` says what it is for."""
    number = isinstance(value, int | float | np.number | jax.Array)
    if not number or isinstance(value, bool) or not 0 < value < np.inf:
        raise ValueError(f"{where}: `{name}` is {value!r}, but {meaning}.")


def allows_negative(fn: Distribution) -> bool:
    """Whether a distribution of single numbers is known to draw negative ones."""
    return allows(fn, -1.0)


def allows(fn: Distribution, number: float) -> bool:
    """Whether a number is known to lie in a distribution's support."""
    try:
        with jax.ensure_compile_time_eval():
            inside = concrete(fn.support(np.float32(number)))
    except jax.errors.TracerArrayConversionError:  # its bounds are being traced
        return False
    return inside is not None and bool(np.any(inside))


def as_jax(value: Any) -> Array:
    """`value` for JAX: integers too large for its own become floats, and none wrap."""
    value = as_array(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size:
        limit = jnp.iinfo(jnp.result_type(int)).max
        if value.max() > limit or value.min() < -limit:
            value = value.astype(float)
    return jnp.asarray(value)


def where_bad(bad: np.ndarray) -> str:
    """How many entries are bad, and the first rows that hold one."""
    rows = np.unique(np.nonzero(bad)[0]) if bad.ndim else np.array([0])
    shown = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    return f"{int(bad.sum())} of {bad.size} values, in rows {shown}"


def require_support(name: str, fn: Any, y: Any) -> None:
    """Raise where known `y` is outside the distribution's support."""
    known = concrete(y)
    support = fn.support
    if known is None or support is None:
        return
    if not is_numeric(known):
        raise TypeError(
            f"outcome {name!r}: `y` holds {known.dtype}, not numbers. Encode it as the "
            f"numbers that {type(fn).__name__} gives: {describe(support)}."
        )
    if known.dtype == bool:
        known = known.astype(np.int32)
    try:
        inside = concrete(support(known))
    except jax.errors.TracerArrayConversionError:  # its bounds are being traced
        return
    if inside is None or bool(np.all(inside)):
        return
    raise ValueError(
        f"outcome {name!r}: `y` has {where_bad(~inside)}, outside the support of "
        f"{type(fn).__name__}, which is {describe(support)} (seen: "
        f"{known[~inside].ravel()[0]}). Such a row has no likelihood: correct it, or "
        "choose a link for this kind of outcome."
    )


def describe(support: Any) -> str:
    """A constraint in words."""
    words = {
        "Real": "finite numbers",
        "Boolean": "0 and 1",
        "IntegerNonnegative": "the counts 0, 1, 2, ...",
        "Positive": "positive numbers",
        "UnitInterval": "numbers from 0 to 1",
        "Circular": "angles from -pi to pi, in radians",
        "RealVector": "finite numbers",
        "Multinomial": "counts that sum to the trials of their row",
    }
    kind = type(support).__name__.lstrip("_")
    if kind in ("OpenInterval", "IntegerInterval"):
        low, high = (concrete(v) for v in (support.lower_bound, support.upper_bound))
        ends = [
            f"{v.flat[0]:g}" if v is not None and np.unique(v).size == 1 else "its own"
            for v in (low, high)
        ]
        numbers = "numbers strictly" if kind == "OpenInterval" else "whole numbers"
        joint = ("between", "and") if kind == "OpenInterval" else ("from", "to")
        return f"{numbers} {joint[0]} {ends[0]} {joint[1]} {ends[1]}"
    return words.get(kind, repr(support))
