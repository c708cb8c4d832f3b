"""Data: what a fit takes, told apart and checked, combined levels, and bundled data."""

from lamina.data.bundled import Radon, load_radon
from lamina.data.dataset import Dataset, new_rows, read_data
from lamina.data.levels import Crossed, crossed

__all__ = [
    "Crossed",
    "Dataset",
    "Radon",
    "crossed",
    "load_radon",
    "new_rows",
    "read_data",
]
