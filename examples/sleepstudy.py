"""Sleepstudy: reaction times of 18 drivers over ten days of short nights.

    reaction = intercept + subject + (slope + subject's slope) * days + noise,
    (subject, subject's slope) ~ Normal(0, covariance)

A regression with a correlated random intercept and slope, by NUTS, beside the restricted
maximum likelihood estimates of the R package lme4. Run it with
`python examples/sleepstudy.py`.

Source of the data: Belenky and others (2003), Patterns of performance degradation and
restoration during sleep restriction and subsequent recovery. Source of the figures: Bates,
Maechler, Bolker and Walker (2015), Fitting Linear Mixed-Effects Models Using lme4.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Figure, middle, pooled, show

import lamina
from lamina.data import load_sleepstudy

EFFECTS = {"intercept": 251.405, "slope of days": 10.467}
SPREADS = {
    "sd of intercepts": 24.741,
    "sd of slopes": 5.922,
    "correlation": 0.07,
    "sd of noise": 25.592,
}
WEAK = {"loc": 0.0, "scale": 3000.0}
WEAK_SLOPE = {"loc": 0.0, "scale": 500.0}


def model(days: Any, subject: Any, num_subjects: int, y: Any = None) -> Any:
    """Reaction time in ms, by day, with a line for each subject."""
    by_subject = lamina.RandomSlopesLayer(
        HalfNormal, lmbda_kwargs={"scale": np.array([100.0, 30.0])}
    )
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("first")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK_SLOPE)("days", days)
        + by_subject("subject", days, subject, num_subjects)
    )
    return lamina.gaussian_link(mu, y, scale=HalfNormal(100.0))


def fit() -> lamina.Posterior:
    """The posterior."""
    study = load_sleepstudy()
    data = {
        "days": study.days,
        "subject": study.subject,
        "num_subjects": len(study.subjects),
        "y": study.reaction,
    }
    return lamina.fit(model, data, method="mcmc", **NUTS)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    line = common_line(posterior)
    effects = zip(EFFECTS, line.T, EFFECTS.values(), strict=True)
    spreads = np.column_stack(
        [
            pooled(posterior, "subject.lmbda"),
            pooled(posterior, "subject.corr")[:, 1, 0],
            pooled(posterior, "sigma"),
        ]
    )
    scales = zip(SPREADS, spreads.T, SPREADS.values(), strict=True)
    return [
        *(Figure(*effect) for effect in effects),
        *(Figure(*scale, "scale") for scale in scales),
    ]


def common_line(posterior: lamina.Posterior) -> np.ndarray:
    """Draws of the intercept and slope that all subjects share: (draw, 2)."""
    first, days = pooled(posterior, "first.beta"), pooled(posterior, "days.beta")
    return np.column_stack([first[:, 0, 0], days[:, 0, 0]])


def draw(posterior: lamina.Posterior) -> Any:
    """Each subject's line, with what all subjects share behind it."""
    study = load_sleepstudy()
    grid = np.array([np.ones(10), np.arange(10.0)])
    shared = common_line(posterior)
    lines = (shared[:, None] + pooled(posterior, "subject.theta")) @ grid
    low, high = middle(lines)
    order = lines[:, :, -1].mean(axis=0).argsort()
    figure, panels = plt.subplots(
        3, 6, figsize=(10, 5.6), sharex=True, sharey=True, layout="constrained"
    )
    for axes, i in zip(panels.flat, order, strict=True):
        own = study.subject == i
        axes.plot(grid[1], shared.mean(axis=0) @ grid, color="0.6", ls="--", lw=1)
        axes.fill_between(grid[1], low[i], high[i], color="tab:blue", alpha=0.25, lw=0)
        axes.plot(grid[1], lines[:, i].mean(axis=0), color="tab:blue")
        axes.plot(study.days[own], study.reaction[own], "o", color="0.2", ms=3)
        axes.set_title(f"subject {study.subjects[i]}", fontsize=9)
    panels[0, 0].set_xticks([0, 3, 6, 9])
    figure.supxlabel("day (dashed: the average subject; band: 90 %)", fontsize=10)
    figure.supylabel("reaction time, ms", fontsize=10)
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "lme4 (Bates and others 2015), lmer, by restricted maximum likelihood"
    show("sleepstudy", source, posterior, figures(posterior), draw, "sleepstudy.png")


if __name__ == "__main__":
    main()
