"""An outcome: its shape, the options that all links take, and its site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.primitives import Messenger

from lamina._checks import as_jax, concrete, require_support, where_bad
from lamina._typing import Array, Shape
from lamina.effects import outcome as announce_outcome
from lamina.effects import plates, prediction
from lamina.links.parameters import Parameter, like
from lamina.links.restricted import restrict


class Options(TypedDict, total=False):
    """What every link takes beside its parameters, by keyword.

    `weights`: each row's log density is multiplied by its own, zero or more.
    `offset`: a known part of the predictor, added to it.
    `exposure`: for a predictor of a log mean, the positive amount (time, area, number
    at risk) that the mean is proportional to: its log is added.
    `censored`: 0 or False where `y` was seen, 1 or True where the outcome is at least
    `y` (right), -1 where it is at most `y` (left), 2 where it lies from `y` to `upper`.
    `upper`: the upper ends of those intervals.
    `truncated`: bounds (low, high), both included, outside of which no outcome would
    have been recorded; None leaves a side open.

    Shapes: `weights`, `exposure`, `censored`, `upper` and the bounds are one number,
    (n,) where u = 1, (n, 1) or (n, u); `offset` is like the predictor.
    """

    weights: Any
    offset: Any
    exposure: Any
    censored: Any
    upper: Any
    truncated: Any


class Outcome:
    """An outcome on its way to its site: predictor, data and options in one shape.

    `eta` is the predictor with its offset, and `entries` has the shape of the log
    density: one entry for each number that is observed, or for each vector.
    """

    def __init__(
        self, name: str, eta: Array, y: Any, options: Options, *, entries: Shape
    ) -> None:
        unknown = sorted(set(options) - set(Options.__annotations__))
        if unknown:
            raise TypeError(
                f"outcome {name!r}: this link takes no {unknown}. Beside its parameters "
                f"a link takes {sorted(Options.__annotations__)}."
            )
        self.name, self.eta, self.y, self.options = name, eta, y, options
        self.entries = jax.ShapeDtypeStruct(entries, eta.dtype)

    @classmethod
    def read(
        cls,
        name: str,
        eta: Any,
        y: Any,
        options: Options,
        *,
        log_mean: bool = False,
        categories: bool = False,
        vectors: bool = False,
    ) -> Self:
        """The outcome that a link is called on, its predictor in the shape of `y`.

        `log_mean` says that the predictor is the log of a mean, `categories` that it has
        a column for each category of one code, `vectors` that `y` has all its columns.
        """
        shaped = as_categories if categories else as_outcome
        eta = shaped(eta, y, name)
        events = categories or vectors
        entries = eta.shape[:-1] if events else eta.shape
        outcome = cls(name, eta, y, options, entries=entries)
        offset, exposure = options.get("offset"), options.get("exposure")
        if offset is not None:
            offset = as_jax(offset)
            if categories and 1 < offset.ndim == eta.ndim - 1:
                offset = offset[..., None, :]
            outcome.eta = outcome.eta + like(f"{name}: offset", offset, eta)
        if exposure is not None:
            if not log_mean:
                raise ValueError(
                    f"outcome {name!r}: `exposure` multiplies a mean whose log is "
                    "predicted, and this link predicts another quantity. Use `offset`, "
                    "in units of the predictor."
                )
            exposure = outcome.known("exposure", exposure, above=0.0)
            outcome.eta = outcome.eta + jnp.log(exposure)
        return outcome

    def known(
        self, which: str, value: Any, *, above: float, included: bool = False
    ) -> Array:
        """Known finite numbers of the rows, in the shape of the entries."""
        seen = concrete(value)
        if seen is not None:
            good = np.isfinite(seen) & ((seen >= above) if included else (seen > above))
            if not np.all(good):
                least = "at least" if included else "above"
                raise ValueError(
                    f"outcome {self.name!r}: `{which}` has {where_bad(~good)}, that are "
                    f"not finite numbers {least} {above:g} (seen: "
                    f"{seen[~good].ravel()[0]}). Correct them."
                )
        value = as_jax(value)
        return like(f"{self.name}: {which}", value, self.entries)

    def parameter(
        self, parameter: Parameter, value: Any, predictor: Any = None
    ) -> Array:
        """A family's parameter: learned, known, or from its predictor."""
        return parameter(self.name, value, predictor, self.entries)

    def logit(self, parameter: Parameter, value: Any, predictor: Any = None) -> Array:
        """The logit of a probability: learned, known, or its predictor itself."""
        return parameter.logit(self.name, value, predictor, self.entries)

    def observe(
        self, fn: Distribution, mean: Callable[[], Array] | None = None
    ) -> Array:
        """Sample the outcome's site, with the options of its link."""
        options = self.options
        changed = restrict(
            self.name,
            fn,
            self.y,
            self.entries,
            truncated=options.get("truncated"),
            censored=options.get("censored"),
            upper=options.get("upper"),
        )
        weights = options.get("weights")
        if weights is not None:
            weights = self.known("weights", weights, above=0.0, included=True)
        if options.get("truncated") is not None:
            mean = None
        return observe(
            self.name,
            self.eta,
            changed,
            self.y,
            mean=mean,
            weights=weights,
            entries=self.entries.shape,
        )


