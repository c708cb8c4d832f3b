"""Film ratings of MovieLens-100k, predicted by factorization machines over fields.

The ratings are in four folds (and a few rows in none). Each fold in turn is the test: a
model is fitted to the other rows by minibatch variational inference with a mean-field
guide, and the root mean square error of its posterior mean on the fold is printed, as it
comes, without clipping. The models:

- additive: a constant, an effect of the user and one of the film;
- user, item: these and their interaction at low rank, `FieldFMLayer`;
- with features: the same, with the user's age, gender and occupation and the film's
  genres and year as features of their levels;
- with histories: and with who rated what in the training rows, whatever the rating: the
  leading singular vectors of that table of zeros and ones, its rows and columns over the
  roots of their sums.

The scales of the priors are known ones. Learned scales are what the layer does by
default, but a mean-field guide then shrinks all coordinates but a few to nothing, which
costs more here than a scale that is a little wrong. They, the rank and the learning rate
were chosen on the first fold; the others had no part in it.

The reference is myFM's Gibbs sampler on users and items of the same rows. Seconds are of
fitting and predicting, compilation included: those on the clock, and those of all
processors together, which say more on a machine that others use too.

The data are not part of this project, as their licence forbids copies: they are at
https://grouplens.org/datasets/movielens/100k/. LAMINA_DATA names the folder that holds
`movielens100k_ratings.csv.gz` (user, item, rating, timestamp, fold),
`movielens100k_users.csv` (user, age, gender, occupation) and `movielens100k_items.csv`
(item, release_year and a column for each genre). Run from the root of the repository:

    LAMINA_DATA=... python benchmarks/movielens.py [fold ...]

LAMINA_QUICK=1 takes one fold, two models and few steps, in under a minute; its errors
are higher. The table is printed, and a run of all folds and models writes it to
benchmarks/results/movielens.md.

Source of the data: Harper and Konstan (2015), The MovieLens Datasets. Source of the use
of who rated what: Koren (2008), Factorization Meets the Neighborhood, section 4.
"""

from __future__ import annotations

import csv
import gzip
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import init_to_sample
from numpyro.infer.autoguide import AutoNormal

import lamina
from lamina import InterceptLayer, RandomEffectsLayer, gaussian_link
from lamina.layers import FieldFMLayer

QUICK = bool(os.environ.get("LAMINA_QUICK"))
REFERENCE = {1: 0.918, 2: 0.913, 3: 0.908, 4: 0.924}
RESULTS = Path(__file__).parent / "results" / "movielens.md"
SIZES = (943, 1682)
RANK = 8
COMPONENTS = 20
STEPS, BATCH, RATE = (300, 2048, 0.05) if QUICK else (2500, 2048, 0.05)


def folder() -> Path:
    """The folder of the data."""
    where = os.environ.get("LAMINA_DATA")
    if not where:
        raise SystemExit(
            "LAMINA_DATA is not set. It names the folder that holds the MovieLens-100k "
            "files, which this project may not copy: see the head of this file."
        )
    found = Path(where)
    if not (found / "movielens100k_ratings.csv.gz").is_file():
        raise SystemExit(
            f"LAMINA_DATA names {where!r}, which holds no movielens100k_ratings.csv.gz. "
            "See the head of this file for the files and their columns."
        )
    return found


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table as text."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as lines:
        rows = list(csv.reader(lines))
    return dict(zip(rows[0], np.array(rows[1:]).T, strict=True))


def standardised(columns: np.ndarray) -> np.ndarray:
    """Each column less its mean, over its standard deviation; constants left out."""
    columns = columns[:, columns.std(axis=0) > 0]
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


def features(where: Path) -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns for each user and each film, in the order of their codes."""
    users = read(where / "movielens100k_users.csv")
    age = users["age"].astype(float)
    kinds = [
        (users[column][:, None] == np.unique(users[column])).astype(float)
        for column in ("gender", "occupation")
    ]
    of_users = np.column_stack([age, age**2, *kinds])
    items = read(where / "movielens100k_items.csv")
    year = items.pop("release_year")
    known = year != ""
    numbers = np.where(known, year, "0").astype(float)
    numbers[~known] = np.median(numbers[known])
    del items["item"]
    genres = np.array([items[name].astype(float) for name in items]).T
    of_items = np.column_stack([numbers, np.log(2000.0 - numbers), genres])
    return standardised(of_users), standardised(of_items)


def histories(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading singular vectors of who rated what, for each user and each film."""
    met = np.zeros(SIZES)
    met[codes[:, 0], codes[:, 1]] = 1.0
    met /= np.sqrt(np.maximum(met.sum(1, keepdims=True), 1.0))
    met /= np.sqrt(np.maximum(met.sum(0, keepdims=True), 1.0))
    users, _, items = np.linalg.svd(met, full_matrices=False)
    return standardised(users[:, :COMPONENTS]), standardised(items[:COMPONENTS].T)


