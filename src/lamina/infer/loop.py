"""Steps of an SVI object on minibatches, compiled in chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from numpyro.infer import SVI
from numpyro.infer.svi import SVIState

from lamina._checks import positive_size
from lamina._typing import Array, arrays_apart
from lamina.handlers.preflight import require_scored_once
from lamina.handlers.rows import num_rows_of
from lamina.handlers.separable import require_separate_rows
from lamina.infer.elbo import (
    LocalReparameterization_ELBO,
    for_batches,
    require_weightable,
    weigh_rows,
)
from lamina.infer.hoist import hoist
from lamina.infer.minibatch import BlockOrder, take_blocks

ROWS_BETWEEN_CHECKS = 2_097_152
RESERVED = {
    "forward_mode_differentiation",
    "guide",
    "init_params",
    "model",
    "param_map",
    "rng_key",
    "self",
    "svi_state",
}
"""Arguments that NumPyro's own functions take beside the model's."""


class MinibatchLoop:
    """Steps of an SVI object on minibatches, compiled in chunks.

    A step is a function of the state, which counts the steps before it, so the result
    does not depend on how the steps are cut into chunks or runs.
    """

    def __init__(
        self,
        svi: SVI,
        rows: Mapping[str, Any],
        *,
        constants: Mapping[str, Any] | None = None,
        batch_size: int,
        seed: int,
        chunk_steps: int | None = None,
    ) -> None:
        positive_size("minibatches", "batch_size", batch_size)
        if chunk_steps is not None:
            positive_size("minibatches", "chunk_steps", chunk_steps)
        _refuse_reserved({**rows, **(constants or {})})
        rows = {name: row_array(name, value) for name, value in rows.items()}
        self.num_rows = num_rows_of(rows)
        if self.num_rows == 0:
            raise ValueError("the data have no rows, so there is nothing to fit.")
        self.batch_size = min(batch_size, self.num_rows)
        self.order = BlockOrder(self.num_rows, self.batch_size, seed)
        self.full = self.batch_size == self.num_rows
        self.grid = int(np.clip(ROWS_BETWEEN_CHECKS // self.batch_size, 20, 500))
        self.chunk_steps = chunk_steps or self.grid
        self.user_svi = svi
        arrays, others = arrays_apart(constants or {})
        self._arrays, self._others = arrays, others
        self._rows = (
            {k: jnp.asarray(v) for k, v in rows.items()}
            if self.full
            else self.order.shuffle(rows)
        )
        self._chunk: Callable[..., Any] | None = None

    def init(self, key: Array, **options: Any) -> SVIState:
        """The first state, made from one batch."""
        return self.user_svi.init(key, **self._batch(), **self._constants(), **options)

    def advance(self, state: SVIState, steps: int) -> tuple[SVIState, np.ndarray]:
        """`steps` further steps: the new state and their losses."""
        first, done, losses = int(state.optim_state[0]), 0, []
        if self._chunk is None:
            self._chunk, self._ahead = self._compile(state)
        while done < steps:
            take = min(self.chunk_steps, steps - done)
            begin, starts = self._starts(first + done, take)
            end = np.int32(begin + take)
            state, found = self._chunk(
                state, self._rows, self._arrays, starts, begin, end
            )
            losses.append((found, begin, end))
            done += take
        # read once all chunks are under way
        new = np.concatenate([np.asarray(some)[a:b] for some, a, b in losses])
        _require_finite(new, first)
        return state, new

    def _starts(self, first: int, steps: int) -> tuple[np.int32, np.ndarray]:
        """Where the blocks of some steps start, in groups that `_ahead` steps share.

        Groups begin at multiples of `_ahead`, so `first` may lie inside one. Its place,
        and as many groups as any chunk can touch: (groups, ahead, blocks).
        """
        ahead = self._ahead
        begin, groups = first % ahead, (self.chunk_steps + ahead - 2) // ahead + 1
        wanted = [np.zeros((1, 1), np.int32)] if self.full else []
        wanted = wanted or [self.order.starts(first, steps)]
        found = np.zeros((groups * ahead, wanted[0].shape[1]), np.int32)
        found[begin : begin + steps] = wanted[0]
        return np.int32(begin), found.reshape(groups, ahead, -1)

    def _batch(self) -> dict[str, Array]:
        return {k: v[: self.batch_size] for k, v in self._rows.items()}

    def _constants(self) -> dict[str, Any]:
        return {**self._arrays, **self._others}

    def _weigh(self, params: Mapping[str, Array]) -> SVI:
        """The user's SVI with its rows weighted, once, and its sum in order."""
        svi = copy.copy(self.user_svi)
        svi.loss = for_batches(svi.loss, self.num_rows, self.batch_size)
        fixed = {**self._constants(), **svi.static_kwargs}
        require_scored_once(svi.model, {**self._batch(), **fixed})
        if isinstance(svi.loss, LocalReparameterization_ELBO):
            data = {**self._batch(), **fixed}
            svi.loss.prepare(params, svi.model, svi.guide, **data)
        if self.full:
            return svi
        require_weightable(svi.loss)
        if getattr(svi.loss, "weighs_rows", False):
            return svi
        require_separate_rows(
            lambda rows: self.user_svi.model(**rows, **fixed),
            {k: v[: self.num_rows] for k, v in self._rows.items()},
            self.batch_size,
        )
        svi.model, svi.guide = weigh_rows(
            svi.model,
            svi.guide,
            lambda fn, rows: fn(**rows, **fixed),
            self._batch(),
            self.num_rows,
        )
        return svi

    def _compile(self, state: SVIState) -> tuple[Callable[..., Any], int]:
        """A chunk of steps, compiled once for any number of them, and its groups' size.

        A group is `ahead` steps whose noise is drawn together. Groups begin at multiples
        of `ahead` and draw all their noise even where few of their steps are wanted: the
        last digit of a draw depends on its place among those drawn with it.
        """
        params = self.user_svi.get_params(state)
        svi, width, full = self._weigh(params), self.order.width, self.full
        others = {**self._others, **svi.static_kwargs}

        def batch(rows: Mapping[str, Array], here: Array) -> Mapping[str, Array]:
            return rows if full else take_blocks(rows, here, width)

        def loss(key: Array, params: Any, batch: Any, arrays: Any) -> Array:
            params = svi.constrain_fn(params)
            data = {**batch, **arrays, **others}
            return svi.loss.loss(key, params, svi.model, svi.guide, **data)

        if state.mutable_state is None:
            free = svi.optim.get_params(state.optim_state)
            parts = hoist(loss, state.rng_key, free, self._batch(), self._arrays)
            ahead = parts.steps_ahead(self.grid)
        else:  # the steps pass more on than their parameters: one after another
            parts, ahead = None, 1

        def chunk(
            state: SVIState,
            rows: Mapping[str, Array],
            arrays: Mapping[str, Array],
            starts: Array,
            begin: Array,
            end: Array,
        ) -> tuple[SVIState, Array]:
            def group(number: Array, carry: Any) -> Any:
                assert parts is not None
                state, losses = carry
                here, base = starts[number], number * ahead
                live = (base + jnp.arange(ahead) >= begin) & (
                    base + jnp.arange(ahead) < end
                )
                rng_key, keys = lax.scan(_next_key, state.rng_key, live)
                noise = jax.vmap(parts.noise)(keys)

                def step(i: Array, carry: Any) -> Any:
                    assert parts is not None
                    optim, losses = carry
                    args = (batch(rows, here[i]), arrays)
                    drawn = [values[i] for values in noise]
                    (value, _), optim = svi.optim.eval_and_update(
                        lambda params: (parts.rest(drawn, params, *args), None), optim
                    )
                    return optim, losses.at[base + i].set(value)

                first, last = (
                    jnp.maximum(begin - base, 0),
                    jnp.minimum(end - base, ahead),
                )
                optim, losses = lax.fori_loop(
                    first, last, step, (state.optim_state, losses)
                )
                return SVIState(optim, None, rng_key), losses

            def step_alone(number: Array, carry: Any) -> Any:
                state, losses = carry
                data = {**batch(rows, starts[number, 0]), **arrays, **self._others}
                state, value = svi.update(state, **data)
                return state, losses.at[number].set(value)

            losses = jnp.zeros(starts.shape[0] * ahead, jnp.result_type(float))
            body = step_alone if parts is None else group
            return lax.fori_loop(0, -(-end // ahead), body, (state, losses))

        # not donated: after Ctrl-C the state from before the chunk is what there is
        return jax.jit(chunk), ahead


def _next_key(key: Array, live: Array) -> tuple[Array, Array]:
    """The key of the step after, and of this one, as `SVI.update` splits them."""
    after, now = random.split(key)
    return jnp.where(live, after, key), now


def _require_finite(losses: np.ndarray, first_step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise FloatingPointError(
            f"the loss is {losses[bad[0]]} at step {first_step + int(bad[0])}. Likely "
            "causes: a learning rate that is too large (try a tenth), data on very "
            "different scales (standardise them), NaN or a category code outside its "
            "table in the data, or an outcome outside its distribution's support."
        )


def row_array(name: str, value: Any) -> Any:
    """The numbers of a data argument, as an array with an entry for each row."""
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.ndim == 0:
        raise ValueError(
            f"`{name}` is {value!r}, a single value, but every data argument has rows. "
            "Pass it in constants={...}."
        )
    if not isinstance(array, jax.Array) and array.dtype.kind not in "biufc":
        raise TypeError(
            f"`{name}` holds {array.dtype}, not numbers. Encode it first, for example "
            "categories by np.unique(..., return_inverse=True)."
        )
    return array


def _refuse_reserved(arguments: Mapping[str, Any]) -> None:
    both = sorted(RESERVED & set(arguments))
    if both:
        raise ValueError(
            f"the model's arguments {both} have names that NumPyro's SVI keeps for "
            "itself, so they would not reach the model. Rename them."
        )
