"""Every layer with its sites, data and formula, for tests that all layers share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from lamina import layers

SIZES = {"d": 3, "e": 2, "u": 2, "l": 2, "c": 4, "m": 3, "k": 4}
AREAS = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]])


def columns(letter):
    return lambda rng, n: rng.normal(size=(n, SIZES[letter]))


def codes(rng, n):
    return rng.integers(0, SIZES["c"], size=n)


def two_codes(rng, n):
    return rng.integers(0, SIZES["c"], size=(n, 2))


def two_weights(rng, n):
    return rng.uniform(0.0, 1.0, size=(n, 2))


@dataclass(frozen=True)
class Case:
    """A layer; `sites` and `output` hold shapes in the letters of its docstring."""

    layer: Any
    data: tuple[Callable[..., np.ndarray], ...]
    sizes: dict[str, int]
    sites: dict[str, str]
    output: str
    formula: Callable[..., np.ndarray]
    derived: dict[str, str] = field(default_factory=dict)
    """deterministic sites, which the formula works out for itself"""
    unconstrained: dict[str, str] = field(default_factory=dict)
    """the shapes of sites that have another one where they are unconstrained"""
    own_prior: bool = False
    """whether its prior is its own, so that its constructor is not the common one"""

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
        axes = letters.strip("()").replace(",", " ").split()
        known = {**SIZES, "n": n}
        return tuple(known[axis] if axis in known else int(axis) for axis in axes)

    def site_shapes(self, name, n=1):
        """site -> its shape in numbers."""
        return {f"{name}.{k}": self.shape(v, n) for k, v in self.sites.items()}

    def free_shapes(self, name):
        """site -> the shape of its unconstrained value, in numbers."""
        own = {f"{name}.{k}": self.shape(v, 1) for k, v in self.unconstrained.items()}
        return {**self.site_shapes(name), **own}

    def coefficients(self, name, seed=1):
        """Values for every site: positive scales, shares, real coefficients."""
        rng = np.random.default_rng(seed)
        return {
            site: inside_support(site.removeprefix(f"{name}."), rng, shape)
            for site, shape in self.site_shapes(name).items()
        }

    def expected(self, name, data, coefficients):
        """The formula in NumPy."""
        values = {k.removeprefix(f"{name}."): v for k, v in coefficients.items()}
        return self.formula(*data, **values)


def inside_support(site, rng, shape):
    """Values that the site can have."""
    if "lmbda" in site:
        return rng.uniform(0.5, 2.0, size=shape)
    if site in ("alpha", "phi"):
        return rng.uniform(0.1, 0.9, size=shape)
    if site == "corr":
        return np.linalg.cholesky(np.corrcoef(rng.normal(size=(shape[0], 20))))
    return rng.normal(size=shape)


def linear(x, beta, lmbda=None):
    return np.array([[row @ beta[:, u] for u in range(beta.shape[1])] for row in x])


def constant(beta):
    return beta


def table(codes, lmbda, theta):
    return np.array([theta[code] for code in codes])


def own_slopes(x, codes, lmbda, corr, z):
    theta = [np.diag(lmbda) @ corr @ row for row in z]
    return np.array(
        [[np.r_[1.0, row] @ theta[code]] for row, code in zip(x, codes, strict=True)]
    )


def membership(codes, weights, lmbda, theta):
    pairs = zip(codes, weights, strict=True)
    return np.array([sum(w * theta[c] for c, w in zip(*p, strict=True)) for p in pairs])


def autoregression(codes, lmbda, alpha, z):
    """The covariance is that of the precision D - alpha W, by its own square root."""
    degrees = AREAS.sum(axis=1)
    omega, vectors = np.linalg.eigh(AREAS / np.sqrt(np.outer(degrees, degrees)))
    theta = vectors @ (z[:, 0] / np.sqrt(1.0 - alpha * omega)) / np.sqrt(degrees)
    return lmbda * theta[codes][:, None]


def spatial_share(codes, lmbda, phi, z):
    """A mixture of the scaled generalised inverse and the identity, by its own root."""
    inverse = np.linalg.pinv(np.diag(AREAS.sum(axis=1)) - AREAS)
    inverse /= np.exp(np.log(np.diag(inverse)).mean())
    _, vectors = np.linalg.eigh(np.diag(AREAS.sum(axis=1)) - AREAS)
    mixture = vectors.T @ (phi * inverse + (1.0 - phi) * np.eye(C)) @ vectors
    theta = vectors @ (np.sqrt(np.diag(mixture)) * z[:, 0])
    return lmbda * theta[codes][:, None]


def second_order(x, lmbda, theta):
    pairs = [
        (x[:, i] * x[:, j])[:, None] * (theta[i] * theta[j]).sum(axis=0)
        for i, j in combinations(range(x.shape[1]), 2)
    ]
    return sum(pairs)


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


U, C, M, L = (SIZES[letter] for letter in "ucml")

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
            layers.RandomSlopesLayer(),
            (columns("d"), codes),
            {"num_categories": C},
            {"lmbda": "(k,)", "corr": "(k, k)", "z": "(c, k)"},
            "(n, 1)",
            own_slopes,
            derived={"theta": "(c, k)"},
            unconstrained={"corr": "(6,)"},
            own_prior=True,
        ),
        Case(
            layers.MultiMembershipLayer(),
            (two_codes, two_weights),
            {"num_categories": C},
            {"lmbda": "()", "theta": "(c, 1)"},
            "(n, 1)",
            membership,
        ),
        Case(
            layers.CARLayer(AREAS),
            (codes,),
            {},
            {"lmbda": "()", "alpha": "()", "z": "(c, 1)"},
            "(n, 1)",
            autoregression,
            derived={"theta": "(c, 1)"},
            own_prior=True,
        ),
        Case(
            layers.BYM2Layer(AREAS),
            (codes,),
            {},
            {"lmbda": "()", "phi": "()", "z": "(c, 1)"},
            "(n, 1)",
            spatial_share,
            derived={"theta": "(c, 1)"},
            own_prior=True,
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
