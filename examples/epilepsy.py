"""Seizures of 59 epileptic patients in four periods of two weeks, under two treatments.

    log mean of seizures = intercept + age + base + treatment + base:treatment + patient,
    patient ~ Normal(0, sd of patients)

A Poisson regression with an intercept for each patient, by NUTS, beside the posterior means
that the R package brms shows for the same model. Age and the seizures before the trial
(base) are standardised over all rows. Run it with `python examples/epilepsy.py`.

Source of the data: Thall and Vail (1990), Some covariance models for longitudinal count
data with overdispersion. Source of the figures: the examples in the documentation of brms
(Bürkner 2017, brms: An R Package for Bayesian Multilevel Models Using Stan), whose last
digit differs by 1 between versions.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Figure, middle, pooled, show

import lamina
from lamina.data import Epilepsy, load_epilepsy

PUBLISHED = {
    "intercept": 1.77,
    "age": 0.09,
    "base": 0.70,
    "treatment": -0.26,
    "base:treatment": 0.05,
}
PATIENTS = 0.58
WEAK = {"loc": 0.0, "scale": 10.0}


def model(x: Any, patient: Any, num_patients: int, y: Any = None) -> Any:
    """Counts by the columns of `x`, with an intercept for each patient."""
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("first")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("x", x)
        + lamina.RandomEffectsLayer(HalfNormal, lmbda_kwargs={"scale": 3.0})(
            "patient", patient, num_patients
        )
    )
    return lamina.poisson_link(mu, y)


def standardised(column: np.ndarray) -> np.ndarray:
    """Of mean 0 and, over n - 1, standard deviation 1."""
    return (column - column.mean()) / column.std(ddof=1)


def design(trial: Epilepsy) -> np.ndarray:
    """The columns of the regression: (n, 4)."""
    base = standardised(trial.base)
    return np.column_stack(
        [standardised(trial.age), base, trial.treatment, base * trial.treatment]
    )


def fit() -> lamina.Posterior:
    """The posterior."""
    trial = load_epilepsy()
    data = {
        "x": design(trial),
        "patient": trial.patient,
        "num_patients": int(trial.patient.max()) + 1,
        "y": trial.seizures,
    }
    return lamina.fit(model, data, method="mcmc", **NUTS)


def effects(posterior: lamina.Posterior) -> np.ndarray:
    """Draws of the intercept and the coefficients: (draw, 5)."""
    first, x = pooled(posterior, "first.beta"), pooled(posterior, "x.beta")
    return np.concatenate([first, x], axis=1)[:, :, 0]


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    return [
        *map(Figure, PUBLISHED, effects(posterior).T, PUBLISHED.values()),
        Figure("sd of patients", pooled(posterior, "patient.lmbda"), PATIENTS, "scale"),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """Patients' rates over their seizures before, and an average patient's mean."""
    trial = load_epilepsy()
    before, rates = trial.base[::4], trial.seizures.reshape(-1, 4).mean(axis=1)
    grid = np.geomspace(before.min(), before.max(), 60)
    base = (grid - trial.base.mean()) / trial.base.std(ddof=1)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for treatment, name, colour in ((0, "placebo", "orange"), (1, "progabide", "blue")):
        rows = [
            np.ones(60),
            np.zeros(60),
            base,
            np.full(60, treatment),
            treatment * base,
        ]
        mean, own = np.exp(effects(posterior) @ rows), trial.treatment[::4] == treatment
        look = {"color": f"tab:{colour}"}
        axes.fill_between(grid, *middle(mean), alpha=0.2, lw=0, **look)
        axes.plot(grid, mean.mean(axis=0), label=name, **look)
        axes.plot(before[own], rates[own], "o", ms=4, alpha=0.8, **look)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.4)
    axes.set_ylim(-0.15, 250)
    for axis, ticks in (
        (axes.xaxis, (6, 10, 20, 50, 100, 150)),
        (axes.yaxis, (0, 1, 2, 5, 10, 20, 50, 100, 200)),
    ):
        axis.set_ticks(ticks, map(str, ticks))
        axis.set_ticks([], minor=True)
    axes.set_xlabel("seizures in the eight weeks before the trial")
    axes.set_ylabel("seizures in two weeks")
    title = "points: patients; lines: a patient\nof average age and effect, with 90 %"
    axes.legend(frameon=False, title=title, alignment="left")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "documentation of brms (Bürkner 2017), posterior means, to two digits"
    show("epilepsy", source, posterior, figures(posterior), draw, "epilepsy.png")


if __name__ == "__main__":
    main()
