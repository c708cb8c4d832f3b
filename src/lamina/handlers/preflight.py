"""Checks of a model on its data before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from lamina._checks import require_support
from lamina._typing import Model, Shape


@dataclass(frozen=True)
class Inspection:
    """What a model is made of: its sites by kind, with the shapes of their values."""

    latent: dict[str, Shape]
    observed: dict[str, Shape]
    deterministic: dict[str, Shape]
    params: dict[str, Shape]


class preflight(Messenger):
    """Raise for a name used twice and for observations outside their support."""

    def __enter__(self) -> None:
        super().__enter__()
        self.seen: dict[str, str] = {}

    def process_message(self, message: Any) -> None:
        kind, name = message["type"], message.get("name", "")
        if kind not in ("sample", "deterministic"):
            return
        if name in self.seen:
            raise ValueError(
                f"the name {name!r} is used by two sites, so one posterior would stand "
                "for two things. Give each layer, link and site a name of its own; to "
                "share coefficients, sample them once and pass the value on."
            )
        self.seen[name] = kind
        if kind == "sample" and message["is_observed"]:
            fn = message["fn"]
            if not isinstance(fn, Unit):
                require_support(name, fn, message["value"])


def inspect_model(model: Model, data: Mapping[str, Any]) -> Inspection:
    """Trace `model` on NumPy data, computing nothing, and check what can be known.

    The data stay concrete while everything sampled is abstract, so codes and outcomes
    are checked by value at no cost.
    """
    found: dict[str, dict[str, Shape]] = {
        "latent": {},
        "observed": {},
        "deterministic": {},
        "param": {},
    }

    def run() -> None:
        with handlers.trace() as sites, handlers.seed(rng_seed=0), preflight():
            model(**data)
        for name, site in sites.items():
            kind = site["type"]
            if kind == "sample":
                kind = "observed" if site["is_observed"] else "latent"
            if kind in found and not isinstance(site.get("fn"), Unit):
                found[kind][name] = jnp.shape(site["value"])

    jax.eval_shape(run)
    return Inspection(
        found["latent"], found["observed"], found["deterministic"], found["param"]
    )
