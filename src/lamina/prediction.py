"""Prediction: a model run without its outcomes, chunk of rows after chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers

from lamina._typing import Array, Model, Shape, arrays_apart
from lamina.data.dataset import Dataset
from lamina.handlers.preflight import inspect_model
from lamina.handlers.recording import predicting, record_outcomes, with_rows
from lamina.handlers.separable import halves, telling_rows
from lamina.infer.fitted import map_draws

KINDS = ("response", "mean", "linear")
NUMBERS_AT_ONCE = 2**22
"""Draws times entries of the outcome that a prediction holds at a time."""


@dataclass(frozen=True)
class Unobserved:
    """A fitted model without its outcomes, and what stays the same in all its runs.

    `shapes` are the outcomes' in the fit, which had `num_rows`.
    """

    model: Model
    shapes: Mapping[str, Shape]
    num_rows: int
    observed: tuple[str, ...]
    others: Mapping[str, Any]
    """constants that are no arrays"""

    def asked(self, num_rows: int, key: Array) -> Model:
        """The model as it runs to predict this many rows, with the key of a draw."""
        shapes = {
            name: (num_rows, *shape[1:])
            for name, shape in self.shapes.items()
            if self.by_rows(name)
        }
        model = with_rows(record_outcomes(self.model), shapes=shapes)
        return predicting(model, key=key, num_rows=num_rows)

    def by_rows(self, name: str) -> bool:
        """Whether an outcome's first axis is the rows."""
        return self.shapes[name][:1] == (self.num_rows,)

    def sites(
        self,
        num_rows: int,
        keys: tuple[Array, Array],
        draw: Mapping[str, Array],
        arrays: Mapping[str, Array],
    ) -> dict[str, Any]:
        """All sites, given a draw of the latent ones; the keys are of levels and noise."""
        level, noise = keys
        with handlers.trace() as sites, handlers.seed(rng_seed=noise):
            with handlers.substitute(data=dict(draw)):
                self.asked(num_rows, level)(
                    **arrays, **self.others, **dict.fromkeys(self.observed)
                )
        return sites

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells compiled functions of one model apart."""
        # with types, since 1 equals True and 1.0, and models may tell them apart
        return tuple(sorted((k, str(type(v)), v) for k, v in self.others.items()))


class Predictor:
    """A fitted model asked for its outcomes on rows of data.

    `compiled` keeps compiled functions from one prediction to the next.

    Raises: ValueError where the model has no such outcome on these data.
    """

    def __init__(
        self,
        unobserved: Unobserved,
        data: Dataset,
        num_rows: int,
        kind: str,
        compiled: dict[Any, Any],
    ) -> None:
        self.unobserved, self.data = unobserved, data
        self.num_rows, self.kind, self.compiled = num_rows, kind, compiled
        self.arrays, _ = arrays_apart(data.constants)
        self.names = self._outcomes()
        self.terms: tuple[str, ...] = ()

    def _outcomes(self) -> tuple[str, ...]:
        """The outcomes of the model on these data, checked before any compilation."""
        model, n = self.unobserved, self.num_rows
        try:
            inside = inspect_model(model.asked(n, random.key(0)), self.data.unobserved)
        except Exception as error:
            error.add_note(
                f"This happened when the model ran to predict, where "
                f"{', '.join(model.observed)} is None ({self.data.describe()}). Sizes come "
                "from an argument that is there, x.shape[0], not from the outcome."
            )
            raise
        if inside.subsampled:
            raise ValueError(
                f"plates {list(inside.subsampled)} pick a random part of the rows, so "
                "the model predicts for some of them only. Let it take all rows where "
                "the outcome is None: subsample_size=None."
            )
        names = tuple(k for k in model.shapes if k in inside.latent)
        if not names:
            raise ValueError(
                f"the model has no outcome to predict: with {model.observed} None, it "
                f"samples none of {sorted(model.shapes)}. Observe the argument itself, "
                "numpyro.sample('y', ..., obs=y)."
            )
        lacking = [k for k in names if f"{k}.linear" not in inside.deterministic]
        if self.kind == "linear" and lacking:
            raise ValueError(
                f"kind='linear' needs the predictor, which only Lamina's links announce, "
                f"and {lacking} has none. Use kind='mean' or 'response', or a link."
            )
        for name in names:
            shape = inside.latent[name]
            if model.by_rows(name) and (shape or (1,))[0] != n:
                raise ValueError(
                    f"outcome {name!r} has shape {shape} where {n} rows are to be "
                    "predicted, so its entries do not stand for these rows. Let its "
                    "shape follow the data (x.shape[0]), not a number or a random "
                    "subsample, or give the new number of rows with the new data."
                )
        return names

    def draw(
        self,
        draws: Mapping[str, Array],
        num_draws: int,
        key: Array,
        chunk_rows: int | str | None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Draws of the outcomes, (draw, rows, ...), for one chunk of rows after another.

        `draws` are the latent sites' (draw, ...).
        """
        n, size = self.num_rows, self._size(num_draws, chunk_rows)
        if size < n and not self.may_be_cut(draws):
            size = n
        run = self._compiled("draws", size, self._draws)
        level_key, noise_key = random.split(key)
        numbers = jnp.arange(num_draws)
        for number, first in enumerate(range(0, n, size)):
            rows = min(size, n - first)
            padded = {
                k: _padded(v[first : first + size], size)
                for k, v in self.data.rows.items()
            }
            noise = random.fold_in(noise_key, number)
            found = run(draws, numbers, {**padded, **self.arrays}, level_key, noise)
            part = {
                k: np.asarray(v)[:, :rows]
                if self.unobserved.by_rows(k)
                else np.asarray(v)
                for k, v in found.items()
            }
            if self.kind == "mean":
                _require_means(part)
            yield part

    def _size(self, num_draws: int, chunk_rows: int | str | None) -> int:
        if chunk_rows is None:
            return self.num_rows
        if chunk_rows != "auto":
            return min(self.num_rows, int(chunk_rows))
        wide = max(math.prod(self.unobserved.shapes[k][1:]) for k in self.names)
        most = NUMBERS_AT_ONCE // (num_draws * max(wide, 1))
        return max(min(self.num_rows, most), 1)

    def _compiled(
        self, what: str, size: int, make: Callable[[int], Callable[..., Any]]
    ) -> Any:
        key = (what, self.kind, self.names, size, self.unobserved.key, type(self))
        if key not in self.compiled:
            self.compiled[key] = jax.jit(make(size))
        return self.compiled[key]

    def values(
        self,
        size: int,
        keys: tuple[Array, Array],
        draw: Mapping[str, Array],
        arrays: Mapping[str, Array],
    ) -> dict[str, Array]:
        """The outcomes of a chunk of rows, for one draw and its keys."""
        model = self.unobserved
        sites = model.sites(size, keys, draw, arrays)
        return {
            k: value_of(sites, k, self.kind, len(model.shapes[k])) for k in self.names
        }

    def _draws(self, size: int) -> Callable[..., dict[str, Array]]:
        """A function from draws and a chunk of rows to draws of the outcomes."""

        def run(
            draws: Mapping[str, Array],
            numbers: Array,
            arrays: Mapping[str, Array],
            level_key: Array,
            noise_key: Array,
        ) -> dict[str, Array]:
            def one(draw: Mapping[str, Array], number: Array) -> dict[str, Array]:
                keys = (
                    random.fold_in(level_key, number),
                    random.fold_in(noise_key, number),
                )
                return self.values(size, keys, draw, arrays)

            return map_draws(one, draws, numbers)

        return run

    def _densities(self, size: int) -> Callable[..., Any]:
        return _densities(self.unobserved, self.names, size)

    def may_be_cut(self, draws: Mapping[str, Array]) -> bool:
        """Whether rows can be predicted in chunks: they do not change one another.

        A few rows that differ are predicted together and in halves, by a few draws: each
        row's density must be the same. A model that cannot run on fewer rows is not cut.
        """
        if not self.data.rows or not all(map(self.unobserved.by_rows, self.names)):
            return False
        at = telling_rows(self.data.rows, self.num_rows)
        few = {k: v[at] for k, v in self.data.rows.items()}
        most = max((len(v) for v in draws.values()), default=1)
        some = sorted({0, most // 2, most - 1})
        try:
            return all(
                self._halves_agree(few, {k: v[i] for k, v in draws.items()})
                for i in some
            )
        except Exception:  # the model knows its number of rows
            return False

    def _halves_agree(
        self, rows: Mapping[str, np.ndarray], draw: Mapping[str, Array]
    ) -> bool:
        """Whether each row has the same density among all rows as among half of them."""
        m = len(next(iter(rows.values())))
        whole = self._compiled("densities", m, self._densities)
        part = self._compiled("densities", m // 2, self._densities)
        together, free = whole(draw, {**rows, **self.arrays}, {})
        if any(np.shape(v)[:1] != (m,) for v in together.values()):
            return False
        shapes: dict[str, Any] | None = None
        for half in halves(m):
            here = {**{k: v[half] for k, v in rows.items()}, **self.arrays}
            if shapes is None:
                shapes = jax.eval_shape(part, draw, here, {})[1]
            # the same values for the latent sites of the same rows
            given = {k: _taken(v, shapes[k].shape, half) for k, v in free.items()}
            apart = part(draw, here, given)[0]
            for name in self.names:
                wanted = np.asarray(together[name])[half]
                if not np.allclose(apart[name], wanted, 1e-4, 1e-4, equal_nan=True):
                    return False
        return True


def _densities(
    model: Unobserved, names: tuple[str, ...], size: int
) -> Callable[..., tuple[dict[str, Array], dict[str, Array]]]:
    """A function from one draw and some rows to the density of each row's outcome.

    It returns the sites that the draw left free, too, and takes values for them.
    """

    def run(
        draw: Mapping[str, Array],
        arrays: Mapping[str, Array],
        given: Mapping[str, Array],
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        keys = random.key(0), random.key(1)
        sites = model.sites(size, keys, {**draw, **given}, arrays)
        free = {
            k: site["value"]
            for k, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"] and k not in draw
        }
        densities = {k: sites[k]["fn"].log_prob(sites[k]["value"]) for k in names}
        return densities, free

    return run


def _taken(value: Array, shape: Shape, rows: np.ndarray) -> Array:
    """`value` of some of the rows: on the axis where `shape` has fewer entries."""
    fewer = [
        i for i, (a, b) in enumerate(zip(value.shape, shape, strict=True)) if a != b
    ]
    return jnp.take(value, rows, axis=fewer[0]) if fewer else value


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows, the last one repeated up to `size` rows."""
    return np.concatenate([rows, rows[-1:].repeat(size - len(rows), 0)])


def value_of(sites: Mapping[str, Any], name: str, kind: str, ndim: int) -> Array:
    """An outcome's value in a trace, with as many axes as it had in the fit."""
    fn = sites[name]["fn"]
    if kind == "response":
        value = sites[name]["value"]
    elif f"{name}.{kind}" in sites:
        value = sites[f"{name}.{kind}"]["value"]
    else:
        try:
            value = jnp.broadcast_to(fn.mean, fn.shape())
        except (AttributeError, NotImplementedError) as error:
            raise ValueError(
                f"kind='mean': {type(fn).__name__}, which outcome {name!r} has, knows no "
                "mean. Use kind='response', and the mean of its draws."
            ) from error
    value = jnp.atleast_1d(value)
    return value[..., None] if value.ndim == ndim - 1 else value


def _require_means(part: Mapping[str, np.ndarray]) -> None:
    for name, values in part.items():
        if np.isnan(values).any():
            raise ValueError(
                f"kind='mean': the mean of outcome {name!r} is NaN. Its distribution has "
                "none (categories have no mean), or its parameters are NaN, as from the "
                "standard deviation of a single row. Use kind='response' to see its draws."
            )
