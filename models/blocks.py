"""Building blocks of the networks: norms with activations, dropout, residual stages, classifier, He initialisation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.norm import FilterResponseNorm2d, ThresholdedLinearUnit

GROUPS = 8
"""The number of groups of a group norm, if it divides the number of channels."""


class NetworkOptions(TypedDict, total=False):
    """The keyword options of every network builder.

    Attributes:
        num_classes: the number of logits. Default: 10.
        in_channels: the number of image channels. Default: 3.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``. The default depends on the network.
        dropout: the dropout probability in train mode, in [0, 1). Default: 0.
        image_size: height and width of an image. Default: (32, 32).
    """

    num_classes: int
    in_channels: int
    norm: str
    dropout: float
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Norm:
    """A norm for feature maps and the activation that follows it.

    Attributes:
        name: the name on the command line.
        layer: builds the norm for a number of channels.
        activation: builds the activation for a number of channels.
        bias_before: whether the layer before the norm has a bias, because the norm has none.
        least_side: the smallest height and width of a feature map that the norm can usefully normalise.
    """

    name: str
    layer: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module]
    bias_before: bool = False
    least_side: int = 1

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
        """Build a convolution that keeps height and width at stride 1, with a bias only if the norm has none."""
        padding = kernel_size // 2
        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=self.bias_before)

    def after(self, conv: nn.Conv2d) -> list[nn.Module]:
        """Return a convolution, its norm and its activation as a list, for use in a `Sequential`."""
        return [conv, self.layer(conv.out_channels), self.activation(conv.out_channels)]


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018, arXiv:1803.08494) with 8 groups, or else the largest divisor of `channels`.

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
        # On a map of one pixel, a value divided by its root mean square is its sign, which has no useful gradient.
        Norm("frn", FilterResponseNorm2d, ThresholdedLinearUnit, least_side=2),
        Norm("group", group_norm, _relu),
        Norm("none", _identity, _relu, bias_before=True),
    )
}
"""The norms by name: batch (arXiv:1502.03167), filter response (arXiv:1911.09737), group (arXiv:1803.08494), none."""


def norm_named(name: str) -> Norm:
    """Return the norm with the given name.

    Raises:
        InputError: if the name is unknown.
    """
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name]


def dropout_layer(probability: float) -> nn.Module:
    """Return dropout, or `nn.Identity` at probability 0, so that state dict names do not depend on the probability.

    Raises:
        InputError: if the probability is not in [0, 1).
    """
    if not 0.0 <= probability < 1.0:
        raise InputError(f"dropout must be at least 0 and below 1, got {probability}")
    return nn.Dropout(probability) if probability > 0.0 else nn.Identity()


def check_image_size(network: str, image_size: tuple[int, int], shrinkage: int, norm: Norm) -> None:
    """Check that the last feature maps are large enough for the norm.

    Args:
        network: the network's name, for the error message.
        image_size: height and width.
        shrinkage: the ratio of the image size to the size of the last normalised map, which is rounded up.
        norm: the norm.

    Raises:
        InputError: if height or width is too small.
    """
    least = shrinkage * (norm.least_side - 1) + 1
    if min(image_size) < least:
        height, width = image_size
        raise InputError(
            f"{network} with norm {norm.name!r} requires images of at least {least}x{least}, got {height}x{width}"
        )


def residual_stages(
    block: Callable[[int, int, int], nn.Module], channels: int, widths: Sequence[int], num_blocks: int
) -> nn.Sequential:
    """Build stages of residual blocks. Each stage except the first halves height and width in its first block.

    Args:
        block: builds a block from the numbers of input and output channels and the stride.
        channels: the number of input channels.
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
    """Global average pooling, dropout and a linear layer: maps ``[row, channel, height, width]`` to logits."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), dropout_layer(dropout), nn.Linear(channels, num_classes)
    )


def initialise_convolutions(network: nn.Module) -> None:
    """Initialise convolutions from N(0, 2 / fan_out) and their biases with 0 (He et al. 2015, arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
