"""Networks that are related to a network: of another width or depth, by their names."""

import re

from bayes_share.errors import InputError

_OF_A_WIDTH = {"resnet": 16, "vgg": 64}
"""Channels of the first layers where a name does not say how many."""
_NAME = re.compile(r"(?P<kind>mlp|wide_resnet|resnet|vgg)(?P<depth>\d+)(_(?P<width>\d+))?")


def of_width(model: str, factor: float) -> str:
    """The network of the same depth that is so many times as wide.

    Args:
        model: a name as `build_network` takes it.
        factor: 0.5 is half as wide.

    Raises:
        InputError: a network whose width is no part of its name, or one whose width would be no whole number.

    >>> of_width("resnet20", 0.5), of_width("mlp2_64", 2.0), of_width("wide_resnet28_10", 0.5)
    ('resnet20_8', 'mlp2_128', 'wide_resnet28_5')
    """
    kind, depth, width = _parts(model)
    wanted = width * factor
    if wanted < 1 or wanted != int(wanted):
        raise InputError(f"{model}: {factor:g} times the width {width} is not a whole number: use another width")
    return f"{kind}{depth}_{int(wanted)}"


def twice_as_deep(model: str) -> str:
    """The network of the same width with twice as many blocks, or hidden layers.

    Raises:
        InputError: a network of which there is one depth only.

    >>> twice_as_deep("resnet20"), twice_as_deep("mlp2_64"), twice_as_deep("wide_resnet28_10")
    ('resnet38_16', 'mlp4_64', 'wide_resnet52_10')
    """
    kind, depth, width = _parts(model)
    beside = {"mlp": 0, "resnet": 2, "wide_resnet": 4}  # layers that are in no block
    if kind not in beside:
        raise InputError(f"{model} has no deeper variant: use an mlpD_W, a resnetD_W or a wide_resnetD_W")
    return f"{kind}{2 * depth - beside[kind]}_{width}"


def _parts(model: str) -> tuple[str, int, int]:
    match = _NAME.fullmatch(model)
    width = None if match is None else match["width"] or _OF_A_WIDTH.get(match["kind"])
    if match is None or width is None or model == "resnet18":
        raise InputError(f"{model} has no width in its name: use a network of a family, such as resnet20 or mlp2_64")
    return match["kind"], int(match["depth"]), int(width)
