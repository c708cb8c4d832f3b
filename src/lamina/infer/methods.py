"""The methods of `lamina.fit`, by name: one verb each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lamina.infer.fitted import Fitted
from lamina.infer.mcmc import fit_mcmc
from lamina.infer.optimise import fit_map, fit_mle
from lamina.infer.vi import fit_vi

METHODS: dict[str, Callable[..., Fitted]] = {
    "vi": fit_vi,
    "mcmc": fit_mcmc,
    "map": fit_map,
    "mle": fit_mle,
}


def method_named(name: str, options: dict[str, Any]) -> Callable[..., Fitted]:
    """The method, after a check of its name and its options'."""
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; it is one of {sorted(METHODS)}.")
    method = METHODS[name]
    parameters = inspect.signature(method).parameters.values()
    allowed = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"key"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise TypeError(
            f"method {name!r} has no options {unknown}; it has {sorted(allowed)}."
        )
    return method
