"""Checks of a model on its data before anything is compiled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import Distribution, ImproperUniform
from numpyro.distributions.distribution import Unit
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from lamina._checks import require_support
from lamina._typing import Model, Shape
from lamina.effects import Unlearned
from lamina.handlers.memory import learn, remembering


@dataclass(frozen=True)
class Inspection:
    """What a model is made of: its sites by kind, with the shapes of their values."""

    latent: dict[str, Shape]
    observed: dict[str, Shape]
    deterministic: dict[str, Shape]
    params: dict[str, Any]
    factors: tuple[str, ...]
    subsampled: tuple[str, ...]
    """the plates that pick a random part of their rows"""
    memory: dict[str, Any]
    """what layers learned from the data, once"""


class preflight(Messenger):
    """Raise for a name used twice, an improper prior, and what has no likelihood.

    `num_rows` are the outcome's: a layer on a single row would give them all one value.
    """

    def __init__(self, num_rows: int | None = None) -> None:
        super().__init__()
        self.num_rows = num_rows

    def __enter__(self) -> None:
        super().__enter__()
        self.seen: dict[str, str] = {}

    def process_message(self, message: Any) -> None:
        kind, name = message["type"], message.get("name", "")
        if kind == "product" and (self.num_rows or 1) > 1:
            require_rows(message["args"][0], self.num_rows)
        if kind not in ("sample", "deterministic"):
            return
        if name in self.seen:
            raise ValueError(
                f"the name {name!r} is used by two sites, so one posterior would stand "
                "for two things. Give each layer, link and site a name of its own; to "
                "share coefficients, sample them once and pass the value on."
            )
        self.seen[name] = kind
        if kind != "sample":
            return
        fn = message["fn"]
        if not message["is_observed"]:
            require_proper(name, fn)
        elif not isinstance(fn, Unit):
            require_own_terms(name, fn, message["value"])
            require_support(name, fn, message["value"])


def require_rows(data: Any, num_rows: int | None) -> None:
    """Raise for a single row of data beside an outcome of many."""
    if jnp.ndim(data) and jnp.shape(data)[0] == 1:
        raise ValueError(
            f"a layer got data of shape {jnp.shape(data)}, a single row, where the "
            f"outcome has {num_rows}: every row would get the same value. Give one row "
            "for each (a row vector is transposed: x.T or x[0]), or "
            "jnp.broadcast_to where all rows do share theirs."
        )


def require_proper(name: str, fn: Distribution) -> None:
    """Raise for a latent site whose distribution cannot be drawn from."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    if isinstance(fn, ImproperUniform):
        raise ValueError(
            f"site {name!r} has an improper prior, from which nothing can be drawn, at "
            "the start or in a prediction. Give it a wide proper one, such as "
            "Normal(0, 1000); for maximum likelihood any with its support will do."
        )


def require_own_terms(name: str, fn: Distribution, value: Any) -> None:
    """Raise where broadcasting would score an observation several times.

    A single number is exempt: it may stand for many, as in a soft constraint.
    """
    seen, wanted = jnp.shape(value), fn.shape()
    try:
        scored = jnp.broadcast_shapes(seen, wanted)
    except ValueError:
        scored = None
    if not seen or (scored is not None and math.prod(scored) == math.prod(seen)):
        return
    many = "cannot be scored" if scored is None else f"would make {scored} terms"
    raise ValueError(
        f"site {name!r}: the observed value has shape {seen}, but its distribution has "
        f"shape {wanted}, which {many}: rows would be set against rows. Give both the "
        "same rows on the same axis; jnp.broadcast_to says so where one observation is "
        "meant to count several times."
    )


class _ScoredOnce(Messenger):
    def process_message(self, message: Any) -> None:
        observed = message["type"] == "sample" and message["is_observed"]
        if observed and not isinstance(message["fn"], Unit):
            require_own_terms(message["name"], message["fn"], message["value"])


