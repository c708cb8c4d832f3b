"""Network layers: hidden units and attention between linear maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamina._checks import concrete, positive_size
from lamina._typing import Array
from lamina.attention import (
    feed_forward,
    layer_norm,
    self_attention,
    tokenize,
    with_constant,
)
from lamina.effects import product, term
from lamina.layers._base import FixedForm
from lamina.products import affine

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
FEWEST = 3
"""Coordinates of a token, of which scaling takes two."""
GRID = np.linspace(-8.0, 8.0, 2001)
"""for an activation's mean and variance under a standard normal"""


@dataclass(frozen=True, repr=False, eq=False)
class MLPLayer(FixedForm):
    r"""A multilayer perceptron: linear maps with an activation between them.

    $$h^0 = x, \qquad
      h^k = \phi\Big(\frac{(h^{k-1}, 1)\, \beta^k}{\sqrt{d_{k-1} + 1}}\Big), \qquad
      f = \frac{(h^K, 1)\, \beta^{K+1}}{\sqrt{d_K + 1}}, \qquad
      \beta \sim \text{Normal}(0, 1)$$

    so a weight's prior scale is one over the root of what it is summed over, biases
    included. $\phi$ is the activation, shifted and scaled to mean zero and variance one
    under a standard normal: however deep the network, $f$ has about unit variance for
    standardised columns.

    `skip=True` lets each hidden layer but the first add to the one before it,
    $(h^{k-1} + h^k) / \sqrt{2}$, in networks of one width; for a linear term beside the
    network, add an AdaptiveLayer.

    `hidden` holds the widths. `activation` is "elu", "gelu", "relu", "sigmoid", "silu",
    "softplus" or "tanh", or a function of arrays, entry by entry. `prior=` gives another
    prior of $\beta$: Adaptive() learns a scale for each unit of each layer.

    Hidden units can be exchanged, and with an odd activation their signs, without any
    change of $f$: chains and restarts differ in them, so compare predictions, not single
    $\beta$. At $\beta = 0$ the gradient of all but the last layer is zero: start elsewhere,
    as every method here does by itself.

    Shapes: `x` (n, d) gives (n, u). With one hidden layer of h units the sites are
    `{name}.beta1` (d + 1, h) and `{name}.beta2` (h + 1, u), biases in the last row; each
    further one adds a site.
    Units: standardise the columns; $f$ is in units of the prior's scale.
    Raises: ValueError for no hidden layer, widths that are no sizes, an activation of
    unknown name or without a finite variance, `skip` with different widths.
    Source: Neal (1996), Bayesian Learning for Neural Networks, chapter 2; Klambauer and
    others (2017), Self-Normalizing Neural Networks, for mean zero and variance one; He
    and others (2016), Deep Residual Learning, eq. 1, for `skip`.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (32,)
    activation: str | Activation = "tanh"
    skip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        if not isinstance(self.hidden, Sequence):
            raise ValueError(
                f"{where}: `hidden` is {self.hidden!r}, but it holds the width of each "
                "hidden layer, such as (32,) or (64, 64)."
            )
        if not self.hidden:
            raise ValueError(
                f"{where}: `hidden` is empty, and without a hidden layer the network is "
                "linear. Give widths, or use AdaptiveLayer."
            )
        widths = tuple(positive_size(where, "hidden", width) for width in self.hidden)
        object.__setattr__(self, "hidden", widths)
        if self.skip and len(set(widths)) > 1:
            raise ValueError(
                f"{where}: `skip` adds a hidden layer to the one before it, but their "
                f"widths are {widths}. Give all hidden layers one width."
            )
        known = isinstance(self.activation, str) and self.activation in ACTIVATIONS
        if not known and (
            isinstance(self.activation, str) or not callable(self.activation)
        ):
            raise ValueError(
                f"{where}: `activation` is {self.activation!r}; it is one of "
                f"{sorted(ACTIVATIONS)}, or a function such as jax.nn.mish."
            )

    def __call__(self, name: str, x: Any) -> Array:
        h = self.columns(name, x)
        if isinstance(self.activation, str):
            activation = ACTIVATIONS[self.activation]
        else:
            activation = self.activation
        shift, scale = moments(self.label(name), activation, h.dtype)
        widths = (*self.hidden, self.units)
        for k, width in enumerate(widths, 1):
            shape = h.shape[-1] + 1, width
            beta = self.coefficients(name, shape, suffix=str(k))
            z = product(affine, with_constant(h), beta)
            if k == len(widths):
                break
            new = (activation(z) - shift) / scale
            h = (h + new) / math.sqrt(2.0) if self.skip and k > 1 else new
        return term(name, z)


@dataclass(frozen=True, repr=False, eq=False)
class AttentionLayer(FixedForm):
    r"""A transformer whose tokens are the columns of `x`: columns weigh one another.

    $$T = (c,\; (b_1 + x_{n1} w_1)/\sqrt{2}, \dots, (b_d + x_{nd} w_d)/\sqrt{2}), \qquad
      T \leftarrow T + \text{attention}(N(T)), \quad
      T \leftarrow T + \text{forward}(N(T)), \qquad
      f_n = \frac{(\sqrt{2} \max(N(T_c), 0), 1)\, \beta}{\sqrt{m + 1}}$$

    once for each of `num_blocks` blocks. $N$ subtracts each token's mean and divides by its
    standard deviation, except before the first attention, where it is left out. Of all
    tokens only the first, $c$, which belongs to no column, is read at the end. All weights
    are Normal(0, 1), over the root of what they are summed over; `prior=` gives another.

    The coordinates of tokens, heads and hidden units can be exchanged without any change
    of $f$, so compare predictions and not single weights. At zero weights most gradients
    are zero; every method here starts elsewhere by itself. For a few columns and
    rows a smooth or an FMLayer says more; this layer pays with many.

    Shapes: `x` (n, d) gives (n, u). With m = `embedding_dim` and h = `hidden` (default
    2m) the sites are `{name}.slope.beta` (d, m), `{name}.token.beta` (d + 1, m), whose
    first row is $c$, for the k-th block `{name}.query.beta{k}` (m, m),
    `{name}.key.beta{k}` (m, m), `{name}.value.beta{k}` (m, m), `{name}.mix.beta{k}`
    (m, m), `{name}.gate.beta{k}` (m + 1, 2h) and `{name}.back.beta{k}` (h + 1, m), and
    `{name}.head.beta` (m + 1, u); biases are last rows.
    Units: standardise the columns; $f$ is in units of the prior's scale.
    Raises: ValueError for sizes that are none, m below 3, or heads that do not divide m.
    Source: Gorishniy, Rubachev, Khrulkov and Babenko (2021), Revisiting Deep Learning
    Models for Tabular Data, section 3.3, here without weights in N and biases in attention.
    """

    _: KW_ONLY
    embedding_dim: int = 8
    num_heads: int = 2
    num_blocks: int = 1
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        for size in ("num_heads", "num_blocks"):
            positive_size(where, size, getattr(self, size))
        if self.hidden is not None:
            positive_size(where, "hidden", self.hidden)
        if self.embedding_dim < FEWEST:
            raise ValueError(
                f"{where}: `embedding_dim` is {self.embedding_dim}, but tokens are scaled "
                "to mean zero and variance one, which leaves no more than a sign of one "
                f"or two numbers. Give at least {FEWEST}."
            )
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"{where}: `embedding_dim` is {self.embedding_dim}, which "
                f"{self.num_heads} heads do not share equally. Give a multiple of "
                "`num_heads`."
            )

    def __call__(self, name: str, x: Any) -> Array:
        x = self.columns(name, x)
        d, m = x.shape[1], self.embedding_dim
        h = 2 * m if self.hidden is None else self.hidden

        def weights(part: str, shape: tuple[int, int], k: int | str = "") -> Array:
            return self.coefficients(f"{name}.{part}", shape, suffix=str(k))

        tokens = product(
            tokenize, x, weights("slope", (d, m)), weights("token", (d + 1, m))
        )
        attend = partial(self_attention, heads=self.num_heads)
        for k in range(1, self.num_blocks + 1):
            parts = [weights(p, (m, m), k) for p in ("query", "key", "value", "mix")]
            seen = tokens if k == 1 else layer_norm(tokens)
            tokens = tokens + product(attend, seen, *parts)
            gate, back = (
                weights("gate", (m + 1, 2 * h), k),
                weights("back", (h + 1, m), k),
            )
            tokens = tokens + product(feed_forward, layer_norm(tokens), gate, back)
        first = math.sqrt(2.0) * jax.nn.relu(layer_norm(tokens[..., 0, :]))
        head = weights("head", (m + 1, self.units))
        return term(name, product(affine, with_constant(first), head))


def moments(where: str, activation: Activation, dtype: Any) -> tuple[Array, Array]:
    """The mean and the standard deviation of what it makes of a standard normal."""
    density = np.exp(-0.5 * GRID**2)
    weights = jnp.asarray(density / density.sum(), dtype)
    try:
        values = activation(jnp.asarray(GRID, dtype))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{where}: `activation` is a function of NumPy's, which JAX cannot trace. "
            "Give JAX's own: jnp.tanh for np.tanh."
        ) from error
    if values.shape != GRID.shape:
        raise ValueError(
            f"{where}: `activation` makes shape {values.shape} of {GRID.shape}, but it "
            "maps hidden units one by one."
        )
    mean = (weights * values).sum()
    variance = (weights * jnp.square(values - mean)).sum()
    known = concrete(variance)
    if known is not None and not (np.isfinite(known) and known > 0):
        raise ValueError(
            f"{where}: `activation` has variance {known} under a standard normal, so "
            "hidden units would be constant or overflow. Give one that varies and is "
            "finite everywhere."
        )
    return mean, jnp.sqrt(variance)
