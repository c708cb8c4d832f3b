r"""Births in the USA in 1969 to 1988: the days of the week and of the year.

    births ~ StudentT(4, trend + weekday over the years + season + day of the year, sigma)

in per cent of the average, on the log scale. The trend and each weekday's course are
splines, the season has six harmonics, and each of 366 days has an effect with heavy tails,
for holidays. By minibatch variational inference. Every fifth fortnight is held out and
filled, beside the same weekday 52 weeks before and after. The effects of weekdays are
beside plain averages. Run it with `python examples/us_births.py`.

Source of the data: the National Vital Statistics System, in the R package mosaicData.
Source of the components: Gelman and others (2013), Bayesian Data Analysis, section 21.2,
which models the same days by Gaussian processes.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal, StudentT
from published import QUICK, Forecast, contest, pooled, read, report

import lamina
from lamina.summary import Table

START, YEAR, GAP, EVERY, HARMONICS = 1969, 365.25, 14, 5, 6
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
APRIL = 100
"""a day without a holiday, by its place in a leap year"""
SHOWN = 3652
"""the first of January 1979, in days since that of 1969"""
MARKED = {"New Year": 0, "29 February": 59, "4 July": 185, "Christmas": 359}
SCALE = {"lmbda_kwargs": {"scale": 10.0}}


def model(years: Any, weekday: Any, place: Any, y: Any = None) -> Any:
    """Births in log per cent of the average, at `years` since the first day.

    `weekday` counts from Monday, `place` the days of a leap year from the first.
    """
    week = lamina.FactorSplineLayer(HalfNormal, num_basis=8, **SCALE)
    days = lamina.RandomEffectsLayer(
        HalfNormal, StudentT, {"df": 2.0, "loc": 0.0}, {"scale": 5.0}
    )
    mu = (
        lamina.InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 10.0})("average")
        + lamina.SplineLayer(
            num_basis=20,
            linear_prior=lamina.Fixed(coef_kwargs={"loc": 0.0, "scale": 10.0}),
            **SCALE,
        )("trend", years)
        + week("week", years, weekday, 7)
        + lamina.SeasonalLayer(periods=1.0, harmonics=HARMONICS, **SCALE)(
            "season", years
        )
        + days("days", place, 366)
    )
    return lamina.student_t_link(mu, y, scale=HalfNormal(10.0))


def data() -> dict[str, np.ndarray]:
    """All days."""
    table = read("us_births_1969_1988")
    day = table["date"].astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    # the first days of a leap year's months
    first = np.arange("1972-01", "1973-01", dtype="datetime64[M]").astype("M8[D]")
    first = (first - first[0]).astype(int)
    place = first[month.astype(int) % 12] + (day - month.astype("M8[D]")).astype(int)
    births = np.log(table["births"].astype(float))
    return {
        "years": (day - day[0]).astype(int) / YEAR,
        "weekday": ((day.astype(int) + 3) % 7).astype(np.int32),
        "place": place.astype(np.int32),
        "y": 100.0 * (births - births.mean()),
    }


def held_out() -> np.ndarray:
    """Which days are held out: every fifth fortnight, and so of any season."""
    return np.arange(len(data()["y"])) // GAP % EVERY == EVERY // 2


def fit() -> lamina.Posterior:
    """The posterior of the other days."""
    steps = {"num_steps": 4000} if QUICK else {}
    return lamina.fit(model, {k: v[~held_out()] for k, v in data().items()}, **steps)


def neighbours(y: np.ndarray) -> np.ndarray:
    """The mean of the days 52 weeks before and after, of which one may be NaN."""
    beyond = np.full(364, np.nan)
    both = np.array([[*beyond, *y[:-364]], [*y[364:], *beyond]])
    known = ~np.isnan(both)
    total = np.where(known, both, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / known.sum(axis=0).clip(1), np.nan)


def forecasts(posterior: lamina.Posterior) -> list[Forecast]:
    """The days held out, by the posterior and by their neighbours 52 weeks away."""
    days, gap = data(), held_out()
    y = days.pop("y")
    ours = posterior.predict({k: v[gap] for k, v in days.items()})
    plain = neighbours(np.where(gap, np.nan, y))
    errors = (y - plain)[~gap & ~np.isnan(plain)]
    return [
        Forecast("lamina", ours.mean, ours.lower, ours.upper, y[gap]),
        Forecast.plain("52 weeks away", plain[gap], errors, y[gap]),
    ]


def effect(posterior: lamina.Posterior, **columns: Any) -> Any:
    """The predictor on days that are told apart by some columns, the others alike."""
    n = max(map(np.size, columns.values()))
    alike = {"years": 10.0, "weekday": np.int32(0), "place": np.int32(APRIL)} | columns
    rows = {k: np.broadcast_to(v, n) for k, v in alike.items()}
    draws = posterior.predict(rows, kind="linear", draws=True).draws
    return draws.reshape(len(draws), n)


def weekdays(posterior: lamina.Posterior, years: np.ndarray) -> np.ndarray:
    """Weekdays beside their average at some times: (draw, time, 7)."""
    week = np.tile(np.arange(7, dtype=np.int32), len(years))
    found = effect(posterior, years=np.repeat(years, 7), weekday=week)
    found = found.reshape(len(found), len(years), 7)
    return found - found.mean(axis=2, keepdims=True)


def averages(posterior: lamina.Posterior) -> Table:
    """Weekdays beside their average, by the posterior and by plain averages.

    Holidays are in the plain averages, mostly on Mondays and Thursdays.
    """
    days, gap = data(), held_out()
    plain = [days["y"][~gap & (days["weekday"] == d)].mean() for d in range(7)]
    ours = weekdays(posterior, np.arange(0.5, 20.0)).mean(axis=1)
    columns = {
        "lamina": ours.mean(axis=0),
        "sd": ours.std(axis=0),
        "plain average": np.array(plain) - np.mean(plain),
    }
    return Table(WEEKDAYS, columns)


def season(posterior: lamina.Posterior, years: np.ndarray) -> np.ndarray:
    """The season at some times: (draw, n)."""
    turns = 2.0 * np.pi * np.arange(1, HARMONICS + 1)[:, None] * years
    beta = pooled(posterior, "season.beta")[:, :, 0]
    return beta @ np.concatenate([np.cos(turns), np.sin(turns)])


def band(axes: Any, x: np.ndarray, draws: np.ndarray, color: str) -> None:
    """The mean of draws (draw, n) and their 90 % interval."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.3, lw=0)
    axes.plot(x, draws.mean(axis=0), color=color, lw=1)


