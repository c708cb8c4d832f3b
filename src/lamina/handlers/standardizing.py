"""Models in standard units: columns and outcomes less their means, over their sds.

Layers and links say which numbers have units, and the handler answers with what it learns
from the training data. Links answer in the data's own units, so predictions need nothing
undone; `Units.undo` takes draws of coefficients back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from lamina._typing import Model
from lamina.effects import Standard, remember, scoped
from lamina.handlers.additive import ADDED, OTHERWISE, Parts


class standardizing(Messenger):
    """Answer layers and links with the standard units of their numbers.

    `centred` names the layers and outcomes that are centred, too: those with an
    intercept beside them, which takes up the difference. `logs` are the outcomes that
    have units, with whether their predictors are of their logs, and `columns` the
    layers whose columns have units.
    """

    def __init__(
        self,
        fn: Model | Callable[..., Any] | None = None,
        *,
        columns: frozenset[str],
        centred: frozenset[str],
        logs: Mapping[str, bool],
    ) -> None:
        super().__init__(fn)
        self.columns, self.centred, self.logs = columns, centred, logs

    def process_message(self, message: Any) -> None:
        if message["type"] == "columns" and scoped(message["columns"]) in self.columns:
            name, x = message["columns"], message["value"]
            learn = partial(of_columns, centred=scoped(name) in self.centred)
            location, scale = (
                jnp.asarray(v, x.dtype)[None, :]
                for v in remember(of_layer(name), learn, x)
            )
            message["value"] = (x - location) / scale
        elif message["type"] == "units" and scoped(message["outcome"]) in self.logs:
            name = message["outcome"]
            learn = partial(
                of_outcome,
                log=self.logs[scoped(name)],
                centred=scoped(name) in self.centred,
            )
            message["value"] = remember(of_units(name), learn, message["y"])


def of_layer(name: str) -> str:
    """Under which name the units of a layer's columns are remembered."""
    return f"{name}.columns"


def of_units(name: str) -> str:
    """Under which name the units of an outcome are remembered."""
    return f"{name}.units"


def of_columns(x: np.ndarray, *, centred: bool) -> Standard:
    """Means, or zeros, and standard deviations; a constant column stays as it is."""
    mean, sd = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
    constant = sd <= 1e-6 * np.abs(mean)
    location = np.where(constant | (not centred), 0.0, mean)
    return Standard(location, np.where(constant | (sd == 0), 1.0, sd))


def of_outcome(y: np.ndarray, *, log: bool, centred: bool) -> Standard:
    """Means, or zeros, and standard deviations; of a log only the mean's log."""
    y = np.asarray(y, dtype=float)
    if log:
        location = np.log(y.mean(axis=0)) if centred else np.zeros(y.shape[1:])
        return Standard(location, np.ones(y.shape[1:]))
    return of_columns(y, centred=centred)


