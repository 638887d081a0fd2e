"""Multilayer perceptrons for images, small enough for every inference algorithm, including NUTS."""

from collections.abc import Callable, Sequence
from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.blocks import GROUPS, NetworkOptions, dropout_layer, group_norm, norm_named


class MLP(nn.Module):
    """Fully connected layers on the pixels of an image, with norm, ReLU and dropout after each hidden layer.

    Args:
        widths: the number of units of each hidden layer.
        num_classes: the number of logits.
        in_channels: the number of image channels.
        norm: ``"batch"``, ``"group"`` or ``"none"``.
        dropout: the dropout probability after each hidden layer.
        image_size: height and width of the images.

    Raises:
        InputError: if the norm is unknown or requires feature maps, or the dropout is not in [0, 1).
    """

    def __init__(
        self,
        widths: Sequence[int] = (128, 128),
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        norm: str = "none",
        dropout: float = 0.0,
        image_size: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        choice = norm_named(norm)
        if choice.name not in _NORMS:
            raise InputError(f"mlp has no feature maps, which norm {norm!r} requires: choose from {', '.join(_NORMS)}")
        height, width = image_size
        units = in_channels * height * width
        layers: list[nn.Module] = [nn.Flatten()]
        for hidden in widths:
            layers += [
                nn.Linear(units, hidden, bias=choice.bias_before),
                _NORMS[choice.name](hidden),
                nn.ReLU(),
                dropout_layer(dropout),
            ]
            units = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(units, num_classes))

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row class"]:
        """Map images to logits."""
        return self.layers(x)


def _group_norm(width: int) -> nn.Module:
    # A group of one unit would always be normalised to 0.
    if width <= GROUPS:
        raise InputError(f"mlp with norm 'group' requires hidden layers of more than {GROUPS} units, got {width}")
    return group_norm(width)


def _no_norm(width: int) -> nn.Module:
    return nn.Identity()


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "group": _group_norm,
    "none": _no_norm,
}


def mlp(widths: Sequence[int] = (128, 128), **options: Unpack[NetworkOptions]) -> MLP:
    """Build a multilayer perceptron with ReLU (Rumelhart, Hinton & Williams 1986).

    Args:
        widths: the number of units of each hidden layer.
        options: see `NetworkOptions`. The default norm is ``"none"``; ``"frn"`` is not supported.

    Raises:
        InputError: if the norm is unknown or requires feature maps, or the dropout is not in [0, 1).
    """
    return MLP(widths, **options)


def deep_mlp(depth: int, width: int, **options: Unpack[NetworkOptions]) -> MLP:
    """Build a multilayer perceptron whose hidden layers all have the same width.

    Args:
        depth: the number of hidden layers.
        width: the number of units of each hidden layer.
        options: as for `mlp`.

    Raises:
        InputError: if the depth or width is below 1, the norm is unknown or requires feature maps, or the dropout is
            not in [0, 1).
    """
    if min(depth, width) < 1:
        raise InputError(f"mlp{depth}_{width}: depth and width must be at least 1")
    return mlp((width,) * depth, **options)
