"""Layers that serve all members of an ensemble with one base weight."""

from bayes_share.layers.conv import Rank1Conv2d
from bayes_share.layers.factors import FactorInit, expand_weight
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import FilterResponseNorm2d, MemberBatchNorm, MemberGroupNorm, ThresholdedLinearUnit
from bayes_share.layers.rank1 import Rank1Layer

__all__ = [
    "FactorInit",
    "FilterResponseNorm2d",
    "MemberBatchNorm",
    "MemberGroupNorm",
    "Rank1Conv2d",
    "Rank1Layer",
    "Rank1Linear",
    "ThresholdedLinearUnit",
    "expand_weight",
]
