"""What goes into a network and comes out of it: tensors with rows, alone or in tuples, lists and dicts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError


def has_rows(leaf: Any) -> bool:
    """Whether a leaf is a tensor with an axis of rows."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def known(leaf: Any) -> Any:
    """An output; what might hold tensors that would not be seen is refused."""
    if leaf is not None and not isinstance(leaf, (Tensor, bool, int, float, str)):
        raise InputError(
            f"the network returns a {type(leaf).__name__}, in which tensors are not found: have it return tensors, or "
            f"tuples, lists or dicts of them"
        )
    return leaf


def of_rows(leaf: Any) -> Any:
    """An output for many rows; one number for all of them is refused."""
    if isinstance(leaf, Tensor) and leaf.ndim == 0:
        raise InputError("the network returns one number for all rows, which is not divided among members")
    return known(leaf)


def stacked(outputs: list[Any]) -> Any:
    """The outputs of members, each of one form, as one of that form with tensors ``[member, ...]``."""
    return tree_map(
        lambda *leaves: torch.stack(leaves) if isinstance(leaves[0], Tensor) else known(leaves[0]), *outputs
    )
