"""Every layer with its sites, data and formula, for tests that all layers share."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from lamina import layers

SIZES = {"d": 3, "e": 2, "u": 2, "l": 2, "c": 4, "s": 3, "m": 3, "h": 4, "k": 4}
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
    free: dict[str, str] = field(default_factory=dict)
    """the shapes of sites that have another one where nothing constrains them"""
    own_priors: dict[str, Callable[..., np.ndarray]] = field(default_factory=dict)
    """log densities of the sites that are no coefficients"""
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

    def derived_shapes(self, name):
        """deterministic site -> its shape in numbers."""
        return {f"{name}.{k}": self.shape(v, 1) for k, v in self.derived.items()}

    def free_shapes(self, name, n=1):
        """site -> the shape of what a sampler moves."""
        free = {**self.sites, **self.free}
        return {f"{name}.{k}": self.shape(v, n) for k, v in free.items()}

    def tensor_shapes(self, name):
        """The coefficients themselves, under any prior -> their shape in numbers."""
        known = {**self.sites, **self.derived}
        names = [k for k in known if re.fullmatch(r"(beta|theta)\d?", k)]
        return {f"{name}.{k}": self.shape(known[k], 1) for k in names}

    def coefficients(self, name, seed=1):
        """Values for every site: positive scales, shares, real coefficients."""
        rng = np.random.default_rng(seed)
        return {
            site: value_of(site, shape, rng)
            for site, shape in self.site_shapes(name).items()
        }

    def expected(self, name, data, coefficients):
        """The formula in NumPy."""
        values = {k.removeprefix(f"{name}."): v for k, v in coefficients.items()}
        return self.formula(*data, **values)


def value_of(site, shape, rng):
    """A value that the support of the site allows."""
    if re.search(r"\.(lmbda\d?|tau|slab)$", site):
        return rng.uniform(0.5, 2.0, size=shape)
    if site.endswith((".r2", ".alpha")) or (site.endswith(".phi") and not shape):
        return rng.uniform(0.1, 0.9, size=shape)
    if site.endswith(".rho"):
        return rng.uniform(-0.9, 0.9, size=shape)
    if site.endswith((".phi", ".zeta")):
        return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
    if site.endswith(".corr"):
        return np.linalg.cholesky(np.corrcoef(rng.normal(size=(shape[0], 20))))
    return rng.normal(size=shape)


def linear(x, beta, lmbda=None):
    return np.array([[row @ beta[:, u] for u in range(beta.shape[1])] for row in x])


def horseshoe(x, tau, slab, lmbda, beta_decentered):
    squares = slab * lmbda**2 / (slab + tau**2 * lmbda**2)
    return linear(x, beta_decentered * tau * np.sqrt(squares))


def r2d2(x, r2, phi, beta_decentered):
    odds = r2 / (1.0 - r2)
    return linear(x, beta_decentered * np.sqrt(phi.T * odds))


def spike_and_slab(x, lmbda, gate, beta_decentered):
    return linear(x, beta_decentered * lmbda / (1.0 + np.exp(-gate)))


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


def autoregression(codes, lmbda, theta, rho):
    path = [theta[0]]
    for step in theta[1:]:
        path.append(rho * path[-1] + np.sqrt(1.0 - rho**2) * step)
    return np.array([path[code] for code in codes])


def waves(times, lmbda, beta):
    angle = 2.0 * np.pi * times / PERIOD
    columns = [np.cos(angle), np.cos(2 * angle), np.sin(angle), np.sin(2 * angle)]
    return np.stack(columns, axis=1) @ beta


def rising(codes, lmbda, beta, zeta):
    return np.array([beta[0] * zeta[:, :code].sum(axis=1) for code in codes])


PERIOD = 6.5
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
            layers.GroupedAdaptiveLayer(units=U),
            (columns("d"),),
            {},
            {"lmbda": "(d, u)", "beta": "(d, u)"},
            "(n, u)",
            linear,
        ),
        Case(
            layers.HorseshoeLayer(units=U),
            (columns("d"),),
            {},
            {
                "tau": "(u,)",
                "slab": "(u,)",
                "lmbda": "(d, u)",
                "beta_decentered": "(d, u)",
            },
            "(n, u)",
            horseshoe,
            derived={"beta": "(d, u)"},
        ),
        Case(
            layers.R2D2Layer(units=U),
            (columns("d"),),
            {},
            {"r2": "(u,)", "phi": "(u, d)", "beta_decentered": "(d, u)"},
            "(n, u)",
            r2d2,
            derived={"beta": "(d, u)"},
            free={"phi": "(u, 2)"},
        ),
        Case(
            layers.SpikeAndSlabLayer(units=U),
            (columns("d"),),
            {},
            {"lmbda": "(u,)", "gate": "(d, u)", "beta_decentered": "(d, u)"},
            "(n, u)",
            spike_and_slab,
            derived={"weight": "(d, u)", "beta": "(d, u)"},
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
            free={"corr": "(6,)"},
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
        Case(
            layers.AR1Layer(),
            (codes,),
            {"num_categories": C, "embedding_dim": M},
            {"lmbda": "()", "theta": "(c, m)", "rho": "()"},
            "(n, m)",
            autoregression,
            own_priors={"rho": stats.uniform(-1.0, 2.0).logpdf},
        ),
        Case(
            layers.SeasonalLayer(units=U),
            (lambda rng, n: rng.uniform(-5.0, 20.0, size=n),),
            {"periods": PERIOD, "harmonics": 2},
            {"lmbda": "(u,)", "beta": "(h, u)"},
            "(n, u)",
            waves,
        ),
        Case(
            layers.MonotonicLayer(units=U),
            (codes,),
            {"num_categories": C},
            {"lmbda": "(u,)", "beta": "(1, u)", "zeta": "(u, s)"},
            "(n, u)",
            rising,
            own_priors={
                "zeta": lambda zeta: stats.dirichlet.logpdf(zeta.T, np.ones(C - 1))
            },
            free={"zeta": "(u, 2)"},
        ),
    ]
}
