"""A real dataset that comes with the package."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

import numpy as np


class Radon(NamedTuple):
    """Radon in 919 Minnesota houses of 85 counties."""

    county: np.ndarray
    """integer codes 0 to 84, one for each house"""
    floor: np.ndarray
    """0 for a measurement in the basement, 1 on the first floor"""
    log_radon: np.ndarray
    """natural log of the reading in pCi/L; three readings of zero count as 0.1"""
    log_uranium: np.ndarray
    """natural log of the county's uranium in the soil, ppm, one for each house"""
    counties: tuple[str, ...]
    """the counties' names, by code"""


def load_radon() -> Radon:
    """Radon measurements in Minnesota houses, with the uranium of their counties.

    Source: the residential radon survey of the U.S. Environmental Protection Agency
    (files srrs2 and cty), a work of the federal government in the public domain; used by
    Gelman and Hill (2007), Data Analysis Using Regression, chapter 12, whose coding of
    the zero readings is kept.
    """
    text = files("lamina.data").joinpath("radon.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    counties, county = np.unique([row["county"] for row in rows], return_inverse=True)
    radon = np.array([float(row["radon"]) for row in rows])
    return Radon(
        county=county.astype(np.int32),
        floor=np.array([float(row["floor"]) for row in rows]),
        log_radon=np.log(np.where(radon > 0, radon, 0.1)),
        log_uranium=np.array([float(row["log_uranium"]) for row in rows]),
        counties=tuple(str(name) for name in counties),
    )
