"""Stages of learning rates, and an optimizer that averages its iterates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer.svi import SVIState

from lamina._typing import Array
from lamina.infer.loop import MinibatchLoop
from lamina.infer.plateau import lower

DECAY = 0.3
"""of the learning rate from stage to stage"""
MOST_STAGES = 8
WINDOW_STEPS = 1000
WINDOW_EPOCHS = 10
"""what a loss is averaged over, at the least, before it is compared"""
AVERAGED_STEPS = 10_000
"""of the result's average, at the least"""
FEWEST_STEPS = 8
LEAST_FALL = 0.01
"""nats by which a loss has to fall to count"""


def require_steps(most: int) -> None:
    """Raise for fewer steps than the stages have parts."""
    if most < FEWEST_STEPS:
        raise ValueError(
            f"num_steps is {most}, but the stages need {FEWEST_STEPS} at the least. Give "
            "more, or an `optimizer` of your own, which runs without stages."
        )


class Stages:
    """Stages of falling learning rates until none lowers the loss, then an average."""

    def __init__(
        self, loop: MinibatchLoop, rate: float, most: int, epochs: int, bar: Any
    ) -> None:
        self.loop, self.rate, self.most, self.bar = loop, rate, most, bar
        self.epoch = 1 if loop.full else loop.order.batches
        window = max(WINDOW_STEPS, 0 if loop.full else (WINDOW_EPOCHS + 1) * self.epoch)
        average = 0 if loop.full else epochs * self.epoch
        grid = loop.grid if most >= 16 * loop.grid else 1
        self.window = _multiple(grid, min(window, most // 8))
        self.average = _multiple(grid, min(max(AVERAGED_STEPS, average), most // 2))
        self.losses: list[np.ndarray] = []
        self.start: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return sum(map(len, self.losses))

    @property
    def spent(self) -> bool:
        """Whether another window would leave too few steps for the end."""
        return self.steps + 3 * self.window + self.average > self.most

    def __call__(self, state: SVIState) -> tuple[SVIState, np.ndarray, tuple[str, ...]]:
        level: np.ndarray | None = None
        settled, stage = False, 0
        while True:
            state = with_optimizer_state(state, at_rate(self.rate * DECAY**stage))
            state, now = self.plateau(state)
            if level is not None:
                settled = not lower(level, now, 2.0, LEAST_FALL)
            level = now
            if settled or self.spent or stage == MOST_STAGES:
                break
            stage += 1
        if settled:  # the rate before was as good, and forgets its start sooner
            coarser = at_rate(self.rate * DECAY ** (stage - 1))
            state, _ = self.go(with_optimizer_state(state, coarser), self.window)
        state = with_optimizer_state(state, start_average)
        state, _ = self.go(state, self.average)
        notes: tuple[str, ...] = ()
        assert self.start is not None
        # of many windows, some fall by a few standard errors of their noise
        if settled and not lower(self.start, level, 4.0, LEAST_FALL):
            notes = (
                "the loss never fell measurably from where it started: unless that was an "
                f"optimum, learning_rate={self.rate} is too small (the default is 0.05).",
            )
        elif not settled:
            notes = (
                f"the loss was still falling after {self.steps} steps: raise num_steps, "
                "standardise the data, or try a larger learning_rate.",
            )
        self.bar.total = self.steps
        return state, np.concatenate(self.losses), notes

    def plateau(self, state: SVIState) -> tuple[SVIState, np.ndarray]:
        """Go on at one rate until the loss falls no more: its last window of losses."""
        state, before = self.go(state, self.window)
        if self.start is None:
            self.start = before
        while True:
            state, after = self.go(state, self.window)
            if self.spent or not lower(before, after, 1.0, LEAST_FALL):
                return state, after
            before = after

    def go(self, state: SVIState, steps: int) -> tuple[SVIState, np.ndarray]:
        state, new = self.loop.advance(state, steps)
        first = self.steps
        self.losses.append(new)
        self.bar.set_postfix_str(f"loss {new.mean():.6g}", refresh=False)
        self.bar.update(len(new))
        return state, epoch_means(new, first, self.epoch)


def epoch_means(losses: np.ndarray, first_step: int, epoch: int) -> np.ndarray:
    """The mean loss of each whole epoch, in which the noise of picking rows cancels."""
    skip = -first_step % epoch
    whole = (len(losses) - skip) // epoch
    if whole < 2:
        return losses
    return losses[skip : skip + whole * epoch].reshape(whole, epoch).mean(axis=1)


def _multiple(grid: int, steps: int) -> int:
    return grid * -(-steps // grid)


class Averaged(NamedTuple):
    """An optimizer's state, with the running average of the parameters."""

    inner: Any
    average: Any
    averaged_steps: Array


def at_rate(learning_rate: float, **others: float) -> Callable[[Averaged], Averaged]:
    """A change of the optimizer's state to another learning rate."""

    def change(state: Averaged) -> Averaged:
        known = state.inner.hyperparams
        wanted = {"learning_rate": learning_rate, **others}
        new = {k: jnp.full_like(known[k], v) for k, v in wanted.items()}
        inner = state.inner._replace(hyperparams={**known, **new})
        return state._replace(inner=inner)

    return change


def start_average(state: Averaged) -> Averaged:
    """A change of the optimizer's state to an average that starts over."""
    return state._replace(averaged_steps=jnp.zeros_like(state.averaged_steps))


def averaged(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, keeping the mean of all parameters since the average was started."""

    def init(params: Any) -> Averaged:
        copy = jax.tree.map(jnp.array, params)
        return Averaged(inner.init(params), copy, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: Averaged, params: Any = None) -> tuple[Any, Averaged]:
        updates, after = inner.update(grads, state.inner, params)
        count = state.averaged_steps + 1
        average = jax.tree.map(
            lambda a, p, u: a + (p + u - a) / count, state.average, params, updates
        )
        return updates, Averaged(after, average, count)

    return optax.GradientTransformation(init, update)


def optimizer_state(state: SVIState) -> Averaged:
    """The averaging optimizer's state inside an SVI state."""
    return state.optim_state[1][1]


def with_optimizer_state(
    state: SVIState, change: Callable[[Averaged], Averaged]
) -> SVIState:
    """The SVI state with its optimizer's state changed."""
    step, (params, inner) = state.optim_state
    return state._replace(optim_state=(step, (params, change(inner))))
