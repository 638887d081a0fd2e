"""The rank-1 linear layer."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.layers.factors import FactorInit
from bayes_share.layers.rank1 import Rank1Layer, own_parameter


class Rank1Linear(Rank1Layer, nn.Linear):
    """`torch.nn.Linear` for the members of an ensemble: member m has the weight ``W ∘ (s_m r_mᵀ)`` and its own bias.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether each member has a bias.
        ensemble_size: members.
        init: how the factors start.
        **options: `device` and `dtype`, as in torch.

    Shapes: input ``[member * batch, ..., in_features]``; output ``[member * batch, ..., out_features]``.

    >>> import torch
    >>> layer = Rank1Linear(3, 2, ensemble_size=4)
    >>> layer(torch.zeros(4 * 5, 3)).shape
    torch.Size([20, 2])
    """

    channel_axis: ClassVar[int] = -1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        ensemble_size: int = 1,
        init: FactorInit = FactorInit(),  # noqa: B008 (frozen)
        **options: Any,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, **options)
        self.add_factors(ensemble_size, init)
        if self.bias is not None:
            self.bias = own_parameter(self.bias, ensemble_size)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x Wᵀ + bias``."""
        return F.linear(x, weight, bias)

    def channels(self) -> tuple[int, int]:
        """``(in_features, out_features)``."""
        return self.in_features, self.out_features
