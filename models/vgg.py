"""VGG-11 (Simonyan & Zisserman 2014, arXiv:1409.1556, configuration A) for small images."""

from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.blocks import (
    NetworkOptions,
    check_image_size,
    classifier,
    dropout_layer,
    initialise_convolutions,
    norm_named,
)

# One tuple per stage: the channels of its convolutions, as multiples of the first convolution's channels.
_CONFIGURATION_A = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each followed by max pooling, and one linear layer instead of the paper's three.

    Pooling rounds sizes up, so the network accepts images of any size. Images of 32x32 are reduced to one pixel.

    Args:
        name: the network's name in error messages.
        stages: for each stage, the channels of its convolutions.
        num_classes: the number of logits.
        in_channels: the number of image channels.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``.
        dropout: the dropout probability after each stage.
        image_size: height and width of an image; only validated, the network accepts other sizes.

    Raises:
        InputError: if the norm is unknown, the dropout is not in [0, 1), or the images are too small for the norm.
    """

    def __init__(
        self,
        name: str,
        stages: tuple[tuple[int, ...], ...],
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        norm: str = "batch",
        dropout: float = 0.0,
        image_size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        choice = norm_named(norm)
        check_image_size(name, image_size, 2 ** (len(stages) - 1), choice)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for width in stage:
                layers += choice.after(choice.conv(channels, width, 3))
                channels = width
            layers += [nn.MaxPool2d(2, ceil_mode=True), dropout_layer(dropout)]
        self.stages = nn.Sequential(*layers)
        self.classifier = classifier(channels, num_classes)
        initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row class"]:
        """Map images to logits."""
        return self.classifier(self.stages(x))


def vgg11(width: int = 64, **options: Unpack[NetworkOptions]) -> VGG:
    """Build VGG-11 for small images: 8 convolutions in 5 stages with 64 to 512 channels, and one linear layer.

    Args:
        width: the channels of the first convolution; the widest convolutions have 8 times as many.
        options: see `NetworkOptions`. The default norm is ``"batch"``.

    Raises:
        InputError: if the width is below 1, the norm is unknown, the dropout is not in [0, 1), or the images are too
            small for the norm.
    """
    name = "vgg11" if width == 64 else f"vgg11_{width}"
    if width < 1:
        raise InputError(f"{name}: the width must be at least 1, got {width}")
    stages = tuple(tuple(width * multiple for multiple in stage) for stage in _CONFIGURATION_A)
    return VGG(name, stages, **options)
