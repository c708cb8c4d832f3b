"""Handlers: reinterpretations of a model, built on NumPyro's."""

from lamina.effects import row_factor
from lamina.handlers.centering import noncentered
from lamina.handlers.local import local_reparameterization
from lamina.handlers.memory import learn, remembering
from lamina.handlers.recording import predicting, record_outcomes, record_terms
from lamina.handlers.rows import row_sites, row_weights

__all__ = [
    "learn",
    "local_reparameterization",
    "noncentered",
    "predicting",
    "record_outcomes",
    "record_terms",
    "remembering",
    "row_factor",
    "row_sites",
    "row_weights",
]
