"""Layers that share one base weight among all members of an ensemble."""

from bayes_share.layers.attention import Rank1MultiheadAttention
from bayes_share.layers.conv import (
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
)
from bayes_share.layers.embedding import Rank1Embedding
from bayes_share.layers.expansion import expand_weight
from bayes_share.layers.factored import Factored, set_way
from bayes_share.layers.factors import FactorInit
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import (
    FilterResponseNorm2d,
    MemberBatchNorm,
    MemberGroupNorm,
    MemberLayerNorm,
    ThresholdedLinearUnit,
)
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.layers.way import Way

__all__ = [
    "FactorInit",
    "Factored",
    "FilterResponseNorm2d",
    "MemberBatchNorm",
    "MemberGroupNorm",
    "MemberLayerNorm",
    "Rank1Conv1d",
    "Rank1Conv2d",
    "Rank1Conv3d",
    "Rank1ConvTranspose1d",
    "Rank1ConvTranspose2d",
    "Rank1ConvTranspose3d",
    "Rank1Embedding",
    "Rank1Layer",
    "Rank1Linear",
    "Rank1MultiheadAttention",
    "ThresholdedLinearUnit",
    "Way",
    "expand_weight",
    "set_way",
]
