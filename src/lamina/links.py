"""Links: predictor in, observation site out.

In the speech of generalised linear models a link is the mean's transform alone; here
the word covers the whole likelihood with its inverse link. A link named `obs` (the
default) names its parameters `sigma`, `df`, ...; any other name prefixes them
(`visits.sigma`), so that several outcomes live in one model.

Shapes, for all: the predictor is (n, u), and (1, u) is expanded to the rows of `y`. For
u = 1, `y` may be (n,) or (n, 1) and keeps its shape; without `y` the site is (n,), or
(n, u) for u > 1. Each of the n times u entries is scored once, so links are called
outside of plates over rows, or inside one on the rows' own axis with known parameters.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import Distribution, constraints

from lamina import effects
from lamina._checks import (
    allows_negative,
    as_jax,
    concrete,
    require_support,
    where_bad,
)
from lamina._typing import Array, Shape, show


def gaussian_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    scale: Any = None,
    log_scale: Array | None = None,
) -> Array:
    r"""$y_{nu} \sim \text{Normal}(\eta_{nu}, \sigma)$.

    Exactly one source for $\sigma$: `scale` as a distribution is learned under the site
    `sigma` (default Exponential(1)), as a number or array it is known; `log_scale` is
    the predictor of $\log\sigma$, such as a layer's output.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u); a known `scale` is one number,
    (n, u), (n, 1) or (1, u), and (n,) where u = 1.
    Units: $\eta$ and $\sigma$ are in units of `y`.
    Raises: ValueError when the rows of `y` and `eta` differ, when `y` is not finite, or
    when a known scale is not positive.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, section 2.2.
    """
    eta = as_outcome(eta, y, name)
    sigma = _scale(name, scale, log_scale, eta)
    return observe(name, eta, dist.Normal(eta, sigma), y)


def gaussian_link_exp(mu: Array, y: Any = None, *, name: str = "obs") -> Array:
    r"""$y_{nu} \sim \text{Normal}(\mu_{nu}, \sigma)$, $\sigma \sim \text{Exp}(1)$.

    The published name of `gaussian_link` at its defaults.
    """
    return gaussian_link(mu, y, name=name)


def student_t_link(
    eta: Array,
    y: Any = None,
    *,
    name: str = "obs",
    df: Any = 4.0,
    scale: Any = None,
    log_scale: Array | None = None,
) -> Array:
    r"""$y_{nu} \sim \text{StudentT}(\nu, \eta_{nu}, \sigma)$: heavy tails.

    `df` ($\nu$) and `scale` ($\sigma$, default Exponential(1)) are learned where they
    are distributions, under the sites `df` and `sigma`, and known where they are numbers
    or arrays; `log_scale` is the predictor of $\log\sigma$.

    Shapes: as `gaussian_link`; `df` like `scale`.
    Units: $\eta$ and $\sigma$ are in units of `y`. $\sigma$ is not the standard
    deviation, which is $\sigma\sqrt{\nu / (\nu - 2)}$ for $\nu > 2$.
    Raises: as `gaussian_link`.
    Source: Lange, Little and Taylor (1989), Robust Statistical Modeling Using the t
    Distribution, eq. 1.
    """
    eta = as_outcome(eta, y, name)
    df = learned_or_known(parameter(name, "df"), df, eta)
    sigma = _scale(name, scale, log_scale, eta)
    return observe(name, eta, dist.StudentT(df, eta, sigma), y)


def logit_link(eta: Array, y: Any = None, *, name: str = "obs") -> Array:
    r"""$y_{nu} \sim \text{Bernoulli}(1 / (1 + e^{-\eta_{nu}}))$.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u).
    Units: $\eta$ is in log odds; `y` is 0 or 1, or boolean.
    Raises: ValueError when the rows of `y` and `eta` differ or `y` is not 0 or 1.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, section 4.3.1.
    """
    eta = as_outcome(eta, y, name)
    return observe(name, eta, dist.Bernoulli(logits=eta), y)


def poisson_link(eta: Array, y: Any = None, *, name: str = "obs") -> Array:
    r"""$y_{nu} \sim \text{Poisson}(e^{\eta_{nu}})$.

    Shapes: `eta` (n, u), `y` (n,), (n, 1) or (n, u).
    Units: $\eta$ is the log of the expected count.
    Raises: ValueError when the rows of `y` and `eta` differ or `y` is not a count.
    Source: McCullagh and Nelder (1989), Generalized Linear Models, section 6.2.
    """
    eta = as_outcome(eta, y, name)
    return observe(name, eta, LogPoisson(eta), y)


class LogPoisson(dist.Poisson):
    """Poisson by its log rate: its log density is finite where the rate underflows.

    Draws are integers of JAX's default type and stop at the largest of them.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    pytree_data_fields = ("log_rate", "rate")

    def __init__(self, log_rate: Array, *, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(jnp.exp(log_rate), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        # a rate past the largest integer, infinity included, would be drawn as zero
        most = jnp.iinfo(jnp.result_type(int)).max
        drawn = super().sample(key, sample_shape)
        past = jnp.broadcast_to(self.rate >= float(most), jnp.shape(drawn))
        return jnp.where(past, most, drawn)

    def log_prob(self, value: Array) -> Array:
        value = jnp.asarray(value, self.rate.dtype)
        return value * self.log_rate - self.rate - gammaln(value + 1.0)


def observe(name: str, eta: Array, fn: Distribution, y: Any) -> Array:
    """Announce the outcome and sample its site, after a check of `y`'s support.

    For a link of your own: pass `as_outcome`'s predictor and the distribution.
    """
    require_plates_fit(name, jnp.shape(eta))
    if y is not None:
        require_support(name, fn, y)
        y = as_jax(y)
    effects.outcome(name, eta, fn)
    return numpyro.sample(name, fn, obs=y)


def require_plates_fit(name: str, shape: Shape) -> None:
    """Raise where a plate would repeat the outcome along an axis that is not its own."""
    for frame in effects.plates():
        if len(shape) < -frame.dim or shape[frame.dim] != frame.size:
            raise ValueError(
                f"outcome {name!r}: it has shape {shape}, but plate {frame.name!r} has "
                f"{frame.size} entries on axis {frame.dim}. The plate would score every "
                "entry several times. Call the link outside the plate, or give the "
                "plate the `dim` of that axis."
            )


def as_outcome(eta: Any, y: Any, name: str = "obs") -> Array:
    """The predictor in the shape of `y`: (n, 1) becomes (n,) for a flat `y`."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"an outcome's `name` is {name!r}; give a name for its site.")
    eta = jnp.asarray(eta)
    if eta.ndim < 2:
        raise ValueError(
            f"outcome {name!r}: the predictor has shape {eta.shape}, but links take "
            "(n, u), as layers return it. Keep the last axis: eta[:, None] for one "
            "output to a row."
        )
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


def over_rows(eta: Array, shape: Shape | None, flat: bool) -> Array:
    """A predictor of one row, such as an intercept's, for every row of the outcome."""
    if shape is None:
        asked = effects.prediction()
        rows = asked.num_rows if asked is not None else None
    else:
        rows = shape[-1] if flat else shape[-2] if len(shape) == eta.ndim else None
    if rows is None:
        return eta
    return jnp.broadcast_to(eta, (*eta.shape[:-2], rows, eta.shape[-1]))


def learned_or_known(site: str, value: Any, eta: Array) -> Array:
    """A positive parameter: a distribution is learned, one number; an array is known."""
    if isinstance(value, Distribution):
        return learned(site, value)
    if isinstance(value, type):
        raise TypeError(
            f"`{site}`: its prior is the class {value.__name__}. Give a ready "
            f"distribution, {value.__name__}(...), with its arguments."
        )
    known = concrete(value)
    if known is not None:
        good = (known > 0) & np.isfinite(known)
        if not np.all(good):
            raise ValueError(
                f"`{site}`: {where_bad(~good)}, are not positive finite numbers, and "
                "this parameter is. Correct them, or give a distribution to learn it."
            )
    return like(site, value, eta)


def learned(site: str, prior: Distribution) -> Array:
    """Sample one positive number for all rows."""
    if prior.batch_shape or prior.event_shape:
        raise ValueError(
            f"`{site}`: its prior has shape {prior.shape()}, but one number is learned "
            "for all rows. Give a scalar prior, or the output of a layer for a "
            "parameter that varies."
        )
    if allows_negative(prior):
        raise ValueError(
            f"`{site}`: its prior, {show(prior)}, allows negative values, but this "
            "parameter is positive. Choose a positive distribution, such as HalfNormal, "
            "Exponential or Gamma."
        )
    inside = [frame.name for frame in effects.plates()]
    if inside:
        raise ValueError(
            f"`{site}`: it is learned inside the plates {inside}, which would draw it "
            "anew for each of their entries. Call the link outside of plates, or "
            "sample the parameter where it belongs and pass its value."
        )
    return numpyro.sample(site, prior)


def like(site: str, value: Any, eta: Array) -> Array:
    """`value` in the shape of the outcome, every axis matched by name, not chance."""
    value = jnp.asarray(value)
    if value.ndim == 0:
        return value
    if value.ndim == eta.ndim + 1 and value.shape[-1] == 1:
        value = value[..., 0]
    elif value.ndim == eta.ndim - 1 and eta.shape[-1] == 1:
        value = value[..., None]
    if value.ndim == eta.ndim and all(
        a in (1, b) for a, b in zip(value.shape, eta.shape, strict=True)
    ):
        return jnp.broadcast_to(value, eta.shape)
    raise ValueError(
        f"`{site}` has shape {value.shape}, but the outcome has shape {eta.shape}. "
        "Broadcasting could set rows against rows: give one number, or an array with "
        "an entry for each row, (n, u), (n, 1) or (1, u)."
    )


def parameter(name: str, which: str) -> str:
    """The site of a link's parameter: bare for `obs`, else prefixed by the outcome."""
    return which if name == "obs" else f"{name}.{which}"


def _scale(name: str, scale: Any, log_scale: Array | None, eta: Array) -> Array:
    site = parameter(name, "sigma")
    if log_scale is not None:
        if scale is not None:
            raise ValueError(
                f"`{site}`: both `scale` and `log_scale` are given. Give one source."
            )
        return jnp.exp(like(site, log_scale, eta))
    return learned_or_known(
        site, dist.Exponential(1.0) if scale is None else scale, eta
    )
