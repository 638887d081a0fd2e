"""Parameters of which only some are tested by default, the others with ``-m slow``."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import pytest


def thinned(is_quick: Callable[..., bool], *axes: Iterable[Any]) -> list[Any]:
    """Return all combinations of the values on the axes as parameters; those that are not quick are marked slow.

    Args:
        is_quick: a function of one value of each axis, or of its name if the axis is a mapping.
        axes: the values on each axis. The values of a mapping are named by its keys.
    """
    named = [axis.items() if isinstance(axis, Mapping) else [(value, value) for value in axis] for axis in axes]
    return [
        pytest.param(
            *(value for _, value in values),
            id="-".join(str(name) for name, _ in values),
            marks=() if is_quick(*(name for name, _ in values)) else pytest.mark.slow,
        )
        for values in product(*named)
    ]


def alternating(*axes: Iterable[Any]) -> list[Any]:
    """Return all combinations of the values on two axes or more, every second of them slow, as on a chessboard."""
    places = [{name: place for place, name in enumerate(axis)} for axis in axes]
    return thinned(lambda *names: not sum(place[name] for place, name in zip(places, names, strict=True)) % 2, *axes)
