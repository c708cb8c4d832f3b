"""Sequence layers: coefficients ordered in time, which forecasts go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Distribution, Uniform

from lamina import effects
from lamina._checks import allows, as_codes, concrete
from lamina._typing import Array, Family, FrozenDict, Shape, show
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.layers._fresh import (
    another,
    folded,
    key_of,
    over_replicates,
    sampled_again,
)
from lamina.layers.groups import RememberSites, Unseen
from lamina.priors import family, sample_shaped
from lamina.processes import (
    Autoregression,
    IntegratedWalk,
    Process,
    State,
    Walk,
    at_group,
    going_on,
)
from lamina.products import lookup

FURTHEST = 100_000
"""Steps past the last fitted index that a forecast may go."""
LATER = "keep the row for a prediction, which goes on past the table"
BEFORE = -1
"""The index before the first."""
BETWEEN = FrozenDict(low=-1.0, high=1.0)
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
        `draw(index, sample)` gives `sample()` anew for each; what it samples for `rows`
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
        asked = effects.prediction()
        ahead = 0 if asked is None else FURTHEST
        where = self.label(name)
        codes = as_codes(where, x, c, unseen=False, ahead=ahead, past=LATER)
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
        asked: effects.Prediction | None,
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
        groups = as_codes(where, group, g, unseen=allowed).astype(jnp.int32)
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
        few = tuple(map(another, (*lead, c)))

        def one(key: Array, known: Any) -> Array:
            steps, process, values = known

            def step() -> Array:
                table = self.coefficients(name, (*few, m), "theta", scale_shape=())
                return table[(0,) * len(few)]

            def draw(
                groups: Array, index: Any, sample: Callable[[], Array] = step
            ) -> Array:
                keys = jax.vmap(lambda g: folded(key, g, index))(groups)
                return jax.vmap(lambda k: sampled_again(k, values, sample))(keys)

            all_groups = jnp.arange(lead[0] if lead else 1)
            last = tuple(v if lead else v[None] for v in process.last(steps))
            of = jnp.zeros_like(codes) if groups is None else jnp.maximum(groups, 0)
            fitted = codes >= c if groups is None else (codes >= c) & (groups >= 0)
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
                self.outset(name, zero, few[0], partial(draw, groups)),
                0,
                lambda index: draw(groups, index),
                jnp.arange(codes.shape[0]),
                jnp.where(groups < 0, codes, -1),
                c + FURTHEST,
            )
            return jnp.where((groups < 0)[:, None], fresh, found)

        replicates = steps.shape[: steps.ndim - len(lead) - 2]
        return over_replicates(one, replicates, key, (steps, process, sites.values))


@dataclass(frozen=True, repr=False, eq=False)
class RandomWalkLayer(SequenceForm):
    r"""A Gaussian random walk over ordered categories, of m independent coordinates.

    $$f_{nm} = \sum_{s \le c_n} \theta_{sm}, \qquad
      \theta_{sm} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    The first step is the walk's level at category 0, with the same prior as the others;
    an InterceptLayer beside the walk gives the level a prior of its own.

    With `order=2` the steps change the slope, and the slope before them is learned:

    $$f_{nm} = (c_n + 1)\,\beta_m + \sum_{s \le c_n} (c_n - s + 1)\,\theta_{sm}$$

    With `group=` in the call, each of `num_groups` groups has a walk of its own; all share
    $\lambda$. In a prediction codes past the table go on from the last level (and slope)
    by fresh steps at this draw's $\lambda$, so that forecasts spread with their distance,
    and a negative group is a group that was not fitted: `unseen` draws it a walk of its
    own ("draw"), adds nothing ("zero") or raises ("error").

    Shapes: integer `x` (n,) or (n, 1), and `group` alike, gives (n, m); the sites are
    `{name}.lmbda` () and `{name}.theta` (c, m), the steps, or (g, c, m) in groups; with
    `order=2` also `{name}.slope.lmbda` () and `{name}.slope.beta` (1, m), or (g, m).
    Units: $\theta$ and $\lambda$ are in units of the predictor, with `order=2` over an
    index; $\beta$ is in units of the predictor over an index.
    Raises: TypeError for codes that are not integers, ValueError for negative codes and,
    in a fit, for codes past the table. `num_categories`, `embedding_dim` and `num_groups`
    are given once, in the constructor or the call.
    Source: Rue and Held (2005), Gaussian Markov Random Fields, sections 3.3.1 and 3.4.1;
    forecasts as in Durbin and Koopman (2012), Time Series Analysis by State Space Methods,
    sections 2.1 and 3.2.1.
    """

    _: KW_ONLY
    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.order, bool) or self.order not in (1, 2):
            raise ValueError(
                f"RandomWalkLayer: `order` is {self.order!r}; it is 1 (steps change the "
                "level) or 2 (steps change the slope)."
            )

    def process(self, name: str, groups: Shape, m: int) -> Process:
        if self.order == 1:
            return Walk()
        slope = self.slopes(name, (*(groups or (1,)), m))
        return IntegratedWalk(slope if groups else slope[..., 0, :])

    def slopes(self, name: str, shape: Shape) -> Array:
        """The slope before the first index, with a scale of its own."""
        return self.coefficients(f"{name}.slope", shape, scale_shape=())

    def outset(self, name: str, zero: Array, rows: int, draw: Draw) -> State:
        if self.order == 1:
            return (zero,)
        shape = (rows, zero.shape[1])
        return zero, draw(BEFORE, lambda: self.slopes(name, shape)[0])


@dataclass(frozen=True, repr=False, eq=False)
class AR1Layer(SequenceForm):
    r"""A stationary autoregression over ordered categories, of m independent coordinates.

    $$f_{0m} = \theta_{0m}, \quad
      f_{tm} = \rho\,f_{t-1,m} + \sqrt{1 - \rho^2}\,\theta_{tm}, \qquad
      \theta_{tm} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1), \quad \rho \sim \text{Uniform}(-1, 1)$$

    $\lambda$ is the marginal standard deviation, at every index, so that
    $\text{Cov}(f_s, f_t) = \lambda^2 \rho^{|s - t|}$; that of an innovation is
    $\lambda\sqrt{1 - \rho^2}$. `rho_dist` is a distribution class with `rho_kwargs`, or a
    ready distribution, on (-1, 1). $\rho$ and $\lambda$ are shared by coordinates and
    groups.

    In a prediction codes past the table go on from the last level, reverting to zero, and
    groups are as in RandomWalkLayer.

    Shapes: integer `x` (n,) or (n, 1), and `group` alike, gives (n, m); the sites are
    `{name}.lmbda` (), `{name}.theta` (c, m), or (g, c, m) in groups, and `{name}.rho` ().
    Units: $\theta$ and $\lambda$ are in units of the predictor; $\rho$ is the correlation
    from one index to the next.
    Raises: as RandomWalkLayer; ValueError for a prior of $\rho$ that leaves (-1, 1).
    Source: Rue and Held (2005), Gaussian Markov Random Fields, section 1.1.1; Box,
    Jenkins and Reinsel (2008), Time Series Analysis, section 3.2.3.
    """

    _: KW_ONLY
    rho_dist: Family = Uniform
    rho_kwargs: Mapping[str, Any] = BETWEEN

    def __post_init__(self) -> None:
        super().__post_init__()
        with numpyro.validation_enabled():
            fn = self._correlation()
        if allows(fn, 1.01) or allows(fn, -1.01):
            raise ValueError(
                f"rho_dist: {show(self.rho_dist)} allows values beyond -1 and 1, where the "
                "process is not stationary. Choose a distribution on (-1, 1), such as "
                "Uniform(-1, 1) or TruncatedNormal(0.5, 0.3, low=-1, high=1)."
            )

    def _correlation(self) -> Distribution:
        return family("rho_dist", self.rho_dist, self.rho_kwargs, BETWEEN)

    def process(self, name: str, groups: Shape, m: int) -> Process:
        return Autoregression(sample_shaped(f"{name}.rho", self._correlation(), ()))

    def outset(self, name: str, zero: Array, rows: int, draw: Draw) -> State:
        return (draw(BEFORE),)  # a step has the variance of a level


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
