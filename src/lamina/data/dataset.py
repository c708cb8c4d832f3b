"""Rows and constants: what is data for a model, checked before anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamina._checks import where_bad


@dataclass(frozen=True)
class Dataset:
    """A model's arguments: arrays with one entry for each row, and constants."""

    rows: Mapping[str, np.ndarray]
    constants: Mapping[str, Any]
    observed: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rows", "constants"):
            frozen = MappingProxyType(dict(getattr(self, name)))
            object.__setattr__(self, name, frozen)

    @property
    def num_rows(self) -> int:
        return len(self.rows[self.observed[0]])

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments, by name."""
        return {**self.rows, **self.constants}

    @property
    def unobserved(self) -> dict[str, Any]:
        """All arguments with no outcome given, as in a prediction."""
        return {**self.arguments, **dict.fromkeys(self.observed)}

    def describe(self) -> str:
        """How the arguments were read."""
        rows = ", ".join(f"{k} {v.shape}" for k, v in self.rows.items())
        fixed = ", ".join(
            f"{k} {np.shape(v)}" if np.ndim(v) else f"{k}={v!r}"
            for k, v in self.constants.items()
        )
        return f"rows: {rows}; constants: {fixed or 'none'}"


def read_data(
    data: Any,
    observed: str | Iterable[str] = "y",
    constants: Iterable[str] | Mapping[str, Any] | None = None,
    missing: str = "error",
) -> Dataset:
    """Tell rows from constants and check every number.

    `data` is a mapping of arrays, or a data frame, whose columns are the arguments.
    The observed arguments set the number of rows N; arrays of N entries are rows, other
    arrays and values are constants. `constants` names arguments that are constants
    although they have N entries, or maps further constants to their values. Arrays are
    copied, so that later changes to them change nothing here.

    `missing="skip"` leaves out rows with a NaN; infinite values always raise.

    Raises: TypeError for data that are not numbers, ValueError for missing or infinite
    values, for numbers that JAX's 32 bits cannot hold apart, and for observed arguments
    that are absent or of different lengths.
    """
    data = as_mapping("`data`", data)
    if missing not in ("error", "skip"):
        raise ValueError(f"missing is {missing!r}; it is 'error' or 'skip'.")
    outcomes = as_names(observed)
    extra = dict(constants) if isinstance(constants, Mapping) else {}
    named = set() if isinstance(constants, Mapping) else set(as_names(constants))
    twice = sorted(set(extra) & set(data))
    if twice:
        raise ValueError(
            f"{twice} are given in `data` and in `constants`. Give each argument once."
        )
    absent = sorted(set(outcomes) - set(data))
    if absent or not outcomes:
        raise ValueError(
            f"the observed argument {absent} is not in `data`, which has "
            f"{sorted(data)}. Name the outcome: fit(..., observed='name')."
        )
    unknown = sorted(named - set(data))
    if unknown:
        raise ValueError(
            f"`constants` names {unknown}, which `data` has not; it has {sorted(data)}."
        )
    both = sorted(named & set(outcomes))
    if both:
        raise ValueError(
            f"{both} are observed and named in `constants`. An outcome has an entry for "
            "each row: leave it out of `constants`."
        )
    values = {name: as_numbers(name, value) for name, value in data.items()}
    single = {k: values[k] for k in outcomes if not np.ndim(values[k])}
    if single:
        raise ValueError(
            f"the observed arguments {single} are single values, but each needs one "
            "entry for each row; one row is an array of length 1."
        )
    lengths = {k: len(values[k]) for k in outcomes}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the observed arguments have lengths {lengths}, but each needs one entry "
            "for each row."
        )
    (n,) = set(lengths.values())
    if n == 0:
        raise ValueError("the data have no rows, so there is nothing to fit.")
    rows = {
        k: v
        for k, v in values.items()
        if isinstance(v, np.ndarray) and v.ndim >= 1 and len(v) == n and k not in named
    }
    fixed = {k: v for k, v in values.items() if k not in rows}
    fixed |= {k: as_numbers(k, v) for k, v in extra.items()}
    for name, value in fixed.items():
        require_finite(name, value, "a constant")
    dataset = complete_rows(Dataset(rows, fixed, outcomes), skip=missing == "skip")
    for name, value in dataset.rows.items():
        require_resolution(name, value)
    return dataset


def complete_rows(dataset: Dataset, *, skip: bool) -> Dataset:
    """The dataset with every number finite: rows with a NaN raise, or are left out."""
    n = dataset.num_rows
    gaps = np.zeros(n, bool)
    for name, value in dataset.rows.items():
        if not np.issubdtype(value.dtype, np.floating):
            continue
        nan = np.isnan(value)
        if np.isinf(value).any():
            raise ValueError(
                f"`{name}` is infinite in {where_bad(np.isinf(value))}. No model has a "
                "likelihood there: correct or leave out these rows."
            )
        if nan.any() and not skip:
            raise ValueError(
                f"`{name}` is missing (NaN) in {where_bad(nan)}, which would make the "
                "whole loss NaN. Leave these rows out with missing='skip', or fill "
                "them in."
            )
        gaps |= nan.reshape(n, -1).any(axis=1)
    if not gaps.any():
        return dataset
    if gaps.all():
        raise ValueError("every row has a missing value, so no row is left to fit.")
    _require_whole_outcomes(dataset, gaps)
    note = f"{int(gaps.sum())} of {n} rows have missing values and were left out."
    rows = {k: _frozen(v[~gaps]) for k, v in dataset.rows.items()}
    return replace(dataset, rows=rows, notes=(note,))


def _require_whole_outcomes(dataset: Dataset, gaps: np.ndarray) -> None:
    """Raise where leaving a row out would lose an outcome that was seen."""
    columns = [dataset.rows[k].reshape(len(gaps), -1) for k in dataset.observed]
    missing = np.isnan(np.concatenate(columns, axis=1).astype(float))
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        raise ValueError(
            f"{int(partly.sum())} rows miss some outcomes of {dataset.observed} and "
            "have others, which missing='skip' would lose. Leave such rows out "
            "yourself, or fit the outcomes apart."
        )


def as_mapping(what: str, data: Any) -> Mapping[str, Any]:
    """Arguments by name: a mapping, or a data frame as the mapping of its columns."""
    if isinstance(data, Mapping):
        return data
    if hasattr(data, "columns"):
        return {str(name): data[name] for name in data.columns}
    raise TypeError(
        f"{what} is a {type(data).__name__}, but it maps the model's argument names to "
        "arrays, {'x': x, 'y': y}, or is a data frame with a column for each."
    )


def as_names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    """One name, several, or none."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def new_rows(trained: Dataset, data: Any) -> Dataset:
    """Data to predict for: the trained row arguments but the outcome, and constants.

    Constants are remembered; one that is given takes its place.

    Raises: ValueError for arguments that are missing, unknown, of another length or with
    other columns than trained, or not finite, TypeError for another kind of numbers.
    """
    data = as_mapping("`new_data`", data)
    wanted = [k for k in trained.rows if k not in trained.observed]
    missing = sorted(set(wanted) - set(data))
    if missing:
        raise ValueError(
            f"new data lack {missing}, which the model was fitted with. They have "
            f"{sorted(data)}; give {wanted}. One that is an outcome too is predicted, "
            "not given, if the fit names it: observed=('y', ...)."
        )
    known = {*trained.rows, *trained.constants}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(
            f"new data have {unknown}, which the model was not fitted with. It takes "
            f"{sorted(known - set(trained.observed))}."
        )
    rows = {}
    for name in wanted:
        value, before = as_numbers(name, data[name]), trained.rows[name]
        if not isinstance(value, np.ndarray) or value.ndim != before.ndim:
            raise ValueError(
                f"`{name}` has shape {np.shape(value)}, but it was fitted with "
                f"{before.ndim} axes, {('n', *before.shape[1:])}. Give one entry for "
                "each row; one row is an array of length 1."
            )
        if value.shape[1:] != before.shape[1:]:
            raise ValueError(
                f"`{name}` has shape {value.shape}, but was fitted with columns "
                f"{before.shape[1:]}. Give the same columns in the same order."
            )
        if np.issubdtype(before.dtype, np.integer) and not np.issubdtype(
            value.dtype, np.integer
        ):
            raise TypeError(
                f"`{name}` has dtype {value.dtype}, but was fitted with integers "
                f"({before.dtype}). Give integers, as codes mean categories; for a "
                "measurement, fit the model with floating numbers."
            )
        require_finite(name, value, "new data")
        rows[name] = value
    lengths = {name: len(value) for name, value in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"new data have lengths {lengths}, but each row needs all its arguments."
        )
    if lengths and 0 in lengths.values():
        raise ValueError("new data have no rows, so there is nothing to predict.")
    given = {k: as_numbers(k, data[k]) for k in trained.constants if k in data}
    for name, value in given.items():
        require_finite(name, value, "a constant")
    return Dataset(rows, {**trained.constants, **given}, trained.observed)


