"""Layers that serve all members of an ensemble with one base weight."""

from bayes_share.layers.conv import (
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
)
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import FilterResponseNorm2d, MemberBatchNorm, MemberGroupNorm, ThresholdedLinearUnit
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.layers.way import computing

__all__ = [
    "FactorInit",
    "FilterResponseNorm2d",
    "MemberBatchNorm",
    "MemberGroupNorm",
    "Rank1Conv1d",
    "Rank1Conv2d",
    "Rank1Conv3d",
    "Rank1ConvTranspose1d",
    "Rank1ConvTranspose2d",
    "Rank1ConvTranspose3d",
    "Rank1Layer",
    "Rank1Linear",
    "ThresholdedLinearUnit",
    "computing",
    "expand_weight",
]
