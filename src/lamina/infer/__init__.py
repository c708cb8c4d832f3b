"""Inference for any NumPyro model: objectives, the minibatch loop, one verb a method."""

from lamina.infer.elbo import (
    Batched_Trace_ELBO,
    LocalReparameterization_ELBO,
    OrderedTrace_ELBO,
)
from lamina.infer.svi import Plateau, svi_run_batched

__all__ = [
    "Batched_Trace_ELBO",
    "LocalReparameterization_ELBO",
    "OrderedTrace_ELBO",
    "Plateau",
    "svi_run_batched",
]
