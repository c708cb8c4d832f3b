"""Housing: 1,681 tenants in Copenhagen, more or less satisfied with their homes.

    log odds of a satisfaction up to j = cutpoint j - (influence + type + contact)

A proportional odds regression of a table of counts, each row weighted by its count, by
NUTS, beside the maximum likelihood estimates of polr in the R package MASS. Run it with
`python examples/housing.py`.

Source of the data: Madsen (1976), Statistical analysis of multiple contingency tables: two
examples. Source of the figures: Venables and Ripley (2002), Modern Applied Statistics with
S, section 7.3.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from published import NUTS, Figure, indicators, pooled, read, show

import lamina

LEVELS = {
    "influence": ("Low", "Medium", "High"),
    "type": ("Tower", "Apartment", "Atrium", "Terrace"),
    "contact": ("Low", "High"),
}
SATISFACTION = ("Low", "Medium", "High")
EFFECTS = {
    "influence: medium": 0.5664,
    "influence: high": 1.2888,
    "type: apartment": -0.5724,
    "type: atrium": -0.3662,
    "type: terrace": -1.0910,
    "contact: high": 0.3603,
}
CUTPOINTS = {"cutpoint low | medium": -0.4961, "cutpoint medium | high": 0.6907}
WEAK = {"loc": 0.0, "scale": 10.0}


def model(x: Any, count: Any, y: Any = None) -> Any:
    """Satisfaction by the columns of `x`; a row stands for `count` tenants."""
    mu = lamina.FixedPriorLayer(coef_kwargs=WEAK)("x", x)
    return lamina.ordinal_link(mu, y, num_categories=3, weights=count)


def design(table: dict[str, np.ndarray]) -> np.ndarray:
    """A column for each level but the first of each factor: (n, 6)."""
    return np.hstack([indicators(table[k], v[1:]) for k, v in LEVELS.items()])


def fit() -> lamina.Posterior:
    """The posterior."""
    table = read("housing_satisfaction")
    data = {
        "x": design(table),
        "count": table["count"].astype(float),
        "y": indicators(table["satisfaction"], SATISFACTION).argmax(axis=1),
    }
    return lamina.fit(model, data, method="mcmc", **NUTS)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    effects, cutpoints = pooled(posterior, "x.beta"), pooled(posterior, "cutpoints")
    return [
        *map(Figure, EFFECTS, effects[:, :, 0].T, EFFECTS.values()),
        *map(Figure, CUTPOINTS, cutpoints.T, CUTPOINTS.values()),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """Shares of highly satisfied tenants, as they are and as the model has them."""
    table, fitted = read("housing_satisfaction"), posterior.predict(kind="mean")
    factors = {"satisfaction": SATISFACTION, **LEVELS}
    order = np.lexsort(
        [indicators(table[name], factors[name]).argmax(axis=1) for name in factors]
    )
    # contact, type, influence, satisfaction
    count = table["count"].astype(float)[order].reshape(2, 4, 3, 3)
    # a cell's three rows have the same probabilities; the last is of high satisfaction
    mean, low, high = (
        values[order].reshape(2, 4, 3, 3, 3)[:, :, :, 0, 2]
        for values in (fitted.mean, fitted.lower, fitted.upper)
    )
    tenants = count.sum(axis=-1)
    figure, panels = plt.subplots(
        1, 4, figsize=(10, 3.8), sharey=True, layout="constrained"
    )
    for k, (axes, kind) in enumerate(zip(panels, LEVELS["type"], strict=True)):
        for contact, colour in enumerate(("tab:orange", "tab:blue")):
            at, cell = np.arange(3) + 0.12 * contact - 0.06, (contact, k)
            label = f"{LEVELS['contact'][contact].lower()} contact"
            axes.plot(at, mean[cell], color=colour, label=label)
            axes.vlines(at, low[cell], high[cell], colors=colour, lw=4, alpha=0.35)
            share = count[cell][:, 2] / tenants[cell]
            axes.scatter(
                at, share, s=tenants[cell], facecolors="none", edgecolors=colour
            )
        axes.set_title(kind.lower(), fontsize=10)
        axes.set_xticks(range(3), ["low", "medium", "high"])
        axes.set_xlim(-0.4, 2.4)
    panels[0].set_ylabel("share of highly satisfied tenants")
    panels[0].legend(frameon=False, loc="upper left")
    figure.supxlabel(
        "influence on the management\n"
        "(circles: data, by number of tenants; lines: model, with 90 %)",
        fontsize=10,
    )
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "MASS (Venables and Ripley 2002), polr, by maximum likelihood"
    show("housing", source, posterior, figures(posterior), draw, "housing.png")


if __name__ == "__main__":
    main()