class row_scale(handlers.scale):
    """`handlers.scale` by an entry for each row, which may be zero."""

    def __init__(self, scale: Array) -> None:
        Messenger.__init__(self)
        self.scale = scale


def observe(
    name: str,
    eta: Array,
    fn: Distribution,
    y: Any,
    *,
    mean: Callable[[], Array] | None = None,
    weights: Array | None = None,
    entries: Shape | None = None,
) -> Array:
    """Announce the outcome and sample its site, after a check of `y`'s support.

    For a link of your own: pass `as_outcome`'s predictor and the distribution, and
    `mean` where the expected outcome is not the distribution's own mean. `entries` is
    the shape of the log density, where it is not the predictor's.
    """
    require_plates_fit(name, jnp.shape(eta) if entries is None else entries)
    if y is not None:
        require_support(name, fn, y)
        y = as_jax(y)
    announce_outcome(name, eta, fn, mean)
    if weights is None:
        return numpyro.sample(name, fn, obs=y)
    with row_scale(jnp.broadcast_to(weights, fn.batch_shape)):
        return numpyro.sample(name, fn, obs=y)


def require_plates_fit(name: str, shape: Shape) -> None:
    """Raise where a plate would repeat the outcome along an axis that is not its own."""
    for frame in plates():
        if len(shape) < -frame.dim or shape[frame.dim] != frame.size:
            raise ValueError(
                f"outcome {name!r}: it has shape {shape}, but plate {frame.name!r} has "
                f"{frame.size} entries on axis {frame.dim}. The plate would score every "
                "entry several times. Call the link outside the plate, or give the "
                "plate the `dim` of that axis."
            )


def as_predictor(eta: Any, name: str) -> Array:
    """The predictor as an array with rows and units, under a name for its site."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"an outcome's `name` is {name!r}; give a name for its site.")
    eta = jnp.asarray(eta)
    if eta.ndim < 2:
        raise ValueError(
            f"outcome {name!r}: the predictor has shape {eta.shape}, but links take "
            "(n, u), as layers return it. Keep the last axis: eta[:, None] for one "
            "output to a row."
        )
    return eta


def as_outcome(eta: Any, y: Any, name: str = "obs") -> Array:
    """The predictor in the shape of `y`: (n, 1) becomes (n,) for a flat `y`."""
    eta = as_predictor(eta, name)
    shape = None if y is None else np.shape(y)
    flat = eta.shape[-1] == 1 and (shape is None or len(shape) == eta.ndim - 1)
    if eta.shape[-2] == 1:
        eta = over_rows(eta, shape, flat)
    eta = eta[..., 0] if flat else eta
    if shape is not None and shape != eta.shape:
        raise ValueError(
            f"outcome {name!r}: `y` has shape {shape}, but the predictor has shape "
            f"{eta.shape}. Broadcasting would score every observation against every "
            "prediction. Give `y` one entry for each row, (n,) or (n, 1), or (n, u) "
            "with the layers' `units` set to u."
        )
    return eta


def as_categories(eta: Any, y: Any, name: str = "obs") -> Array:
    """Predictors (n, k) of one category each as (n, k), or (n, 1, k) for such a `y`."""
    eta = as_predictor(eta, name)
    shape = None if y is None else np.shape(y)
    flat = shape is None or len(shape) == eta.ndim - 1
    if eta.shape[-2] == 1:
        eta = over_rows(eta, shape, flat)
    eta = eta if flat else eta[..., None, :]
    if shape is not None and shape != eta.shape[:-1]:
        raise ValueError(
            f"outcome {name!r}: `y` has shape {shape}, but the predictor has shape "
            f"{eta.shape}, a column for each category. Broadcasting would score every "
            "observation against every prediction. Give `y` one code for each row, "
            "(n,) or (n, 1), and set the layers' `units` to the number of categories."
        )
    return eta


def over_rows(eta: Array, shape: Shape | None, flat: bool) -> Array:
    """A predictor of one row, such as an intercept's, for every row of the outcome."""
    if shape is None:
        asked = prediction()
        rows = asked.num_rows if asked is not None else None
    else:
        rows = shape[-1] if flat else shape[-2] if len(shape) == eta.ndim else None
    if rows is None:
        return eta
    return jnp.broadcast_to(eta, (*eta.shape[:-2], rows, eta.shape[-1]))
