"""Ratings of lectures by students: crossed effects by minibatch VI and by NUTS.

    rating = intercept + service + student + lecturer + department + noise

73,421 ratings by 2,972 students of 1,128 lecturers in 14 departments; each effect is
normal around zero with a learned standard deviation. The same model function is fitted by
minibatch variational inference with a mean-field guide and by NUTS; the table has the wall
time of each, compilation included, and the posterior of every scale. The ratio of the
means is to be within 10 %.

LAMINA_DATA names the folder that holds `insteval.csv.gz` (student, lecturer, service, dept,
rating and others), the data set InstEval of the R package lme4. Run from the root of the
repository:

    LAMINA_DATA=... python benchmarks/insteval.py

LAMINA_QUICK=1 takes every tenth student and few draws. The table is printed, and a whole
run writes it to benchmarks/results/insteval.md.

Source of the data: ETH Zurich, in Bates, Maechler, Bolker and Walker (2015), Fitting Linear
Mixed-Effects Models Using lme4.
"""

from __future__ import annotations

import csv
import gzip
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lamina
from lamina import FixedPriorLayer, InterceptLayer, RandomEffectsLayer, gaussian_link

QUICK = bool(os.environ.get("LAMINA_QUICK"))
RESULTS = Path(__file__).parent / "results" / "insteval.md"
WEAK = {"loc": 0.0, "scale": 10.0}
SCALES = {
    "students": "student.lmbda",
    "lecturers": "lecturer.lmbda",
    "departments": "dept.lmbda",
    "residual": "sigma",
}
METHODS: dict[str, dict[str, Any]] = {
    "minibatch VI": {"method": "vi", "batch_size": 4096, "progress_bar": False},
    "NUTS": {
        "method": "mcmc",
        "num_warmup": 100 if QUICK else 400,
        "num_samples": 100 if QUICK else 400,
        "num_chains": 2,
        "noncentered": ["dept.theta"],
        "progress_bar": False,
    },
}


def read() -> dict[str, Any]:
    """The arguments of the model, by name."""
    path = Path(os.environ.get("LAMINA_DATA", "")) / "insteval.csv.gz"
    if not path.is_file():
        raise SystemExit(
            "LAMINA_DATA names no folder with insteval.csv.gz: see the head of this file."
        )
    with gzip.open(path, "rt", newline="") as lines:
        header, *rows = csv.reader(lines)
    table = dict(zip(header, np.array(rows, dtype=float).T, strict=True))
    if QUICK:
        kept = table["student"] % 10 == 0
        table = {k: v[kept] for k, v in table.items()}
    data: dict[str, Any] = {"service": table["service"], "y": table["rating"]}
    for name in ("student", "lecturer", "dept"):
        levels, data[name] = np.unique(table[name], return_inverse=True)
        data[f"num_{name}"] = len(levels)
    return data


def model(
    service: Any,
    student: Any,
    lecturer: Any,
    dept: Any,
    num_student: int,
    num_lecturer: int,
    num_dept: int,
    y: Any = None,
) -> Any:
    """Crossed intercepts of students, lecturers and departments."""
    mu = (
        InterceptLayer(coef_kwargs=WEAK)("intercept")
        + FixedPriorLayer(coef_kwargs=WEAK)("service", service)
        + RandomEffectsLayer()("student", student, num_student)
        + RandomEffectsLayer()("lecturer", lecturer, num_lecturer)
        + RandomEffectsLayer()("dept", dept, num_dept)
    )
    return gaussian_link(mu, y)


def main() -> None:
    """Fit by both methods, print, write."""
    data = read()
    fits, seconds = {}, {}
    for label, options in METHODS.items():
        start = time.perf_counter()
        fits[label] = lamina.fit(model, data, seed=1, **options)
        seconds[label] = time.perf_counter() - start
        print(f"{label}: {seconds[label]:.0f} s, {fits[label].notes}", flush=True)
    lines = [
        f"{len(data['y'])} ratings, {data['num_student']} students, "
        f"{data['num_lecturer']} lecturers, {data['num_dept']} departments.",
        "",
        "| | " + " | ".join(f"{k}, mean (sd)" for k in fits) + " | ratio |",
        "|---|" + "---|" * (len(fits) + 1),
    ]
    for name, site in SCALES.items():
        draws = [fit.draws[site] for fit in fits.values()]
        cells = [f"{d.mean():.3f} ({d.std():.3f})" for d in draws]
        ratio = draws[0].mean() / draws[1].mean()
        lines.append(f"| sd of {name} | {' | '.join(cells)} | {ratio:.3f} |")
    times = [f"{s:.0f}" for s in seconds.values()]
    ratio = seconds["minibatch VI"] / seconds["NUTS"]
    lines.append(f"| seconds | {' | '.join(times)} | {ratio:.3f} |")
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "numpyro", "optax"))
    lines += [
        "",
        f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores.",
    ]
    print("\n".join(lines))
    print(fits["NUTS"].summary())
    if not QUICK:
        RESULTS.write_text("# InstEval\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
