"""The one rule that decides how a rank-1 layer computes: by its activations or by its weights."""

from collections.abc import Set
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import unknown

Way = Literal["auto", "activations", "weights"]
"""How a rank-1 layer computes; the results are the same but for rounding.

``"activations"``: multiply the input by r and the output by s, two passes over the activations; ``"weights"``: fold r
and s into a weight for each member, a pass over the weights; ``"auto"``: whichever is the faster for the sizes and the
device.
"""

FOLD_ABOVE = 0.5
"""Elements of a member's activations per element of the weight above which folding the weight is the cheaper way."""


def check_way(way: object) -> None:
    """Raise an InputError unless it is the name of a way."""
    if way not in get_args(Way):
        raise unknown("way of computing", way, get_args(Way))


def folds_weights(way: Way, x: Tensor, weight: Tensor, uses: int, fold_above: float = FOLD_ABOVE) -> bool:
    """Whether to fold the factors into the weight.

    Args:
        way: of the layer.
        x: the input ``[use * batch, ...]``.
        weight: the base weight.
        uses: among how many the rows of `x` are divided.
        fold_above: the threshold of ``"auto"``.
    """
    if way != "auto":
        return way == "weights"
    # Compiled, the passes over activations are fused with what is around them.
    if x.is_cuda or torch.compiler.is_compiling():
        return False
    return x.numel() // uses > fold_above * weight.numel()


def predicts_folded(ways: Set[Way], device: torch.device) -> bool:
    """Whether to predict with a plain network for each member, folded once and kept, in place of layers of these ways.

    None is folded where a layer is to multiply activations.
    """
    return "activations" not in ways and (ways == {"weights"} or device.type == "cpu")
