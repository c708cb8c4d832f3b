"""The main job: radon in Minnesota houses, by minibatch VI and by NUTS.

Run it with `python -m lamina`. It fits a random intercept for each of 85 counties in two
ways, prints both beside the published estimates, and writes `lamina_report.html` and
`lamina_report.png` into the working directory.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import lamina
from lamina.data import load_radon
from lamina.report import Entry, draw_report, write_html
from lamina.summary import Table

PUBLISHED = {
    "intercept": ("basement.beta[0,0]", 1.462),
    "first floor": ("floor.beta[0,0]", -0.693),
    "sd of counties": ("county.lmbda", 0.328),
    "sd of houses": ("sigma", 0.756),
}
"""Gelman and Hill (2007), section 12.4: a varying intercept and the floor, by lmer."""

WEAK = {"loc": 0.0, "scale": 5.0}


def radon_model(floor: Any, county: Any, num_counties: int, y: Any = None) -> Any:
    """Log radon by floor, with a partially pooled intercept for each county."""
    mu = (
        lamina.InterceptLayer(coef_kwargs=WEAK)("basement")
        + lamina.FixedPriorLayer(coef_kwargs=WEAK)("floor", floor)
        + lamina.RandomEffectsLayer()("county", county, num_counties)
    )
    return lamina.gaussian_link_exp(mu, y)


def main(folder: Path = Path()) -> int:
    """Fit, compare, and write the report into `folder`."""
    radon = load_radon()
    data = {
        "floor": radon.floor,
        "county": radon.county,
        "num_counties": len(radon.counties),
        "y": radon.log_radon,
    }
    print(f"lamina {lamina.__version__}: radon in {len(radon.floor)} Minnesota houses")
    fits: dict[str, lamina.Posterior] = {}
    seconds: dict[str, float] = {}
    for label, options in (
        ("minibatch VI", {"method": "vi", "guide": "full_rank", "batch_size": 256}),
        ("NUTS", {"method": "mcmc"}),
    ):
        print(f"\n{label} ...", flush=True)
        start = time.perf_counter()
        fits[label] = lamina.fit(radon_model, data, seed=1, **options)
        seconds[label] = time.perf_counter() - start
        print(f"{label}: {seconds[label]:.1f} s, {fits[label].settings}")
        for note in fits[label].notes:
            print(f"Note: {note}")
    entries = compare(fits)
    print(f"\n{comparison(entries)!r}\n")
    print("published: Gelman and Hill (2007), Data Analysis Using Regression, ch. 12")
    try:
        picture = draw_report(fits, radon, folder / "lamina_report.png")
    except ImportError:
        picture = None
        print("no picture: matplotlib is missing, pip install 'lamina[plot]'")
    page = write_html(entries, seconds, picture, folder / "lamina_report.html")
    print(f"wrote {page}" + (f" and {picture}" if picture else ""))
    return 0


def compare(fits: dict[str, lamina.Posterior]) -> list[Entry]:
    """One entry for each published number, with every fit's mean and sd."""
    tables = {label: posterior.summary() for label, posterior in fits.items()}
    return [
        Entry(
            name,
            published,
            {k: (t[site]["mean"], t[site]["sd"]) for k, t in tables.items()},
        )
        for name, (site, published) in PUBLISHED.items()
    ]


def comparison(entries: list[Entry]) -> Table:
    """The entries as a table that prints."""
    columns = {"published": np.array([entry.published for entry in entries])}
    for label in entries[0].fits:
        columns[f"{label} mean"] = np.array([e.fits[label][0] for e in entries])
        columns[f"{label} sd"] = np.array([e.fits[label][1] for e in entries])
    return Table(tuple(entry.name for entry in entries), columns)


if __name__ == "__main__":
    sys.exit(main())