def draw(posterior: lamina.Posterior) -> Any:
    """The parts: trend, weekdays, days of the year; and a fortnight that was held out."""
    figure, ((slow, week), (days, close)) = plt.subplots(2, 2, figsize=(12, 7))
    years = np.linspace(0.0, 19.99, 121)
    seven = np.tile(np.arange(7, dtype=np.int32), len(years))
    trend = effect(posterior, years=np.repeat(years, 7), weekday=seven)
    trend = trend.reshape(len(trend), len(years), 7).mean(axis=2)
    holidays = pooled(posterior, "days.theta")[:, :, 0]
    trend = trend - season(posterior, years) - holidays[:, [APRIL]]
    band(slow, START + years, trend, "tab:blue")
    slow.set_title("trend")
    courses = weekdays(posterior, years)
    for d in range(7):
        band(week, START + years, courses[:, :, d], f"C{d}")
    lines = week.get_lines()
    week.legend(lines, WEEKDAYS, frameon=False, loc="lower left", ncols=4)
    for axes in (slow, week):
        axes.set_xticks(range(1970, 1990, 5))
    week.set_title("days of the week")
    month = 1.0 + np.arange(366) / 30.5
    effects = season(posterior, np.arange(366) / 366.0) + holidays
    band(days, month, effects, "tab:blue")
    for name, place in MARKED.items():
        here = (month[place], effects[:, place].mean())
        days.annotate(
            name, here, (0, -8), textcoords="offset points", ha="center", fontsize=8
        )
    days.set_xticks(range(1, 13))
    days.set_xlim(0.0, 14.0)
    days.set_xlabel("month")
    days.set_title("days of the year")
    table, gap = data(), held_out()
    rows = slice(SHOWN, SHOWN + 70)
    y = table.pop("y")
    ours = posterior.predict({k: v[rows] for k, v in table.items()})
    at = 1 + np.arange(len(y)) - SHOWN
    low, high = ours.lower, ours.upper
    close.fill_between(at[rows], low, high, color="tab:blue", alpha=0.3, lw=0)
    for which, color, label in ((~gap, "0.3", "seen"), (gap, "tab:red", "held out")):
        close.plot(
            at[rows][which[rows]],
            y[rows][which[rows]],
            "o",
            color=color,
            ms=3,
            label=label,
        )
    close.legend(frameon=False, loc="upper left", ncols=2)
    close.set_xlabel("day of 1979")
    close.set_title("ten weeks")
    for axes in (slow, days):
        axes.set_ylabel("births beside the average (log per cent)")
    figure.tight_layout()
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    print(f"\nweekdays, per cent:\n{averages(posterior)!r}")
    words = "of log births on the days that were held out, per cent"
    table = contest(forecasts(posterior))
    report("us births", posterior, table, words, draw, "us_births.png")


if __name__ == "__main__":
    main()
