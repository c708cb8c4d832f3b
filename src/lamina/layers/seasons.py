"""Seasonal layers: what comes back with a period."""

from __future__ import annotations

import functools
import operator
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from lamina._checks import as_times, concrete, positive_number
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import SEVERAL, AdaptiveForm, each
from lamina.processes import circle, fourier
from lamina.products import affine

FINEST = 1e-3
"""The largest part of a period's fastest wave that times may be rounded by."""
WALK = "walk"
One: TypeAlias = float | str
Several: TypeAlias = One | tuple[One, ...] | list[One]


@dataclass(frozen=True, repr=False, eq=False)
class SeasonalLayer(AdaptiveForm):
    r"""A function of time that repeats with one period, or the sum of several.

    With K `harmonics` it is a Fourier series of the period P:

    $$f_{nu} = \sum_{k=1}^K \beta_{ku} \cos(2\pi k t_n / P)
      + \beta_{K+k,u} \sin(2\pi k t_n / P), \qquad
      \beta_{ku} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    With `harmonics="walk"` it is an effect of each of P places, for whole `t` and P: a
    random walk of step $\lambda_u$ around the circle, whose effects sum to zero. Its
    coefficients are those of its P - 1 eigenvectors.

    Both arguments are one, or one for each of several periods, as in
    `SeasonalLayer(periods=(7, 365.25), harmonics=("walk", 10))`.

    Shapes: `x` (n,) or (n, 1), the time, gives (n, u); the sites are `{name}.lmbda` (u,)
    and `{name}.beta` (h, u), with h = 2K, or P - 1 for a walk; for several periods
    `{name}.lmbda1`, `{name}.beta1`, `{name}.lmbda2` and so on.
    Units: `periods` are in the units of `x`; $\beta$ and $\lambda$ are in units of the
    predictor.
    Raises: ValueError for times that are not finite or too large to tell apart, and for
    harmonics that whole times cannot tell apart; TypeError for a walk over times of a
    floating dtype. `periods` and `harmonics` are given once, in the constructor or the
    call.
    Source: Harvey (1989), Forecasting, Structural Time Series Models and the Kalman
    Filter, chapter 2; Rue and Held (2005), Gaussian Markov Random Fields, section 2.6.
    """

    units: int = 1
    _: KW_ONLY
    periods: Several | None = None
    harmonics: Several | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for period in listed(self.periods):
            require_period(period)
        for harmonics in listed(self.harmonics):
            require_harmonics(harmonics)
        if self.periods is not None and self.harmonics is not None:
            seasons(type(self).__name__, self.periods, self.harmonics)

    def __call__(
        self,
        name: str,
        x: Any,
        periods: Several | None = None,
        harmonics: Several | None = None,
    ) -> Array:
        where = self.label(name)
        several = seasons(
            where,
            given_once(where, "periods", self.periods, periods),
            given_once(where, "harmonics", self.harmonics, harmonics),
        )
        t = as_times(where, x)
        self.outside_rows(name, t.shape[0])
        parts = []
        for i, season in enumerate(several, start=1):
            columns = basis(where, t, *season)
            suffix = str(i) if len(several) > 1 else ""
            shape = (columns.shape[1], self.units)
            beta = self.coefficients(name, shape, suffix=suffix)
            parts.append(product(affine, columns, beta))
        return term(name, functools.reduce(operator.add, parts))


def given_once(where: str, which: str, given: Any, called: Any) -> Any:
    """What is given at construction or at the call: once, or twice alike."""
    if given is not None and called is not None and listed(given) != listed(called):
        raise ValueError(
            f"{where}: `{which}` is {given} in the constructor and {called} in the call. "
            "Give it once, at either place."
        )
    if given is None and called is None:
        raise TypeError(
            f"{where}: `{which}` is missing. Give it in the constructor, "
            f"SeasonalLayer({which}=...), or in the call."
        )
    return given if called is None else called


def listed(given: Any) -> tuple[Any, ...]:
    """One or several as a tuple; none for None."""
    if given is None:
        return ()
    return each(given)


def seasons(where: str, periods: Any, harmonics: Any) -> list[tuple[float, Any]]:
    """Each period with its harmonics.

    Raises: ValueError where they do not go together.
    """
    many, waves = listed(periods), listed(harmonics)
    if not isinstance(harmonics, SEVERAL):
        waves = waves * len(many)
    if not many or len(many) != len(waves):
        raise ValueError(
            f"{where}: there are {len(many)} `periods` and {len(waves)} `harmonics`. Give "
            "at least one period, and harmonics for each or one number for all."
        )
    for period, wave in zip(many, waves, strict=True):
        require_period(period)
        require_harmonics(wave)
        if wave == WALK and (not float(period).is_integer() or period < 2):
            raise ValueError(
                f"{where}: a cyclic walk has an effect for each place of its period, "
                f"which is {period}. Give a whole period of at least 2, or a number of "
                "`harmonics`."
            )
    return list(zip(many, waves, strict=True))


def basis(where: str, t: Any, period: float, harmonics: Any) -> Array:
    """The columns of one season at times t."""
    whole = jnp.issubdtype(t.dtype, jnp.integer)
    if harmonics == WALK:
        if not whole:
            raise TypeError(
                f"{where}: times have dtype {t.dtype}, but a cyclic walk has an effect for "
                f"each of {period} places. Give whole times of an integer dtype, or a "
                "number of `harmonics`."
            )
        return circle(jnp.asarray(t % int(period)), int(period))
    if whole and 2 * harmonics > period:
        raise ValueError(
            f"{where}: {harmonics} harmonics of period {period} at whole times: a wave "
            f"faster than two times looks like a slower one. Give at most "
            f"{int(period // 2)}, or 'walk' for an effect of each place."
        )
    if whole and float(period).is_integer():
        return fourier(jnp.asarray(t % int(period)) / period, int(harmonics))
    known = concrete(t)
    if known is not None and known.size:
        digits = float(jnp.finfo(jnp.result_type(float)).eps)
        rounded = digits * float(np.abs(known).max())
        if rounded * harmonics > FINEST * period:
            raise ValueError(
                f"{where}: times up to {np.abs(known).max():g} are rounded by "
                f"{rounded:.2g} on the way to the layer, too much for {harmonics} "
                f"harmonics of period {period}. Subtract an origin from the times, or "
                "enable double precision."
            )
    phase = jnp.asarray(t.astype(float)) % period / period
    return fourier(phase, int(harmonics))


def require_period(period: Any) -> None:
    """Raise for what is no period."""
    meaning = "a period is a positive number, in the units of the times"
    positive_number("SeasonalLayer", "periods", period, meaning)


def require_harmonics(harmonics: Any) -> None:
    """Raise for what is no number of harmonics, and no walk."""
    whole = isinstance(harmonics, int | np.integer) and not isinstance(harmonics, bool)
    if harmonics != WALK and (not whole or harmonics < 1):
        raise ValueError(
            f"SeasonalLayer: `harmonics` is {harmonics!r}, but it counts waves: a whole "
            "number of at least 1, or 'walk' for a cyclic random walk."
        )
