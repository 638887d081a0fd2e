"""Residual networks (He et al. 2015, arXiv:1512.03385) for small images, including ResNet-18 with a CIFAR stem."""

from collections.abc import Sequence
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
    initialise_convolutions,
    norm_named,
    residual_stages,
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: ``activation(residual(x) + shortcut(x))``.

    If the shape changes, the shortcut is a 1x1 convolution with a norm.

    Args:
        norm: the norm, with its activation.
        in_channels: the channels of the input.
        out_channels: the channels of the output.
        stride: the stride of the first convolution; 2 halves height and width.
    """

    def __init__(self, norm: Norm, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *norm.after(norm.conv(in_channels, out_channels, 3, stride)),
            norm.conv(out_channels, out_channels, 3),
            norm.layer(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(norm.conv(in_channels, out_channels, 1, stride), norm.layer(out_channels))
        self.activation = norm.activation(out_channels)

    def forward(
        self, x: Float[Tensor, "row in_channel in_height in_width"]
    ) -> Float[Tensor, "row out_channel out_height out_width"]:
        """Map feature maps to feature maps."""
        return self.activation(self.residual(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 convolution, stages of `BasicBlock`, global average pooling and a linear classifier.

    With ``norm="none"``, activations grow with the depth: the logits of a deep network are large at initialisation.

    Args:
        name: the network's name in error messages.
        widths: the channels of each stage.
        num_blocks: the number of blocks in each stage.
        num_classes: the number of logits.
        in_channels: the number of image channels.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``.
        dropout: the dropout probability before the classifier.
        image_size: height and width of an image; only validated, the network accepts other sizes.

    Raises:
        InputError: if the norm is unknown, the dropout is not in [0, 1), or the images are too small for the norm.
    """

    def __init__(
        self,
        name: str,
        widths: Sequence[int],
        num_blocks: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        norm: str = "batch",
        dropout: float = 0.0,
        image_size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        choice = norm_named(norm)
        check_image_size(name, image_size, 2 ** (len(widths) - 1), choice)
        self.stem = nn.Sequential(*choice.after(choice.conv(in_channels, widths[0], 3)))
        self.stages = residual_stages(partial(BasicBlock, choice), widths[0], widths, num_blocks)
        self.classifier = classifier(widths[-1], num_classes, dropout)
        initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row class"]:
        """Map images to logits."""
        return self.classifier(self.stages(self.stem(x)))


def cifar_resnet(depth: int, width: int = 16, **options: Unpack[NetworkOptions]) -> ResNet:
    """Build a ResNet for small images: 3 stages of (depth - 2) / 6 blocks (arXiv:1512.03385, section 4.2).

    Shortcuts are 1x1 convolutions where the shape changes (option B).

    Args:
        depth: the number of layers with weights, not counting shortcuts: 6n + 2, for example 20.
        width: the channels of the first stage; the others have two and four times as many.
        options: see `NetworkOptions`. The default norm is ``"batch"``.

    Raises:
        InputError: if the depth is not 6n + 2, the width is below 1, the norm is unknown, the dropout is not in [0, 1),
            or the images are too small for the norm.
    """
    name = f"resnet{depth}" if width == 16 else f"resnet{depth}_{width}"
    num_blocks, rest = divmod(depth - 2, 6)
    if num_blocks < 1 or rest != 0:
        raise InputError(f"{name}: the depth must be 6n + 2 (8, 14, 20, 26, ...), or 18 without a width, got {depth}")
    if width < 1:
        raise InputError(f"{name}: the width must be at least 1, got {width}")
    return ResNet(name, (width, 2 * width, 4 * width), num_blocks, **options)


def resnet20(**options: Unpack[NetworkOptions]) -> ResNet:
    """Build ResNet-20 for small images: 3 stages of 3 blocks with 16, 32 and 64 channels (arXiv:1512.03385, sec. 4.2).

    Args:
        options: see `NetworkOptions`. The default norm is ``"batch"``.

    Raises:
        InputError: if the norm is unknown, the dropout is not in [0, 1), or the images are too small for the norm.
    """
    return cifar_resnet(20, **options)


def resnet32(**options: Unpack[NetworkOptions]) -> ResNet:
    """Build ResNet-32 for small images: 3 stages of 5 blocks; otherwise as `resnet20`."""
    return cifar_resnet(32, **options)


def resnet56(**options: Unpack[NetworkOptions]) -> ResNet:
    """Build ResNet-56 for small images: 3 stages of 9 blocks; otherwise as `resnet20`."""
    return cifar_resnet(56, **options)


def resnet110(**options: Unpack[NetworkOptions]) -> ResNet:
    """Build ResNet-110 for small images: 3 stages of 18 blocks; otherwise as `resnet20`."""
    return cifar_resnet(110, **options)


def resnet18(**options: Unpack[NetworkOptions]) -> ResNet:
    """Build ResNet-18 with a stem for small images: 4 stages of 2 blocks with 64 to 512 channels (table 1).

    The first convolution is 3x3 with stride 1 and is not followed by pooling; otherwise as `resnet20`.
    """
    return ResNet("resnet18", (64, 128, 256, 512), 2, **options)
