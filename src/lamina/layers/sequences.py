"""Sequence layers: coefficients ordered in time, which forecasts go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpyro
from numpyro.distributions import Distribution, Uniform

from lamina._checks import allows
from lamina._typing import Array, Family, FrozenDict, Shape, show
from lamina.layers._sequence import BEFORE, Draw, SequenceForm
from lamina.layers._times import is_times, walk_at_times
from lamina.priors import family, sample_shaped
from lamina.processes import Autoregression, IntegratedWalk, Process, State, Walk

BETWEEN = FrozenDict(low=-1.0, high=1.0)


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

    Floating `x`, without `num_categories`, are times, at any distances: the c different
    ones are learned from the training rows, and a step over a gap $\delta$ is
    $\sqrt{\delta}\,\theta$, so that $\lambda$ is the standard deviation over one unit of
    time; the first step is over one. In a prediction, times between two of them are drawn
    by the Brownian bridge, and later ones go on.

    With `group=` in the call, each of `num_groups` groups has a walk of its own; all share
    $\lambda$. In a prediction codes past the table go on from the last level (and slope)
    by fresh steps at this draw's $\lambda$, so that forecasts spread with their distance,
    and a negative group is a group that was not fitted: `unseen` draws it a walk of its
    own ("draw"), adds nothing ("zero") or raises ("error").

    Shapes: `x` (n,) or (n, 1), and `group` alike, gives (n, m); the sites are
    `{name}.lmbda` () and `{name}.theta` (c, m), the steps, or (g, c, m) in groups; with
    `order=2` also `{name}.slope.lmbda` () and `{name}.slope.beta` (1, m), or (g, m).
    Units: $\theta$ and $\lambda$ are in units of the predictor, with `order=2` over an
    index; $\beta$ is in units of the predictor over an index.
    Raises: TypeError for codes that are not integers, ValueError for negative codes and,
    in a fit, for codes past the table; ValueError for times that are not finite, before
    the first, or too close to tell apart. `num_categories`, `embedding_dim` and
    `num_groups` are given once, in the constructor or the call.
    Source: Rue and Held (2005), Gaussian Markov Random Fields, sections 3.3 and 3.4;
    forecasts as in Durbin and Koopman (2012), Time Series Analysis by State Space Methods,
    chapters 2 and 3.
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
        counted = self.num_categories is not None or num_categories is not None
        if counted or not is_times(x):
            return super().__call__(
                name,
                x,
                num_categories,
                embedding_dim,
                group=group,
                num_groups=num_groups,
            )
        if self.order != 1:
            raise ValueError(
                f"{self.label(name)}: `x` holds floating times and `order` is 2, but steps "
                "over gaps of any length are known for order 1. Number evenly spaced times "
                "by integer codes, or use order=1."
            )
        m = self.size(name, "embedding_dim", embedding_dim)
        return walk_at_times(self, name, x, m, group, num_groups)

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
        return zero, draw(BEFORE, sample=lambda: self.slopes(name, shape)[0])


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
    Source: Rue and Held (2005), Gaussian Markov Random Fields, chapter 1; Box, Jenkins
    and Reinsel (2008), Time Series Analysis, chapter 3.
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
