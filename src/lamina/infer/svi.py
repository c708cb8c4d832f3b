"""`svi_run_batched`: a user's own SVI object on minibatches."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.infer import SVI
from numpyro.infer.svi import SVIRunResult, SVIState
from numpyro.primitives import Messenger

from lamina._checks import positive_size
from lamina._keys import as_int, as_key
from lamina._typing import Seed
from lamina.handlers.memory import learn, remembering
from lamina.infer.loop import MinibatchLoop, row_array
from lamina.infer.plateau import Plateau
from lamina.infer.progress import progress


def svi_run_batched(
    svi: SVI,
    rng_key: Seed,
    num_steps: int | None = None,
    batch_size: int = 1000,
    *,
    num_epochs: int | None = None,
    constants: Mapping[str, Any] | None = None,
    early_stopping: Plateau | bool = False,
    progress_bar: bool | None = None,
    init_state: SVIState | None = None,
    chunk_steps: int | None = None,
    **data: Any,
) -> SVIRunResult:
    """Run `svi` on random minibatches of `data`, in one compiled loop.

    Every array in `data` has one entry for each row; `constants` are the model's other
    arguments, the same in every step. Batches have min(batch_size, rows) rows; each epoch
    takes them in a fresh order and drops a different tail. The loop weights rows by N / B
    by itself, and once, for any ELBO of NumPyro's but Renyi's and for
    `Batched_Trace_ELBO`; a model or guide under `row_weights` is taken as it is.

    `num_steps` or `num_epochs` sets the length; with `early_stopping`, `True` or a
    `Plateau`, it is the most. `progress_bar` is shown in terminals and notebooks unless
    said otherwise. `init_state` goes on from an earlier result's `state`: with the same
    key and data, as if the run had not stopped. `chunk_steps` is how many steps one
    compiled call takes; it changes speed, not results: stopping is judged on a fixed grid
    of steps. Ctrl-C returns what there is.

    Returns NumPyro's `SVIRunResult`: `params`, `state`, and `losses`, negative ELBOs in
    nats, one for each step.

    Raises: ValueError for data that cannot be batched right, before compilation;
    FloatingPointError when the loss is NaN or infinite, naming the step.
    Source: Hoffman, Blei, Wang and Paisley (2013), Stochastic Variational Inference.
    """
    _refuse_collisions(svi.model)
    rule = Plateau() if early_stopping is True else early_stopping
    if rule and not isinstance(rule, Plateau):
        raise TypeError(
            f"early_stopping is {early_stopping!r}; give True, False or a Plateau."
        )
    key = as_key(rng_key)
    init_key, order_key = random.split(key)
    rows = {k: row_array(k, v) for k, v in data.items()}
    loop = MinibatchLoop(
        svi,
        rows,
        constants=constants,
        batch_size=batch_size,
        seed=as_int(order_key),
        chunk_steps=chunk_steps,
    )
    steps = _length(num_steps, num_epochs, loop.order.batches)
    state = init_state
    fixed = {**(constants or {}), **svi.static_kwargs}
    memory = remembering(values=learn(svi.model, {**rows, **fixed}))
    if state is None or svi.constrain_fn is None:
        with memory:
            start = loop.init(init_key)  # readies the guide too, where a run goes on
        state = start if init_state is None else init_state
    done, losses = 0, [np.empty(0, np.float32)]
    with memory, progress(steps, progress_bar) as bar:
        try:
            while done < steps:
                later, new = loop.advance(state, min(loop.grid, steps - done))
                losses.append(new)
                # together, so that Ctrl-C finds a state and the number of its steps
                state, done = later, done + len(new)
                bar.set_postfix_str(f"loss {new.mean():.6g}", refresh=False)
                bar.update(len(new))
                if rule and rule.reached(_last(losses, 2 * rule.window)):
                    break
        except KeyboardInterrupt:
            warnings.warn(
                f"interrupted after {done} of {steps} steps; the result is what "
                "there is. Go on with init_state=result.state.",
                stacklevel=2,
            )
    found = jnp.asarray(np.concatenate(losses)[:done])
    return SVIRunResult(svi.get_params(state), state, found)


def _last(parts: list[np.ndarray], count: int) -> np.ndarray:
    """The last `count` numbers of many parts, where there are as many."""
    number, here = 0, 0
    while here < count and number < len(parts):
        number += 1
        here += len(parts[-number])
    return np.concatenate(parts[-number:])[-count:]


def _length(num_steps: int | None, num_epochs: int | None, batches: int) -> int:
    if (num_steps is None) == (num_epochs is None):
        raise ValueError(
            f"num_steps is {num_steps} and num_epochs is {num_epochs}: give exactly one."
        )
    if num_steps is not None:
        return positive_size("svi_run_batched", "num_steps", num_steps)
    return positive_size("svi_run_batched", "num_epochs", num_epochs) * batches


def _refuse_collisions(model: Callable[..., Any]) -> None:
    """An option would silently swallow a model's argument of the same name."""
    while isinstance(model, Messenger):
        model = model.fn
    try:
        taken = set(inspect.signature(model).parameters)
    except (TypeError, ValueError):
        return
    options = set(inspect.signature(svi_run_batched).parameters) - {"data"}
    both = sorted(taken & options)
    if both:
        raise ValueError(
            f"the model's arguments {both} have the names of options of "
            "svi_run_batched, which would take their place. Rename them, or use "
            "lamina.fit, which takes data as a mapping."
        )
