"""The one rule that decides how a rank-1 layer computes: by its activations or by its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import unknown

Way = Literal["auto", "activations", "weights"]

_way: Way = "auto"

# Elements of a member's activations per element of the weight above which folding the weight is the cheaper way.
_FOLD_ABOVE = 0.5


@contextmanager
def computing(way: Way) -> Iterator[None]:
    """Have rank-1 layers compute in one way, for as long as the context lasts.

    Args:
        way: ``"activations"``: multiply the input by r and the output by s, two passes over the activations;
            ``"weights"``: fold r and s into a weight for each member, a pass over the weights; ``"auto"``: whichever is
            the faster for the sizes and the device. The results are the same but for rounding.

    Raises:
        InputError: another name.
    """
    global _way
    if way not in get_args(Way):
        raise unknown("way of computing", way, get_args(Way))
    before, _way = _way, way
    try:
        yield
    finally:
        _way = before


def folds_weights(x: Tensor, weight: Tensor, uses: int) -> bool:
    """Whether to fold the factors into the weight.

    Args:
        x: the input ``[use * batch, ...]``.
        weight: the base weight.
        uses: among how many the rows of `x` are divided.
    """
    if _way != "auto":
        return _way == "weights"
    # Compiled, the passes over activations are fused with what is around them.
    if x.is_cuda or torch.compiler.is_compiling():
        return False
    return x.numel() // uses > _FOLD_ABOVE * weight.numel()


def predicts_folded(device: torch.device) -> bool:
    """Whether to predict with a plain network for each member, folded once and kept, in place of the layers."""
    return _way == "weights" or (_way == "auto" and device.type == "cpu")
