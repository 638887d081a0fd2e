"""The networks by name."""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.models.blocks import NetworkOptions
from bayes_share.models.lenet import lenet
from bayes_share.models.mlp import mlp
from bayes_share.models.resnet import resnet18, resnet20, resnet32, resnet56, resnet110
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
"""The builders of the networks that have one name; each takes what `blocks.NetworkOptions` says.

Beside them, ``wide_resnetD_W`` names a wide ResNet of depth D and width W.
"""

_WIDE_RESNET = re.compile(r"wide_resnet([0-9]+)_([0-9]+)")


def network_names() -> list[str]:
    """The names for a help text, the wide ResNets as one pattern.

    >>> network_names()[-2:]
    ['vgg11', 'wide_resnetD_W']
    """
    return [*NETWORKS, "wide_resnetD_W"]


def build_network(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    norm: str | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a freshly initialised network.

    Args:
        name: one of `network_names`, for example ``"resnet20"`` or ``"wide_resnet28_10"``.
        num_classes: the number of logits.
        in_channels: the channels of an image.
        image_size: height and width of an image.
        norm: ``"batch"``, ``"frn"``, ``"group"`` or ``"none"``; None is the network's own.
        dropout: the probability with which a value is dropped in train mode, in [0, 1).

    Returns:
        A network that maps images ``[row, channel, height, width]`` to logits ``[row, class]``.

    Raises:
        InputError: if a name is unknown, a number cannot be used, or the network cannot take the norm or the images.
    """
    builder = _builder(name)
    if min(num_classes, in_channels, *image_size) < 1:
        height, width = image_size
        raise InputError(
            f"{name} needs at least one class, one channel and one pixel, "
            f"got {num_classes} classes and images of {in_channels}x{height}x{width}"
        )
    options = NetworkOptions(num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=dropout)
    if norm is not None:
        options["norm"] = norm
    return builder(**options)


def _builder(name: str) -> Callable[..., nn.Module]:
    if name in NETWORKS:
        return NETWORKS[name]
    if parts := _WIDE_RESNET.fullmatch(name):
        return partial(wide_resnet, int(parts[1]), int(parts[2]))
    if name.startswith("wide_resnet"):
        raise InputError(f"unknown model {name!r}: a wide ResNet is named by depth and width, as in wide_resnet28_10")
    raise unknown("model", name, network_names())
