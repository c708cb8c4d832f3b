"""Every layer with its sites, data and formula, for tests that all layers share."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from itertools import product as cartesian
from typing import Any

import numpy as np
from scipy import stats
from scipy.interpolate import BSpline

from lamina import layers
from lamina.handlers import learn, remembering

SIZES = {
    "d": 3,
    "e": 2,
    "u": 2,
    "l": 2,
    "c": 4,
    "m": 3,
    "k": 4,
    "p": 117,
    "q": 7,
    "b": 216,
}


LONG = {"loc": 0.0, "scale": 0.001}  # length scales that few functions carry


def columns(letter):
    width = SIZES.get(letter, 1)
    return lambda rng, n: rng.normal(size=(n, width))


def codes(rng, n):
    return rng.integers(0, SIZES["c"], size=n)


@dataclass(frozen=True)
class Case:
    """A layer; `sites` and `output` hold shapes in the letters of its docstring."""

    layer: Any
    data: tuple[Callable[..., np.ndarray], ...]
    sizes: dict[str, int]
    sites: dict[str, str]
    output: str
    formula: Callable[..., np.ndarray]
    own_priors: dict[str, Callable[..., np.ndarray]] = field(default_factory=dict)
    """log densities of the sites that are no coefficients of the layer's prior"""
    trained: bool = False
    """whether the layer learns from training rows, which are 40 others here"""

    @property
    def cls(self):
        return type(self.layer)

    def arguments(self, n, seed=0):
        """The call's data at n rows."""
        rng = np.random.default_rng(seed)
        return tuple(draw(rng, n) for draw in self.data)

    def __call__(self, name, *data):
        """Call the layer on its data and sizes."""
        with self.taught(name):
            return self.layer(name, *data, **self.sizes)

    def taught(self, name):
        """A context in which the layer of this name knows what its training rows teach."""
        if not self.trained:
            return nullcontext()
        known = memory(self.cls.__name__)
        return remembering(values={f"{name}.{k}": v for k, v in known.items()})

    def shape(self, letters, n):
        """A shape in letters, such as "(d, u)", in numbers."""
        axes = letters.strip("()").replace(",", " ").split()
        known = {**SIZES, "n": n}
        return tuple(known[axis] if axis in known else int(axis) for axis in axes)

    def site_shapes(self, name, n=1):
        """site -> its shape in numbers."""
        return {f"{name}.{k}": self.shape(v, n) for k, v in self.sites.items()}

    def coefficients(self, name, seed=1):
        """Values for every site: positive scales, real coefficients."""
        rng = np.random.default_rng(seed)
        return {
            site: inside_support(site.removeprefix(f"{name}."), rng, shape)
            for site, shape in self.site_shapes(name).items()
        }

    def expected(self, name, data, coefficients):
        """The formula in NumPy."""
        values = {k.removeprefix(f"{name}."): v for k, v in coefficients.items()}
        if self.trained:
            (values["learned"],) = memory(self.cls.__name__).values()
        return self.formula(*data, **values)


def inside_support(site, rng, shape):
    """Values that the site can have."""
    if "lmbda" in site or site in ("length", "ratio"):
        return rng.uniform(0.5, 2.0, size=shape)
    return rng.normal(size=shape)


@cache
def memory(which):
    """What 40 training rows teach a layer, by names without the layer's own."""
    case = CASES[which]
    rows = {f"x{i}": data for i, data in enumerate(case.arguments(40, seed=9))}
    known = learn(lambda **data: case.layer("mu", *data.values(), **case.sizes), rows)
    return {k.removeprefix("mu."): v for k, v in known.items()}


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


def spline_columns(x, learned):
    """Cubic splines by SciPy, with tangents outside of the training rows' range."""
    start, width = learned["range"]
    z = (x[:, 0] - start) / width
    splines = BSpline(learned["knots"], learned["transform"], 3)
    inside = np.clip(z, 0.0, 1.0)
    return splines(inside) + (z - inside)[:, None] * splines.derivative()(inside)


def curve(x, beta, lmbda, theta, learned):
    return spline_columns(x, learned)[:, 1:] @ np.vstack([beta, theta])


def curves(x, codes, lmbda1, theta1, lmbda2, theta2, learned):
    columns = spline_columns(x, learned)
    own = np.hstack([theta1, theta2])[codes]
    return np.array([[a @ b] for a, b in zip(columns, own, strict=True)])


def surface(x, ratio, lmbda, theta, beta, learned):
    margins = [
        spline_columns(x[:, [j]], one) for j, one in enumerate(learned["margins"])
    ]
    rows = []
    for parts in zip(*margins, strict=True):
        plain, bent = [], []
        for p, places in enumerate(cartesian(*(range(len(part)) for part in parts))):
            value = np.prod([part[i] for part, i in zip(parts, places, strict=True)])
            value -= learned["centre"][p]
            if max(places) > 1:
                weights = learned["rough"][:, p] / np.r_[1.0, ratio] ** 2
                bent.append(value / np.sqrt(weights.sum()) / learned["size"])
            elif p:
                plain.append(value)
        rows.append(np.array(plain) @ beta + np.array(bent) @ theta)
    return np.array(rows)


def process(x, length, lmbda, theta, learned):
    """Squared exponential in three columns, 6 functions each, on a box of 3.25."""
    z = (x - learned["middle"]) / learned["half"]
    rows = np.zeros((len(x), theta.shape[1]))
    for order, weight in zip(cartesian(range(1, 7), repeat=3), theta, strict=True):
        w = np.pi * np.array(order) / 6.5
        phi = np.prod(np.sin(w * (z + 3.25)) / np.sqrt(3.25), axis=1)
        density = np.prod(np.sqrt(2.0 * np.pi) * length)
        density *= np.exp(-0.5 * np.sum((w * length) ** 2))
        rows += np.sqrt(density) * phi[:, None] * weight
    return rows


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
            layers.SplineLayer(units=U, num_basis=6),
            (columns("1"),),
            {},
            {"lmbda": "(u,)", "theta": "(k, u)", "beta": "(1, u)"},
            "(n, u)",
            curve,
            {"beta": stats.norm.logpdf},
            trained=True,
        ),
        Case(
            layers.FactorSplineLayer(num_basis=6),
            (columns("1"), codes),
            {"num_categories": C},
            {
                "lmbda1": "(2,)",
                "theta1": "(c, 2)",
                "lmbda2": "()",
                "theta2": "(c, k)",
            },
            "(n, 1)",
            curves,
            trained=True,
        ),
        Case(
            layers.TensorSplineLayer(units=U, num_basis=5),
            (columns("d"),),
            {},
            {
                "ratio": "(e,)",
                "lmbda": "(u,)",
                "theta": "(p, u)",
                "beta": "(q, u)",
            },
            "(n, u)",
            surface,
            {
                "beta": stats.norm.logpdf,
                "ratio": stats.lognorm(1.0).logpdf,
            },
            trained=True,
        ),
        Case(
            layers.HSGPLayer(units=U, num_basis=6, boundary=3.25, length_kwargs=LONG),
            (columns("d"),),
            {},
            {"length": "(d,)", "lmbda": "(u,)", "theta": "(b, u)"},
            "(n, u)",
            process,
            {"length": stats.lognorm(0.001).logpdf},
            trained=True,
        ),
    ]
}
