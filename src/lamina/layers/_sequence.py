"""`SequenceForm`: steps in order, and how a prediction goes on from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamina._checks import Remedies, as_codes, concrete
from lamina._typing import Array, Shape
from lamina.effects import Prediction, prediction, product, term
from lamina.layers._base import AdaptiveForm
from lamina.layers._fresh import (
    RememberSites,
    Values,
    another,
    folded,
    key_of,
    over_replicates,
    sampled_again,
)
from lamina.layers._levels import Unseen
from lamina.processes import Process, State, at_group, going_on
from lamina.products import lookup

FURTHEST = 100_000
"""Steps past the last fitted index that a forecast may go."""
OUTSIDE = Remedies(
    past="raise `num_categories`, or keep the row for a prediction, which goes on past "
    "the table",
    negative="A sequence starts at index 0 and goes on past its last one, but nothing is "
    "known of what came before: number its steps in order, those of fitted rows from 0",
)
BEFORE = -1
"""The index before the first."""
Draw = Callable[..., Array]


@dataclass(frozen=True, repr=False, eq=False)
class SequenceForm(AdaptiveForm):
    """A table of steps in order, or one for each group, that forecasts go on from."""

    _: KW_ONLY
    num_categories: int | None = None
    embedding_dim: int | None = None
    num_groups: int | None = None
    unseen: Unseen = "draw"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unseen not in ("draw", "zero", "error"):
            raise ValueError(
                f"{type(self).__name__}: `unseen` is {self.unseen!r}; for groups that "
                "were not fitted it is 'draw' (a fresh sequence from the prior), 'zero' "
                "or 'error'."
            )

    def process(self, name: str, groups: Shape, m: int) -> Process:
        """How steps move the state, with what is learned beside them."""
        raise NotImplementedError

    def outset(self, name: str, zero: Array, rows: int, draw: Draw) -> State:
        """The state of w groups that were not fitted, before their first index.

        `zero` is (w, m). `draw(index)` gives their steps (w, m) into an index, and
        `draw(index, sample=...)` gives `sample()` anew for each; what it samples for `rows`
        groups is told from what was fitted.
        """
        raise NotImplementedError

    def __call__(
        self,
        name: str,
        x: Any,
        num_categories: int | None = None,
        embedding_dim: int | None = None,
        *,
        group: Any = None,
        num_groups: int | None = None,
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        m = self.size(name, "embedding_dim", embedding_dim)
        asked = prediction()
        ahead = 0 if asked is None else FURTHEST
        where = self.label(name)
        codes = as_codes(where, x, c, unseen=False, ahead=ahead, remedies=OUTSIDE)
        codes = codes.astype(jnp.int32)
        self.outside_rows(name, codes.shape[0])
        groups, lead = self.group_codes(name, group, num_groups, codes, asked)
        with RememberSites() as sites:
            steps = self.coefficients(name, (*lead, c, m), "theta", scale_shape=())
            process = self.process(name, lead, m)
        output = standing(codes, groups, process.path(steps))
        if asked is None or within(x, group, c):
            return term(name, output)
        key = key_of(self.label(name), asked.key, sites)
        later = self.ahead(name, key, steps, process, sites, codes, groups)
        new = codes >= c if groups is None else (codes >= c) | (groups < 0)
        return term(name, jnp.where(new[:, None], later, output))

    def group_codes(
        self,
        name: str,
        group: Any,
        num_groups: int | None,
        codes: Array,
        asked: Prediction | None,
    ) -> tuple[Array | None, Shape]:
        """The rows' groups as codes, and the axis that groups add to the table."""
        where = f"{self.label(name)}, groups"
        if group is None:
            if num_groups is not None or self.num_groups is not None:
                raise TypeError(
                    f"{where}: `num_groups` is given, but the codes of the groups are "
                    f"missing. Give them in the call: group=..."
                )
            return None, ()
        g = self.size(name, "num_groups", num_groups)
        allowed = asked is not None and self.unseen != "error"
        remedies = Remedies.of_table("num_groups")
        groups = as_codes(where, group, g, unseen=allowed, remedies=remedies)
        groups = groups.astype(jnp.int32)
        if groups.shape != codes.shape:
            raise ValueError(
                f"{where}: they have shape {groups.shape} and `x` has shape "
                f"{codes.shape}. Each row has one index of one group: give both the same "
                "number of rows."
            )
        return groups, (g,)

    def ahead(
        self,
        name: str,
        key: Array,
        steps: Array,
        process: Process,
        sites: RememberSites,
        codes: Array,
        groups: Array | None,
    ) -> Array:
        """Where rows past the table, or of groups that were not fitted, stand.

        Each step is drawn by group and index, so that every row and every chunk of rows
        that passes it takes the same.
        """
        lead = () if groups is None else steps.shape[-3:-2]
        c, m = steps.shape[-2:]

        def one(key: Array, known: Any) -> Array:
            steps, process, values = known

            draw = self.drawing(name, (*lead, c, m), key, values)
            rows = another(lead[0]) if lead else 1
            all_groups = jnp.arange(lead[0] if lead else 1)
            last = tuple(v if lead else v[None] for v in process.last(steps))
            of = jnp.zeros_like(codes) if groups is None else jnp.maximum(groups, 0)
            fitted = codes >= c
            if groups is not None:
                fitted &= (groups >= 0) & (groups < lead[0])
            found = going_on(
                process,
                last,
                c,
                lambda index: draw(all_groups, index),
                of,
                jnp.where(fitted, codes, -1),
                c + FURTHEST,
            )
            if groups is None:
                return found
            if self.unseen == "zero":
                return jnp.where((groups < 0)[:, None], 0.0, found)
            zero = jnp.zeros((codes.shape[0], m), steps.dtype)
            fresh = going_on(
                process,
                self.outset(name, zero, rows, partial(draw, groups)),
                0,
                lambda index: draw(groups, index),
                jnp.arange(codes.shape[0]),
                jnp.where(groups < 0, codes, -1),
                c + FURTHEST,
            )
            return jnp.where((groups < 0)[:, None], fresh, found)

        replicates = steps.shape[: steps.ndim - len(lead) - 2]
        return over_replicates(one, replicates, key, (steps, process, sites.values))

    def drawing(self, name: str, shape: Shape, key: Array, values: Values) -> Draw:
        """A function that draws a further step (w, m) for each of w groups.

        It takes the groups' codes and the numbers that tell this step from others, each
        one for all or one for each; `sample` draws something else than a step.
        """
        few = (*map(another, shape[:-1]), shape[-1])

        def step() -> Array:
            table = self.coefficients(name, few, "theta", scale_shape=())
            return table[(0,) * (len(few) - 1)]

        def draw(
            groups: Array, *numbers: Any, sample: Callable[[], Array] = step
        ) -> Array:
            each = [jnp.broadcast_to(k, groups.shape) for k in numbers]
            keys = jax.vmap(partial(folded, key))(groups, *each)
            return jax.vmap(lambda k: sampled_again(k, values, sample))(keys)

        return draw


def standing(codes: Array, groups: Array | None, path: Array) -> Array:
    """Where the path stands at each row's code, of its group where there are groups."""
    if groups is None:
        return product(lookup, codes, path)
    return product(at_group, codes, groups, path)


def within(x: Any, group: Any, c: int) -> bool:
    """Whether all codes are known and fitted, so that nothing need be drawn."""
    codes = concrete(x)
    groups = np.zeros(()) if group is None else concrete(group)
    if codes is None or groups is None:
        return False
    return bool((codes < c).all() and (groups >= 0).all())
