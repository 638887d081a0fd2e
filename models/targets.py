"""Validation of targets, once before the first step, and casts that lose no precision."""

import torch
from torch import Tensor

from bayes_share.errors import InputError


def shaped(targets: Tensor, expected: torch.Size) -> Tensor:
    """Return targets ``[example, ...]`` in the shape ``[example, *expected]``.

    Axes of size 1 may be added or removed.

    Raises:
        InputError: if the targets of an example have another shape; names both shapes.
    """
    given = targets.shape[1:]
    if given == expected:
        return targets
    if [size for size in given if size != 1] != [size for size in expected if size != 1]:
        raise InputError(
            f"the targets of an example have shape {list(given)}, and must have shape {list(expected)} "
            f"to match the outputs of this network"
        )
    return targets.reshape(len(targets), *expected)


def finite(targets: Tensor) -> Tensor:
    """Return the targets after checking that they are finite.

    Raises:
        InputError: if a target is NaN or infinite; names the first such example.
    """
    if targets.is_floating_point() or targets.is_complex():
        check_finite_examples("targets", targets)
    return targets


def check_finite_examples(what: str, values: Tensor) -> None:
    """Raise InputError if any example contains NaN or infinity; the message has the count and the first index.

    Args:
        what: the name of the values in the message, in the plural.
        values: floating-point values ``[example, ...]``.
    """
    bad = ~values.isfinite().reshape(len(values), -1).all(1)
    if bool(bad.any()):
        first = int(bad.int().argmax())
        count = int(bad.sum())
        raise InputError(f"{count} of {len(values)} {what} contain NaN or infinity, the first at index {first}")


def whole(targets: Tensor) -> Tensor:
    """Convert integer-valued targets of any dtype to int64.

    Raises:
        InputError: if a target is not an integer; names the first one.
    """
    if targets.is_complex():
        raise InputError("the targets must be integers, and are complex numbers")
    if targets.is_floating_point():
        finite(targets)
        if bool((bad := targets != targets.round()).any()):
            raise InputError(f"the targets must be integers, and one is {float(targets[bad][0]):g}")
    return targets.to(torch.int64)


def check_among(targets: Tensor, low: int, high: int, hint: str) -> None:
    """Raise InputError if any target is not in ``[low, high]``.

    Args:
        targets: int64 targets of any shape.
        low: the smallest allowed value.
        high: the largest allowed value.
        hint: an explanation appended to the message.
    """
    if bool((bad := (targets < low) | (targets > high)).any()):
        raise InputError(
            f"the targets must be from {low} to {high}, and {int(bad.sum())} of {bad.numel()} are not, "
            f"such as {int(targets[bad][0])}: {hint}"
        )
