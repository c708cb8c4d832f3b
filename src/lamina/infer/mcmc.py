"""Markov chain Monte Carlo: NumPyro's NUTS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_uniform

from lamina._checks import positive_size
from lamina._typing import Array, Model, arrays_apart
from lamina.handlers.centering import noncentered as noncenter
from lamina.handlers.preflight import inspect_model, require_whole_rows
from lamina.infer.fitted import Fitted
from lamina.infer.progress import bar_shown

STATISTICS = ("diverging", "accept_prob", "num_steps", "energy")
R_HAT = 1.1
"""More says that chains disagree."""
SHORT = 50
"""Fewer draws of a chain say nothing of that."""


def fit_mcmc(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    key: Array,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    chain_method: str = "auto",
    noncentered: Iterable[str] | bool = False,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    dense_mass: bool | list[tuple[str, ...]] = False,
    init_strategy: Callable[..., Any] = init_to_uniform,
    progress_bar: bool | None = None,
) -> Fitted:
    """Sample the posterior by the No-U-Turn sampler.

    `chain_method="auto"` runs chains on devices of their own where there are enough, and
    vectorized on one otherwise. `noncentered` names sites to sample in non-centred form,
    or is True for all that qualify.

    Source: Hoffman and Gelman (2014), The No-U-Turn Sampler.
    """
    for name, value in (("num_warmup", num_warmup), ("num_samples", num_samples)):
        positive_size("mcmc", name, value)
    positive_size("mcmc", "num_chains", num_chains)
    methods = ("auto", "parallel", "vectorized", "sequential")
    if chain_method not in methods:
        raise ValueError(f"chain_method is {chain_method!r}; it is one of {methods}.")
    if not 0 < target_accept_prob < 1:
        raise ValueError(
            f"target_accept_prob is {target_accept_prob}, but it is a probability "
            "between 0 and 1."
        )
    if chain_method == "auto":
        enough = 1 < num_chains <= jax.local_device_count()
        chain_method = "parallel" if enough else "vectorized"
    if num_chains == 1:
        chain_method = "sequential"
    data = {**rows, **constants}
    inside = inspect_model(model, data)
    require_whole_rows("NUTS", inside)
    if inside.params:
        raise ValueError(
            f"NUTS samples no parameters: numpyro.param {sorted(inside.params)} would "
            "stay at their first values. Give them priors, numpyro.sample, or use "
            "method='vi', 'map' or 'mle', which learn them."
        )
    model = noncenter(model, noncentered, **data)
    arrays, others = arrays_apart(data)

    def latent_only(arrays: Mapping[str, Array]) -> Any:
        # deterministic sites are computed from the draws afterwards, if they are kept
        with handlers.block(hide_fn=lambda m: m["type"] == "deterministic"):
            return model(**arrays, **others)

    kernel = NUTS(
        latent_only,
        target_accept_prob=target_accept_prob,
        max_tree_depth=max_tree_depth,
        dense_mass=dense_mass,
        init_strategy=init_strategy,
    )
    sampler = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=chain_method,
        progress_bar=bar_shown(progress_bar),
    )
    sampler.run(key, arrays, extra_fields=STATISTICS)
    draws = sampler.get_samples(group_by_chain=True)
    extra = sampler.get_extra_fields(group_by_chain=True)
    statistics = {k: np.asarray(v) for k, v in extra.items()}
    return Fitted(
        model=model,
        draws={k: np.asarray(v) for k, v in draws.items()},
        statistics=statistics,
        settings={
            "num_warmup": num_warmup,
            "num_samples": num_samples,
            "num_chains": num_chains,
            "chain_method": chain_method,
        },
        correlated=True,
        notes=_remedies(statistics, max_tree_depth, target_accept_prob)
        + _disagreement(draws),
        state=sampler.last_state,
    )


def _remedies(
    statistics: Mapping[str, np.ndarray], max_tree_depth: int, target: float
) -> tuple[str, ...]:
    notes = []
    diverging = int(statistics["diverging"].sum())
    if diverging:
        notes.append(
            f"{diverging} of {statistics['diverging'].size} draws diverged, so the "
            "posterior may be explored in part only: try noncentered=True or "
            f"target_accept_prob={0.95 if target < 0.95 else (1 + target) / 2:.3g}, or "
            "stronger priors on scales."
        )
    deepest = int((statistics["num_steps"] >= 2**max_tree_depth - 1).sum())
    if deepest:
        notes.append(
            f"{deepest} draws reached the largest tree: sampling is slow, though not "
            "wrong. Standardise the data or raise max_tree_depth."
        )
    return tuple(notes)


def _disagreement(draws: Mapping[str, Array]) -> tuple[str, ...]:
    """A note where chains have different means, by the worst number's R-hat.

    Source: Gelman and others (2013), Bayesian Data Analysis, eq. 11.4.
    """
    if next(iter(draws.values())).shape[1] < SHORT:
        return ()
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {k: split_gelman_rubin(np.asarray(v)) for k, v in draws.items()}
    # a number that never moves has none
    worst = {
        k: float(np.nan_to_num(v, posinf=np.inf).max(initial=0.0))
        for k, v in found.items()
    }
    site = max(worst, key=lambda k: worst[k])
    if worst[site] <= R_HAT:
        return ()
    return (
        f"the chains disagree: R-hat is {worst[site]:.2f} in {site!r}, and at most "
        f"{R_HAT} where they agree. Unless it is a sign or an order that "
        "means nothing, do not use these draws: take a longer warm-up, try "
        "noncentered=True, or look for a second mode.",
    )
