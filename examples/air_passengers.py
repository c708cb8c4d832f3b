r"""Passengers of international airlines in 1949 to 1960: the last two years forecast.

    log passengers ~ Normal(line + departure from it + month, sigma)

The departure is a Gaussian process (Matérn 3/2) and the months are a cyclic random walk,
by NUTS on the first ten years. Beside it stand two plain forecasts: the same month of the
last year seen, and that month grown as the last year grew. Run it with
`python examples/air_passengers.py`.

Source of the data: Box, Jenkins and Reinsel (2008), Time Series Analysis, series G.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from published import NUTS, Forecast, contest, report

import lamina
from lamina.data import load_air_passengers

SEEN, AHEAD = 120, 24
WEAK = {"loc": 5.0, "scale": 2.0}
LENGTH = {"loc": -1.6, "scale": 0.5}
"""half a year to two years and a half, in half ranges of the ten years"""


def model(month: Any, years: Any, y: Any = None) -> Any:
    """Log passengers at months since the first, `years` from the middle of those seen."""
    departure = lamina.HSGPLayer(kernel="matern32", boundary=2.1, length_kwargs=LENGTH)
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("middle")
        + lamina.FixedPriorLayer()("growth", years)
        + departure("departure", years)
        + lamina.SeasonalLayer(periods=12, harmonics="walk")("month", month)
    )
    return lamina.gaussian_link(mu, y, scale=HalfNormal(0.5))


def data(rows: slice) -> dict[str, np.ndarray]:
    """Some of the months."""
    y = np.log(load_air_passengers().passengers)
    month = np.arange(len(y), dtype=np.int32)
    years = (month - (SEEN - 1) / 2) / 12
    return {"month": month[rows], "years": years[rows], "y": y[rows]}


def fit() -> lamina.Posterior:
    """The posterior of the first ten years."""
    options = {"noncentered": ["departure.theta"], "target_accept_prob": 0.9, **NUTS}
    return lamina.fit(model, data(slice(SEEN)), method="mcmc", **options)


def predict(posterior: lamina.Posterior, rows: slice) -> Any:
    """Log passengers in some of the months."""
    months = data(rows)
    return posterior.predict({k: months[k] for k in ("month", "years")})


def repeated(y: np.ndarray) -> np.ndarray:
    """The next two years as the last one."""
    return np.tile(y[-12:], 2)


def grown(y: np.ndarray) -> np.ndarray:
    """The next two years as the last one, each grown as that one grew."""
    growth = np.mean(y[-12:] - y[-24:-12])
    return repeated(y) + growth * np.repeat([1.0, 2.0], 12)


def forecasts(posterior: lamina.Posterior) -> list[Forecast]:
    """Log passengers in the held-out months, by the posterior and by plain rules.

    The rules' intervals are those of their errors had they been used in years before.
    """
    y, came = data(slice(SEEN))["y"], data(slice(SEEN, None))["y"]
    ours = predict(posterior, slice(SEEN, None))
    found = [Forecast("lamina", ours.mean, ours.lower, ours.upper, came)]
    for name, rule in (("last year", repeated), ("last year, grown", grown)):
        ends = range(24, SEEN - AHEAD + 1, 12)
        past = np.concatenate([y[end : end + AHEAD] - rule(y[:end]) for end in ends])
        found.append(Forecast.plain(name, rule(y), past, came))
    return found


def draw(posterior: lamina.Posterior) -> Any:
    """Passengers, seen and held out, and what was expected of them."""
    air = load_air_passengers()
    year = air.year + (air.month - 0.5) / 12
    ours = predict(posterior, slice(None))
    figure, axes = plt.subplots(figsize=(8, 4))
    low, high = np.exp(ours.lower), np.exp(ours.upper)
    axes.fill_between(year, low, high, color="tab:blue", alpha=0.3, lw=0)
    axes.plot(year, np.exp(ours.mean), color="tab:blue", label="lamina (90 %)")
    plain = np.exp(grown(data(slice(SEEN))["y"]))
    axes.plot(year[SEEN:], plain, color="tab:orange", lw=1, label="last year, grown")
    for rows, style, label in (
        (slice(SEEN), {"color": "0.3"}, "seen"),
        (slice(SEEN, None), {"color": "tab:red"}, "held out"),
    ):
        axes.plot(
            year[rows], air.passengers[rows], "o", markersize=3, label=label, **style
        )
    axes.axvline(year[SEEN] - 1 / 24, color="0.7", linestyle=":")
    axes.set_xlabel("year")
    axes.set_ylabel("passengers a month (thousands)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    words = "of log passengers in the last two years, which were held out"
    table = contest(forecasts(posterior))
    report("air passengers", posterior, table, words, draw, "air_passengers.png")


if __name__ == "__main__":
    main()
