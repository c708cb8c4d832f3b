"""The posterior: one object for every method of inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from lamina._checks import positive_size
from lamina._keys import as_key
from lamina._typing import Model, Seed, Shape, arrays_apart
from lamina.contributions import REST, Contributor
from lamina.data.dataset import Dataset, new_rows
from lamina.prediction import (
    KINDS,
    Predictor,
    Unobserved,
)
from lamina.summary import (
    Predicted,
    Table,
    joined,
    require_probability,
    summarise,
    summarised,
)

NOISE_DRAWS = 1000
"""Draws of the outcome around a single estimate."""


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
    outcomes: Mapping[str, Shape]
    """outcome -> the shape that its site had in the fit"""
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
        for value in (*self.draws.values(), *self.statistics.values(), self.losses):
            if value is not None:
                value.flags.writeable = False

    @property
    def num_draws(self) -> int:
        """Draws over all chains."""
        return int(np.prod(next(iter(self.draws.values())).shape[:2]))

    def summary(
        self, var_names: str | Iterable[str] | None = None, *, interval: float = 0.9
    ) -> Table:
        """Mean, standard deviation and highest-density interval of every number.

        Chains have their effective sample size and R-hat as well, and the notes their
        divergences. Sites that the sampler moves in the place of others, such as
        `x.beta_decentered`, come last.

        `var_names` chooses sites, as ArviZ's does: `"x.beta"`, or `"x"` for all sites of
        that layer, or `"*.lmbda"`, with `*` for any characters; a list of them gives the
        rows in its order, and `"~x.beta"` leaves some out.

        Raises: ValueError for a name that no site has.
        Source: Gelman and others (2013), Bayesian Data Analysis, section 11.4.
        """
        return summarise(
            self.draws,
            interval=interval,
            correlated=self.correlated,
            notes=self.notes,
            var_names=var_names,
        )

    def predict(
        self,
        new_data: Any = None,
        kind: str = "response",
        interval: float = 0.9,
        seed: Seed = 0,
        *,
        draws: bool = False,
        chunk_rows: int | str | None = "auto",
    ) -> Predicted | dict[str, Predicted]:
        """Predict rows, the fitted ones unless `new_data` are given, as in the fit.

        `kind="response"` draws outcomes with their noise, "mean" is each draw's expected
        outcome, "linear" its predictor. Rows are taken in chunks and summarised over
        draws, so memory does not grow with rows times draws; `draws=True` keeps all.
        `chunk_rows=None` takes all rows together, for a model whose rows interact; such a
        model is looked for by a test on a few rows, and then not cut.

        The fitted rows keep their own latent values, where a model has one for each row;
        rows in `new_data` are new rows, whose values are drawn anew.

        Returns one `Predicted`, or a dict of them by name for several outcomes.

        Raises: ValueError for data that the model was not fitted with, TypeError for
        another type of numbers, ValueError for a kind that the model lacks.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it is one of {KINDS}.")
        result, _ = self._predicted(
            Predictor, new_data, kind, interval, seed, draws, chunk_rows
        )
        return next(iter(result.values())) if len(result) == 1 else result

    def contributions(
        self,
        new_data: Any = None,
        outcome: str | None = None,
        interval: float = 0.9,
        seed: Seed = 0,
        *,
        draws: bool = False,
        chunk_rows: int | str | None = "auto",
    ) -> dict[str, Predicted]:
        """What each layer adds to the linear predictor of each row: term -> `Predicted`.

        The terms and `"rest"`, which is an offset or whatever else the model adds, sum to
        `predict(kind="linear")`, draw by draw. Rows are as in `predict`; `outcome` names
        one of several.

        Raises: ValueError where the terms do not add up to the predictor, as where one
        multiplies another or is inside a function; and as `predict`.
        """
        found, terms = self._predicted(
            Contributor, new_data, "linear", interval, seed, draws, chunk_rows
        )
        if outcome not in found and (outcome is not None or len(found) > 1):
            raise ValueError(
                f"outcome is {outcome!r}; the model's outcomes are {list(found)}. Name one."
            )
        whole = found[outcome or next(iter(found))]
        if np.isnan(whole.mean).any():
            raise ValueError(
                f"the terms {list(terms)} do not add up to the predictor: one multiplies "
                "another, is inside a function such as exp, or is NaN. Contributions "
                "would not sum to it; compare predictions instead."
            )
        return {name: whole.entry(i) for i, name in enumerate((*terms, REST))}

    def _predicted(
        self,
        kind_of_predictor: type[Predictor],
        new_data: Any,
        kind: str,
        interval: float,
        seed: Seed,
        draws: bool,
        chunk_rows: int | str | None,
    ) -> tuple[dict[str, Predicted], tuple[str, ...]]:
        """What a predictor finds for rows: outcome -> `Predicted`, and its terms."""
        require_probability(interval)
        if chunk_rows not in ("auto", None):
            positive_size("predict", "chunk_rows", chunk_rows)
        own = new_data is None
        data = new_rows(self.data, self._own_rows() if new_data is None else new_data)
        n = next((len(v) for v in data.rows.values()), self.data.num_rows if own else 1)
        arrays = arrays_apart(data.constants)
        unobserved = Unobserved(
            self.model, self.outcomes, self.data.num_rows, data.observed, arrays[1]
        )
        predictor = kind_of_predictor(unobserved, data, n, kind, self._compiled)
        given = self.sampled
        if own and self.row_latents:
            given, chunk_rows = given + self.row_latents, None
        # one estimate says nothing of what is drawn around it
        random = kind == "response" or (self.row_latents and not own) or unseen(data)
        repeats = NOISE_DRAWS if self.num_draws == 1 and random else 1
        latent = {k: jnp.repeat(self._pooled(k), repeats, 0) for k in given}
        count = repeats * self.num_draws
        found: dict[str, list[Predicted]] = {name: [] for name in predictor.names}
        for part in predictor.draw(latent, count, as_key(seed), chunk_rows):
            for name, values in part.items():
                found[name].append(summarised(values, kind, interval, keep=draws))
        result = {name: joined(pieces) for name, pieces in found.items()}
        return result, predictor.terms

    def _own_rows(self) -> dict[str, Any]:
        return {k: v for k, v in self.data.rows.items() if k not in self.data.observed}

    def _pooled(self, site: str) -> np.ndarray:
        """A site's draws of all chains: (draw, ...)."""
        return self.draws[site].reshape(-1, *self.draws[site].shape[2:])

    def __repr__(self) -> str:
        chains, draws = next(iter(self.draws.values())).shape[:2]
        sites = ", ".join(f"{k} {v.shape[2:]}" for k, v in self.draws.items())
        notes = "".join(f"\nNote: {note}" for note in self.notes)
        return (
            f"Posterior by {self.method}: {chains} chain{'s' * (chains > 1)} of {draws} "
            f"draws, {self.data.num_rows} rows\nsites: {sites}{notes}"
        )


def unseen(data: Dataset) -> bool:
    """Whether some integer is negative: the code of a level that was never fitted."""
    return any(
        np.issubdtype(v.dtype, np.integer) and bool((v < 0).any())
        for v in data.rows.values()
    )
