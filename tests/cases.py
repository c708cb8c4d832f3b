"""Every layer with its sites, data and formula, for tests that all layers share."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from itertools import product as cartesian
from typing import Any

import jax.numpy as jnp
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
    "lu": 4,
    "c": 4,
    "s": 3,
    "m": 4,
    "h": 4,
    "2h": 8,
    "k": 4,
    "p": 117,
    "q": 7,
    "b": 216,
}
AREAS = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]])
LONG = {"loc": 0.0, "scale": 0.001}  # length scales that few functions carry


def columns(letter):
    width = SIZES.get(letter, 1)
    return lambda rng, n: rng.normal(size=(n, width))


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
    """log densities of the sites that are no coefficients of the layer's prior"""
    own_prior: bool = False
    """whether its prior is its own, so that its constructor is not the common one"""
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
            return self.untaught(name, *data)

    def untaught(self, name, *data):
        """The same, where the layer knows nothing of its training rows."""
        return self.layer(name, *data, **self.sizes)

    def taught(self, name):
        """A context in which the layer of this name knows what its training rows teach."""
        if not self.trained:
            return nullcontext()
        known = memory(self.cls.__name__)
        return remembering(values={f"{name}.{k}": v for k, v in known.items()})

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
        names = [k for k in known if re.fullmatch(r"(.*\.)?(beta|theta)\d?", k)]
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
        if self.trained:
            (values["learned"],) = memory(self.cls.__name__).values()
        return self.formula(*data, **values)


def value_of(site, shape, rng):
    """A value that the support of the site allows."""
    if re.search(r"\.(lmbda\d?|tau|slab|length|ratio)$", site):
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


@cache
def memory(which):
    """What 40 training rows teach a layer, by names without the layer's own."""
    case = CASES[which]
    rows = {f"x{i}": data for i, data in enumerate(case.arguments(40, seed=9))}
    known = learn(lambda **data: case.layer("mu", *data.values(), **case.sizes), rows)
    return {k.removeprefix("mu."): v for k, v in known.items()}


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


def neighbours(codes, lmbda, alpha, z):
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
            neighbours,
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
            layers.FM3Layer(units=U),
            (columns("d"),),
            {"low_rank_dim": L},
            {"lmbda": "(u,)", "theta": "(d, l, u)"},
            "(n, u)",
            third_order,
        ),
        Case(
            layers.FieldFMLayer(units=U),
            (two_codes,),
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
        Case(
            layers.SplineLayer(units=U, num_basis=6),
            (columns("1"),),
            {},
            {"lmbda": "(u,)", "theta": "(k, u)", "beta": "(1, u)"},
            "(n, u)",
            curve,
            own_priors={"beta": stats.norm.logpdf},
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
            own_priors={
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
            own_priors={"length": stats.lognorm(0.001).logpdf},
            trained=True,
        ),
    ]
}
