"""Contraception: 1,934 women of Bangladesh in 60 districts.

    log odds of use = intercept + age + age^2 + urban + living children + district,
    district ~ Normal(0, sd of districts)

A logistic regression with an intercept for each district, by NUTS, beside the maximum
likelihood estimates of the same model, which `maximum_likelihood` below computes by itself:
the districts' intercepts are integrated out by Gauss-Hermite quadrature. Age is in decades
from the mean. Run it with `python examples/contraception.py`.

Source of the data: the Bangladesh Fertility Survey of 1988, reported by Huq and Cleland
(1990), as `Contraception` in the R package mlmRev.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import (
    NUTS,
    Figure,
    caterpillar,
    codes,
    indicators,
    middle,
    pooled,
    read,
    show,
)
from scipy.optimize import minimize
from scipy.special import logsumexp

import lamina

CHILDREN = ("0", "1", "2", "3+")
EFFECTS = ("intercept", "age", "age squared", "urban", "1 child", "2 children", "3+")
WEAK = {"loc": 0.0, "scale": 10.0}


def model(x: Any, district: Any, num_districts: int, y: Any = None) -> Any:
    """Use, by the columns of `x`, with an intercept for each district."""
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("first")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("x", x)
        + lamina.RandomEffectsLayer(HalfNormal, lmbda_kwargs={"scale": 2.0})(
            "district", district, num_districts
        )
    )
    return lamina.logit_link(mu, y)


def columns(age: Any, urban: Any, children: Any) -> np.ndarray:
    """The columns of the regression, from decades, 0 or 1, and labels: (n, 6)."""
    return np.column_stack([age, age**2, urban, indicators(children, CHILDREN[1:])])


def read_data() -> dict[str, Any]:
    """The arguments of the model."""
    table = read("contraception")
    age, urban = table["age_centred"].astype(float) / 10, table["urban"].astype(float)
    district = codes(table["district"].astype(int))
    return {
        "x": columns(age, urban, table["living_children"]),
        "district": district,
        "num_districts": int(district.max()) + 1,
        "y": table["use"].astype(int),
    }


def fit() -> lamina.Posterior:
    """The posterior."""
    return lamina.fit(model, read_data(), method="mcmc", **NUTS)


def maximum_likelihood(
    x: np.ndarray, district: np.ndarray, num_districts: int, y: np.ndarray
) -> np.ndarray:
    """The intercept, coefficients and sd of districts that maximise the likelihood.

    Source: McCulloch and Searle (2001), Generalized, Linear, and Mixed Models, section
    10.3, for the quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_weights = np.log(weights / weights.sum())
    design = np.column_stack([np.ones(len(x)), x])

    def loss(parameters: np.ndarray) -> float:
        eta = (design @ parameters[:-1])[:, None] + np.exp(parameters[-1]) * nodes
        log_p = y[:, None] * eta - np.logaddexp(0.0, eta)
        by_district = np.zeros((num_districts, len(nodes)))
        np.add.at(by_district, district, log_p)
        return -float(logsumexp(by_district + log_weights, axis=1).sum())

    found = minimize(loss, np.zeros(design.shape[1] + 1), tol=1e-6).x
    return np.append(found[:-1], np.exp(found[-1]))


def effects(posterior: lamina.Posterior) -> np.ndarray:
    """Draws of the intercept and the coefficients: (draw, 7)."""
    first, x = pooled(posterior, "first.beta"), pooled(posterior, "x.beta")
    return np.concatenate([first, x], axis=1)[:, :, 0]


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside maximum likelihood."""
    *expected, spread = maximum_likelihood(**read_data())
    districts = pooled(posterior, "district.lmbda")
    return [
        *map(Figure, EFFECTS, effects(posterior).T, expected),
        Figure("sd of districts", districts, spread, "scale"),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """The probability of use over age in an average district, and the districts."""
    age = np.linspace(-1.35, 1.9, 60)
    figure, (*panels, last) = plt.subplots(
        1, 3, figsize=(11, 4), width_ratios=[2, 2, 1.6], layout="constrained"
    )
    for axes, urban in zip(panels, (0, 1), strict=True):
        for i, children in enumerate(CHILDREN):
            x = columns(age, np.full(60, urban), np.full(60, children))
            eta = effects(posterior) @ np.column_stack([np.ones(60), x]).T
            p = 1 / (1 + np.exp(-eta))
            years, look = 10 * age, {"color": f"C{i}", "ls": "-" if i < 3 else "--"}
            if children in ("0", "3+"):
                axes.fill_between(years, *middle(p), color=f"C{i}", alpha=0.15, lw=0)
            axes.plot(years, p.mean(axis=0), label=children, **look)
        axes.set_title(("rural", "urban")[urban], fontsize=10)
        axes.set_ylim(0, 0.8)
        axes.set_xlabel("age less the mean, years")
    panels[0].set_ylabel("probability of use in an average district\n(bands: 90 %)")
    panels[0].legend(title="living children", frameon=False, ncols=4)
    caterpillar(last, pooled(posterior, "district.theta")[:, :, 0], size=3)
    last.set_yticks([])
    last.set_ylabel("districts")
    last.set_xlabel("log odds beside an average district's\n(mean, 90 %)")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "none to cite; the column is maximum likelihood, computed here (SciPy)"
    picture = "contraception.png"
    show(
        "contraception",
        source,
        posterior,
        figures(posterior),
        draw,
        picture,
        reference="maximum likelihood",
    )


if __name__ == "__main__":
    main()
