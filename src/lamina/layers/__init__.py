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
from lamina.layers.linear import (
    AdaptiveLayer,
    FixedPriorLayer,
    GroupedAdaptiveLayer,
    HorseshoeLayer,
    InterceptLayer,
    R2D2Layer,
    SpikeAndSlabLayer,
)
from lamina.layers.monotonic import MonotonicLayer
from lamina.layers.processes import HSGPLayer
from lamina.layers.seasons import SeasonalLayer
from lamina.layers.sequences import AR1Layer, RandomWalkLayer
from lamina.layers.slopes import RandomSlopesLayer
from lamina.layers.smooths import FactorSplineLayer, SplineLayer, TensorSplineLayer

__all__ = [
    "AR1Layer",
    "AdaptiveLayer",
    "BLayer",
    "BYM2Layer",
    "CARLayer",
    "EmbeddingLayer",
    "FMLayer",
    "FactorSplineLayer",
    "FixedPriorLayer",
    "GroupedAdaptiveLayer",
    "HSGPLayer",
    "HorseshoeLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "MonotonicLayer",
    "MultiMembershipLayer",
    "R2D2Layer",
    "RandomEffectsLayer",
    "RandomSlopesLayer",
    "RandomWalkLayer",
    "SeasonalLayer",
    "SpikeAndSlabLayer",
    "SplineLayer",
    "TensorSplineLayer",
]
