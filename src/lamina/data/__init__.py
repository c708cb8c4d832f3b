"""Data: what a fit takes, told apart and checked, combined levels, and bundled data."""

from lamina.data.bundled import (
    AirPassengers,
    Epilepsy,
    Nile,
    Radon,
    Sleepstudy,
    load_air_passengers,
    load_epilepsy,
    load_nile,
    load_radon,
    load_sleepstudy,
)
from lamina.data.dataset import Dataset, new_rows, read_data
from lamina.data.levels import Crossed, crossed

__all__ = [
    "AirPassengers",
    "Crossed",
    "Dataset",
    "Epilepsy",
    "Nile",
    "Radon",
    "Sleepstudy",
    "crossed",
    "load_air_passengers",
    "load_epilepsy",
    "load_nile",
    "load_radon",
    "load_sleepstudy",
    "new_rows",
    "read_data",
]
