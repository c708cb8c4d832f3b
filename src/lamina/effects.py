"""What layers and links announce, so that handlers can reinterpret or record it.

Every announcement is a nameless NumPyro message: `trace`, `seed`, `substitute`, `scope`
and NUTS pass it by, and with no handler of ours on the stack it costs one call.

| message | says | answered by |
|---|---|---|
| `product` | these data meet these coefficients | local reparameterization |
| `term` | this layer's finished output | term recording |
| `outcome` | this link's predictor and distribution | prediction of means |
| `prediction` | (a question) is this a prediction? | prediction |

`remember` is no message: it asks the handlers that hold a memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
from numpyro.distributions import Distribution
from numpyro.distributions.distribution import Unit
from numpyro.primitives import _PYRO_STACK, CondIndepStackFrame, apply_stack

from lamina._typing import Array

ROW_FACTOR = "is_row_factor"


class Announcement(dict):
    """A nameless message: `"name" in message` is False, yet a filter may read it.

    Filters written for ordinary sites, `block(hide_fn=lambda site: site["name"] ...)`,
    find an empty name, and nothing observed, instead of a KeyError.
    """

    def __missing__(self, key: str) -> Any:
        return {"name": "", "is_observed": False}[key]


class Prediction(NamedTuple):
    """What a layer or link may ask while the posterior predicts."""

    key: Array | None
    num_rows: int | None


def announce(
    kind: str, fn: Callable[..., Any], *args: Any, value: Any = None, **fields: Any
) -> Any:
    """Send a nameless message up the stack: a handler's answer, or `fn(*args)`."""
    if not _PYRO_STACK:
        return fn(*args) if value is None else value
    message = Announcement(
        type=kind, fn=fn, args=args, kwargs={}, value=value, cond_indep_stack=[]
    )
    message.update(fields)
    return apply_stack(message)["value"]


def product(fn: Callable[..., Array], *operands: Array) -> Array:
    """`fn(*operands)`, data first and coefficients last, unless a handler answers."""
    return announce("product", fn, *operands)


def term(name: str, output: Array) -> Array:
    """Announce a layer's finished output under its name, and return it."""
    return announce("term", lambda: output, value=output, term=name)


def outcome(
    name: str,
    predictor: Array,
    fn: Distribution,
    mean: Callable[[], Array] | None = None,
) -> None:
    """Announce a link's predictor and the distribution that it gives the outcome.

    `mean` computes the expected outcome where that is not the distribution's own mean:
    (n, k) probabilities for an outcome of k categories.
    """
    announce(
        "outcome",
        lambda: predictor,
        value=predictor,
        outcome=name,
        family=fn,
        mean=mean,
    )


def prediction() -> Prediction | None:
    """None in a fit; while predicting, the draw's key and the number of rows.

    NumPyro's own `Predictive` is known by its mask; it tells no number of rows.
    """
    return announce(
        "prediction", lambda: Prediction(random_key(), None) if masked() else None
    )


def scoped(name: str) -> str:
    """A name as the scopes that surround this call change it."""
    for handler in reversed(_PYRO_STACK):
        if isinstance(handler, numpyro.handlers.scope):
            name = f"{handler.prefix}{handler.divider}{name}"
    return name


class Unlearned(ValueError):
    """What a layer learns from the training data was asked for where it cannot be."""


def remember(name: str, learn: Callable[[np.ndarray], Any], data: Any) -> Any:
    """`learn(data)`, from the training rows once: knots, centres, scales of columns.

    A fit learns it from all rows, before anything runs, and keeps it for its minibatches
    and predictions. Without a handler that keeps it, it is learned from the data at
    hand, which raises where these are traced or are those of a prediction.

    Scopes prefix the name, as they do a site's.

    Raises: Unlearned, a ValueError.
    """
    name = scoped(name)
    # not a message: blocks, which hide sites, would hide what is no site
    memories = [h.memory for h in _PYRO_STACK if hasattr(h, "memory")]
    for memory in reversed(memories):
        if name in memory.known:
            value = memory.values[name]
            break
    else:
        value = _learned(name, learn, data)
    for memory in memories:
        memory.keep(name, value)
    return value


def _learned(name: str, learn: Callable[[np.ndarray], Any], data: Any) -> Any:
    if prediction() is not None:
        why = "and this is a prediction without it: it would come from other rows"
    elif isinstance(data, jax.core.Tracer):
        why = "whose numbers are not known inside a compiled function"
    else:
        return learn(np.asarray(data))
    raise Unlearned(
        f"{name!r} is learned from the training data, {why}. Use lamina.fit and its "
        "posterior, or run the model under lamina.handlers.remembering(model, values), "
        "with the values that lamina.handlers.learn(model, data) finds in the training "
        "data."
    )


def masked() -> bool:
    """Whether the whole model is masked, as `numpyro.get_mask` finds out."""
    question = Announcement(
        type="inspect", fn=lambda: True, args=(), kwargs={}, value=None, mask=None
    )
    return apply_stack(question)["mask"] is False


def random_key() -> Array | None:
    """`numpyro.prng_key`: a key from the seed handler, or None without one."""
    question = Announcement(
        type="prng_key",
        fn=lambda rng_key: rng_key,
        args=(),
        kwargs={"rng_key": None},
        value=None,
    )
    return apply_stack(question)["value"]


def plates() -> list[CondIndepStackFrame]:
    """The plates that a sample site would find itself in here."""
    return [
        CondIndepStackFrame(handler.name, handler.dim, handler.subsample_size)
        for handler in _PYRO_STACK
        if isinstance(handler, numpyro.plate)
    ]


def row_factor(name: str, log_factor: Array) -> None:
    r"""Add a log probability that is a sum over rows, as `numpyro.factor` adds one.

    In a minibatch it is weighted by N / B, as observed rows are, so that its
    expectation is the whole data's; `numpyro.factor` is left alone there.

    Shapes: `log_factor` (n,), or any shape that sums over rows.
    """
    unit = Unit(log_factor)
    numpyro.sample(
        name,
        unit,
        obs=unit.sample(None),
        infer={"is_auxiliary": True, ROW_FACTOR: True},
    )
