"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition")."""

from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.models.blocks import NetworkOptions, dropout_layer, initialise_convolutions, norm_named

# The image size that LeNet-5 was designed for, and the resulting size of the maps before its first linear layer.
_SIDE = 32
_LAST_SIDE = 5


class LeNet(nn.Module):
    """Two 5x5 convolutions with max pooling, then three fully connected layers, all with ReLU.

    Images smaller than 32x32 are zero-padded on all sides, as LeCun padded MNIST. The feature maps of larger images are
    average-pooled to 5x5.

    Args:
        num_classes: the number of logits.
        in_channels: the number of image channels.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``, after each convolution.
        dropout: the dropout probability between the fully connected layers.
        image_size: height and width of the images.

    Raises:
        InputError: if the norm is unknown or the dropout is not in [0, 1).
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        norm: str = "none",
        dropout: float = 0.0,
        image_size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        choice = norm_named(norm)
        (top, bottom), (left, right) = (_margins(side) for side in image_size)
        self.features = nn.Sequential(
            nn.ZeroPad2d((left, right, top, bottom)),
            *choice.after(nn.Conv2d(in_channels, 6, 5, bias=choice.bias_before)),
            nn.MaxPool2d(2),
            *choice.after(nn.Conv2d(6, 16, 5, bias=choice.bias_before)),
            nn.MaxPool2d(2),
            # The gradient of this pooling is not deterministic on a GPU, so it is only added for larger images.
            nn.AdaptiveAvgPool2d(_LAST_SIDE) if max(image_size) > _SIDE else nn.Identity(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * _LAST_SIDE**2, 120),
            nn.ReLU(),
            dropout_layer(dropout),
            nn.Linear(120, 84),
            nn.ReLU(),
            dropout_layer(dropout),
            nn.Linear(84, num_classes),
        )
        initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row class"]:
        """Map images to logits."""
        return self.classifier(self.features(x))


def _margins(side: int) -> tuple[int, int]:
    """The zero padding before and after a side."""
    missing = max(_SIDE - side, 0)
    return missing // 2, missing - missing // 2


def lenet(**options: Unpack[NetworkOptions]) -> LeNet:
    """Build LeNet-5, with 61,706 parameters for one channel and 10 classes.

    Args:
        options: see `NetworkOptions`. The default norm is ``"none"``.

    Raises:
        InputError: if the norm is unknown or the dropout is not in [0, 1).
    """
    return LeNet(**options)
