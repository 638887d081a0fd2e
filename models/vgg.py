"""VGG-11 (Simonyan & Zisserman 2014, arXiv:1409.1556, configuration A) in the form used on small images."""

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

# One tuple per stage: the channels of its convolutions, as multiples of the first one's.
_CONFIGURATION_A = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ending in a pooling, and one linear layer in place of the paper's three.

    A pooling rounds the sides up, so images of any size can be fed and those of 32x32 end as one pixel.

    Args:
        name: what error messages call the network.
        stages: for each stage, the channels of its convolutions.
        num_classes: the number of logits.
        in_channels: the channels of an image.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``.
        dropout: the probability of dropping a value after each stage.
        image_size: height and width of an image; only checked, other sizes can be fed.

    Raises:
        InputError: if the norm is unknown, the dropout not in [0, 1), or the images too small for the norm.
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
    """VGG-11 for small images: 8 convolutions in 5 stages, 64 to 512 wide, and one linear layer.

    Args:
        width: channels of the first convolution; the widest ones have 8 times as many.
        options: see `NetworkOptions`; the norm is ``"batch"`` unless given.

    Raises:
        InputError: if the width is below 1, the norm is unknown, the dropout not in [0, 1), or the images too small for
            the norm.
    """
    name = "vgg11" if width == 64 else f"vgg11_{width}"
    if width < 1:
        raise InputError(f"{name}: the width must be at least 1, got {width}")
    stages = tuple(tuple(width * multiple for multiple in stage) for stage in _CONFIGURATION_A)
    return VGG(name, stages, **options)
