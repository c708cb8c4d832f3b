"""Guides: made from a name, set up in one compilation, and drawn from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.infer import SVI, init_to_median
from numpyro.infer.autoguide import (
    AutoGuide,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.svi import SVIState

from lamina._typing import Array, Guide, Model, arrays_apart
from lamina.handlers.preflight import inspect_model
from lamina.infer.loop import MinibatchLoop

GUIDES: dict[str, type[AutoGuide]] = {
    "mean_field": AutoNormal,
    "full_rank": AutoMultivariateNormal,
    "low_rank": AutoLowRankMultivariateNormal,
    "flow": AutoIAFNormal,
}


def make_guide(
    guide: str | type[AutoGuide] | AutoGuide | Guide,
    model: Model,
    data: Mapping[str, Any],
    latent: tuple[str, ...],
) -> Guide:
    """A guide from a name, a class, an instance or a hand-written function.

    `latent` are the model's latent sites, all of which a guide must have.
    """
    if isinstance(guide, str):
        if guide not in GUIDES:
            raise ValueError(
                f"guide is {guide!r}; it is one of {sorted(GUIDES)}, an automatic "
                "guide's class or instance, or a function of the model's arguments."
            )
        guide = GUIDES[guide]
    kind = guide if isinstance(guide, type) else type(guide)
    if issubclass(kind, AutoLaplaceApproximation):
        raise ValueError(
            "AutoLaplaceApproximation is a point while it is fitted, and its spread is "
            "made afterwards from the curvature of all rows, which minibatches do not "
            "see. Use guide='full_rank', or method='map' for the point."
        )
    if isinstance(guide, type) and issubclass(guide, AutoGuide):
        return guide(model, init_loc_fn=init_to_median(num_samples=15))
    if not callable(guide):
        raise TypeError(
            f"guide is {guide!r}; give a name ({sorted(GUIDES)}), an automatic guide's "
            "class or instance, or a function of the model's arguments."
        )
    if not isinstance(guide, AutoGuide):
        require_arguments("the guide", guide, data)
        absent = sorted(set(latent) - set(inspect_model(guide, data).latent))
        if absent:
            raise ValueError(
                f"the guide lacks {absent}, which the model samples, so their posterior "
                "would be their prior. Sample each of the model's latent sites in the "
                f"guide: {sorted(latent)}."
            )
    return guide


def require_arguments(
    what: str, fn: Callable[..., Any], data: Mapping[str, Any]
) -> None:
    """Raise unless `fn` can be called with the data's names."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**dict.fromkeys(data))
    except TypeError as error:
        raise ValueError(
            f"{what} takes {signature}, but the data have {sorted(data)}: {error}. Give "
            "one entry in the data for each argument; of a data frame, its columns alone, "
            "frame[['x', 'y']]."
        ) from error


def compiled_start(loop: MinibatchLoop, svi: SVI, key: Array) -> SVIState:
    """The first state in one compilation, where NumPyro compiles every operation.

    An automatic guide keeps what it learns of the model while it is set up; set up inside
    a compiled function, its arrays have to be put back afterwards.
    """
    guide = svi.guide

    def run(key: Array) -> tuple[SVIState, Any]:
        return loop.init(key), (guide._init_locs, getattr(guide, "_init_latent", None))

    state, (locations, latent) = jax.jit(run)(key)
    sites = guide.prototype_trace.values()
    supports = [site["fn"].support for site in sites if site["type"] == "sample"]
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(supports)):
        guide.prototype_trace = None  # supports that depend on data: set up anew
        return loop.init(key)
    guide._init_locs = locations
    if latent is not None:
        guide._init_latent = latent
    return state


def guide_draws(
    guide: Guide,
    params: Mapping[str, Array],
    data: Mapping[str, Any],
    key: Array,
    num_draws: int,
    latent: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Draws of the model's latent sites from a fitted guide: (1, draw, ...)."""
    arrays, others = arrays_apart(data)

    def one(key: Array, arrays: Mapping[str, Array]) -> dict[str, Array]:
        seeded = handlers.seed(guide, key)
        fitted = handlers.substitute(seeded, data=dict(params))
        sites = handlers.trace(fitted).get_trace(**arrays, **others)
        return {k: sites[k]["value"] for k in latent}

    keys = random.split(key, num_draws)
    found = jax.jit(jax.vmap(one, (0, None)))(keys, arrays)
    return {k: np.asarray(v)[None] for k, v in found.items()}


def substituted(model: Model, params: Mapping[str, Array]) -> Model:
    """The model with its learned `numpyro.param` values in place."""
    return handlers.substitute(model, data=dict(params))
