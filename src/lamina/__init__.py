"""Lamina: layers for Bayesian inference on NumPyro and JAX."""

from importlib.metadata import PackageNotFoundError, version

from lamina import effects, handlers, infer, layers, links, priors, products
from lamina.effects import row_factor
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
from lamina.priors import Adaptive, Fixed

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
    "RandomEffectsLayer",
    "RandomWalkLayer",
    "__version__",
    "effects",
    "gaussian_link",
    "gaussian_link_exp",
    "handlers",
    "infer",
    "layers",
    "links",
    "logit_link",
    "poisson_link",
    "priors",
    "products",
    "row_factor",
    "student_t_link",
]
