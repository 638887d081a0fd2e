"""Networks for images, by name."""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.models.blocks import NetworkOptions
from bayes_share.models.lenet import lenet
from bayes_share.models.libraries import LIBRARIES, is_of_library, library_network
from bayes_share.models.mlp import deep_mlp, mlp
from bayes_share.models.resnet import cifar_resnet, resnet18, resnet20, resnet32, resnet56, resnet110
from bayes_share.models.vgg import vgg11
from bayes_share.models.wide_resnet import wide_resnet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "vgg11": vgg11,
}
"""The builders of networks with a fixed name. Each takes the options in `blocks.NetworkOptions`."""


class Family(NamedTuple):
    """A family of networks whose names contain their depth or width.

    Attributes:
        pattern: the name with letters for the integers, for help texts.
        example: an example of a name.
        builder: builds a network from the integers, in the order of the name, and the options.
    """

    pattern: str
    example: str
    builder: Callable[..., nn.Module]

    def numbers(self, name: str) -> list[int] | None:
        """Return the integers in a name, or None if the name is not of this family."""
        match = re.fullmatch(re.sub("[DW]", "([0-9]{1,6})", self.pattern), name)
        return None if match is None else [int(number) for number in match.groups()]


FAMILIES = (
    Family("mlpD_W", "mlp4_128", deep_mlp),
    Family("resnetD", "resnet14", cifar_resnet),
    Family("resnetD_W", "resnet20_12", cifar_resnet),
    Family("vgg11_W", "vgg11_32", vgg11),
    Family("wide_resnetD_W", "wide_resnet28_10", wide_resnet),
)
"""The families with a depth D and a width W.

For perceptrons these are hidden layers and units, for convolutional networks layers and channels of the first stage.
"""


def network_names() -> list[str]:
    """Return the network names as shown in help texts, with one pattern for each family.

    >>> network_names()[-4:]
    ['vgg11_W', 'wide_resnetD_W', 'timm:NAME', 'torchvision:NAME']
    """
    return [*NETWORKS, *(family.pattern for family in FAMILIES), *(f"{library}:NAME" for library in LIBRARIES)]


def build_network(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    norm: str | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a randomly initialised network.

    Args:
        name: one of `network_names`, with integers for D and W, for example ``"resnet20"`` or ``"wide_resnet28_10"``,
            or a network of another library, ``"timm:resnet18"`` or ``"torchvision:convnext_tiny"``.
        num_classes: the number of logits.
        in_channels: the number of image channels.
        image_size: height and width of an image.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``; None uses the network's default.
        dropout: the dropout probability in train mode, in [0, 1).

    Returns:
        A network that maps images ``[row, channel, height, width]`` to logits ``[row, class]``.

    Raises:
        InputError: if the name is unknown, an option is invalid, or the network does not support the norm or the image
            size.
    """
    if is_of_library(name):
        if norm is not None:
            raise InputError(f"the norm of {name} is fixed by its library: leave norm out")
        return library_network(
            name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=dropout
        )
    builder = _builder(name)
    if min(num_classes, in_channels, *image_size) < 1:
        height, width = image_size
        raise InputError(
            f"{name} requires at least one class, one channel and one pixel, "
            f"got {num_classes} classes and images of {in_channels}x{height}x{width}"
        )
    options = NetworkOptions(num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=dropout)
    if norm is not None:
        options["norm"] = norm
    return builder(**options)


def _builder(name: str) -> Callable[..., nn.Module]:
    if name in NETWORKS:
        return NETWORKS[name]
    for family in FAMILIES:
        if (numbers := family.numbers(name)) is not None:
            return partial(family.builder, *numbers)
    error = unknown("model", name, network_names())
    raise InputError(
        f"{error}; D and W are integers, as in {', '.join(family.example for family in FAMILIES)}, and NAME is the "
        f"name of a network in that library"
    )
