"""Wine: nine judges rate the bitterness of wine from 1 to 5.

    log odds of a rating up to j = threshold j - (warm + contact + judge),
    judge ~ Normal(0, sd of judges)

An ordinal regression with an intercept for each judge, by NUTS, beside the maximum
likelihood estimates of the R package ordinal. Run it with `python examples/wine.py`.

The prior of the thresholds is Jeffreys's for the shares of the five ratings, a Dirichlet of
halves, for a wine half way between the conditions. 72 ratings leave a skewed posterior,
whose means depend on such a choice: under a uniform Dirichlet they lie up to 0.4 posterior
standard deviations nearer to zero than maximum likelihood, under Normal(0, 10) up to 0.2
farther from it.

Source of the data: Randall (1989), The analysis of sensory data by generalised linear
model. Source of the figures: Christensen, A Tutorial on fitting Cumulative Link Mixed
Models with clmm2 from the ordinal Package.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import Dirichlet, HalfNormal
from published import NUTS, Figure, caterpillar, codes, indicators, pooled, read, show

import lamina

THRESHOLDS = (-1.624, 1.513, 4.227, 6.086)
EFFECTS = {"warm": 3.062, "contact": 1.833}
JUDGES = 1.135
WEAK = {"loc": 0.0, "scale": 10.0}


def model(x: Any, judge: Any, num_judges: int, y: Any = None) -> Any:
    """Rating less 1, by temperature and contact, with an intercept for each judge."""
    mu = lamina.FixedPriorLayer(coef_kwargs=WEAK)("x", x) + lamina.RandomEffectsLayer(
        HalfNormal, lmbda_kwargs={"scale": 5.0}
    )("judge", judge, num_judges)
    return lamina.ordinal_link(mu, y, probabilities=Dirichlet(np.full(5, 0.5)))


def design(table: dict[str, np.ndarray]) -> np.ndarray:
    """Warm and contact, -1/2 for no and 1/2 for yes: (n, 2)."""
    warm = indicators(table["temp"], ["warm"])
    return np.hstack([warm, indicators(table["contact"], ["yes"])]) - 0.5


def fit() -> lamina.Posterior:
    """The posterior."""
    table = read("wine_bitterness")
    judge = codes(table["judge"].astype(int))
    data = {
        "x": design(table),
        "judge": judge,
        "num_judges": int(judge.max()) + 1,
        "y": table["rating"].astype(int) - 1,
    }
    return lamina.fit(model, data, method="mcmc", **NUTS)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones, whose zero is cold, no contact."""
    effects = pooled(posterior, "x.beta")[:, :, 0]
    cold = pooled(posterior, "cutpoints") + 0.5 * effects.sum(axis=1, keepdims=True)
    names = [f"threshold {j}" for j in range(1, 5)]
    return [
        *map(Figure, names, cold.T, THRESHOLDS),
        *map(Figure, EFFECTS, effects.T, EFFECTS.values()),
        Figure("sd of judges", pooled(posterior, "judge.lmbda"), JUDGES, "scale"),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """Shares of the ratings in the four conditions, and the judges' effects."""
    table = read("wine_bitterness")
    ratings = table["rating"].astype(int)[:, None] == np.arange(1, 6)
    fitted = posterior.predict(kind="mean").mean
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 4), width_ratios=[3, 2], layout="constrained"
    )
    colours = plt.get_cmap("YlOrRd")(np.linspace(0.1, 0.9, 5))
    names, x = [], design(table)
    for i, (warm, contact) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        rows = (x == (warm - 0.5, contact - 0.5)).all(axis=1)
        names.append(f"{('cold', 'warm')[warm]}, {('no contact', 'contact')[contact]}")
        for shares, at in ((ratings[rows], i - 0.2), (fitted[rows], i + 0.2)):
            widths = shares.mean(axis=0)
            starts = np.cumsum(widths) - widths
            left.barh(at, widths, 0.36, starts, color=colours, ec="white")
            left.text(-0.01, at, ("data", "model")[at > i], ha="right", va="center")
    bars = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours]
    left.legend(
        bars,
        range(1, 6),
        title="rating",
        ncols=5,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
    )
    left.set_yticks(range(4), names)
    left.tick_params(axis="y", length=0, pad=38)
    left.spines[:].set_visible(False)
    left.set_xlabel("share of the ratings")
    left.invert_yaxis()
    order = caterpillar(right, pooled(posterior, "judge.theta")[:, :, 0])
    right.set_yticks(range(9), [f"judge {i + 1}" for i in order])
    right.set_xlabel("log odds of a more bitter rating\n(mean, 90 %)")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "ordinal (Christensen), clmm2, maximum likelihood by quadrature"
    show("wine", source, posterior, figures(posterior), draw, "wine.png")


if __name__ == "__main__":
    main()
