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
from lamina._keys import as_key
from lamina._typing import Array, Model, Seed, arrays_apart
from lamina.data.dataset import Dataset, as_mapping, as_names, read_data
from lamina.effects import Unlearned
from lamina.handlers.memory import learn, remembering
from lamina.handlers.preflight import Inspection, densities_read, inspect_model
from lamina.handlers.recording import predicting, with_rows
from lamina.handlers.rows import site_shapes
from lamina.infer.fitted import deterministic_draws, map_draws
from lamina.infer.guides import require_arguments
from lamina.infer.methods import method_named
from lamina.posterior import Posterior


def fit(
    model: Model,
    data: Any,
    *,
    observed: str | Iterable[str] = "y",
    constants: Iterable[str] | Mapping[str, Any] | None = None,
    method: str = "vi",
    seed: Seed = 0,
    missing: str = "error",
    **options: Any,
) -> Posterior:
    """Fit a NumPyro model to data, and return its posterior.

    `data` maps the model's arguments to arrays; a data frame has a column for each. The
    `observed` arguments set the number of rows; arrays of that length are rows, others are
    constants, which the posterior remembers; `constants` settles ambiguity, by names, or
    adds further constants, as a mapping. `missing="skip"` leaves out rows with a NaN;
    `predict(data)` of the posterior predicts those of them that lack the outcome alone.

    `method` is "vi" (minibatch variational inference), "mcmc" (NUTS), "map" or "mle";
    `options` are the method's own, by keyword: see `lamina.infer.fit_vi`, `fit_mcmc`,
    `fit_map` and `fit_mle`. The same seed gives the same result.

    Raises: ValueError or TypeError before anything is compiled, for data, options or a
    model that cannot be meant; FloatingPointError where the objective is not finite.
    """
    run = method_named(method, options)
    dataset = read_data(data, observed, constants, missing)
    inside = inspect(model, dataset)
    if inside.memory:
        model = remembering(model, inside.memory)
    fitted = run(model, dataset.rows, dataset.constants, key=as_key(seed), **options)
    growing = sites_with_rows(fitted.model, dataset)
    kept = inspect_model(fitted.model, dataset.arguments).deterministic
    latent = {k: v for k, v in fitted.draws.items() if k not in inside.params}
    # what the model itself draws is kept, sampled in this form or another
    derived = tuple(k for k in kept if k in inside.latent or k not in growing)
    draws = fitted.draws | deterministic_draws(
        fitted.model, latent, dataset.arguments, derived
    )
    notes = dataset.notes + fitted.notes
    undrawn = [k for k in inside.latent if k not in draws]
    if undrawn:
        notes += (f"{undrawn} have no draws: predictions draw them from their priors.",)
    return Posterior(
        model=fitted.model,
        method=method,
        draws={k: np.asarray(v) for k, v in draws.items()},
        data=dataset,
        outcomes=inside.observed,
        sampled=tuple(k for k in latent if k not in growing),
        row_latents=tuple(k for k in latent if k in growing),
        losses=fitted.losses,
        statistics=fitted.statistics,
        estimators=fitted.estimators,
        settings=fitted.settings,
        correlated=fitted.correlated,
        notes=notes,
    )


