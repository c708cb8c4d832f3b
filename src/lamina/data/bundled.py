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
    table = columns("radon.csv")
    counties, county = np.unique(table["county"], return_inverse=True)
    radon = table["radon"].astype(float)
    return Radon(
        county=county.astype(np.int32),
        floor=table["floor"].astype(float),
        log_radon=np.log(np.where(radon > 0, radon, 0.1)),
        log_uranium=table["log_uranium"].astype(float),
        counties=tuple(str(name) for name in counties),
    )


class Sleepstudy(NamedTuple):
    """Reaction times of 18 drivers over ten days with three hours in bed a night."""

    subject: np.ndarray
    """integer codes 0 to 17, one for each of 180 measurements"""
    days: np.ndarray
    """0 to 9; the short nights begin after day 2"""
    reaction: np.ndarray
    """mean reaction time of the day's tests, ms"""
    subjects: tuple[str, ...]
    """the study's numbers of the subjects, by code"""


def load_sleepstudy() -> Sleepstudy:
    """Reaction times under sleep restriction, the group with three hours in bed.

    Source: Belenky and others (2003), Patterns of performance degradation and restoration
    during sleep restriction and subsequent recovery: a sleep dose-response study, Journal
    of Sleep Research 12; the figures are those of `sleepstudy` in the R package lme4.
    """
    table = columns("sleepstudy.csv")
    subjects, subject = np.unique(table["subject"], return_inverse=True)
    return Sleepstudy(
        subject=subject.astype(np.int32),
        days=table["days"].astype(float),
        reaction=table["reaction"].astype(float),
        subjects=tuple(str(name) for name in subjects),
    )


class Epilepsy(NamedTuple):
    """Seizures of 59 epileptic patients in four periods of two weeks."""

    patient: np.ndarray
    """integer codes 0 to 58, one for each of 236 counts"""
    period: np.ndarray
    """integers 1 to 4: the two weeks before each of four visits"""
    treatment: np.ndarray
    """0 for placebo, 1 for progabide"""
    base: np.ndarray
    """seizures in the eight weeks before the trial, one number for each count"""
    age: np.ndarray
    """years"""
    seizures: np.ndarray
    """integer counts"""


def load_epilepsy() -> Epilepsy:
    """Seizure counts from a clinical trial of progabide.

    Source: Thall and Vail (1990), Some covariance models for longitudinal count data with
    overdispersion, Biometrics 46, table 2; the figures are those of `epil` in the R
    package MASS.
    """
    table = columns("epilepsy.csv")
    return Epilepsy(
        patient=table["patient"].astype(np.int32) - 1,
        period=table["period"].astype(np.int32),
        treatment=(table["treatment"] == "progabide").astype(float),
        base=table["base"].astype(float),
        age=table["age"].astype(float),
        seizures=table["seizures"].astype(np.int32),
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
    table = columns("nile.csv")
    return Nile(
        year=table["year"].astype(np.int32),
        flow=table["flow"].astype(float),
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
    table = columns("air_passengers.csv")
    return AirPassengers(
        year=table["year"].astype(np.int32),
        month=table["month"].astype(np.int32),
        passengers=table["passengers"].astype(float),
    )


def columns(file: str) -> dict[str, np.ndarray]:
    """The columns of a bundled table, as text: column -> (n,)."""
    text = files("lamina.data").joinpath(file).read_text("utf-8")
    header, *rows = csv.reader(text.splitlines())
    return dict(zip(header, np.array(rows).T, strict=True))