def as_numbers(name: str, value: Any) -> Any:
    """Arrays, lists, series and frames as NumPy; single values and None as they are."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value) and not isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        value = np.ma.filled(value.astype(float), np.nan)
    try:
        array = np.array(value)  # a copy of its own, which nobody else can change
    except (TypeError, ValueError) as error:
        ragged = isinstance(error, ValueError)
        raise TypeError(
            f"`{name}` is a {'ragged ' * ragged}{type(value).__name__}, not an array of "
            "numbers; every row needs the same number of columns."
        ) from error
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float32)  # bfloat16, which NumPy does not know
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"`{name}` has dtype {array.dtype}, not real numbers. Encode categories as "
            "integer codes, np.unique(values, return_inverse=True), dates as numbers, "
            "and missing entries as NaN."
        )
    require_range(name, array)
    return _frozen(array) if array.ndim else array[()]


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


X64 = "or enable 64 bits, jax.config.update('jax_enable_x64', True)."


def require_range(name: str, array: np.ndarray) -> None:
    """Raise where JAX, which computes in 32 bits by default, would wrap or overflow."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype == array.dtype:
        return
    limits = (np.finfo if array.dtype.kind == "f" else np.iinfo)(dtype)
    past = np.isfinite(array) & ((array > limits.max) | (array < limits.min))
    if past.any():
        raise ValueError(
            f"`{name}` is past the range of {dtype}, in which JAX computes, in "
            f"{where_bad(past)} (seen: {array[past].flat[0]}). It would become another "
            f"number: give it in other units, {X64}"
        )


