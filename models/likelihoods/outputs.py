"""Outputs of networks, and the shapes of the targets that go with them."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.targets import shaped


def precise(outputs: Tensor) -> Tensor:
    """Outputs in at least float32."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def squeezed(values: Tensor) -> Tensor:
    """Values ``[member, batch, *output]``, without axes for the outputs where an example has one."""
    return values.reshape(values.shape[:2]) if values.shape[2:].numel() == 1 else values


def each(values: Tensor) -> Tensor:
    """What there is of each example, on one axis: ``[member, batch, number]``."""
    return values.reshape(*values.shape[:2], -1)


def one_to_one(targets: Tensor, values: Tensor) -> Tensor:
    """Targets ``[example, ...]`` in the shape of values ``[member, few, *output]``, a number for each.

    Raises:
        InputError: targets that are more or fewer for an example.
    """
    return shaped(targets, squeezed(values).shape[2:])


def beside(
    values: Float[Tensor, "member batch *output"], outputs: Tensor, targets: Num[Tensor, "member batch *target"]
) -> Num[Tensor, "member batch *output"]:
    """Targets in the shape of values that outputs say of them; a single target may have axes of 1.

    Raises:
        InputError: targets that are more or fewer for an example, or lie otherwise.
    """
    is_one = values.ndim == 2 and targets.shape[2:].numel() == 1
    if not is_one or targets.shape[:2] != values.shape[:2]:
        check_shape(values.shape, outputs, targets)
    return targets.reshape(values.shape)


def check_shape(expected: torch.Size, outputs: Tensor, targets: Tensor) -> None:
    """Raise an InputError unless targets are of this shape."""
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {list(targets.shape[1:])} do not go with outputs of shape {list(outputs.shape[1:])}: "
            f"they must be of shape {list(expected[1:])}"
        )
