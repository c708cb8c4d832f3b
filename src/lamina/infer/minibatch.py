"""The order in which minibatches take rows: a pure function of seed and step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lamina._typing import Array

FIRST_SHUFFLE = 2**63  # past every epoch


@dataclass(frozen=True)
class BlockOrder:
    """Batches of `batch_size` out of `num_rows`, in a fresh order every epoch.

    The rows are shuffled once on the host. Every epoch then permutes blocks of `width`
    neighbouring rows, counted from a random row around a circle, so that each epoch drops
    a different tail. Gathering blocks costs far less than gathering rows.
    """

    num_rows: int
    batch_size: int
    seed: int

    @functools.cached_property
    def width(self) -> int:
        """Rows in a block: a divisor of the batch, near a quarter of it."""
        most = max(self.batch_size // 4, 1)
        return max(w for w in range(1, most + 1) if self.batch_size % w == 0)

    @property
    def blocks(self) -> int:
        """Blocks in a batch."""
        return self.batch_size // self.width

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return (self.num_rows // self.width) // self.blocks

    def shuffle(self, rows: Mapping[str, Any]) -> dict[str, Array]:
        """Every array in one random order, its first block repeated behind its last."""
        order = self._random(FIRST_SHUFFLE).permutation(self.num_rows)
        order = np.concatenate([order, order[: self.width - 1]])
        return {
            k: jnp.asarray(np.take(np.asarray(v), order, 0)) for k, v in rows.items()
        }

    def starts(self, first_step: int, steps: int) -> np.ndarray:
        """Where each block of each batch starts in the shuffled rows: (steps, blocks)."""
        wanted = np.arange(first_step, first_step + steps)
        found = np.empty((steps, self.blocks), np.int32)
        for epoch in np.unique(wanted // self.batches):
            here = wanted // self.batches == epoch
            found[here] = _epoch(self, int(epoch))[wanted[here] % self.batches]
        return found

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(
            np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        )


@functools.lru_cache(maxsize=2)
def _epoch(order: BlockOrder, epoch: int) -> np.ndarray:
    """The block starts of one epoch, a row of them for each batch."""
    random = order._random(epoch)
    offset = random.integers(order.num_rows)
    blocks = random.permutation(order.num_rows // order.width)
    used = blocks[: order.batches * order.blocks].reshape(order.batches, order.blocks)
    return ((offset + used * order.width) % order.num_rows).astype(np.int32)


def take_blocks(
    rows: Mapping[str, Array], starts: Array, width: int
) -> dict[str, Array]:
    """The rows of the blocks that begin at `starts`, one after another."""

    def take(array: Array) -> Array:
        last = tuple(range(1, array.ndim + 1))
        picked = lax.gather(
            array,
            starts[:, None],
            lax.GatherDimensionNumbers(last, (), (0,)),
            slice_sizes=(width, *array.shape[1:]),
            mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
        )
        return picked.reshape(-1, *array.shape[1:])

    return {name: take(array) for name, array in rows.items()}
