"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from functools import partial
from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.blocks import (
    NetworkOptions,
    Norm,
    check_image_size,
    classifier,
    dropout_layer,
    initialise_convolutions,
    norm_named,
    residual_stages,
)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and activation, with dropout between them and a shortcut.

    If the shape changes, the shortcut is a 1x1 convolution of the first activation's output; otherwise it is ``x``.

    Args:
        norm: the norm, with its activation.
        dropout: the dropout probability between the convolutions.
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        stride: the stride of the first convolution; 2 halves height and width.
    """

    def __init__(self, norm: Norm, dropout: float, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activated = nn.Sequential(norm.layer(in_channels), norm.activation(in_channels))
        self.residual = nn.Sequential(
            *norm.after(norm.conv(in_channels, out_channels, 3, stride)),
            dropout_layer(dropout),
            norm.conv(out_channels, out_channels, 3),
        )
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = norm.conv(in_channels, out_channels, 1, stride)

    def forward(
        self, x: Float[Tensor, "row in_channel in_height in_width"]
    ) -> Float[Tensor, "row out_channel out_height out_width"]:
        """Map feature maps to feature maps."""
        activated = self.activated(x)
        shortcut = x if self.projection is None else self.projection(activated)
        return self.residual(activated) + shortcut


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of `PreActivationBlock`, a final norm, and a classifier.

    Args:
        depth: the number of convolutions as counted in the paper, 6n + 4.
        width: the widening factor; the stages have 16, 32 and 64 times as many channels.
        num_classes: the number of logits.
        in_channels: the number of image channels.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``.
        dropout: the dropout probability between the convolutions of a block.
        image_size: height and width of an image; only validated, the network accepts other sizes.

    Raises:
        InputError: if the depth is not 6n + 4, the width is below 1, the norm is unknown, the dropout is not in [0, 1),
            or the images are too small for the norm.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        norm: str = "batch",
        dropout: float = 0.0,
        image_size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        name = f"wide_resnet{depth}_{width}"
        num_blocks, rest = divmod(depth - 4, 6)
        if num_blocks < 1 or rest != 0:
            raise InputError(f"{name}: the depth must be 6n + 4 (10, 16, 22, 28, ...), got {depth}")
        if width < 1:
            raise InputError(f"{name}: the width must be at least 1, got {width}")
        choice = norm_named(norm)
        widths = (16 * width, 32 * width, 64 * width)
        check_image_size(name, image_size, 2 ** (len(widths) - 1), choice)
        self.stem = choice.conv(in_channels, 16, 3)
        self.stages = residual_stages(partial(PreActivationBlock, choice, dropout), 16, widths, num_blocks)
        self.activated = nn.Sequential(choice.layer(widths[-1]), choice.activation(widths[-1]))
        self.classifier = classifier(widths[-1], num_classes)
        initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row class"]:
        """Map images to logits."""
        return self.classifier(self.activated(self.stages(self.stem(x))))


def wide_resnet(depth: int, width: int, **options: Unpack[NetworkOptions]) -> WideResNet:
    """Build WRN-depth-width with pre-activation blocks of two 3x3 convolutions (arXiv:1605.07146).

    Args:
        depth: the depth 6n + 4, for example 28.
        width: the widening factor, for example 10.
        options: see `NetworkOptions`. The default norm is ``"batch"``.

    Raises:
        InputError: if the depth is not 6n + 4, the width is below 1, the norm is unknown, the dropout is not in [0, 1),
            or the images are too small for the norm.
    """
    return WideResNet(depth, width, **options)
