"""Every layer with its sites, data and formula, for tests that all layers share."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from lamina import layers

SIZES = {"d": 3, "e": 2, "u": 2, "l": 2, "lu": 4, "c": 4, "m": 4, "h": 3, "2h": 6}


def columns(letter):
    return lambda rng, n: rng.normal(size=(n, SIZES[letter]))


def codes(rng, n):
    return rng.integers(0, SIZES["c"], size=n)


def two_fields(rng, n):
    return rng.integers(0, SIZES["c"], size=(n, 2))


@dataclass(frozen=True)
class Case:
    """A layer; `sites` and `output` hold shapes in the letters of its docstring."""

    layer: Any
    data: tuple[Callable[..., np.ndarray], ...]
    sizes: dict[str, int]
    sites: dict[str, str]
    output: str
    formula: Callable[..., np.ndarray]

    @property
    def cls(self):
        return type(self.layer)

    def arguments(self, n, seed=0):
        """The call's data at n rows."""
        rng = np.random.default_rng(seed)
        return tuple(draw(rng, n) for draw in self.data)

    def __call__(self, name, *data):
        """Call the layer on its data and sizes."""
        return self.layer(name, *data, **self.sizes)

    def shape(self, letters, n):
        """A shape in letters, such as "(d, u)", in numbers."""
        known = {**SIZES, "n": n}

        def size(axis):
            parts = axis.split(" + ")
            return sum(known[p] if p in known else int(p) for p in parts)

        return tuple(size(axis.strip()) for axis in letters[1:-1].split(",") if axis)

    def site_shapes(self, name, n=1):
        """site -> its shape in numbers."""
        return {f"{name}.{k}": self.shape(v, n) for k, v in self.sites.items()}

    def coefficients(self, name, seed=1):
        """Values for every site: positive scales, real coefficients."""
        rng = np.random.default_rng(seed)
        return {
            site: rng.uniform(0.5, 2.0, size=shape)
            if "lmbda" in site
            else rng.normal(size=shape)
            for site, shape in self.site_shapes(name).items()
        }

    def expected(self, name, data, coefficients):
        """The formula in NumPy."""
        values = {k.removeprefix(f"{name}."): v for k, v in coefficients.items()}
        return self.formula(*data, **values)


def linear(x, beta, lmbda=None):
    return np.array([[row @ beta[:, u] for u in range(beta.shape[1])] for row in x])


def constant(beta):
    return beta


def table(codes, lmbda, theta):
    return np.array([theta[code] for code in codes])


def second_order(x, lmbda, theta):
    pairs = [
        (x[:, i] * x[:, j])[:, None] * (theta[i] * theta[j]).sum(axis=0)
        for i, j in combinations(range(x.shape[1]), 2)
    ]
    return sum(pairs)


def third_order(x, lmbda, theta):
    triples = [
        (x[:, i] * x[:, j] * x[:, k])[:, None]
        * (theta[i] * theta[j] * theta[k]).sum(axis=0)
        for i, j, k in combinations(range(x.shape[1]), 3)
    ]
    return sum(triples)


def fields(codes, theta1, theta2, **others):
    """Two fields; coordinates of a table's rows are in the order l, u."""
    main1, main2 = others["main.theta1"], others["main.theta2"]
    found = []
    for a, b in codes:
        v, w = theta1[a].reshape(L, U), theta2[b].reshape(L, U)
        found.append(main1[a] + main2[b] + (v * w).sum(axis=0))
    return np.array(found)


def perceptron(x, beta1, beta2):
    """One hidden layer of sines: mean 0, mean square (1 - exp(-2)) / 2."""
    found, size = [], np.sqrt(0.5 * (1.0 - np.exp(-2.0)))
    for row in x:
        inputs = np.append(row, 1.0) / np.sqrt(len(row) + 1)
        hidden = np.sin(inputs @ beta1) / size
        found.append(np.append(hidden, 1.0) / np.sqrt(len(hidden) + 1) @ beta2)
    return np.array(found)


def normed(token):
    return (token - token.mean()) / np.sqrt(token.var() + 1e-5)


def attention(x, heads=2, **weights):
    """One block, one row, one head and one token at a time."""
    w = {name.replace(".beta", ""): value for name, value in weights.items()}
    m = w["slope"].shape[1]
    size = m // heads
    found = []
    for row in x:
        tokens = [w["token"][0]]
        for j, value in enumerate(row):
            tokens.append((value * w["slope"][j] + w["token"][j + 1]) / np.sqrt(2.0))
        q, k, v = (
            [token @ w[part] / np.sqrt(m) for token in tokens]
            for part in ("query1", "key1", "value1")
        )
        after = []
        for s, token in enumerate(tokens):
            joined = np.zeros(m)
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                score = np.array([q[s][part] @ other[part] for other in k])
                share = np.exp(score / np.sqrt(size))
                share /= share.sum()
                joined[part] = sum(
                    p * other[part] for p, other in zip(share, v, strict=True)
                )
            after.append(token + joined @ w["mix1"] / np.sqrt(m))
        first = after[0]
        both = np.append(normed(first), 1.0) / np.sqrt(m + 1) @ w["gate1"]
        a, b = np.split(both, 2)
        gated = np.sqrt(2.0) * a * np.maximum(b, 0.0)
        first = first + np.append(gated, 1.0) / np.sqrt(len(gated) + 1) @ w["back1"]
        last = np.sqrt(2.0) * np.maximum(normed(first), 0.0)
        found.append(np.append(last, 1.0) / np.sqrt(m + 1) @ w["head"])
    return np.array(found)


