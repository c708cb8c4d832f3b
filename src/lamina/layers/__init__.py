"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.groups import EmbeddingLayer, RandomEffectsLayer
from lamina.layers.interactions import (
    FMLayer,
    InteractionLayer,
    LowRankInteractionLayer,
)
from lamina.layers.linear import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.layers.processes import HSGPLayer
from lamina.layers.sequences import RandomWalkLayer
from lamina.layers.smooths import FactorSplineLayer, SplineLayer, TensorSplineLayer

__all__ = [
    "AdaptiveLayer",
    "BLayer",
    "EmbeddingLayer",
    "FMLayer",
    "FactorSplineLayer",
    "FixedPriorLayer",
    "HSGPLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "RandomEffectsLayer",
    "RandomWalkLayer",
    "SplineLayer",
    "TensorSplineLayer",
]
