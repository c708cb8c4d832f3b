r"""Carbon dioxide over Mauna Loa, weekly from 1958 to 2001: gaps filled.

    ppm ~ Normal(smooth course of the years + season + its growth × decades, sigma)

The course is a penalised spline, the season and its growth have four harmonics, by NUTS.
59 weeks have
no measurement: `missing="skip"` leaves them out. A fifth of the others is held out, in
gaps of 13 weeks spread over the years and the seasons, and filled beside least squares for
a parabola with the same harmonics. Run it with `python examples/mauna_loa.py`.

Source of the data: Keeling and Whorf (2004), Atmospheric CO2 from Continuous Air Samples
at Mauna Loa Observatory.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal, Normal
from published import NUTS, Forecast, contest, read, report

import lamina

LEVEL, HARMONICS, GAP, EVERY = 335.0, 4, 13, 5
WEAK = {"loc": 0.0, "scale": 20.0}


def model(years: Any, y: Any = None) -> Any:
    """Parts per million over 335, at `years` since the first week."""
    course = lamina.SplineLayer(
        HalfNormal(50.0), num_basis=80, linear_prior=lamina.Fixed(Normal(0.0, 20.0))
    )
    season = lamina.SeasonalLayer(HalfNormal(5.0), periods=1.0, harmonics=HARMONICS)
    decades = years[:, None] / 10.0
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("average")
        + course("course", years)
        + season("season", years)
        + season("growth", years) * decades
    )
    return lamina.gaussian_link(mu, y, scale=HalfNormal(5.0))


def data() -> dict[str, np.ndarray]:
    """All weeks, with `y` NaN where nothing was measured."""
    table = read("mauna_loa_co2_weekly")
    day = table["week_ending"].astype("datetime64[D]")
    y = np.array([float(ppm or "nan") for ppm in table["co2_ppm"]]) - LEVEL
    return {"years": (day - day[0]).astype(int) / 365.25, "y": y}


def held_out() -> np.ndarray:
    """Which weeks are in gaps: every fifth stretch of 13, and so of any season."""
    stretch = np.arange(len(data()["y"])) // GAP
    return stretch % EVERY == EVERY // 2


def fit() -> lamina.Posterior:
    """The posterior of the weeks outside of the gaps."""
    seen = {k: v[~held_out()] for k, v in data().items()}
    return lamina.fit(model, seen, method="mcmc", missing="skip", **NUTS)


def waves(years: np.ndarray) -> np.ndarray:
    """The columns of a parabola and of yearly waves."""
    turns = 2.0 * np.pi * years[:, None] * np.arange(1, HARMONICS + 1)
    parabola = (years[:, None] / 40.0) ** np.arange(3)
    return np.hstack([parabola, np.cos(turns), np.sin(turns)])


def forecasts(posterior: lamina.Posterior) -> list[Forecast]:
    """The weeks held out, by the posterior and by least squares."""
    years, y = data().values()
    measured = ~np.isnan(y)
    gap, seen = measured & held_out(), measured & ~held_out()
    ours = posterior.predict({"years": years[gap]})
    design = waves(years)
    line = design @ np.linalg.lstsq(design[seen], y[seen], rcond=None)[0]
    return [
        Forecast("lamina", ours.mean, ours.lower, ours.upper, y[gap]),
        Forecast.plain("least squares", line[gap], (y - line)[seen], y[gap]),
    ]


def draw(posterior: lamina.Posterior) -> Any:
    """All years, and some of them closely, with gaps of either kind."""
    years, y = data().values()
    gap = held_out()
    ours = posterior.predict({"years": years})
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[2, 3])
    for axes, first, last in zip(
        panels, (1958.0, 1963.0), (2002.0, 1968.0), strict=True
    ):
        year = 1958.24 + years
        rows = (year >= first) & (year < last)
        low, high = ours.lower[rows] + LEVEL, ours.upper[rows] + LEVEL
        axes.fill_between(year[rows], low, high, color="tab:blue", alpha=0.3, lw=0)
        for which, colour, label in (
            (rows & ~gap, "0.2", "seen"),
            (rows & gap, "tab:red", "held out"),
        ):
            size = 1 if last - first > 10 else 3
            axes.plot(
                year[which], y[which] + LEVEL, "o", color=colour, ms=size, label=label
            )
        axes.set_xlabel("year")
    panels[0].set_ylabel("CO₂ (ppm)")
    panels[1].legend(frameon=False, loc="upper left", title="with 90 % intervals")
    figure.tight_layout()
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    words = "of ppm in the weeks that were held out"
    table = contest(forecasts(posterior))
    report("mauna loa", posterior, table, words, draw, "mauna_loa.png")


if __name__ == "__main__":
    main()
