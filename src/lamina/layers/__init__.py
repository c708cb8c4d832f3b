"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.groups import EmbeddingLayer, RandomEffectsLayer
from lamina.layers.interactions import (
    FMLayer,
    InteractionLayer,
    LowRankInteractionLayer,
)
from lamina.layers.linear import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.layers.monotonic import MonotonicLayer
from lamina.layers.seasons import SeasonalLayer
from lamina.layers.sequences import AR1Layer, RandomWalkLayer

__all__ = [
    "AR1Layer",
    "AdaptiveLayer",
    "BLayer",
    "EmbeddingLayer",
    "FMLayer",
    "FixedPriorLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "MonotonicLayer",
    "RandomEffectsLayer",
    "RandomWalkLayer",
    "SeasonalLayer",
]
