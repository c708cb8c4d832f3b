"""What the examples on real data share: reading, tables beside published figures and
beside plain forecasts.

The data are read by path: LAMINA_DATA names a folder of tables, one `name.csv` each,
with a header row. LAMINA_QUICK=1 takes few draws, whose means then stray from those of
long runs. Pictures go to the working directory.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lamina
from lamina.summary import Table

QUICK = bool(os.environ.get("LAMINA_QUICK"))
NUTS = (
    {"num_warmup": 200, "num_samples": 100, "num_chains": 2}
    if QUICK
    else {"num_warmup": 1000, "num_samples": 1000, "num_chains": 4}
)
"""The sampler's options in all examples."""
LIMITS = {"effect": 0.15, "scale": 0.6}
"""How far a mean may lie from a published figure, in posterior standard deviations.

Published ones are mostly (restricted) maximum likelihood, which for a skewed posterior, as
a scale's is, lies below the mean.
"""
SKIPPED = 77
"""The exit status of an example whose data are not there."""


class Figure(NamedTuple):
    """A number of the posterior and what was published for it."""

    name: str
    draws: np.ndarray
    published: float
    kind: str = "effect"
    """"effect" or "scale": see `LIMITS`"""

    @property
    def distance(self) -> float:
        """From the published figure, in posterior standard deviations."""
        return float((self.draws.mean() - self.published) / self.draws.std())

    @property
    def agrees(self) -> bool:
        """Whether the distance is within the limit of its kind."""
        return abs(self.distance) <= LIMITS[self.kind]


def read(name: str) -> dict[str, np.ndarray]:
    """The columns of a table, as text: column -> (n,).

    Without the data the example says so and ends, with the status `SKIPPED`.
    """
    folder = os.environ.get("LAMINA_DATA", "")
    path = Path(folder) / f"{name}.csv"
    if not folder or not path.is_file():
        seen = f"holds no {path.name}" if folder else "is not set"
        print(
            f"skipped: LAMINA_DATA {seen}. It names the folder of the tables that the "
            "examples read.",
            file=sys.stderr,
        )
        raise SystemExit(SKIPPED)
    with path.open(newline="", encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    return dict(zip(header, np.array(rows).T, strict=True))


def codes(labels: np.ndarray) -> np.ndarray:
    """An integer code for each label, in their sorted order."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def pooled(posterior: lamina.Posterior, site: str) -> np.ndarray:
    """Draws of all chains: (draw, ...)."""
    draws = posterior.draws[site]
    return draws.reshape(-1, *draws.shape[2:])


def indicators(labels: np.ndarray, levels: Sequence[str]) -> np.ndarray:
    """A column for each level, 1 in its rows and 0 in others: (n, level)."""
    return (labels[:, None] == np.array(levels)).astype(float)


def middle(draws: np.ndarray) -> np.ndarray:
    """The ends of the middle 90 % of the draws: (draw, ...) -> (2, ...)."""
    return np.quantile(draws, [0.05, 0.95], axis=0)


def caterpillar(axes: Any, draws: np.ndarray, size: float = 6.0) -> np.ndarray:
    """Draw groups' means and middle 90 %, from low to high; return their order.

    Shapes: `draws` (draw, group).
    """
    means = draws.mean(axis=0)
    order, at = means.argsort(), np.arange(len(means))
    axes.axvline(0.0, color="0.8")
    axes.hlines(at, *middle(draws[:, order]), color="tab:blue", lw=size / 4)
    axes.plot(means[order], at, "o", color="tab:blue", ms=size)
    return order


def comparison(figures: Sequence[Figure], reference: str = "published") -> Table:
    """The figures beside a reference, as a table that prints."""
    columns = {
        "lamina": [f.draws.mean() for f in figures],
        "sd": [f.draws.std() for f in figures],
        reference: [f.published for f in figures],
        "distance / sd": [f.distance for f in figures],
        "limit": [LIMITS[f.kind] for f in figures],
    }
    return Table(
        tuple(f.name for f in figures), {k: np.array(v) for k, v in columns.items()}
    )


class Forecast(NamedTuple):
    """What was expected of rows that were held out, and what came."""

    name: str
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    """bounds of the 90 % interval"""
    came: np.ndarray

    @classmethod
    def plain(
        cls, name: str, mean: np.ndarray, errors: np.ndarray, came: np.ndarray
    ) -> Forecast:
        """A forecast whose interval is that of its errors in the past."""
        low, high = np.quantile(errors, [0.05, 0.95])
        return cls(name, mean, mean + low, mean + high, came)

    @property
    def error(self) -> float:
        """The root of the mean squared error."""
        return float(np.sqrt(np.mean((self.mean - self.came) ** 2)))

    @property
    def coverage(self) -> float:
        """The part of what came that lies in its interval."""
        return float(np.mean((self.lower <= self.came) & (self.came <= self.upper)))


def contest(forecasts: Sequence[Forecast]) -> Table:
    """The forecasts as a table that prints."""
    columns = {
        "rms error": [f.error for f in forecasts],
        "coverage of 90 %": [f.coverage for f in forecasts],
        "width of 90 %": [np.mean(f.upper - f.lower) for f in forecasts],
    }
    return Table(
        tuple(f.name for f in forecasts), {k: np.array(v) for k, v in columns.items()}
    )


def show(
    title: str,
    source: str,
    posterior: lamina.Posterior,
    figures: Sequence[Figure],
    draw: Callable[[lamina.Posterior], Any],
    picture: str,
    reference: str = "published",
) -> None:
    """Print the comparison, and save the picture that `draw` makes."""
    beyond = [f.name for f in figures if not f.agrees]
    words = f"{reference}: {source}"
    if beyond:
        words += f"\nbeyond the limit: {', '.join(beyond)}{' (few draws)' * QUICK}"
    report(title, posterior, comparison(figures, reference), words, draw, picture)


def report(
    title: str,
    posterior: lamina.Posterior,
    table: Table,
    words: str,
    draw: Callable[[lamina.Posterior], Any],
    picture: str,
) -> None:
    """Print a table and words on it, and save the picture that `draw` makes."""
    print(f"\n{title}: {posterior.settings}")
    for note in posterior.notes:
        print(f"Note: {note}")
    print(f"\n{table!r}\n\n{words}")
    draw(posterior).savefig(picture, dpi=150, bbox_inches="tight")
    print(f"wrote {Path(picture).resolve().name}")