def require_scored_once(model: Model, data: Mapping[str, Any]) -> None:
    """Raise where a model sets rows against rows, tracing it without computing.

    Raises: ValueError naming the site and both shapes.
    """
    arrays = {k: v for k, v in data.items() if isinstance(v, np.ndarray | jax.Array)}
    others = {k: v for k, v in data.items() if k not in arrays}

    def run(arrays: Mapping[str, Any]) -> None:
        with handlers.block(), handlers.seed(rng_seed=0), _ScoredOnce():
            model(**arrays, **others)

    jax.eval_shape(run, arrays)


def inspect_model(
    model: Model, data: Mapping[str, Any], num_rows: int | None = None
) -> Inspection:
    """Trace `model` on NumPy data, computing nothing, and check what can be known.

    The data stay concrete while everything sampled is abstract, so codes and outcomes
    are checked by value at no cost. A model that needs JAX's own arrays, to pick rows by
    a sampled index for one, is given those.
    """
    try:
        return _inspect(model, data, num_rows)
    except Unlearned:  # from data that the model transforms first: run it on numbers
        return _inspect(remembering(model, learn(model, data)), data, num_rows)
    except (jax.errors.JAXTypeError, AttributeError):
        known = {
            k: jax.device_put(v) if isinstance(v, np.ndarray) else v
            for k, v in data.items()
        }
        return _inspect(model, known, num_rows)


def _inspect(model: Model, data: Mapping[str, Any], num_rows: int | None) -> Inspection:
    found: dict[str, dict[str, Any]] = {
        "latent": {},
        "observed": {},
        "deterministic": {},
        "param": {},
    }
    factors, subsampled = [], []
    keeper = remembering()

    def run() -> None:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            with preflight(num_rows), keeper:
                model(**data)
        for name, site in sites.items():
            kind = site["type"]
            if kind == "sample":
                kind = "observed" if site["is_observed"] else "latent"
            if isinstance(site.get("fn"), Unit):
                factors.append(name)
            elif kind in found:
                found[kind][name] = jax.tree.map(jnp.shape, site["value"])
            elif kind == "plate" and site["args"][0] != len(site["value"]):
                subsampled.append(name)

    jax.eval_shape(run)
    return Inspection(
        found["latent"],
        found["observed"],
        found["deterministic"],
        found["param"],
        tuple(factors),
        tuple(subsampled),
        keeper.memory.values,
    )


def require_whole_rows(what: str, inside: Inspection) -> None:
    """Raise for a random subsample, in a method that evaluates one density throughout."""
    if inside.subsampled:
        raise ValueError(
            f"plates {list(inside.subsampled)} pick a random part of the rows, and "
            f"{what} needs the whole density: it would see one part only. Drop the "
            "plate's subsample_size, or use method='vi'."
        )


def densities_read(model: Model, data: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """site -> the arrays among the arguments that its log density depends on.

    The arrays are abstract here, as they are while a fit is compiled.

    Raises: ValueError for a model that needs to know their numbers.
    """
    arrays = {
        k: jax.ShapeDtypeStruct(v.shape, jax.dtypes.canonicalize_dtype(v.dtype))
        for k, v in data.items()
        if isinstance(v, np.ndarray | jax.Array) and v.ndim
    }
    others = {k: v for k, v in data.items() if k not in arrays}

    def densities(**arrays: Any) -> dict[str, Any]:
        named = {name.removeprefix("argument "): v for name, v in arrays.items()}
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            model(**named, **others)
        return {
            name: (site["fn"].log_prob(site["value"]), site["scale"])
            for name, site in sites.items()
            if site["type"] == "sample"
        }

    labelled = {f"argument {k}": v for k, v in arrays.items()}
    try:
        found = eval_provenance(densities, **labelled)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise ValueError(
            "the model takes a size, a branch, an index or a NumPy array from the "
            f"numbers in its data, which are not known while it is compiled. Compute "
            f"with jax.numpy, and pass sizes as constants (num_groups=85). JAX said: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return {
        name: frozenset(
            label.removeprefix("argument ")
            for label in frozenset().union(*jax.tree.leaves(reads))
        )
        for name, reads in found.items()
    }
