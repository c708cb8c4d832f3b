r"""Pure pieces of a transformer over columns: array algebra that knows no NumPyro.

Letters: n rows, t tokens, m embedding dimension, h hidden units. Weights may have leading
axes, written `...`, for replicates; each row of the data is mapped on its own. Weights
of unit scale are divided by the root of the number of inputs they sum over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from lamina._typing import Array

if TYPE_CHECKING:
    from jaxtyping import Float

SMALL = 1e-5


def with_constant(z: Float[Array, "*s d"]) -> Float[Array, "*s e"]:
    r"""The d columns and a constant one, over $\sqrt{d + 1}$: inputs of unit weights."""
    ones = jnp.ones((*z.shape[:-1], 1), z.dtype)
    return jnp.concatenate([z, ones], axis=-1) / math.sqrt(z.shape[-1] + 1)


def layer_norm(z: Float[Array, "*s m"]) -> Float[Array, "*s m"]:
    """Each token less its mean, over its standard deviation; no weights.

    Source: Ba, Kiros and Hinton (2016), Layer Normalization, eq. 3.
    """
    centred = z - z.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + SMALL)


def tokenize(
    x: Float[Array, "n d"],
    slopes: Float[Array, "*r d m"],
    biases: Float[Array, "*r t m"],
) -> Float[Array, "*r n t m"]:
    r"""One token for each column, $(b_j + x_{nj} w_j) / \sqrt{2}$, behind a constant one.

    Shapes: `x` (n, d), `slopes` (..., d, m) and `biases` (..., d + 1, m), of which the
    first is the constant token itself, give (..., n, d + 1, m).
    Source: Gorishniy, Rubachev, Khrulkov and Babenko (2021), Revisiting Deep Learning
    Models for Tabular Data, section 3.3.
    """
    moved = jnp.einsum("nd,...dm->...ndm", x, slopes)
    columns = (moved + biases[..., None, 1:, :]) / math.sqrt(2.0)
    first = jnp.broadcast_to(
        biases[..., None, :1, :], (*columns.shape[:-2], 1, columns.shape[-1])
    )
    return jnp.concatenate([first, columns], axis=-2)


def self_attention(
    z: Float[Array, "*r n t m"],
    query: Float[Array, "*r m m"],
    key: Float[Array, "*r m m"],
    value: Float[Array, "*r m m"],
    out: Float[Array, "*r m m"],
    *,
    heads: int,
) -> Float[Array, "*r n t m"]:
    r"""$\text{softmax}(Q K^\top / \sqrt{m / a})\, V$ in each of a heads, side by side.

    Shapes: `z` (..., n, t, m) and weights (..., m, m) give (..., n, t, m); a row's tokens
    attend to one another, never to other rows'.
    Source: Vaswani and others (2017), Attention Is All You Need, eq. 1 and section 3.2.2.
    """
    m = z.shape[-1]

    def project(weights: Array) -> Array:
        flat = jnp.einsum("...ntm,...mk->...ntk", z, weights) / math.sqrt(m)
        return jnp.reshape(flat, (*flat.shape[:-1], heads, m // heads))

    q, k, v = project(query), project(key), project(value)
    scores = jnp.einsum("...nsah,...ntah->...nast", q, k) / math.sqrt(m // heads)
    mixed = jnp.einsum("...nast,...ntah->...nsah", jax.nn.softmax(scores, axis=-1), v)
    joined = jnp.reshape(mixed, (*z.shape[:-1], m))
    return jnp.einsum("...ntm,...mk->...ntk", joined, out) / math.sqrt(m)


def feed_forward(
    z: Float[Array, "*r n t m"],
    hidden: Float[Array, "*r k g"],
    back: Float[Array, "*r j m"],
) -> Float[Array, "*r n t m"]:
    r"""Two linear maps of each token around a gate, $\sqrt{2}\, a \max(b, 0)$.

    Shapes: `z` (..., n, t, m), `hidden` (..., m + 1, 2h), whose halves make a and b, and
    `back` (..., h + 1, m) give (..., n, t, m).
    Source: Shazeer (2020), GLU Variants Improve Transformer, eq. 5, as ReGLU.
    """
    both = jnp.einsum("...ntk,...kg->...ntg", with_constant(z), hidden)
    a, b = jnp.split(both, 2, axis=-1)
    gated = math.sqrt(2.0) * a * jax.nn.relu(b)
    return jnp.einsum("...ntj,...jm->...ntm", with_constant(gated), back)
