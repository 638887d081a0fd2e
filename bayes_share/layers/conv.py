"""Rank-1 convolutions and transposed convolutions in one to three dimensions.

r has one value per input channel and s one per output channel, for all kernel positions. In a grouped convolution, each
group uses its slice of r. All layers accept the arguments of the torch module of the same name, and those of
`Rank1Layer`, such as `ensemble_size` and `init`.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.layers.operations import Convolution
from bayes_share.layers.rank1 import Rank1Layer


class Rank1Convolution(Rank1Layer):
    """The base class of rank-1 convolutions in any number of dimensions."""

    # Attributes of torch's convolutions.
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: Any
    _reversed_padding_repeated_twice: list[int]

    def operation(self, x: Tensor, *args: Any) -> Convolution:
        """Return the convolution with the layer's geometry."""
        padding = (0,) * len(self.stride) if self._pads_before() else self.padding
        return Convolution(self.stride, padding, self.dilation, False, self.output_padding, self.groups)

    def padded(self, x: Tensor) -> Tensor:
        """Pad the input, if the padding is not a zero padding that the convolution applies itself."""
        if not self._pads_before():
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self._reversed_padding_repeated_twice, mode=mode)

    def channels(self) -> tuple[int, int]:
        """Return ``(in_channels, out_channels)``."""
        return self.in_channels, self.out_channels

    def _pads_before(self) -> bool:
        return isinstance(self.padding, str) or self.padding_mode != "zeros"


class Rank1Conv1d(Rank1Convolution, nn.Conv1d):
    """`torch.nn.Conv1d` for the members of an ensemble.

    Shapes: input ``[member * batch, in_channels, length]``, output likewise with `out_channels`.
    """


class Rank1Conv2d(Rank1Convolution, nn.Conv2d):
    """`torch.nn.Conv2d` for the members of an ensemble.

    Shapes: input ``[member * batch, in_channels, height, width]``, output likewise with `out_channels`.

    >>> import torch
    >>> layer = Rank1Conv2d(3, 8, 3, padding=1, ensemble_size=4)
    >>> layer(torch.zeros(4 * 5, 3, 6, 6)).shape
    torch.Size([20, 8, 6, 6])
    """


class Rank1Conv3d(Rank1Convolution, nn.Conv3d):
    """`torch.nn.Conv3d` for the members of an ensemble.

    Shapes: input ``[member * batch, in_channels, depth, height, width]``, output likewise with `out_channels`.
    """


class Rank1TransposedConvolution(Rank1Convolution):
    """The base class of rank-1 transposed convolutions."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply each row's own weight to it; `output_size` resolves ambiguous output sizes, as in torch."""
        return super().forward(x, output_size)

    _output_padding: Any

    def operation(self, x: Tensor, *args: Any) -> Convolution:
        """Return the transposed convolution with the layer's geometry.

        Args:
            x: the input.
            args: the optional `output_size`.
        """
        output_size = args[0] if args else None
        dimensions = len(self.stride)
        output_padding = self._output_padding(
            x, output_size, self.stride, self.padding, self.kernel_size, dimensions, self.dilation
        )
        return Convolution(self.stride, self.padding, self.dilation, True, tuple(output_padding), self.groups)


class Rank1ConvTranspose1d(Rank1TransposedConvolution, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` for the members of an ensemble; see `Rank1Conv1d` for the shapes."""


class Rank1ConvTranspose2d(Rank1TransposedConvolution, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` for the members of an ensemble; see `Rank1Conv2d` for the shapes."""


class Rank1ConvTranspose3d(Rank1TransposedConvolution, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` for the members of an ensemble; see `Rank1Conv3d` for the shapes."""
