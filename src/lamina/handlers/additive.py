"""Which terms add up to which predictors, found by moving each term a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina._typing import Array, Model, Shape, arrays_apart
from lamina.effects import SCALES, scoped

ADDED, ABSENT, OTHERWISE = 1, 0, -1


class Term(NamedTuple):
    """A layer's output, and the coefficients that it is linear in."""

    shape: Shape
    linear_in: Mapping[str, int | None]

    @property
    def constant(self) -> bool:
        """Whether all rows share it, as they share an intercept."""
        return self.shape[-2:-1] == (1,) and None in self.linear_in.values()


@dataclass(frozen=True)
class Parts:
    """What a model's predictors are made of."""

    terms: Mapping[str, Term]
    columns: frozenset[str]
    """the layers' columns that are data, and not drawn, by name"""
    with_units: Mapping[str, bool]
    """outcome -> whether its predictor is of its log, for those that have units"""
    scales: Mapping[str, str]
    """site -> the coefficients that it is the scale of"""
    in_units: Mapping[str, str]
    """site -> the outcome in whose units it is"""
    slopes: Mapping[str, Mapping[str, np.ndarray]]
    """outcome -> term -> for each of the term's units (u,) whether it is ADDED to the
    predictor, ABSENT from it, or enters it OTHERWISE"""
    other: frozenset[str]
    """the outcomes whose predictor has a part that is no term"""

    def adds(self, outcome: str, term: str) -> bool:
        """Whether all units of a term are added to the predictor, each to its own."""
        return bool((self.slopes[outcome][term] == ADDED).all())


def additive_parts(model: Model, arguments: Mapping[str, Any]) -> Parts:
    """What the predictors are made of: by the derivative of each by each term.

    A term is added where that derivative is one in every row, at two draws from the
    prior; the rest of a predictor is its value where all terms are zero.
    """
    arrays, others = arrays_apart(arguments)
    found = _run(model, arguments, random.key(0), {}, 1.0, abstract=True)
    if not found.terms:
        return Parts({}, frozenset(), {}, {}, {}, {}, frozenset())
    zeros = {name: jnp.zeros(t.shape[-1:]) for name, t in found.terms.items()}

    @jax.jit
    def slopes(key: Array, arrays: Mapping[str, Array]) -> Any:
        given = {**arrays, **others}

        def predictors(moves: Mapping[str, Array]) -> tuple[Any, Any]:
            ran = _run(model, given, key, moves, 1.0)
            return ran.predictors, ran.columns

        by_outcome, columns = jax.jacfwd(predictors, has_aux=True)(zeros)
        kinds = {
            outcome: {name: _kind(slope) for name, slope in by_term.items()}
            for outcome, by_term in by_outcome.items()
        }
        return kinds, columns

    @jax.jit
    def rest(arrays: Mapping[str, Array]) -> Any:
        return _run(model, {**arrays, **others}, random.key(0), zeros, 0.0).predictors

    (first, data), (second, again) = (slopes(random.key(k), arrays) for k in (0, 1))
    same = jax.tree.map(lambda a, b: np.where(a == b, a, OTHERWISE), first, second)
    left = {k for k, v in rest(arrays).items() if np.any(np.asarray(v) != 0.0)}
    return Parts(
        found.terms,
        frozenset(k for k, v in data.items() if np.array_equal(v, again[k])),
        found.with_units,
        found.scales,
        found.in_units,
        same,
        frozenset(left),
    )


def _kind(slope: Array) -> Array:
    """Of derivatives (..., u) by the units of a term, or (..., k, u): see `Parts`."""
    *rows, u = slope.shape
    apart = len(rows) > 1 and rows[-1] > 1  # the predictor has columns of its own
    wanted = jnp.ones(u)
    if apart:
        wanted = jnp.eye(rows[-1], u) if rows[-1] == u else jnp.full(u, jnp.nan)
    axes = tuple(range(slope.ndim - 1))
    added = (slope == wanted).all(axis=axes)
    absent = (slope == 0.0).all(axis=axes)
    return jnp.where(added, ADDED, jnp.where(absent, ABSENT, OTHERWISE))


class _moving(Messenger):
    """Collect terms and predictors, with each term times a factor, and moved."""

    def __init__(self, moves: Mapping[str, Array], factor: float) -> None:
        super().__init__()
        self.moves, self.factor = moves, factor
        self.terms: dict[str, Term] = {}
        self.columns: dict[str, Array] = {}
        self.with_units: dict[str, bool] = {}
        self.scales: dict[str, str] = {}
        self.in_units: dict[str, str] = {}
        self.predictors: dict[str, Array] = {}

    def process_message(self, message: Any) -> None:
        match message["type"]:
            case "term":
                name, value = scoped(message["term"]), message["value"]
                self.terms[name] = Term(jnp.shape(value), message["linear_in"])
                message["value"] = self.factor * value + self.moves.get(name, 0.0)
            case "columns":
                self.columns[scoped(message["columns"])] = message["value"]
            case "units" if message["y"] is not None:
                name = scoped(message["outcome"])
                self.with_units[name] = message["log"]
                self.predictors[name] = message["predictor"]
            case "in_units":
                self.in_units[scoped(message["site"])] = scoped(message["outcome"])
            case "outcome":
                self.predictors.setdefault(scoped(message["outcome"]), message["value"])
            case "sample" if SCALES in message["infer"]:
                self.scales[message["name"]] = scoped(message["infer"][SCALES])


def _run(
    model: Model,
    arguments: Mapping[str, Any],
    key: Array,
    moves: Mapping[str, Array],
    factor: float,
    *,
    abstract: bool = False,
) -> _moving:
    seen = _moving(moves, factor)

    def run() -> None:
        with handlers.block(), handlers.seed(rng_seed=key), seen:
            model(**arguments)

    jax.eval_shape(run) if abstract else run()
    return seen
