"""Real datasets that come with the package."""

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
    rows = rows_of("radon.csv")
    counties, county = np.unique([row["county"] for row in rows], return_inverse=True)
    radon = np.array([float(row["radon"]) for row in rows])
    return Radon(
        county=county.astype(np.int32),
        floor=np.array([float(row["floor"]) for row in rows]),
        log_radon=np.log(np.where(radon > 0, radon, 0.1)),
        log_uranium=np.array([float(row["log_uranium"]) for row in rows]),
        counties=tuple(str(name) for name in counties),
    )


class Nile(NamedTuple):
    """The flow of the Nile at Aswan in 100 years."""

    year: np.ndarray
    """1871 to 1970"""
    flow: np.ndarray
    """the year's flow, 10^8 m³"""


def load_nile() -> Nile:
    """The yearly flow of the Nile at Aswan.

    Source: Cobb (1978), The Problem of the Nile, table 1; used by Durbin and Koopman
    (2012), Time Series Analysis by State Space Methods, chapter 2.
    """
    rows = rows_of("nile.csv")
    return Nile(
        year=np.array([int(row["year"]) for row in rows], np.int32),
        flow=np.array([float(row["flow"]) for row in rows]),
    )


class AirPassengers(NamedTuple):
    """Passengers of international airlines in 144 months."""

    year: np.ndarray
    """1949 to 1960, one for each month"""
    month: np.ndarray
    """1 to 12"""
    passengers: np.ndarray
    """the month's total, thousands"""


def load_air_passengers() -> AirPassengers:
    """Monthly totals of the passengers of international airlines.

    Source: Box, Jenkins and Reinsel (2008), Time Series Analysis, series G; from Brown
    (1962), Smoothing, Forecasting and Prediction of Discrete Time Series.
    """
    rows = rows_of("air_passengers.csv")
    return AirPassengers(
        year=np.array([int(row["year"]) for row in rows], np.int32),
        month=np.array([int(row["month"]) for row in rows], np.int32),
        passengers=np.array([float(row["passengers"]) for row in rows]),
    )


def rows_of(file: str) -> list[dict[str, str]]:
    """The rows of a bundled table, as text by column."""
    text = files("lamina.data").joinpath(file).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
