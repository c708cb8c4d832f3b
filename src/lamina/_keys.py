"""Random keys from seeds, and seeds from keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from lamina._typing import Array, Seed


def as_key(seed: Seed) -> Array:
    """A JAX key from an int or a key."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer | jax.Array):
        raise TypeError(f"seed is {seed!r}; give an int or a JAX random key.")
    return random.key(int(seed)) if isinstance(seed, int | np.integer) else seed


def as_int(key: Array) -> int:
    """A number for NumPy's generators from a JAX key."""
    return int(random.bits(key, dtype=jnp.uint32))
