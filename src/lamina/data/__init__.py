"""Data: what a fit takes, told apart and checked, and a bundled dataset."""

from lamina.data.bundled import Radon, load_radon
from lamina.data.dataset import Dataset, new_rows, read_data

__all__ = ["Dataset", "Radon", "load_radon", "new_rows", "read_data"]
