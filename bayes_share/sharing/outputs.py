"""What comes out of a network: tensors with rows, alone or in tuples, lists, dicts and outputs of Hugging Face."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError


def has_rows(leaf: Any) -> bool:
    """Whether a leaf is a tensor with an axis of rows."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def check_no_cache(leaf: Any) -> None:
    """Raise an InputError where something is one of Hugging Face's caches, which a network changes as it runs."""
    if any(kind.__name__ == "Cache" and kind.__module__.startswith("transformers.") for kind in type(leaf).__mro__):
        raise InputError(
            f"an ensemble does not support a {type(leaf).__name__} of keys and values: call it with "
            "use_cache=False, or set use_cache=False in the network's config"
        )


def known(leaf: Any) -> Any:
    """An output; what might hold tensors that would not be seen is refused."""
    check_no_cache(leaf)
    if leaf is not None and not isinstance(leaf, (Tensor, bool, int, float, str)):
        raise InputError(
            f"the network returns a {type(leaf).__name__}, which is not supported: return tensors, or tuples, "
            "lists or dicts of tensors"
        )
    return leaf


def of_rows(leaf: Any) -> Any:
    """An output for the rows of all members; a number for them all is a mean over them, if it is any."""
    if isinstance(leaf, Tensor) and leaf.ndim == 0 and not leaf.is_floating_point():
        raise InputError("the network returns one integer for all rows, which cannot be divided among members")
    return known(leaf)


def joined(outputs: list[Any]) -> Any:
    """The outputs of members, each of one form, as one of that form.

    Tensors are ``[member, ...]``, and a number that a member has for its whole batch, such as a loss, is their mean.
    """
    return tree_map(lambda *leaves: _joined(leaves) if isinstance(leaves[0], Tensor) else known(leaves[0]), *outputs)


def _joined(leaves: tuple[Tensor, ...]) -> Tensor:
    of_members = torch.stack(leaves)
    return of_members.mean(0) if of_members.ndim == 1 and of_members.is_floating_point() else of_members
