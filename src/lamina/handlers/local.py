"""Local reparameterization: sample a product instead of its coefficients."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from lamina._typing import Array, Model
from lamina.products import affine, lookup

VARIANCE: dict[Callable[..., Array], Callable[..., Array]] = {
    affine: lambda x, variance: affine(jnp.square(x), variance),
    lookup: lookup,
}
"""Products linear in their coefficients, with the variance of what they give."""


class local_reparameterization(Messenger):
    r"""Sample $x\beta$ instead of $\beta$ where $\beta$ has a mean-field Normal guide.

    For $\beta_{du} \sim \text{Normal}(m_{du}, s_{du})$ each row of the product is drawn as
    $f_{nu} \sim \text{Normal}(\sum_d x_{nd} m_{du}, \sqrt{\sum_d x_{nd}^2 s_{du}^2})$,
    with noise of its own. The expected log density of a model that uses each row on its
    own is the same; the variance of its gradient is far smaller.

    `posteriors` maps a site to its guide distribution; only `sites` are touched, which
    `lamina.handlers.soundness` finds to be sound.

    Source: Kingma, Salimans and Welling (2015), Variational Dropout and the Local
    Reparameterization Trick, eqs 5 and 6.
    """

    def __init__(
        self,
        fn: Model | None = None,
        *,
        posteriors: Mapping[str, Any],
        sites: frozenset[str],
    ) -> None:
        super().__init__(fn)
        self.posteriors, self.sites = posteriors, sites

    def __enter__(self) -> None:
        super().__enter__()
        self.key: Any = numpyro.prng_key() if self.sites else None
        self.owners: dict[int, tuple[str, Array]] = {}

    def postprocess_message(self, message: Any) -> None:
        if message["type"] == "sample" and message["name"] in self.sites:
            # holding the value keeps its id from being reused
            self.owners[id(message["value"])] = message["name"], message["value"]

    def process_message(self, message: Any) -> None:
        if message["type"] != "product" or message["fn"] not in VARIANCE:
            return
        *data, coefficients = message["args"]
        name, _ = self.owners.get(id(coefficients), (None, None))
        if name is None:
            return
        fn, q = message["fn"], normal_of(self.posteriors[name]["fn"])
        mean = fn(*data, q.loc)
        variance = VARIANCE[fn](*data, jnp.square(q.scale))
        key = jax.random.fold_in(self.key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        # the inner choice keeps a row of zeros, whose root has no slope, differentiable
        positive = variance > 0
        deviation = jnp.where(
            positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0
        )
        message["value"] = mean + deviation * noise


def innermost(fn: Any) -> Any:
    """A distribution without its batch and event wrappers."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def normal_of(fn: Any) -> dist.Normal:
    """The Normal inside, with parameters written out over all entries."""
    shape, fn = fn.shape(), innermost(fn)
    return dist.Normal(
        jnp.broadcast_to(fn.loc, shape), jnp.broadcast_to(fn.scale, shape)
    )
