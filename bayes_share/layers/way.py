"""The rule that decides whether a rank-1 layer multiplies its activations or folds its factors into the weight."""

from collections.abc import Set
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import unknown

Way = Literal["auto", "activations", "weights"]
"""How a rank-1 layer computes. The results are equal up to rounding error.

``"activations"``: multiply the input by r and the output by s, in two passes over the activations. ``"weights"``: fold
r and s into one weight per member, in one pass over the weights. ``"auto"``: use the faster way for the sizes and the
device.
"""

FOLD_ABOVE = 0.5
"""The ratio of a member's input elements to weight elements above which folding is faster."""


def check_way(way: object) -> None:
    """Raise InputError unless `way` is valid."""
    if way not in get_args(Way):
        raise unknown("way of computing", way, get_args(Way))


def folds_weights(way: Way, x: Tensor, weight: Tensor, uses: int, fold_above: float = FOLD_ABOVE) -> bool:
    """Whether to fold the factors into the weight.

    Args:
        way: the layer's way of computing.
        x: the input ``[use * batch, ...]``.
        weight: the base weight.
        uses: the number of uses that the rows of `x` are divided among.
        fold_above: the threshold for ``"auto"``.
    """
    if way != "auto":
        return way == "weights"
    # When compiled, the passes over the activations are fused with neighbouring operations.
    if x.is_cuda or torch.compiler.is_compiling():
        return False
    return x.numel() // uses > fold_above * weight.numel()


def predicts_folded(ways: Set[Way], device: torch.device) -> bool:
    """Whether to predict with one folded, plain network per member, given the ways of all layers.

    Networks are not folded if any layer has the way "activations".
    """
    return "activations" not in ways and (ways == {"weights"} or device.type == "cpu")
