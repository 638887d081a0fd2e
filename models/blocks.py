"""What the networks share: the choice of a norm with its activation, dropout, stages, the classifier, He's start."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.norm import FilterResponseNorm2d, ThresholdedLinearUnit

GROUPS = 8
"""Groups of a group norm, where so many divide the channels."""


class NetworkOptions(TypedDict, total=False):
    """What every builder takes, by keyword.

    Attributes:
        num_classes: the number of logits, 10 if left out.
        in_channels: the channels of an image, 3 if left out.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``; if left out, the network's own.
        dropout: the probability with which a value is dropped in train mode, in [0, 1); 0 if left out.
        image_size: height and width of an image, (32, 32) if left out.
    """

    num_classes: int
    in_channels: int
    norm: str
    dropout: float
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Norm:
    """A norm for feature maps, and what goes with it.

    Attributes:
        name: what it is called on the command line.
        layer: the norm for a number of channels.
        activation: what follows the norm, for a number of channels.
        bias_before: whether the layer before it keeps a bias of its own, as the norm brings none.
        least_side: the least side of a feature map it can normalise without losing what it holds.
    """

    name: str
    layer: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module]
    bias_before: bool = False
    least_side: int = 1

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
        """A convolution that keeps the size of the maps (at stride 1), with a bias only if the norm has none."""
        padding = kernel_size // 2
        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=self.bias_before)

    def after(self, conv: nn.Conv2d) -> list[nn.Module]:
        """A convolution, then norm and activation for its channels, as a list to put into a `Sequential`."""
        return [conv, self.layer(conv.out_channels), self.activation(conv.out_channels)]


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018, arXiv:1803.08494) with 8 groups, or the largest divisor of channels below.

    >>> [group_norm(channels).num_groups for channels in (64, 12, 6, 11)]
    [8, 6, 6, 1]
    """
    return nn.GroupNorm(max(groups for groups in range(1, GROUPS + 1) if channels % groups == 0), channels)


def _identity(channels: int) -> nn.Module:
    return nn.Identity()


def _relu(channels: int) -> nn.Module:
    return nn.ReLU()


NORMS: dict[str, Norm] = {
    norm.name: norm
    for norm in (
        Norm("batch", nn.BatchNorm2d, _relu),
        # On a map of one pixel, a value over its own root mean square is its sign, which has no useful gradient.
        Norm("frn", FilterResponseNorm2d, ThresholdedLinearUnit, least_side=2),
        Norm("group", group_norm, _relu),
        Norm("none", _identity, _relu, bias_before=True),
    )
}
"""The norms by name: batch (arXiv:1502.03167), filter response (arXiv:1911.09737), group (arXiv:1803.08494), none."""


def norm_named(name: str) -> Norm:
    """The norm of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name]


def dropout_layer(probability: float) -> nn.Module:
    """Dropout, or `nn.Identity` at 0, so that the names of a state dict do not hang on the probability.

    Raises:
        InputError: if the probability is not in [0, 1).
    """
    if not 0.0 <= probability < 1.0:
        raise InputError(f"dropout must be at least 0 and below 1, got {probability}")
    return nn.Dropout(probability) if probability > 0.0 else nn.Identity()


def check_image_size(network: str, image_size: tuple[int, int], shrinkage: int, norm: Norm) -> None:
    """Refuse images whose last feature maps would be too small for the norm.

    Args:
        network: the name to put into the message.
        image_size: height and width.
        shrinkage: by how much the last map that is normalised is smaller than the image, fractions rounded up.
        norm: the norm.

    Raises:
        InputError: if a side is too small.
    """
    least = shrinkage * (norm.least_side - 1) + 1
    if min(image_size) < least:
        height, width = image_size
        raise InputError(
            f"{network} with norm {norm.name!r} needs images of at least {least}x{least}, got {height}x{width}"
        )


def residual_stages(
    block: Callable[[int, int, int], nn.Module], channels: int, widths: Sequence[int], num_blocks: int
) -> nn.Sequential:
    """Stages of residual blocks; each stage but the first begins by halving the sides of the maps.

    Args:
        block: makes a block from the channels in, the channels out and the stride.
        channels: the channels that enter.
        widths: the channels of each stage.
        num_blocks: the number of blocks in each stage.
    """
    blocks: list[nn.Module] = []
    for stage, width in enumerate(widths):
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(block(channels, width, stride))
            channels = width
    return nn.Sequential(*blocks)


def classifier(channels: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """The mean of each feature map, dropout, and one linear layer: ``[row, channel, height, width]`` to logits."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), dropout_layer(dropout), nn.Linear(channels, num_classes)
    )


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the convolutions anew: normal, of variance 2 / fan-out, biases 0 (He et al. 2015, arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
