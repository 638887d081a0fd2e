"""Targets as likelihoods take them: checked once, before the first step, and cast where the cast is exact."""

import torch
from torch import Tensor

from bayes_share.errors import InputError


def shaped(targets: Tensor, expected: torch.Size) -> Tensor:
    """Targets ``[example, ...]`` of one shape per example; ones of as many numbers but for axes of 1 are reshaped.

    Raises:
        InputError: another shape; names both.
    """
    found = targets.shape[1:]
    if found == expected:
        return targets
    if [size for size in found if size != 1] != [size for size in expected if size != 1]:
        raise InputError(
            f"the targets of an example have shape {list(found)}, and must have shape {list(expected)} "
            f"to go with the outputs of this network"
        )
    return targets.reshape(len(targets), *expected)


def finite(targets: Tensor) -> Tensor:
    """Targets without NaN and infinity.

    Raises:
        InputError: one that is NaN or infinite; says where the first is.
    """
    if targets.is_floating_point() or targets.is_complex():
        check_finite_examples("targets", targets)
    return targets


def check_finite_examples(what: str, values: Tensor) -> None:
    """Raise an InputError where examples ``[example, ...]`` hold NaN or infinity; says how many, and the first.

    Args:
        what: their name, in the plural.
        values: floating point.
    """
    bad = ~values.isfinite().reshape(len(values), -1).all(1)
    if bool(bad.any()):
        first = int(bad.int().argmax())
        raise InputError(f"{int(bad.sum())} of {len(values)} {what} hold NaN or infinity, the first is number {first}")


def whole(targets: Tensor) -> Tensor:
    """Targets that are whole numbers of any dtype, as int64.

    Raises:
        InputError: a number that is not whole; says which.
    """
    if targets.is_complex():
        raise InputError("the targets are complex numbers, and must be whole numbers")
    if targets.is_floating_point():
        finite(targets)
        if bool((bad := targets != targets.round()).any()):
            raise InputError(f"the targets must be whole numbers, and one is {float(targets[bad][0]):g}")
    return targets.to(torch.int64)


def check_among(targets: Tensor, low: int, high: int, hint: str) -> None:
    """Raise an InputError where whole numbers are not from `low` to `high`.

    Args:
        targets: int64.
        low: the smallest that is allowed.
        high: the largest.
        hint: what follows in the message.
    """
    if bool((bad := (targets < low) | (targets > high)).any()):
        raise InputError(
            f"the targets must be from {low} to {high}, and {int(bad.sum())} of {bad.numel()} are not, "
            f"such as {int(targets[bad][0])}: {hint}"
        )
