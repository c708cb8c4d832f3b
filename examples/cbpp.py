"""Contagious bovine pleuropneumonia: cases in 15 herds of cattle over four periods.

    log odds of a case = intercept + period + herd,    herd ~ Normal(0, sd of herds)

A binomial regression with an intercept for each herd, by NUTS, beside the maximum
likelihood estimates of the R package lme4. Run it with `python examples/cbpp.py`.

Source of the data: Lesnoff and others (2004), Within-herd spread of contagious bovine
pleuropneumonia in Ethiopian highlands. Source of the figures: Bates, Maechler, Bolker and
Walker (2015), Fitting Linear Mixed-Effects Models Using lme4, and its function glmer.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Figure, caterpillar, codes, indicators, pooled, read, show

import lamina

PUBLISHED = (-1.398, -0.992, -1.128, -1.580)
HERDS = 0.642
WEAK = {"loc": 0.0, "scale": 10.0}


def model(period: Any, herd: Any, size: Any, num_herds: int, y: Any = None) -> Any:
    """Cases out of the size of the herd, by period, with an intercept for each herd."""
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("first")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("period", period)
        + lamina.RandomEffectsLayer(HalfNormal, lmbda_kwargs={"scale": 5.0})(
            "herd", herd, num_herds
        )
    )
    return lamina.binomial_link(mu, y, trials=size)


def fit() -> lamina.Posterior:
    """The posterior."""
    table = read("cbpp")
    herd = codes(table["herd"].astype(int))
    data = {
        "period": indicators(table["period"], ["2", "3", "4"]),
        "herd": herd,
        "num_herds": int(herd.max()) + 1,
        "size": table["size"].astype(int),
        "y": table["incidence"].astype(int),
    }
    return lamina.fit(model, data, method="mcmc", **NUTS)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    period = pooled(posterior, "period.beta")[:, :, 0]
    effects = np.column_stack([pooled(posterior, "first.beta")[:, 0, 0], period])
    names = ("intercept", "period 2", "period 3", "period 4")
    return [
        *(Figure(n, effects[:, i], PUBLISHED[i]) for i, n in enumerate(names)),
        Figure("sd of herds", pooled(posterior, "herd.lmbda"), HERDS, "scale"),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """The probability of a case in an average herd, and the herds' effects."""
    figure, axes = plt.subplots(figsize=(6, 4))
    order = caterpillar(axes, pooled(posterior, "herd.theta")[:, :, 0])
    axes.set_yticks(range(len(order)), [f"herd {i + 1}" for i in order])
    axes.set_xlabel("log odds of a case beside an average herd's (mean, 90 %)")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "lme4 (Bates and others 2015), glmer, by maximum likelihood"
    show("cbpp", source, posterior, figures(posterior), draw, "cbpp.png")


if __name__ == "__main__":
    main()