@dataclass(frozen=True)
class Units:
    """Which numbers of a model have units, and how its coefficients change with them."""

    parts: Parts
    centred: frozenset[str]

    @classmethod
    def of(cls, parts: Parts) -> Units:
        """The layers and outcomes to be centred: those with an intercept beside them.

        Raises: ValueError where nothing has units, where a part of a predictor that is
        no term has the outcome's, or where two outcomes share a term.
        """
        if not parts.terms or not (parts.columns or parts.with_units):
            raise ValueError(
                "standardize=True finds nothing to rescale: the model calls no layer "
                "with columns and no link for an outcome with units. Use lamina's layers "
                "and links, or leave it out."
            )
        other = sorted(parts.other & parts.with_units.keys())
        if other:
            raise ValueError(
                f"standardize=True: the predictor of {other} has a part that is no "
                "layer's output, such as a numpyro.sample or a column of its own, and "
                "would take it for standard deviations of the outcome. Use an "
                "InterceptLayer or another layer for it, or pass a known part as the "
                "link's `offset`."
            )
        for name in parts.terms:
            owners = [o for o in parts.with_units if (parts.slopes[o][name] != 0).any()]
            if len(owners) > 1:
                raise ValueError(
                    f"standardize=True: the term {name!r} is part of {owners}, which "
                    "have units of their own, so that one coefficient would stand for "
                    "two. Leave standardize out, and scale the outcomes alike."
                )
        shifted = {
            outcome
            for outcome in parts.slopes
            if any(
                t.constant and parts.adds(outcome, k) for k, t in parts.terms.items()
            )
        }
        moved = {
            name
            for name, term in parts.terms.items()
            if name in parts.columns
            and 0 in term.linear_in.values()
            and any(parts.adds(outcome, name) for outcome in shifted)
        }
        return cls(parts, frozenset(shifted | moved))

    def apply(self, model: Model) -> Model:
        """The model in standard units."""
        return standardizing(
            model,
            columns=self.parts.columns,
            centred=self.centred,
            logs=self.parts.with_units,
        )

    def undo(
        self, draws: Mapping[str, np.ndarray], memory: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Draws in the data's own units, and the sites that stay in standard ones.

        A coefficient is multiplied by the scale of its outcome, over that of its
        column; the intercept is the predictor where all columns are zero.
        """
        draws, left = dict(draws), []
        for name in self.parts.terms:
            scales = self._scales_of_units(name, memory)
            left += self._rescale(draws, name, scales, memory)
        for outcome in self.centred & self.parts.slopes.keys():
            self._shift(draws, outcome, memory)
        for site, outcome in self.parts.in_units.items():
            if of_units(outcome) in memory and site in draws:
                draws[site] = draws[site] * memory[of_units(outcome)].scale
        return draws, tuple(left)

    def _scales_of_units(
        self, name: str, memory: Mapping[str, Any]
    ) -> np.ndarray | None:
        """What each unit of a term is multiplied by on its way into a predictor, (u,)."""
        scales = np.ones(self.parts.terms[name].shape[-1])
        for outcome, slopes in self.parts.slopes.items():
            known = memory.get(of_units(outcome))
            if known is None:
                continue
            if (slopes[name] == OTHERWISE).any():
                return None
            scales = np.where(slopes[name] == ADDED, known.scale, scales)
        return scales

    def _rescale(
        self,
        draws: dict[str, np.ndarray],
        name: str,
        scales: np.ndarray | None,
        memory: Mapping[str, Any],
    ) -> list[str]:
        """Change a term's coefficients, and the scales that they share: the sites left."""
        columns = memory.get(of_layer(name))
        term = self.parts.terms[name]
        sites = {f"{name}.{k}": axis for k, axis in term.linear_in.items()}
        own = [k for k in draws if k.startswith(f"{name}.")]
        if columns is None and scales is not None and (scales == 1.0).all():
            return []
        if scales is None or not sites or not sites.keys() <= draws.keys():
            return own
        left = []
        for site, axis in sites.items():
            factor = scales
            if columns is not None and axis is not None:
                shape = draws[site].shape[2:]
                per = np.r_[np.ones(shape[axis] - len(columns.scale)), columns.scale]
                factor = scales / (per[:, None] if axis == 0 else per)
            draws[site] = draws[site] * factor
            for shared in draws.keys() & self.parts.scales.keys():
                if self.parts.scales[shared] != site:
                    continue
                shape = draws[shared].shape[2:]
                if factor.ndim > len(shape) and (factor == factor[:1]).all():
                    factor = factor[0]  # one for all coefficients that share a scale
                if factor.shape == shape:
                    draws[shared] = draws[shared] * factor
                else:
                    left.append(shared)
        return left

    def _shift(
        self, draws: dict[str, np.ndarray], outcome: str, memory: Mapping[str, Any]
    ) -> None:
        """Give the first intercept what the centring took from the predictor."""
        terms = self.parts.terms
        added = [k for k in terms if self.parts.adds(outcome, k)]
        constant = next(k for k in added if terms[k].constant)
        known = memory.get(of_units(outcome))
        shift = 0.0 if known is None else known.location
        for name in added:
            if name in self.centred:
                beta = draws[f"{name}.beta"]
                at_mean = memory[of_layer(name)].location
                shift = shift - np.einsum("...du,d->...u", beta, at_mean)[..., None, :]
        site = f"{constant}.{next(iter(terms[constant].linear_in))}"
        draws[site] = draws[site] + shift
