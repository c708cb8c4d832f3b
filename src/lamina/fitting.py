"""`fit`: any NumPyro model, any method, one posterior; and prior prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers

from lamina._checks import positive_size
from lamina._typing import Array, Model, Seed
from lamina.data.dataset import Dataset, read_data
from lamina.handlers.preflight import Inspection, inspect_model
from lamina.handlers.recording import predicting
from lamina.handlers.rows import site_shapes
from lamina.infer.fitted import deterministic_draws, map_draws
from lamina.infer.methods import method_named
from lamina.infer.svi import arrays_apart, as_key
from lamina.infer.vi import require_arguments
from lamina.posterior import Posterior


def fit(
    model: Model,
    data: Mapping[str, Any],
    *,
    observed: str | Iterable[str] = "y",
    constants: Iterable[str] | Mapping[str, Any] | None = None,
    method: str = "vi",
    seed: Seed = 0,
    missing: str = "error",
    **options: Any,
) -> Posterior:
    """Fit a NumPyro model to data, and return its posterior.

    `data` maps the model's arguments to arrays. The `observed` arguments set the number
    of rows; arrays of that length are rows, others are constants, which the posterior
    remembers; `constants` settles ambiguity, by names, or adds further constants, as a
    mapping. `missing="skip"` leaves out rows with a NaN.

    `method` is "vi" (minibatch variational inference), "mcmc" (NUTS), "map" or "mle";
    `options` are the method's own, by keyword: see `lamina.infer.fit_vi`, `fit_mcmc`,
    `fit_map` and `fit_mle`. The same seed gives the same result.

    Raises: ValueError or TypeError before anything is compiled, for data, options or a
    model that cannot be meant; FloatingPointError where the objective is not finite.
    """
    run = method_named(method, options)
    dataset = read_data(data, observed, constants, missing)
    inside = inspect(model, dataset)
    fitted = run(model, dataset.rows, dataset.constants, key=as_key(seed), **options)
    growing = sites_with_rows(fitted.model, dataset)
    kept = inspect_model(fitted.model, dataset.arguments).deterministic
    latent = {k: v for k, v in fitted.draws.items() if k not in inside.params}
    # what the model itself draws is kept, sampled in this form or another
    derived = tuple(k for k in kept if k in inside.latent or k not in growing)
    draws = fitted.draws | deterministic_draws(
        fitted.model, latent, dataset.arguments, derived
    )
    return Posterior(
        model=fitted.model,
        method=method,
        draws={k: np.array(v) for k, v in draws.items()},
        data=dataset,
        outcomes={k: len(shape) for k, shape in inside.observed.items()},
        sampled=tuple(k for k in latent if k not in growing),
        row_latents=tuple(k for k in latent if k in growing),
        losses=fitted.losses,
        statistics=fitted.statistics,
        estimators=fitted.estimators,
        settings=fitted.settings,
        correlated=fitted.correlated,
        notes=dataset.notes + fitted.notes,
    )


def prior_predictive(
    model: Model,
    data: Mapping[str, Any],
    *,
    observed: str | Iterable[str] = "y",
    constants: Iterable[str] | Mapping[str, Any] | None = None,
    num_draws: int = 1000,
    seed: Seed = 0,
) -> dict[str, np.ndarray]:
    """Draws of every site from the prior: site -> (draw, ...), outcomes included.

    `data` are as for `fit`; the outcome may be left out when other arguments have rows.

    Raises: as `fit`, before anything is compiled.
    Source: Gelman and others (2013), Bayesian Data Analysis, section 6.3.
    """
    positive_size("prior_predictive", "num_draws", num_draws)
    outcomes = (observed,) if isinstance(observed, str) else tuple(observed)
    given = any(name in data for name in outcomes)
    reference = outcomes if given else _longest(data)
    dataset = read_data(data, reference, constants)
    hidden = {**dataset.arguments, **dict.fromkeys(outcomes)}
    require_arguments("the model", model, hidden)
    n = dataset.num_rows
    inspect_model(predicting(model, num_rows=n), hidden)
    arrays, others = arrays_apart(hidden)

    def one(draw: Mapping[str, Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
        asked = predicting(model, num_rows=n)
        seeded = handlers.seed(asked, draw["key"])
        sites = handlers.trace(seeded).get_trace(**arrays, **others)
        kinds = ("sample", "deterministic")
        return {k: s["value"] for k, s in sites.items() if s["type"] in kinds}

    keys = {"key": random.split(as_key(seed), num_draws)}
    run = jax.jit(lambda keys, arrays: map_draws(lambda d: one(d, arrays), keys))
    return {k: np.asarray(v) for k, v in run(keys, arrays).items() if v.size}


def inspect(model: Model, dataset: Dataset) -> Inspection:
    """What the model is made of on these data, with every check that costs nothing."""
    require_arguments("the model", model, dataset.arguments)
    try:
        inside = inspect_model(model, dataset.arguments)
    except Exception as error:
        error.add_note(
            f"The data were read as {dataset.describe()}. Use `constants` where an array "
            "of as many entries as there are rows is none."
        )
        raise
    if not inside.observed:
        raise ValueError(
            f"the model observes nothing: no site has obs= when {dataset.observed} is "
            "given, so there is nothing to learn from. Pass the outcome on, "
            "gaussian_link_exp(mu, y) or numpyro.sample('y', ..., obs=y)."
        )
    return inside


def sites_with_rows(model: Model, dataset: Dataset) -> set[str]:
    """The sites whose shape follows the number of rows."""
    n = dataset.num_rows

    def call(rows: Mapping[str, Any]) -> Any:
        return model(**rows, **dataset.constants)

    now = site_shapes(call, dataset.rows, n)
    shape = {k: jnp.shape(site["value"]) for k, site in now.items()}
    try:
        other = site_shapes(call, dataset.rows, n + 1)
    except Exception:  # the model knows its number of rows: compare with it
        return {k for k, s in shape.items() if n in s}
    return {
        k
        for k, site in other.items()
        if k in shape and jnp.shape(site["value"]) != shape[k]
    }


def _longest(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The argument that sets the number of rows when no outcome is given."""
    lengths = {k: len(v) for k, v in data.items() if np.ndim(v)}
    if not lengths:
        raise ValueError(
            "no argument has rows, so the number of outcomes to draw is unknown. Give "
            "the outcome too: its length counts, its values do not."
        )
    return (max(lengths, key=lambda k: lengths[k]),)
