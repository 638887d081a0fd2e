"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition")."""

from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.models.blocks import NetworkOptions, dropout_layer, initialise_convolutions, norm_named

# The side that LeNet-5 was made for, and that of the maps which its first fully connected layer then sees.
_SIDE = 32
_LAST_SIDE = 5


class LeNet(nn.Module):
    """Two 5x5 convolutions with poolings, then three fully connected layers, with ReLU and max pooling.

    Images smaller than 32x32 are padded with zeros all round, as LeCun padded MNIST; the maps of larger ones are
    averaged down to 5x5.

    Args:
        num_classes: the number of logits.
        in_channels: the channels of an image.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``, after each convolution.
        dropout: the probability of dropping a value between the fully connected layers.
        image_size: height and width of the images that will be fed.

    Raises:
        InputError: if the norm is unknown or the dropout not in [0, 1).
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
            # The gradient of this pooling is not deterministic on a GPU, so it is there only for those who need it.
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
    """The zeros to put before and after a side."""
    missing = max(_SIDE - side, 0)
    return missing // 2, missing - missing // 2


def lenet(**options: Unpack[NetworkOptions]) -> LeNet:
    """LeNet-5: 61,706 parameters for one channel and 10 classes.

    Args:
        options: see `NetworkOptions`; the norm is ``"none"`` unless given.

    Raises:
        InputError: if the norm is unknown or the dropout not in [0, 1).
    """
    return LeNet(**options)
