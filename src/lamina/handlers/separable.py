"""A test on real rows: does each row's density depend on that row alone?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