def low_rank(x, z, lmbda1, theta1, lmbda2, theta2):
    units = range(theta1.shape[2])
    weights = [theta1[:, :, u] @ theta2[:, :, u].T for u in units]
    return np.array(
        [[row @ w @ other for w in weights] for row, other in zip(x, z, strict=True)]
    )


def bilinear(x, z, lmbda, beta):
    units = range(beta.shape[2])
    return np.array(
        [
            [row @ beta[:, :, u] @ other for u in units]
            for row, other in zip(x, z, strict=True)
        ]
    )


def walk(codes, lmbda, theta):
    return np.array([theta[: code + 1].sum(axis=0) for code in codes])


U, C, M, L, H = (SIZES[letter] for letter in "ucmlh")

CASES = {
    case.cls.__name__: case
    for case in [
        Case(
            layers.AdaptiveLayer(units=U),
            (columns("d"),),
            {},
            {"lmbda": "(u,)", "beta": "(d, u)"},
            "(n, u)",
            linear,
        ),
        Case(
            layers.FixedPriorLayer(units=U),
            (columns("d"),),
            {},
            {"beta": "(d, u)"},
            "(n, u)",
            linear,
        ),
        Case(
            layers.InterceptLayer(units=U),
            (),
            {},
            {"beta": "(1, u)"},
            "(1, u)",
            constant,
        ),
        Case(
            layers.EmbeddingLayer(),
            (codes,),
            {"num_categories": C, "embedding_dim": M},
            {"lmbda": "()", "theta": "(c, m)"},
            "(n, m)",
            table,
        ),
        Case(
            layers.RandomEffectsLayer(),
            (codes,),
            {"num_categories": C},
            {"lmbda": "()", "theta": "(c, 1)"},
            "(n, 1)",
            table,
        ),
        Case(
            layers.FMLayer(units=U),
            (columns("d"),),
            {"low_rank_dim": L},
            {"lmbda": "(u,)", "theta": "(d, l, u)"},
            "(n, u)",
            second_order,
        ),
        Case(
            layers.FM3Layer(units=U),
            (columns("d"),),
            {"low_rank_dim": L},
            {"lmbda": "(u,)", "theta": "(d, l, u)"},
            "(n, u)",
            third_order,
        ),
        Case(
            layers.FieldFMLayer(units=U),
            (two_fields,),
            {"field_sizes": (C, C), "low_rank_dim": L},
            {
                "main.lmbda1": "(u,)",
                "main.theta1": "(c, u)",
                "lmbda1": "(lu,)",
                "theta1": "(c, lu)",
                "main.lmbda2": "(u,)",
                "main.theta2": "(c, u)",
                "lmbda2": "(lu,)",
                "theta2": "(c, lu)",
            },
            "(n, u)",
            fields,
        ),
        Case(
            layers.MLPLayer(hidden=(H,), activation=jnp.sin, units=U),
            (columns("d"),),
            {},
            {"beta1": "(d + 1, h)", "beta2": "(h + 1, u)"},
            "(n, u)",
            perceptron,
        ),
        Case(
            layers.AttentionLayer(embedding_dim=M, hidden=H, units=U),
            (columns("d"),),
            {},
            {
                "slope.beta": "(d, m)",
                "token.beta": "(d + 1, m)",
                "query.beta1": "(m, m)",
                "key.beta1": "(m, m)",
                "value.beta1": "(m, m)",
                "mix.beta1": "(m, m)",
                "gate.beta1": "(m + 1, 2h)",
                "back.beta1": "(h + 1, m)",
                "head.beta": "(m + 1, u)",
            },
            "(n, u)",
            attention,
        ),
        Case(
            layers.LowRankInteractionLayer(units=U),
            (columns("d"), columns("e")),
            {"low_rank_dim": L},
            {
                "lmbda1": "(u,)",
                "theta1": "(d, l, u)",
                "lmbda2": "(u,)",
                "theta2": "(e, l, u)",
            },
            "(n, u)",
            low_rank,
        ),
        Case(
            layers.InteractionLayer(units=U),
            (columns("d"), columns("e")),
            {},
            {"lmbda": "(u,)", "beta": "(d, e, u)"},
            "(n, u)",
            bilinear,
        ),
        Case(
            layers.RandomWalkLayer(),
            (codes,),
            {"num_categories": C, "embedding_dim": M},
            {"lmbda": "()", "theta": "(c, m)"},
            "(n, m)",
            walk,
        ),
    ]
}
