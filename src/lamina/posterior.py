"""The posterior: one object for every method of inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.diagnostics import hpdi

from lamina._typing import Array, Model, Seed
from lamina.data.dataset import Dataset, new_rows
from lamina.handlers.preflight import inspect_model
from lamina.handlers.recording import predicting, record_outcomes
from lamina.infer.fitted import map_draws
from lamina.infer.svi import arrays_apart, as_key
from lamina.summary import Table, require_probability, summarise

KINDS = ("response", "mean", "linear")
NUMBERS_AT_ONCE = 2**22
"""Draws times rows that a prediction holds at a time."""

NOISE_DRAWS = 1000
"""Draws of the outcome around a single estimate."""


@dataclass(frozen=True, repr=False)
class Predicted:
    """A prediction for each row: its mean, standard deviation and interval over draws.

    `lower` and `upper` bound the highest-density interval of probability `interval`. All
    have the shape of the outcome; `draws`, if asked for, has an axis of draws in front.
    """

    kind: str
    interval: float
    mean: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    draws: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def table(self) -> Table:
        """One row for each entry of the outcome."""
        columns = {
            "mean": self.mean,
            "sd": self.sd,
            f"{self.interval:.0%} low": self.lower,
            f"{self.interval:.0%} high": self.upper,
        }
        names = [",".join(map(str, index)) for index in np.ndindex(self.mean.shape)]
        return Table(tuple(names), {k: np.ravel(v) for k, v in columns.items()})

    def to_dataframe(self) -> Any:
        """A pandas DataFrame (extra: lamina[dataframe])."""
        return self.table().to_dataframe()

    def __repr__(self) -> str:
        return f"Predicted {self.kind} of shape {self.mean.shape}\n{self.table()!r}"

    def _repr_html_(self) -> str:
        return f"<pre>{self!r}</pre>"


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Draws of everything unknown in a model, whatever method made them.

    `draws` maps each site to an array (chain, draw, ...): the latent sites, and the
    deterministic sites that hold no rows. `losses` are negative ELBOs in nats, one for
    each step, where the method has them. `statistics` are the sampler's (chain, draw),
    `estimators` tells how each site's gradient was estimated, `notes` are what the method
    found worth saying.
    """

    model: Model
    method: str
    draws: Mapping[str, np.ndarray]
    data: Dataset
    outcomes: Mapping[str, int]
    """outcome -> the number of axes that its site had in the fit"""
    sampled: tuple[str, ...] = ()
    """the drawn sites that all predictions condition on"""
    row_latents: tuple[str, ...] = ()
    """those with a value for each fitted row, which say nothing of new rows"""
    losses: np.ndarray | None = None
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    estimators: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    correlated: bool = False
    notes: tuple[str, ...] = ()
    _compiled: dict[Any, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in ("draws", "outcomes", "statistics", "estimators", "settings"):
            frozen = MappingProxyType(dict(getattr(self, name)))
            object.__setattr__(self, name, frozen)
        for value in self.draws.values():
            value.flags.writeable = False

    @property
    def num_draws(self) -> int:
        """Draws over all chains."""
        return int(np.prod(next(iter(self.draws.values())).shape[:2]))

    def summary(self, interval: float = 0.9) -> Table:
        """Mean, standard deviation and highest-density interval of every number.

        Chains have their effective sample size and R-hat as well, and the notes their
        divergences.

        Source: Gelman and others (2013), Bayesian Data Analysis, section 11.4.
        """
        return summarise(
            self.draws, interval=interval, correlated=self.correlated, notes=self.notes
        )

    def predict(
        self,
        new_data: Mapping[str, Any] | None = None,
        kind: str = "response",
        interval: float = 0.9,
        seed: Seed = 0,
        *,
        draws: bool = False,
        chunk_rows: int | str | None = "auto",
    ) -> Predicted | dict[str, Predicted]:
        """Predict rows, the fitted ones unless `new_data` are given.

        `kind="response"` draws outcomes with their noise, "mean" is each draw's expected
        outcome, "linear" its predictor. Rows are taken in chunks and summarised over
        draws, so memory does not grow with rows times draws; `draws=True` keeps all.
        `chunk_rows=None` takes all rows together, for a model whose rows interact; such a
        model is recognised and never cut.

        The fitted rows keep their own latent values, where a model has one for each row;
        rows in `new_data` are new rows, whose values are drawn anew.

        Returns one `Predicted`, or a dict of them by name for several outcomes.

        Raises: ValueError for data that the model was not fitted with, TypeError for
        another type of numbers, ValueError for a kind that the model lacks.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it is one of {KINDS}.")
        require_probability(interval)
        data = new_rows(self.data, self._own_rows() if new_data is None else new_data)
        n = next((len(v) for v in data.rows.values()), 1)
        names = self._predictable(data, n, kind)
        given = self.sampled
        if new_data is None and self.row_latents:
            given, chunk_rows = given + self.row_latents, None
        parts = self._chunks(data, n, kind, names, as_key(seed), chunk_rows, given)
        found: dict[str, list[Predicted]] = {name: [] for name in names}
        for part in parts:
            for name, values in part.items():
                found[name].append(_summary(values, kind, interval, keep=draws))
        result = {name: _joined(pieces) for name, pieces in found.items()}
        return next(iter(result.values())) if len(result) == 1 else result

    def _own_rows(self) -> dict[str, Any]:
        return {k: v for k, v in self.data.rows.items() if k not in self.data.observed}

    def _predictable(self, data: Dataset, n: int, kind: str) -> tuple[str, ...]:
        """The outcomes that the model has on these data, checked before compilation."""
        model = predicting(record_outcomes(self.model), key=random.key(0), num_rows=n)
        try:
            inside = inspect_model(model, data.unobserved)
        except Exception as error:
            error.add_note(
                f"This happened when the model ran to predict, where "
                f"{', '.join(data.observed)} is None ({data.describe()})."
            )
            raise
        names = tuple(k for k in self.outcomes if k in inside.latent)
        if not names:
            raise ValueError(
                f"the model has no outcome to predict: with {data.observed} None, it "
                f"samples none of {sorted(self.outcomes)}. Observe the argument itself, "
                "numpyro.sample('y', ..., obs=y)."
            )
        lacking = [k for k in names if f"{k}.linear" not in inside.deterministic]
        if kind == "linear" and lacking:
            raise ValueError(
                f"kind='linear' needs the predictor, which only Lamina's links announce, "
                f"and {lacking} has none. Use kind='mean' or 'response', or a link."
            )
        return names

    def _chunks(
        self,
        data: Dataset,
        n: int,
        kind: str,
        names: tuple[str, ...],
        key: Array,
        chunk_rows: int | str | None,
        given: tuple[str, ...],
    ) -> Any:
        """Draws of the outcomes, (draw, rows, ...), chunk after chunk."""
        repeats = NOISE_DRAWS if kind == "response" and self.num_draws == 1 else 1
        size = n
        if chunk_rows == "auto":
            size = max(min(n, NUMBERS_AT_ONCE // (repeats * self.num_draws)), 1)
        elif chunk_rows is not None:
            if isinstance(chunk_rows, bool) or not isinstance(
                chunk_rows, int | np.integer
            ):
                raise ValueError(
                    f"chunk_rows is {chunk_rows!r}; give a number or None."
                )
            size = max(min(n, int(chunk_rows)), 1)
        if size < n and self._rows_interact(data, names):
            size = n
        level_key, noise_key = random.split(key)
        run = self._predictor(kind, names, size, data)
        arrays, _ = arrays_apart(data.constants)
        draws = {
            k: np.repeat(
                self.draws[k].reshape(-1, *self.draws[k].shape[2:]), repeats, 0
            )
            for k in given
        }
        numbers = np.arange(repeats * self.num_draws)
        for number, first in enumerate(range(0, n, size)):
            here = {k: v[first : first + size] for k, v in data.rows.items()}
            rows = min(size, n - first)
            padded = {
                k: np.concatenate([v, v[-1:].repeat(size - rows, 0)])
                for k, v in here.items()
            }
            noise = random.fold_in(noise_key, number)
            found = run(draws, numbers, padded, arrays, level_key, noise)
            yield {k: np.asarray(v)[:, :rows] for k, v in found.items()}

    def _predictor(
        self, kind: str, names: tuple[str, ...], size: int, data: Dataset
    ) -> Callable[..., dict[str, Array]]:
        """A compiled function from draws and a chunk of rows to draws of the outcomes."""
        _, others = arrays_apart(data.constants)
        key = (kind, names, size, tuple(sorted(map(repr, others.items()))))
        if key in self._compiled:
            return self._compiled[key]
        unobserved = dict.fromkeys(data.observed)
        ndims = {name: self.outcomes[name] for name in names}

        def one(
            draw: Mapping[str, Array],
            keys: Array,
            rows: Mapping[str, Array],
            arrays: Mapping[str, Array],
        ) -> dict[str, Array]:
            level, noise = keys
            model = predicting(record_outcomes(self.model), key=level, num_rows=size)
            with handlers.trace() as sites, handlers.seed(rng_seed=noise):
                with handlers.substitute(data=dict(draw)):
                    model(**rows, **arrays, **others, **unobserved)
            return {k: _value(sites, k, kind, ndims[k]) for k in names}

        @jax.jit
        def run(
            draws: Mapping[str, Array],
            numbers: Array,
            rows: Mapping[str, Array],
            arrays: Mapping[str, Array],
            level_key: Array,
            noise_key: Array,
        ) -> dict[str, Array]:
            keys = jax.vmap(
                lambda i: jnp.stack(
                    [random.fold_in(level_key, i), random.fold_in(noise_key, i)]
                )
            )(numbers)
            return map_draws(
                lambda draw, pair: one(draw, pair, rows, arrays), draws, keys
            )

        self._compiled[key] = run
        return run

    def _rows_interact(self, data: Dataset, names: tuple[str, ...]) -> bool:
        """Whether two rows' means change when they are predicted alone."""
        if not data.rows:
            return True
        one_draw = {k: v[:1, :1] for k, v in self.draws.items()}
        small = Posterior(
            self.model, self.method, one_draw, self.data, self.outcomes, self.sampled
        )
        few = {k: v[:4] for k, v in data.rows.items()}

        def means(rows: dict[str, np.ndarray]) -> np.ndarray:
            part = Dataset(rows, data.constants, data.observed)
            n = len(next(iter(rows.values())))
            (found,) = small._chunks(
                part, n, "mean", names, random.key(0), None, self.sampled
            )
            return np.concatenate([np.ravel(found[k][0, :1]) for k in names])

        alone = means({k: v[:1] for k, v in few.items()})
        return not np.allclose(alone, means(few), rtol=1e-4, atol=1e-6, equal_nan=True)

    def __repr__(self) -> str:
        chains, draws = next(iter(self.draws.values())).shape[:2]
        sites = ", ".join(f"{k} {v.shape[2:]}" for k, v in self.draws.items())
        notes = "".join(f"\nNote: {note}" for note in self.notes)
        return (
            f"Posterior by {self.method}: {chains} chain{'s' * (chains > 1)} of {draws} "
            f"draws, {self.data.num_rows} rows\nsites: {sites}{notes}"
        )


def _value(sites: Mapping[str, Any], name: str, kind: str, ndim: int) -> Array:
    """An outcome's value in a trace, with as many axes as it had in the fit."""
    if kind == "response":
        value = sites[name]["value"]
    elif f"{name}.{kind}" in sites:
        value = sites[f"{name}.{kind}"]["value"]
    else:
        value = jnp.broadcast_to(sites[name]["fn"].mean, sites[name]["fn"].shape())
    value = jnp.atleast_1d(value)
    return value[..., None] if value.ndim == ndim - 1 else value


def _summary(
    values: np.ndarray, kind: str, interval: float, *, keep: bool
) -> Predicted:
    wide = values.astype(np.float64)
    single = len(values) == 1
    low, high = (values[0], values[0]) if single else hpdi(values, interval)
    return Predicted(
        kind,
        interval,
        wide.mean(axis=0),
        np.zeros(values.shape[1:]) if single else wide.std(axis=0, ddof=1),
        np.asarray(low),
        np.asarray(high),
        values if keep else None,
    )


def _joined(pieces: list[Predicted]) -> Predicted:
    def along(name: str, axis: int) -> np.ndarray:
        return np.concatenate([getattr(p, name) for p in pieces], axis=axis)

    first = pieces[0]
    return Predicted(
        first.kind,
        first.interval,
        mean=along("mean", 0),
        sd=along("sd", 0),
        lower=along("lower", 0),
        upper=along("upper", 0),
        draws=None if first.draws is None else along("draws", 1),
    )
