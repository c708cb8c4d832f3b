"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.fields import FieldFMLayer
from lamina.layers.groups import EmbeddingLayer, RandomEffectsLayer
from lamina.layers.interactions import (
    FM3Layer,
    FMLayer,
    InteractionLayer,
    LowRankInteractionLayer,
)
from lamina.layers.linear import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.layers.networks import AttentionLayer, MLPLayer
from lamina.layers.sequences import RandomWalkLayer

__all__ = [
    "AdaptiveLayer",
    "AttentionLayer",
    "BLayer",
    "EmbeddingLayer",
    "FM3Layer",
    "FMLayer",
    "FieldFMLayer",
    "FixedPriorLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "MLPLayer",
    "RandomEffectsLayer",
    "RandomWalkLayer",
]
