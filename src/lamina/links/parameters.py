"""A family's parameters: learned from a prior, known, or a layer's output.

Each parameter has a domain, and each domain one transform from the whole line. What is
given under the parameter's own name (`scale=`) is a distribution, which is learned, or
a number or array, which is known; what is given under the name with the transform in
front (`log_scale=`, `logit_zero=`) is a predictor, such as a layer's output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from lamina._checks import allows, concrete, where_bad
from lamina._typing import Array, Shape, show
from lamina.effects import plates


@dataclass(frozen=True)
class Domain:
    """Where a parameter lives, and the transform that takes it to the whole line."""

    words: str
    transform: str
    inverse: Callable[[Array], Array]
    contains: Callable[[np.ndarray], np.ndarray]
    outside: tuple[float, ...]
    """numbers that no prior of such a parameter may allow"""
    fault: str = ""
    remedy: str = ""


POSITIVE = Domain(
    words="positive finite numbers",
    transform="log",
    inverse=jnp.exp,
    contains=lambda known: (known > 0) & np.isfinite(known),
    outside=(-1.0,),
    fault="allows negative values, but this parameter is positive",
    remedy="a positive distribution, such as HalfNormal, Exponential or Gamma",
)
PROBABILITY = Domain(
    words="probabilities strictly between 0 and 1",
    transform="logit",
    inverse=jax.nn.sigmoid,
    contains=lambda known: (known > 0) & (known < 1),
    outside=(-1.0, 2.0),
    fault="allows values outside of 0 to 1, but this parameter is a probability",
    remedy="a distribution of probabilities, such as Beta",
)
REAL = Domain(
    words="finite numbers",
    transform="",
    inverse=lambda predictor: predictor,
    contains=np.isfinite,
    outside=(),
)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a family: its argument, its domain, its default, its site."""

    argument: str
    domain: Domain
    default: Callable[[], Any]
    site: str = ""

    def __call__(self, name: str, value: Any, predictor: Any, eta: Any) -> Array:
        """The parameter itself, for the outcome `name` in the shape of `eta`."""
        site = parameter(name, self.site or self.argument)
        if predictor is None:
            value = self.default() if value is None else value
            return learned_or_known(site, value, eta, self.domain)
        if value is not None:
            raise ValueError(
                f"`{site}`: both `{self.argument}` and "
                f"`{self.domain.transform}_{self.argument}` are given. Give one source."
            )
        return self.domain.inverse(like(site, predictor, eta))

    def logit(self, name: str, value: Any, predictor: Any, eta: Any) -> Array:
        """A probability's logit, which is the predictor where there is one."""
        if predictor is not None and value is None:
            return like(parameter(name, self.site or self.argument), predictor, eta)
        p = self(name, value, predictor, eta)
        return jnp.log(p) - jnp.log1p(-p)


def exponential(rate: float) -> Callable[[], Distribution]:
    """A default prior, which is built where it is used."""
    return lambda: dist.Exponential(rate)


SCALE = Parameter("scale", POSITIVE, exponential(1.0), site="sigma")
CONCENTRATION = Parameter("concentration", POSITIVE, exponential(0.1))


def learned_or_known(
    site: str, value: Any, eta: Array, domain: Domain = POSITIVE
) -> Array:
    """A parameter: a distribution is learned, one number; an array is known."""
    if isinstance(value, Distribution):
        return learned(site, value, domain)
    if isinstance(value, type):
        raise TypeError(
            f"`{site}`: its prior is the class {value.__name__}. Give a ready "
            f"distribution, {value.__name__}(...), with its arguments."
        )
    known = concrete(value)
    if known is not None:
        good = domain.contains(known)
        if not np.all(good):
            raise ValueError(
                f"`{site}`: {where_bad(~good)}, are not {domain.words}, and "
                "this parameter is. Correct them, or give a distribution to learn it."
            )
    return like(site, value, eta)


def learned(
    site: str, prior: Distribution, domain: Domain = POSITIVE, shape: Shape = ()
) -> Array:
    """Sample one number for all rows, or one for each unit where `shape` says so."""
    if prior.batch_shape not in ((), shape) or prior.event_shape:
        raise ValueError(
            f"`{site}`: its prior has shape {prior.shape()}, but one number is learned "
            "for all rows. Give a scalar prior, or the output of a layer for a "
            "parameter that varies."
        )
    if any(allows(prior, number) for number in domain.outside):
        raise ValueError(
            f"`{site}`: its prior, {show(prior)}, {domain.fault}. Choose "
            f"{domain.remedy}."
        )
    require_outside_plates(site)
    if not shape:
        return numpyro.sample(site, prior)
    return numpyro.sample(site, prior.expand(shape).to_event(len(shape)))


def require_outside_plates(site: str) -> None:
    """Raise where a plate would draw a parameter of all rows anew for each entry."""
    inside = [frame.name for frame in plates()]
    if inside:
        raise ValueError(
            f"`{site}`: it is learned inside the plates {inside}, which would draw it "
            "anew for each of their entries. Call the link outside of plates, or "
            "sample the parameter where it belongs and pass its value."
        )


def like(site: str, value: Any, eta: Any) -> Array:
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
