"""Rank-1 convolutions."""

from typing import Any, ClassVar

from torch import Tensor, nn

from bayes_share.layers.factors import FactorInit
from bayes_share.layers.rank1 import Rank1Layer, own_parameter


class Rank1Conv2d(Rank1Layer, nn.Conv2d):
    """`torch.nn.Conv2d` for the members of an ensemble: member m has the kernel ``W ∘ (s_m r_mᵀ)`` and its own bias.

    r has one number per input channel and s one per output channel, the same at every place of the kernel. In a grouped
    convolution each group takes its slice of r.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: as in torch.
        ensemble_size: members.
        init: how the factors start.
        bias: whether each member has a bias.
        **options: `stride`, `padding`, `dilation`, `groups`, `padding_mode`, `device` and `dtype`, as in torch.

    Shapes: input ``[member * batch, in_channels, height, width]``, output likewise with `out_channels`.

    >>> import torch
    >>> layer = Rank1Conv2d(3, 8, 3, padding=1, ensemble_size=4)
    >>> layer(torch.zeros(4 * 5, 3, 6, 6)).shape
    torch.Size([20, 8, 6, 6])
    """

    channel_axis: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        ensemble_size: int = 1,
        init: FactorInit = FactorInit(),  # noqa: B008 (frozen)
        bias: bool = True,
        **options: Any,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, bias=bias, **options)
        self.add_factors(ensemble_size, init)
        if self.bias is not None:
            self.bias = own_parameter(self.bias, ensemble_size)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution, padded as the layer says."""
        return self._conv_forward(x, weight, bias)

    def channels(self) -> tuple[int, int]:
        """``(in_channels, out_channels)``."""
        return self.in_channels, self.out_channels
