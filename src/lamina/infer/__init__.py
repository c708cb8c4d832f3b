"""Inference for any NumPyro model: objectives, the minibatch loop, one verb a method."""

from lamina.infer.elbo import (
    Batched_Trace_ELBO,
    LocalReparameterization_ELBO,
    OrderedTrace_ELBO,
)
from lamina.infer.mcmc import fit_mcmc
from lamina.infer.optimise import fit_map, fit_mle
from lamina.infer.plateau import Plateau
from lamina.infer.svi import svi_run_batched
from lamina.infer.vi import fit_vi

__all__ = [
    "Batched_Trace_ELBO",
    "LocalReparameterization_ELBO",
    "OrderedTrace_ELBO",
    "Plateau",
    "fit_map",
    "fit_mcmc",
    "fit_mle",
    "fit_vi",
    "svi_run_batched",
]
