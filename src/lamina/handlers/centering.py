"""Non-centring: NumPyro's `LocScaleReparam`, on the sites that are chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.reparam import LocScaleReparam
from numpyro.ops.provenance import eval_provenance

from lamina._typing import Model

SHAPE_PARAMETERS = {"StudentT": ("df",), "AsymmetricLaplace": ("asymmetry",)}


def noncentered(
    model: Model, sites: Iterable[str] | bool, /, *args: Any, **kwargs: Any
) -> Model:
    r"""`model` with the chosen sites drawn as $\beta = \text{loc} + \text{scale}\cdot z$.

    NumPyro samples `{site}_decentered` and keeps `{site}` as a deterministic value; the
    model means the same. It helps where the data say little about each coefficient, and
    harms where they say much, so it is chosen by site: `True` takes every site that
    qualifies, a real location-scale distribution whose scale is itself sampled.

    `args` and `kwargs` are the model's data, with which it is traced once.

    Raises: ValueError for a site that the model has not or that does not qualify.
    Source: Papaspiliopoulos, Roberts and Skold (2007), A General Framework for the
    Parametrization of Hierarchical Models, section 2.
    """
    if sites is False:
        return model
    found = location_scale_sites(model, *args, **kwargs)
    if sites is True:
        chosen = tuple(found)
    else:
        chosen = (sites,) if isinstance(sites, str) else tuple(sites)
    wrong = sorted(set(chosen) - set(found))
    if wrong:
        raise ValueError(
            f"noncentered: {wrong} cannot be non-centred. It takes latent sites on the "
            "real line with a location and a scale that is itself sampled; this model "
            f"has {sorted(found)}."
        )
    if not chosen:
        return model
    config = {site: LocScaleReparam(0.0, found[site]) for site in chosen}
    return handlers.reparam(model, config=config)


def location_scale_sites(
    model: Model, /, *args: Any, **kwargs: Any
) -> dict[str, tuple[str, ...]]:
    """The sites that can be non-centred, with their shape parameters."""
    args, kwargs = jax.tree.map(
        lambda v: jax.device_put(v) if isinstance(v, np.ndarray) else v, (args, kwargs)
    )
    latent: dict[str, Any] = {}

    def first() -> None:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            model(*args, **kwargs)
        latent.update(
            (k, jax.ShapeDtypeStruct(s["value"].shape, s["value"].dtype))
            for k, s in sites.items()
            if s["type"] == "sample" and not s["is_observed"]
        )

    jax.eval_shape(first)
    kinds: dict[str, tuple[str, ...]] = {}

    def scales(**values: Any) -> dict[str, Any]:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            with handlers.substitute(data=values):
                model(*args, **kwargs)
        found = {}
        for name in latent:
            fn = sites[name]["fn"]
            support = getattr(fn.support, "base_constraint", fn.support)
            while hasattr(fn, "base_dist"):
                fn = fn.base_dist
            if support is constraints.real and {"loc", "scale"} <= set(
                fn.arg_constraints
            ):
                kinds[name] = SHAPE_PARAMETERS.get(type(fn).__name__, ())
                found[name] = fn.scale
        return found

    reads = eval_provenance(scales, **latent)
    return {name: kinds[name] for name, inputs in reads.items() if inputs}
