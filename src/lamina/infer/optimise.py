"""Point estimates: the posterior mode and the maximum of the likelihood, by L-BFGS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import scale_and_mask
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from lamina._checks import positive_size
from lamina._typing import Array, Model, arrays_apart
from lamina.handlers.centering import location_scale_sites
from lamina.handlers.preflight import inspect_model, require_whole_rows
from lamina.infer.fitted import Fitted


def fit_map(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    key: Array,
    num_steps: int = 2000,
    tolerance: float = 1e-6,
) -> Fitted:
    r"""The posterior mode, $\arg\max_z \log p(y \mid z) + \log p(z)$, in one draw.

    The density is that of the sites as they are written, on their constrained space: no
    Jacobian, as NumPyro's AutoDelta has it. A hierarchical model, whose scales are
    estimated with the coefficients they scale, has no mode; what is found says so.

    Source: Nocedal and Wright (2006), Numerical Optimization, algorithm 7.5.
    """
    found = _maximise(model, rows, constants, key, num_steps, tolerance, prior=True)
    hierarchical = sorted(location_scale_sites(model, **rows, **constants))
    if hierarchical:
        note = (
            f"{hierarchical} have scales that are estimated with them: their joint density "
            "grows without bound as a scale goes to zero, so this is a local mode at "
            "best. Use method='vi' or 'mcmc', or known scales."
        )
        found = replace(found, notes=(*found.notes, note))
    return found


def fit_mle(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any],
    *,
    key: Array,
    num_steps: int = 2000,
    tolerance: float = 1e-6,
) -> Fitted:
    r"""The maximum of the likelihood, $\arg\max_z \log p(y \mid z)$, in one draw.

    Priors count for nothing but their supports; sites that only priors hold, such as the
    scale of other coefficients, have no estimate and are left out. `numpyro.param` sites
    are maximised too.

    Source: Nocedal and Wright (2006), Numerical Optimization, algorithm 7.5.
    """
    return _maximise(model, rows, constants, key, num_steps, tolerance, prior=False)


class _Constrain(Messenger):
    """Puts unconstrained values, constrained to each site's support, in its place."""

    def __init__(self, fn: Model, values: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.values = values

    def process_message(self, message: Any) -> None:
        name = message.get("name", "")
        if name not in self.values:
            return
        if message["type"] == "param":
            support = message["kwargs"].get("constraint", constraints.real)
        elif message["type"] == "sample" and not message["is_observed"]:
            support = message["fn"].support
        else:
            return
        message["value"] = jax.tree.map(biject_to(support), self.values[name])


def _maximise(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any],
    key: Array,
    num_steps: int,
    tolerance: float,
    *,
    prior: bool,
) -> Fitted:
    positive_size("optimisation", "num_steps", num_steps)
    require_whole_rows("an optimiser", inspect_model(model, {**rows, **constants}))
    arrays, others = arrays_apart({**rows, **constants})
    size = len(next(iter(rows.values())))

    def sites_at(values: Mapping[str, Array], arrays: Mapping[str, Array]) -> Any:
        constrained = _Constrain(handlers.seed(model, 0), values)
        return handlers.trace(constrained).get_trace(**arrays, **others)

    def objective(values: Mapping[str, Array], arrays: Mapping[str, Array]) -> Array:
        total = jnp.zeros(())
        for site in sites_at(values, arrays).values():
            if site["type"] == "sample" and (prior or site["is_observed"]):
                terms = site["fn"].log_prob(site["value"])
                total += scale_and_mask(terms, site["scale"]).sum()
        return -total / size

    start = _start(lambda: sites_at({}, arrays), key)
    unread = () if prior else _unread(lambda values: objective(values, arrays), start)
    start = {k: v for k, v in start.items() if k not in unread}
    if not start:
        raise ValueError(
            f"the likelihood depends on none of {list(unread)}, so there is nothing to "
            "estimate. Let the outcome's distribution use them."
        )
    solver = optax.lbfgs(memory_size=20)

    def gradient_size(grad: Any) -> Array:
        return jnp.max(jnp.array([jnp.abs(g).max() for g in jax.tree.leaves(grad)]))

    @jax.jit
    def solve(values: Any, arrays: Mapping[str, Array]) -> tuple[Any, ...]:
        def fn(values: Any) -> Array:
            return objective(values, arrays)

        value_and_grad = optax.value_and_grad_from_state(fn)

        def unfinished(carry: Any) -> Array:
            steps, _, _, slope = carry
            return (steps < num_steps) & (slope > tolerance)

        def step(carry: Any) -> Any:
            steps, values, state, _ = carry
            value, grad = value_and_grad(values, state=state)
            updates, state = solver.update(
                grad, state, values, value=value, grad=grad, value_fn=fn
            )
            slope = gradient_size(grad)
            return steps + 1, optax.apply_updates(values, updates), state, slope

        first = (0, values, solver.init(values), jnp.inf)
        steps, values, _, _ = lax.while_loop(unfinished, step, first)
        loss, grad = jax.value_and_grad(fn)(values)
        return values, loss, gradient_size(grad), steps

    best, loss, slope, steps = solve(start, arrays)
    if not np.isfinite(float(loss)):
        raise FloatingPointError(
            f"the objective is {float(loss)}: it has no maximum (a likelihood can grow "
            "without bound, as a scale goes to zero), or the data are on very different "
            "scales. Use priors that keep scales away from zero, or standardise."
        )
    found = sites_at(best, arrays)
    draws = {
        k: np.asarray(site["value"])[None, None]
        for k, site in found.items()
        if site["type"] == "sample" and not site["is_observed"] and k not in unread
    }
    params = {k: site["value"] for k, site in found.items() if site["type"] == "param"}
    notes: tuple[str, ...] = ()
    if unread:
        notes = (
            f"the likelihood says nothing of {list(unread)}, which only priors hold, so "
            "they have no estimate and are left out.",
        )
    if float(slope) > 1e-3:
        notes += (
            f"the slope at the end is {float(slope):.2g} a row, not zero: the maximum "
            "may not be reached, or not exist. Raise num_steps or standardise the data.",
        )
    draws |= {
        k: np.asarray(v)[None, None]
        for k, v in params.items()
        if isinstance(v, jax.Array)  # and no tree of them, as a network's are
    }
    return Fitted(
        model=handlers.substitute(model, data=params),
        draws=draws,
        settings={"num_steps": int(steps), "loss": float(loss) * size},
        notes=notes,
    )


def _unread(objective: Any, values: Mapping[str, Array]) -> tuple[str, ...]:
    """The sites that an objective does not depend on."""
    reads = eval_provenance(
        lambda **named: objective(
            {name.removeprefix("site "): v for name, v in named.items()}
        ),
        **{f"site {name}": value for name, value in values.items()},
    )
    return tuple(name for name in values if f"site {name}" not in reads)


def _start(run: Any, key: Array) -> dict[str, Array]:
    """Small random unconstrained values for every latent site and parameter."""
    found = {}
    for name, site in run().items():
        if site["type"] == "param":
            support = site["kwargs"].get("constraint", constraints.real)
            free = biject_to(support).inv
            found[name] = jax.tree.map(
                lambda v, free=free: free(jnp.asarray(v, float)), site["value"]
            )
        elif site["type"] == "sample" and not site["is_observed"]:
            if site["fn"].support.is_discrete:
                raise ValueError(
                    f"site {name!r} is discrete, and the optimiser follows slopes. "
                    "Marginalise it, or use a sampler for discrete sites."
                )
            value = biject_to(site["fn"].support).inv(site["value"])
            key, here = random.split(key)
            found[name] = 0.1 * random.normal(here, jnp.shape(value), value.dtype)
    return found
