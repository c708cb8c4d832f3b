"""Radon in 919 Minnesota houses of 85 counties, with the counties' uranium.

    log radon = intercept + first floor + slope * log uranium + county + noise,
    county ~ Normal(0, sd of counties)

A regression with an intercept for each county and a predictor of those intercepts, by NUTS,
beside the published estimates by restricted maximum likelihood. Run it with
`python examples/radon.py`.

Source of the data: the residential radon survey of the U.S. Environmental Protection
Agency. Source of the figures: Gelman and Hill (2007), Data Analysis Using Regression and
Multilevel/Hierarchical Models, section 12.6.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Figure, middle, pooled, show

import lamina
from lamina.data import load_radon

EFFECTS = {"intercept": 1.466, "first floor": -0.668, "log uranium": 0.720}
SPREADS = {"sd of counties": 0.156, "sd of houses": 0.758}
SITES = ("basement.beta", "floor.beta", "uranium.beta")
WEAK = {"loc": 0.0, "scale": 10.0}


def model(
    floor: Any, log_uranium: Any, county: Any, num_counties: int, y: Any = None
) -> Any:
    """Log radon by floor and uranium, with an intercept for each county."""
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("basement")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("floor", floor)
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("uranium", log_uranium)
        + lamina.RandomEffectsLayer(HalfNormal, lmbda_kwargs={"scale": 1.0})(
            "county", county, num_counties
        )
    )
    return lamina.gaussian_link(mu, y, scale=HalfNormal(5.0))


def fit() -> lamina.Posterior:
    """The posterior."""
    radon = load_radon()
    data = {
        "floor": radon.floor,
        "log_uranium": radon.log_uranium,
        "county": radon.county,
        "num_counties": len(radon.counties),
        "y": radon.log_radon,
    }
    return lamina.fit(model, data, method="mcmc", noncentered=["county.theta"], **NUTS)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    effects = [pooled(posterior, site)[:, 0, 0] for site in SITES]
    spreads = [pooled(posterior, site) for site in ("county.lmbda", "sigma")]
    return [
        *map(Figure, EFFECTS, effects, EFFECTS.values()),
        *(
            Figure(name, draws, SPREADS[name], "scale")
            for name, draws in zip(SPREADS, spreads, strict=True)
        ),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """The counties' intercepts over their uranium, as in the book's figure 12.6."""
    radon = load_radon()
    uranium = np.array([radon.log_uranium[radon.county == c][0] for c in range(85)])
    first, slope = (pooled(posterior, site)[:, :, 0] for site in SITES[::2])
    counties = first + slope * uranium + pooled(posterior, "county.theta")[:, :, 0]
    grid = np.linspace(uranium.min() - 0.05, uranium.max() + 0.05, 50)
    line = first + slope * grid
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.fill_between(grid, *middle(line), color="tab:orange", alpha=0.3, lw=0)
    axes.plot(grid, line.mean(axis=0), color="tab:orange", label="from uranium alone")
    axes.vlines(uranium, *middle(counties), color="tab:blue", alpha=0.35, lw=1.2)
    axes.scatter(
        uranium,
        counties.mean(axis=0),
        s=4 + 1.5 * np.bincount(radon.county),
        color="tab:blue",
        alpha=0.8,
        lw=0,
        zorder=3,
        label="a county, by its number of houses",
    )
    axes.set_xlabel("log uranium in the county's soil, ppm")
    axes.set_ylabel("log radon in the basement, pCi/L\n(mean, 90 %)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "Gelman and Hill (2007), section 12.6, lmer, by restricted likelihood"
    show("radon", source, posterior, figures(posterior), draw, "radon.png")


if __name__ == "__main__":
    main()