def prior_predictive(
    model: Model,
    data: Any,
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
    outcomes = as_names(observed)
    data = as_mapping("`data`", data)
    given = {k: np.zeros(np.shape(data[k])) for k in outcomes if _length(data.get(k))}
    reference = tuple(given) or _with_rows(data, constants)
    dataset = read_data({**data, **given}, reference, constants)
    hidden = {**dataset.arguments, **dict.fromkeys(outcomes)}
    require_arguments("the model", model, hidden)
    asked = _asked(model, dataset)
    try:
        inspect_model(asked, hidden)
    except Unlearned:  # these data are the training data
        asked = _asked(remembering(model, learn(model, hidden)), dataset)
        inspect_model(asked, hidden)
    densities_read(asked, hidden)
    arrays, others = arrays_apart(hidden)

    def one(draw: Mapping[str, Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
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
        inside = inspect_model(model, dataset.arguments, dataset.num_rows)
        kept = remembering(model, inside.memory)
        read = densities_read(kept, dataset.arguments)
    except Exception as error:
        error.add_note(
            f"The data were read as {dataset.describe()}. Use `constants` where an array "
            "of as many entries as there are rows is none."
        )
        raise
    likelihoods = [*inside.observed, *inside.factors]
    if not likelihoods:
        raise ValueError(
            f"the model observes nothing: no site has obs= when {dataset.observed} is "
            "given, so there is nothing to learn from. Pass the outcome on, "
            "gaussian_link_exp(mu, y) or numpyro.sample('y', ..., obs=y)."
        )
    known = frozenset().union(*(read[name] for name in likelihoods))
    unread = [name for name in dataset.observed if name not in known]
    if unread:
        raise ValueError(
            f"the observed arguments {unread} enter no likelihood: {likelihoods} are the "
            "same without them. Pass them on, gaussian_link_exp(mu, y) or "
            "numpyro.sample('y', ..., obs=y), or name the outcome in `observed`."
        )
    if not inside.latent and not inside.params:
        raise ValueError(
            "the model has no latent site and no parameter, so there is nothing to "
            "learn. Give it a layer, a numpyro.sample without obs=, or a numpyro.param."
        )
    return inside


def sites_with_rows(model: Model, dataset: Dataset) -> set[str]:
    """The sites whose shape follows the number of rows."""
    n = dataset.num_rows

    def call(rows: Mapping[str, Any]) -> Any:
        return model(**rows, **dataset.constants)

    now = site_shapes(call, dataset.rows, n)
    shape = {
        k: jnp.shape(site["value"])
        for k, site in now.items()
        if site["type"] != "param"
    }
    try:
        other = site_shapes(call, dataset.rows, n + 1)
    except Exception:  # the model knows its number of rows: compare with it
        plated = {
            k
            for k, site in now.items()
            if any(f.size == n for f in site.get("cond_indep_stack", ()))
        }
        return {k for k, s in shape.items() if k in plated or (n in s and n > 1)}
    return {
        k
        for k, site in other.items()
        if k in shape and jnp.shape(site["value"]) != shape[k]
    }


def _asked(model: Model, dataset: Dataset) -> Model:
    """The model as it runs to predict the rows of the dataset."""
    shaped = with_rows(model, shapes=_outcomes(model, dataset))
    return predicting(shaped, num_rows=dataset.num_rows)


def _outcomes(model: Model, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """The shapes of the observed sites, if the outcome's own shape was given."""
    try:
        found = site_shapes(
            lambda rows: model(**rows, **dataset.constants),
            dataset.rows,
            dataset.num_rows,
        )
    except Exception:  # without an outcome, or for a model that needs its numbers
        return {}
    return {
        name: jnp.shape(site["value"])
        for name, site in found.items()
        if site["type"] == "sample" and site["is_observed"]
    }


def _with_rows(
    data: Mapping[str, Any], constants: Iterable[str] | Mapping[str, Any] | None
) -> tuple[str, ...]:
    """The arguments that have rows when no outcome is given."""
    named = () if isinstance(constants, Mapping) else as_names(constants)
    lengths = {k: _length(v) for k, v in data.items() if _length(v) and k not in named}
    if not lengths:
        raise ValueError(
            "no argument has rows, so the number of outcomes to draw is unknown. Give "
            "the outcome too: its length counts, its values do not."
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the arguments have lengths {lengths}, so the number of outcomes to draw is "
            "unknown. Give the outcome too (its length counts, its values do not), or "
            "name the arrays without rows in `constants`."
        )
    return tuple(lengths)


def _length(value: Any) -> int | None:
    """The number of entries, if `value` is an array, a list or a frame of some."""
    try:
        return None if isinstance(value, str) else len(value)
    except TypeError:
        return None
