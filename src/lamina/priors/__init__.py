"""Priors: values that turn a name and a shape into named coefficients."""

from lamina.priors.constrained import Ordered, Signed, SumToZero
from lamina.priors.families import (
    LOC,
    STANDARD,
    UNIT_SCALE,
    PriorForm,
    Sites,
    family,
    noncentered,
    sample_shaped,
    scaled_family,
    spread,
)
from lamina.priors.independent import Adaptive, Fixed
from lamina.priors.shrinkage import R2D2, Horseshoe, SpikeAndSlab

__all__ = [
    "LOC",
    "R2D2",
    "STANDARD",
    "UNIT_SCALE",
    "Adaptive",
    "Fixed",
    "Horseshoe",
    "Ordered",
    "PriorForm",
    "Signed",
    "Sites",
    "SpikeAndSlab",
    "SumToZero",
    "family",
    "noncentered",
    "sample_shaped",
    "scaled_family",
    "spread",
]
