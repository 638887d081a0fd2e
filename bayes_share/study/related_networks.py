"""Names of wider, narrower and deeper variants of a network."""

import re

from bayes_share.errors import InputError

_DEFAULT_WIDTHS = {"resnet": 16, "vgg": 64}
"""Number of channels of the first layer, for names without a width."""
_NAME = re.compile(r"(?P<kind>mlp|wide_resnet|resnet|vgg)(?P<depth>\d+)(_(?P<width>\d+))?")


def of_width(model: str, factor: float) -> str:
    """Return the name of the network of the same depth with a multiple of the width.

    Args:
        model: name of a network, as for `build_network`.
        factor: factor of the width; 0.5 gives half the width.

    Raises:
        InputError: if the name of the network has no width, or the width would not be an integer.

    >>> of_width("resnet20", 0.5), of_width("mlp2_64", 2.0), of_width("wide_resnet28_10", 0.5)
    ('resnet20_8', 'mlp2_128', 'wide_resnet28_5')
    """
    kind, depth, width = _parts(model)
    wanted = width * factor
    if wanted < 1 or wanted != int(wanted):
        raise InputError(f"{model}: {factor:g} times the width {width} is not an integer: use another width")
    return f"{kind}{depth}_{int(wanted)}"


def twice_as_deep(model: str) -> str:
    """Return the name of the network of the same width with twice as many blocks or hidden layers.

    Raises:
        InputError: if the network has only one depth.

    >>> twice_as_deep("resnet20"), twice_as_deep("mlp2_64"), twice_as_deep("wide_resnet28_10")
    ('resnet38_16', 'mlp4_64', 'wide_resnet52_10')
    """
    kind, depth, width = _parts(model)
    other_layers = {"mlp": 0, "resnet": 2, "wide_resnet": 4}  # number of layers outside of blocks
    if kind not in other_layers:
        raise InputError(f"{model} has no deeper variant: use an mlpD_W, a resnetD_W or a wide_resnetD_W")
    return f"{kind}{2 * depth - other_layers[kind]}_{width}"


def _parts(model: str) -> tuple[str, int, int]:
    match = _NAME.fullmatch(model)
    width = None if match is None else match["width"] or _DEFAULT_WIDTHS.get(match["kind"])
    if match is None or width is None or model == "resnet18":
        raise InputError(f"{model} has no width in its name: use a network of a family, such as resnet20 or mlp2_64")
    return match["kind"], int(match["depth"]), int(width)
