"""Outputs of networks: tensors, alone or in tuples, lists, dicts and output classes of Hugging Face."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError


def has_rows(leaf: Any) -> bool:
    """Whether a leaf is a tensor with a first axis."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def check_no_cache(leaf: Any) -> None:
    """Check that a leaf is not a cache of keys and values, which Hugging Face's networks change in place.

    Raises:
        InputError: It is one.
    """
    if any(kind.__name__ == "Cache" and kind.__module__.startswith("transformers.") for kind in type(leaf).__mro__):
        raise InputError(
            f"an ensemble does not support a {type(leaf).__name__} of keys and values: call it with "
            "use_cache=False, or set use_cache=False in the network's config"
        )


def known(leaf: Any) -> Any:
    """Return a leaf of a network's output.

    Raises:
        InputError: It is an object that may hold tensors which would be missed.
    """
    check_no_cache(leaf)
    if leaf is not None and not isinstance(leaf, (Tensor, bool, int, float, str)):
        raise InputError(
            f"the network returns a {type(leaf).__name__}, which is not supported: return tensors, or tuples, "
            "lists or dicts of tensors"
        )
    return leaf


def of_rows(leaf: Any) -> Any:
    """Return a leaf of an output computed for the rows of all members. A float scalar is the mean over members.

    Raises:
        InputError: It is an integer scalar, or as in `known`.
    """
    if isinstance(leaf, Tensor) and leaf.ndim == 0 and not leaf.is_floating_point():
        raise InputError("the network returns one integer for all rows, which cannot be divided among members")
    return known(leaf)


def joined(outputs: list[Any]) -> Any:
    """Stack the outputs of members, which all have the same structure.

    Tensors become ``[member, ...]``. Scalars for a whole batch, such as a loss, are averaged.
    """
    return tree_map(lambda *leaves: _joined(leaves) if isinstance(leaves[0], Tensor) else known(leaves[0]), *outputs)


def _joined(leaves: tuple[Tensor, ...]) -> Tensor:
    of_members = torch.stack(leaves)
    return of_members.mean(0) if of_members.ndim == 1 and of_members.is_floating_point() else of_members
