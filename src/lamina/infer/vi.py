"""Variational inference that needs no tuning: stages of learning rates, then an average."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optax
from jax import random
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.infer.autoguide import (
    AutoGuide,
    AutoNormal,
)
from numpyro.infer.elbo import ELBO
from numpyro.infer.svi import SVIState

from lamina._checks import positive_size
from lamina._keys import as_int
from lamina._typing import Array, Guide, Model
from lamina.handlers.centering import noncentered as noncenter
from lamina.handlers.preflight import inspect_model
from lamina.infer.elbo import (
    LocalReparameterization_ELBO,
    OrderedTrace_ELBO,
    estimators_of,
)
from lamina.infer.fitted import Fitted
from lamina.infer.guides import (
    compiled_start,
    guide_draws,
    make_guide,
    substituted,
)
from lamina.infer.loop import MinibatchLoop
from lamina.infer.progress import progress
from lamina.infer.stages import Stages, averaged, optimizer_state, require_steps

ESTIMATORS = ("auto", "reparameterization", "local")

FULL_BATCH_ROWS = 2048
BATCH = 1024


def fit_vi(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    key: Array,
    guide: str | type[AutoGuide] | AutoGuide | Guide = "mean_field",
    estimator: str = "auto",
    batch_size: int | None = None,
    learning_rate: float = 0.05,
    num_steps: int = 200_000,
    averaged_epochs: int = 100,
    num_particles: int = 1,
    num_draws: int = 1000,
    noncentered: Iterable[str] | bool = False,
    optimizer: optax.GradientTransformation | None = None,
    progress_bar: bool | None = None,
) -> Fitted:
    """Fit a guide to random minibatches, and draw from it.

    Adam runs at `learning_rate` until the loss lies on a plateau, then at 0.3 of that
    rate, and so on until a lower rate no longer lowers the plateau. The result is the
    average of further iterates at the last rate that did: over 2,000 steps, or
    `averaged_epochs` if that is more. A minibatch adds noise to the result that falls as
    one over the root of these epochs: after 100, about 0.1 posterior sd in a mean and 5 %
    in an sd, less where rows say little each. `num_steps` is the most in all. With an
    `optimizer` of your own, exactly `num_steps` are run, without stages or average.

    `guide` is "mean_field", "full_rank", "low_rank" or "flow", an automatic guide's class
    or instance, or a hand-written guide. `estimator="auto"` samples products instead of
    coefficients where a mean-field guide makes that sound (local reparameterization).
    `batch_size` is all rows up to 2,048, else 1,024.

    Source: Kucukelbir and others (2017), Automatic Differentiation Variational Inference;
    Polyak and Juditsky (1992), Acceleration of Stochastic Approximation by Averaging.
    """
    for name, value in (
        ("num_steps", num_steps),
        ("averaged_epochs", averaged_epochs),
        ("num_particles", num_particles),
        ("num_draws", num_draws),
    ):
        positive_size("vi", name, value)
    if optimizer is None:
        require_steps(num_steps)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}, but it is positive.")
    n = len(next(iter(rows.values())))
    if batch_size is None:
        batch_size = n if n <= FULL_BATCH_ROWS else BATCH
    batch = min(n, positive_size("vi", "batch_size", batch_size))
    data = {**rows, **constants}
    centered, model = model, noncenter(model, noncentered, **data)
    if isinstance(guide, AutoGuide) and model is not centered:
        raise ValueError(
            "the guide is an instance, made for the model as it is written, but "
            "`noncentered` changes the model's sites. Give the guide's class, or wrap "
            "the model in lamina.handlers.noncentered before making the guide."
        )
    inside = inspect_model(model, data)
    latent = tuple(inside.latent)
    given, guide = guide, make_guide(guide, model, data, latent)
    loss = make_loss(estimator, guide, num_particles, batch)
    init_key, order_key, draw_key = random.split(key, 3)
    own = optimizer is None
    rule = averaged(optax.inject_hyperparams(optax.adam)(learning_rate))
    svi = SVI(model, guide, rule if own else optimizer, loss)
    loop = MinibatchLoop(
        svi, rows, constants=constants, batch_size=batch, seed=as_int(order_key)
    )
    ours = isinstance(guide, AutoGuide) and guide is not given
    state = compiled_start(loop, svi, init_key) if ours else loop.init(init_key)
    with progress(num_steps, progress_bar) as bar:
        if own:
            run = Stages(loop, learning_rate, num_steps, averaged_epochs, bar)
            state, losses, notes = run(state)
        else:
            state, losses, notes = run_plainly(loop, state, num_steps, bar)
    params = svi.get_params(state)
    if own:
        params = svi.constrain_fn(optimizer_state(state).average)
    draws = guide_draws(guide, params, data, draw_key, num_draws, latent)
    for name in inside.params:  # the model's own parameters have one value in all draws
        if isinstance(params[name], np.ndarray | Array):
            one = np.asarray(params[name])
            draws[name] = np.broadcast_to(one, (1, num_draws, *one.shape))
    return Fitted(
        model=substituted(model, params),
        draws=draws,
        losses=losses,
        estimators=estimators_of(loss, latent),
        settings={
            "guide": type(guide).__name__ if isinstance(guide, AutoGuide) else "own",
            "batch_size": batch,
            "num_steps": len(losses),
            "num_draws": num_draws,
        },
        notes=notes,
        state=state,
    )


def run_plainly(
    loop: MinibatchLoop, state: SVIState, most: int, bar: Any
) -> tuple[SVIState, np.ndarray, tuple[str, ...]]:
    """Exactly `most` steps of the user's own optimizer."""
    losses: list[np.ndarray] = []
    done = 0
    while done < most:
        state, new = loop.advance(state, min(loop.grid, most - done))
        losses.append(new)
        done += len(new)
        bar.update(len(new))
    return state, np.concatenate(losses), ()


def make_loss(estimator: str, guide: Guide, num_particles: int, batch: int) -> ELBO:
    """The objective for an estimator's name."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}; it is one of {ESTIMATORS}.")
    mean_field = type(guide) is AutoNormal
    if estimator == "local" or (estimator == "auto" and mean_field):
        return LocalReparameterization_ELBO(num_particles, batch_size=batch)
    if mean_field:
        return TraceMeanField_ELBO(num_particles)
    return OrderedTrace_ELBO(num_particles)
