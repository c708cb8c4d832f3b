"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.areas import BYM2Layer, CARLayer
from lamina.layers.groups import (
    EmbeddingLayer,
    MultiMembershipLayer,
    RandomEffectsLayer,
)
from lamina.layers.interactions import (
    FMLayer,
    InteractionLayer,
    LowRankInteractionLayer,
)
from lamina.layers.linear import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.layers.sequences import RandomWalkLayer
from lamina.layers.slopes import RandomSlopesLayer

__all__ = [
    "AdaptiveLayer",
    "BLayer",
    "BYM2Layer",
    "CARLayer",
    "EmbeddingLayer",
    "FMLayer",
    "FixedPriorLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "MultiMembershipLayer",
    "RandomEffectsLayer",
    "RandomSlopesLayer",
    "RandomWalkLayer",
]
