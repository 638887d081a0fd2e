"""Randomly initialised networks of torchvision and timm, by name."""

import importlib
from difflib import get_close_matches
from typing import Any

from torch import nn

from bayes_share.errors import InputError

LIBRARIES = ("timm", "torchvision")
"""The supported libraries, as in ``LIBRARY:NAME``."""


def is_of_library(name: str) -> bool:
    """Whether a name refers to a network of one of these libraries.

    >>> is_of_library("timm:resnet18"), is_of_library("resnet18")
    (True, False)
    """
    return name.partition(":")[0] in LIBRARIES and ":" in name


def library_network(
    name: str, *, num_classes: int, in_channels: int, image_size: tuple[int, int], dropout: float = 0.0
) -> nn.Module:
    """Build a classifier of a library, without pretrained weights.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        num_classes: the number of logits.
        in_channels: the channels of an image; torchvision's networks require 3.
        image_size: height and width of an image; vision transformers are built for this size.
        dropout: the dropout probability that is passed to the network's own builder.

    Raises:
        InputError: if the library is not installed, it has no such network, or the network does not support an option.
    """
    library, _, network_name = name.partition(":")
    try:
        return {"timm": _timm, "torchvision": _torchvision}[library](
            network_name, num_classes, in_channels, image_size, dropout
        )
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        height, width = image_size
        raise InputError(
            f"{name} cannot be built for {num_classes} classes and images of {in_channels} x {height} x {width} "
            f"({reason:.300})"
        ) from error


def _timm(name: str, num_classes: int, channels: int, size: tuple[int, int], dropout: float) -> nn.Module:
    timm: Any = _imported("timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models(), "timm.list_models()")
    options = {"num_classes": num_classes, "in_chans": channels, "drop_rate": dropout}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, img_size=size, **options)
    except TypeError:  # most convolutional networks accept any image size and have no img_size argument
        network = timm.create_model(name, pretrained=False, **options)
    return network


def _torchvision(name: str, num_classes: int, channels: int, size: tuple[int, int], dropout: float) -> nn.Module:
    models: Any = _imported("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known, "torchvision.models.list_models()")
    if channels != 3:
        raise InputError(
            f"torchvision:{name} requires images with 3 channels, not {channels}: use a timm or a built-in network"
        )
    options: dict[str, Any] = {"num_classes": num_classes}
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise InputError(f"torchvision:{name} requires square images, not {size[0]} x {size[1]}: set an image size")
        options["image_size"] = size[0]
    if dropout:
        options["dropout"] = dropout
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    try:
        network: nn.Module = models.get_model(name, weights=None, **options)
    except TypeError as error:
        if dropout and "dropout" in str(error):
            raise InputError(f"torchvision:{name} does not support dropout: leave dropout at 0") from error
        raise
    return network


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"{package} networks require the package {package}: pip install {package}") from error


def _unknown(library: str, name: str, known: list[str], listed_by: str) -> InputError:
    close = " or ".join(f"{library}:{match}" for match in get_close_matches(name, known, n=2))
    return InputError(
        f"{library} has no network {name!r}: {f'did you mean {close}' if close else f'{listed_by} lists all'}"
    )
