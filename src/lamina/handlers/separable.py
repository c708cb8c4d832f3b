"""Tests on real rows: does each row's density depend on that row alone?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from lamina._typing import Array
from lamina.handlers.rows import entries_by_row

FEWEST_ROWS, MOST_ROWS = 64, 4096


def require_separate_rows(
    call: Callable[[Mapping[str, Any]], Any], rows: Mapping[str, Any], batch_size: int
) -> None:
    """Raise where rows change one another's density, so that no minibatch stands for all.

    Some random rows are scored twice, at the same latent values, the second time in other
    places and half of them in other company. A lagged column, a mean taken inside the
    model, or a table cut up as if it had rows shows as a density that changed.

    Raises: ValueError naming the site.
    """
    n = len(next(iter(rows.values())))
    m = min(max(batch_size, FEWEST_ROWS), MOST_ROWS, 2 * n // 3)
    if m < 2:
        return
    random = np.random.default_rng(0)
    picked = random.permutation(n)[: m + m // 2]
    first, others = picked[:m], picked[m:]
    kept = random.permutation(m)[: m - len(others)]
    second = np.concatenate([first[kept], others])
    order = random.permutation(m)
    second = second[order]
    place = np.argsort(order)[: len(kept)]

    @jax.jit
    def densities(rows: Mapping[str, Array]) -> dict[str, Array]:
        with handlers.block(), handlers.trace() as sites, handlers.seed(rng_seed=0):
            call(rows)
        latent = (s for s in sites.values() if s["type"] == "sample")
        own = any(m in s["value"].shape for s in latent if not s["is_observed"])
        # values drawn for each row would differ between the two times
        return {} if own else entries_by_row(sites, m)

    try:
        before, after = (
            densities({k: jnp.asarray(v)[at] for k, v in rows.items()})
            for at in (first, second)
        )
    except Exception:
        if m == batch_size:
            raise
        return  # a model that runs at its own number of rows only
    for name in before:
        a, b = np.asarray(before[name])[kept], np.asarray(after[name])[place]
        same = np.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
        if not same.all():
            raise ValueError(
                f"site {name!r}: the density of a row changes with the rows beside it "
                f"({int((~same).sum())} of {same.size} do), so a minibatch does not "
                "stand for all rows. A lag or a mean is taken inside the model, or an "
                "array that is no row data was cut up. Compute lags and means before "
                "the fit and pass them as columns, name such an array in `constants`, "
                "or use all rows at once (batch_size as large as the data)."
            )


def telling_rows(rows: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    """Up to eight rows, in order, that differ as much as the data do: 2, 4 or 8."""
    score, random_state = np.zeros(n), np.random.default_rng(0)
    for value in rows.values():
        columns = value.reshape(n, -1).astype(float)
        sd = columns.std(axis=0)
        weights = random_state.normal(size=len(sd)) / np.where(sd > 0, sd, 1.0)
        score += (columns - columns.mean(axis=0)) @ weights
    m = min(8, 2 ** int(math.log2(n)))
    return np.sort(
        np.argsort(score, kind="stable")[np.linspace(0, n - 1, m).astype(int)]
    )


def halves(m: int) -> Iterator[np.ndarray]:
    """Halves of m rows, split by all Walsh functions.

    These span every contrast of the rows, so what depends on their mean, or on any other
    of their linear summaries, cannot be the same in all halves.
    """
    for k in range(1, m):
        parity = np.array([(k & row).bit_count() % 2 for row in range(m)])
        yield np.flatnonzero(parity == 0)
        yield np.flatnonzero(parity == 1)
