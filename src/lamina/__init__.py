"""Lamina: layers for Bayesian inference on NumPyro and JAX."""

from importlib.metadata import PackageNotFoundError, version

from lamina.effects import row_factor
from lamina.fitting import fit, prior_predictive
from lamina.layers import (
    AdaptiveLayer,
    BLayer,
    EmbeddingLayer,
    FixedPriorLayer,
    FMLayer,
    InteractionLayer,
    InterceptLayer,
    LowRankInteractionLayer,
    RandomEffectsLayer,
    RandomWalkLayer,
)
from lamina.links import (
    gaussian_link,
    gaussian_link_exp,
    logit_link,
    poisson_link,
    student_t_link,
)
from lamina.posterior import Posterior
from lamina.priors import Adaptive, Fixed
from lamina.summary import Predicted

try:
    __version__ = version("lamina")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = [
    "Adaptive",
    "AdaptiveLayer",
    "BLayer",
    "EmbeddingLayer",
    "FMLayer",
    "Fixed",
    "FixedPriorLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "Posterior",
    "Predicted",
    "RandomEffectsLayer",
    "RandomWalkLayer",
    "__version__",
    "fit",
    "gaussian_link",
    "gaussian_link_exp",
    "logit_link",
    "poisson_link",
    "prior_predictive",
    "row_factor",
    "student_t_link",
]