def require_resolution(name: str, array: np.ndarray) -> None:
    """Raise where the rows of a column differ by less than JAX's floats can tell."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype == array.dtype or array.dtype.kind != "f" or not array.size:
        return
    columns = array.reshape(len(array), -1)
    low, high = np.fmin.reduce(columns, axis=0), np.fmax.reduce(columns, axis=0)
    size = np.maximum(np.abs(low), np.abs(high))
    step, spread = size * np.finfo(dtype).eps, high - low
    # a spread below 1e-12 is rounding in the data themselves
    lost = (step > 0.01 * spread) & (spread > 1e-12 * size)
    if lost.any():
        worst = int(np.argmax(lost))
        raise ValueError(
            f"`{name}` has values from {low[worst]} to {high[worst]}, where {dtype}, in "
            f"which JAX computes, has steps of {step[worst]:.2g}: much of what tells "
            f"rows apart would be lost. Subtract a typical value, {X64}"
        )


def require_finite(name: str, value: Any, what: str) -> None:
    """Raise for NaN and infinite values."""
    if isinstance(value, bool | str) or value is None or callable(value):
        return
    array = np.asarray(value)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError(
            f"`{name}`, {what}, is NaN or infinite in {where_bad(~np.isfinite(array))}. "
            "It would make every result NaN: correct it, or leave these rows out."
        )
