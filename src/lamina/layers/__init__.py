"""Layers: class = model form, instance = distributions, call = data."""

from lamina.layers._base import BLayer
from lamina.layers.areas import BYM2Layer, CARLayer
from lamina.layers.fields import FieldFMLayer
from lamina.layers.gaussian_processes import HSGPLayer
from lamina.layers.groups import (
    EmbeddingLayer,
    MultiMembershipLayer,
    RandomEffectsLayer,
)
from lamina.layers.interactions import (
    FM3Layer,
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
from lamina.layers.networks import AttentionLayer, MLPLayer
from lamina.layers.seasons import SeasonalLayer
from lamina.layers.sequences import AR1Layer, RandomWalkLayer
from lamina.layers.slopes import RandomSlopesLayer
from lamina.layers.smooths import FactorSplineLayer, SplineLayer, TensorSplineLayer

__all__ = [
    "AR1Layer",
    "AdaptiveLayer",
    "AttentionLayer",
    "BLayer",
    "BYM2Layer",
    "CARLayer",
    "EmbeddingLayer",
    "FM3Layer",
    "FMLayer",
    "FactorSplineLayer",
    "FieldFMLayer",
    "FixedPriorLayer",
    "GroupedAdaptiveLayer",
    "HSGPLayer",
    "HorseshoeLayer",
    "InteractionLayer",
    "InterceptLayer",
    "LowRankInteractionLayer",
    "MLPLayer",
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