def known_scales(
    name: str,
    shape: tuple[int, ...],
    coefficient: str = "beta",
    *,
    suffix: str = "",
    scale_shape: Any = None,
) -> Any:
    """Normal priors in standard deviations of the ratings."""
    scale = 0.1 if "features" in name else 0.4 if "main" in name else 0.3
    fn = dist.Normal(0.0, scale).expand(shape).to_event(len(shape))
    return numpyro.sample(f"{name}.{coefficient}{suffix}", fn)


def additive(codes: Any, y: Any = None) -> Any:
    """A constant, users and films."""
    mu = InterceptLayer()("mean")
    mu = mu + RandomEffectsLayer()("user", codes[:, 0], SIZES[0])
    mu = mu + RandomEffectsLayer()("item", codes[:, 1], SIZES[1])
    return gaussian_link(mu, y)


def factorized(
    codes: Any, of_users: Any = None, of_items: Any = None, y: Any = None
) -> Any:
    """The same with interactions at low rank, and features of levels where given."""
    layer = FieldFMLayer(field_sizes=SIZES, low_rank_dim=RANK, prior=known_scales)
    mu = InterceptLayer()("mean") + layer("fm", codes, features=(of_users, of_items))
    return gaussian_link(mu, y)


def error(
    model: Callable[..., Any], train: Any, test: Any, features: Any = ()
) -> tuple[float, float, float]:
    """The root mean square error on the test rows, seconds, and processor seconds."""
    (codes, ratings), (new, truth) = train, test
    wall, cpu = time.perf_counter(), time.process_time()
    centre, scale = ratings.mean(), ratings.std()
    rate = optax.cosine_decay_schedule(RATE, STEPS, alpha=0.01)
    posterior = lamina.fit(
        model,
        {"codes": codes, "y": (ratings - centre) / scale},
        constants=dict(zip(("of_users", "of_items"), features, strict=False)),
        guide=AutoNormal(model, init_loc_fn=init_to_sample),
        optimizer=optax.adam(rate),
        batch_size=BATCH,
        num_steps=STEPS,
        num_draws=200,
        progress_bar=False,
    )
    found = posterior.predict({"codes": new}, kind="mean").mean * scale + centre
    rmse = float(np.sqrt(np.mean((found - truth) ** 2)))
    return rmse, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Fit, print, write."""
    where = folder()
    table = read(where / "movielens100k_ratings.csv.gz")
    codes = np.stack([table[k].astype(np.int32) - 1 for k in ("user", "item")], axis=1)
    ratings, fold = table["rating"].astype(np.float32), table["fold"].astype(int)
    known = features(where)
    chosen = tuple(map(int, sys.argv[1:])) or ((1,) if QUICK else tuple(REFERENCE))
    lines = [
        "| fold | model | RMSE | reference | seconds | processor seconds |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for k in chosen:
        train, test = fold != k, fold == k
        met = histories(codes[train])
        models = {
            "additive": (additive,),
            "user, item": (factorized,),
            "with features": (factorized, known),
            "with histories": (
                factorized,
                [np.hstack(pair) for pair in zip(known, met, strict=True)],
            ),
        }
        for name in list(models)[: 2 if QUICK else None]:
            model, *given = models[name]
            rmse, wall, cpu = error(
                model,
                (codes[train], ratings[train]),
                (codes[test], ratings[test]),
                *given,
            )
            lines.append(
                f"| {k} | {name} | {rmse:.4f} | {REFERENCE[k]:.3f} | {wall:.0f} | "
                f"{cpu:.0f} |"
            )
            print(lines[-1], flush=True)
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "numpyro", "optax"))
    lines += ["", f"Python {platform.python_version()}, {packages}."]
    if not QUICK and chosen == tuple(REFERENCE):
        RESULTS.write_text("# MovieLens-100k\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
