r"""The Nile's flow in 1871 to 1970: a level that walks, and its forecast.

    flow ~ Normal(level, sigma),    level = level before + Normal(0, lmbda)

The local level model, by NUTS, beside its maximum likelihood estimates. The level drops
in 1899, when the dam at Aswan was begun. Run it with `python examples/nile.py`.

Source of the data: Cobb (1978), The Problem of the Nile. Source of the figures: Durbin and
Koopman (2012), Time Series Analysis by State Space Methods, section 2.10.3: variances
15,099 and 1,469.1.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Figure, pooled, show

import lamina
from lamina.data import load_nile

NOISE = float(np.sqrt(15_099.0))
STEPS = float(np.sqrt(1_469.1))
FIRST, YEARS, AHEAD = 1871, 100, 30
WEAK = {"loc": 1000.0, "scale": 1000.0}


def model(t: Any, y: Any = None) -> Any:
    """Flows at years `t` since the first, around a level that walks from year to year."""
    level = lamina.InterceptLayer(coef_kwargs=WEAK)("first") + lamina.RandomWalkLayer(
        HalfNormal, lmbda_kwargs={"scale": 100.0}
    )("level", t, YEARS, 1)
    return lamina.gaussian_link(level, y, scale=HalfNormal(500.0))


def fit() -> lamina.Posterior:
    """The posterior; the steps are small beside the noise, so they are non-centred."""
    nile = load_nile()
    data = {"t": nile.year - FIRST, "y": nile.flow}
    options = {"noncentered": ["level.theta"], "target_accept_prob": 0.98, **NUTS}
    return lamina.fit(model, data, method="mcmc", **options)


def figures(posterior: lamina.Posterior) -> list[Figure]:
    """The posterior's numbers beside the published ones."""
    return [
        Figure("sd of flows", pooled(posterior, "sigma"), NOISE, "scale"),
        Figure("sd of steps", pooled(posterior, "level.lmbda"), STEPS, "scale"),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """The flows, their level, and what is expected of the years to come."""
    nile = load_nile()
    t = np.arange(YEARS + AHEAD, dtype=np.int32)
    level = posterior.predict({"t": t}, kind="mean")
    flow = posterior.predict({"t": t[YEARS:]})
    year = FIRST + t
    figure, axes = plt.subplots(figsize=(8, 4))
    axes.fill_between(
        year[YEARS:], flow.lower, flow.upper, color="0.9", lw=0, label="flow (90 %)"
    )
    axes.fill_between(year, level.lower, level.upper, color="tab:blue", alpha=0.3, lw=0)
    axes.plot(year, level.mean, color="tab:blue", label="level (mean, 90 %)")
    axes.plot(nile.year, nile.flow, "o", color="0.3", markersize=3, label="flow")
    axes.axvline(FIRST + YEARS - 0.5, color="0.7", linestyle=":")
    axes.set_xlabel("year")
    axes.set_ylabel("flow (10⁸ m³ a year)")
    axes.legend(frameon=False, loc="lower left")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    source = "Durbin and Koopman (2012), by maximum likelihood"
    show("nile", source, posterior, figures(posterior), draw, "nile.png")


if __name__ == "__main__":
    main()
