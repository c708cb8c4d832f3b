"""Data: what a fit takes, told apart and checked, combined levels, and bundled data."""

from lamina.data.bundled import (
    Epilepsy,
    Radon,
    Sleepstudy,
    load_epilepsy,
    load_radon,
    load_sleepstudy,
)
from lamina.data.dataset import Dataset, new_rows, read_data
from lamina.data.levels import Crossed, crossed

__all__ = [
    "Crossed",
    "Dataset",
    "Epilepsy",
    "Radon",
    "Sleepstudy",
    "crossed",
    "load_epilepsy",
    "load_radon",
    "load_sleepstudy",
    "new_rows",
    "read_data",
]
