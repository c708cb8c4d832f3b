"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.groups import EmbeddingLayer, RandomEffectsLayer
from lamina.layers.interactions import (
    FMLayer,
    InteractionLayer,
    LowRankInteractionLayer,
)
from lamina.layers.linear import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.layers.sequences import RandomWalkLayer

__all__ = [
    "AdaptiveLayer",
    "BLayer",
    "EmbeddingLayer",
    "FMLayer",
    "FixedPriorLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "RandomEffectsLayer",
    "RandomWalkLayer",
]
