"""Dtypes and shapes of outputs, and of the targets that match them."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.targets import shaped


def precise(outputs: Tensor) -> Tensor:
    """Convert outputs to at least float32."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def squeezed(values: Tensor) -> Tensor:
    """Drop the output axes of values ``[member, batch, *output]`` if an example has only one value."""
    return values.reshape(values.shape[:2]) if values.shape[2:].numel() == 1 else values


def flatten_targets(values: Tensor) -> Tensor:
    """Flatten the target axes of values ``[member, batch, *target]`` to ``[member, batch, target]``."""
    return values.reshape(*values.shape[:2], -1)


def one_to_one(targets: Tensor, values: Tensor) -> Tensor:
    """Reshape targets ``[example, ...]`` to match values ``[member, few, *output]``, one target per value.

    Raises:
        InputError: if the number of targets per example differs from the number of values.
    """
    return shaped(targets, squeezed(values).shape[2:])


def targets_like(
    values: Float[Tensor, "member batch *output"], outputs: Tensor, targets: Num[Tensor, "member batch *target"]
) -> Num[Tensor, "member batch *output"]:
    """Reshape targets to the shape of `values`. A single target per example may have additional axes of size 1.

    Raises:
        InputError: if the shape of the targets does not match.
    """
    is_single = values.ndim == 2 and targets.shape[2:].numel() == 1
    if not is_single or targets.shape[:2] != values.shape[:2]:
        check_shape(values.shape, outputs, targets)
    return targets.reshape(values.shape)


def check_shape(expected: torch.Size, outputs: Tensor, targets: Tensor) -> None:
    """Raise InputError unless the targets have the expected shape."""
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {list(targets.shape[1:])} do not match outputs of shape {list(outputs.shape[1:])}: "
            f"they must have shape {list(expected[1:])}"
        )
