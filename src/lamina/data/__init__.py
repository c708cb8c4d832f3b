"""Data: what a fit takes, told apart and checked, combined levels, and bundled data."""

from lamina.data.bundled import (
    AirPassengers,
    Nile,
    Radon,
    load_air_passengers,
    load_nile,
    load_radon,
)
from lamina.data.dataset import Dataset, new_rows, read_data
from lamina.data.levels import Crossed, crossed

__all__ = [
    "AirPassengers",
    "Crossed",
    "Dataset",
    "Nile",
    "Radon",
    "crossed",
    "load_air_passengers",
    "load_nile",
    "load_radon",
    "new_rows",
    "read_data",
]
