"""Inputs of a network as trees: a tensor, or nested dicts, tuples or lists of tensors with examples on the first axis.

Trees may also contain plain values and None, which are the same for all examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    keystr,
    tree_flatten_with_path,
    tree_leaves,
    tree_map,
)

from bayes_share.errors import InputError

Tree = Any
"""A tensor ``[example, ...]``, or nested dicts, tuples or lists of tensors and plain values."""

_PLAIN = bool | int | float | str | None


def tensors_of(x: Tree) -> list[Tensor]:
    """Return the tensors of a tree, in order."""
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def each_tensor(change: Callable[..., Any], x: Tree, *others: Tree) -> Tree:
    """Apply a function to each tensor of a tree. Plain values are kept.

    Args:
        change: maps a tensor of `x`, and the tensors at the same position of the others, to a new tensor.
        x: a tree.
        others: further trees with the same structure.
    """
    return tree_map(lambda leaf, *rest: change(leaf, *rest) if isinstance(leaf, Tensor) else leaf, x, *others)


def check_tree(what: str, x: Tree) -> None:
    """Check that an object is a tree of tensors with equal numbers of examples.

    Args:
        what: the name of the object, for error messages.
        x: the object.

    Raises:
        InputError: if the tree contains other objects than tensors and plain values or has no tensor, a tensor has no
            example axis, or tensors have different numbers of examples.
    """
    leaves = tree_leaves(x)
    tensors = tensors_of(x)
    if not leaves:
        raise InputError(f"{what} must be a tensor, or a non-empty dict, tuple or list of tensors")
    for leaf in leaves:
        if not isinstance(leaf, Tensor) and not (tensors and isinstance(leaf, _PLAIN)):
            requirement = "be a tensor" if leaf is x else "contain tensors"
            if isinstance(leaf, Mapping):
                raise InputError(f"{what} must {requirement}, not {type(leaf).__name__}: convert it with dict(...)")
            raise InputError(
                f"{what} must {requirement}, not {type(leaf).__name__}: convert arrays with torch.as_tensor"
            )
    for leaf in tensors:
        if leaf.ndim == 0:
            raise InputError(f"{what} must have the examples on the first axis, and is a scalar")
    if len(sizes := sorted({len(leaf) for leaf in tensors})) > 1:
        raise InputError(f"the tensors of {what} must have equally many examples, and have {sizes[0]} and {sizes[1]}")


def num_examples(x: Tree) -> int:
    """Return the number of examples.

    >>> num_examples({"image": torch.zeros(3, 8, 8), "age": torch.zeros(3)})
    3
    """
    return len(x) if isinstance(x, Tensor) else len(tensors_of(x)[0])


def rows(x: Tree, which: Tensor | slice) -> Tree:
    """Select examples by index or slice."""
    return x[which] if isinstance(x, Tensor) else each_tensor(lambda leaf: leaf[which], x)


def split(x: Tree, size: int) -> Iterator[Tree]:
    """Iterate over the examples in order, `size` at a time; the last part may be smaller."""
    if isinstance(x, Tensor):
        yield from x.split(size)
        return
    for first in range(0, max(1, num_examples(x)), size):
        yield rows(x, slice(first, first + size))


def joined(parts: Sequence[Tree]) -> Tree:
    """Concatenate parts of the examples along the first axis."""
    if len(parts) == 1:
        return parts[0]
    return each_tensor(lambda *leaves: torch.cat(leaves), *parts)


def to_device(x: Tree, device: torch.device) -> Tree:
    """Move a tree to a device. Copies from pinned memory to a GPU are asynchronous."""
    # Copies to the host must be synchronous: otherwise values could be read before they arrive.
    non_blocking = device.type != "cpu"
    if isinstance(x, Tensor):
        return x.to(device, non_blocking=non_blocking)
    return each_tensor(lambda leaf: leaf.to(device, non_blocking=non_blocking), x)


def device_of(x: Tree) -> torch.device:
    """Return the device of the first tensor."""
    return tensors_of(x)[0].device


def copied(content: Any) -> Any:
    """Copy a tree of tensors and plain values to the host."""
    return each_tensor(lambda leaf: leaf.detach().to("cpu", copy=True), content)


def cloned(content: Any) -> Any:
    """Copy a tree of tensors and plain values, each tensor on its device."""
    return each_tensor(lambda leaf: leaf.detach().clone(), content)


def is_finite(x: Tree) -> Tensor:
    """Return whether all values are finite, as a boolean tensor on their device. Integers are always finite."""
    flags = [leaf.isfinite().all() for leaf in tensors_of(x) if leaf.is_floating_point() or leaf.is_complex()]
    return torch.stack(flags).all() if flags else torch.ones((), dtype=torch.bool, device=device_of(x))


def digest(*trees: Tree) -> str:
    """Compute a digest of the values, shapes, dtypes and names in trees, independent of the device.

    Args:
        trees: trees of tensors and plain values.
    """
    hasher = sha256()
    for path, leaf in tree_flatten_with_path(trees)[0]:
        if not isinstance(leaf, Tensor):
            hasher.update(repr((keystr(path), leaf)).encode())
            continue
        hasher.update(repr((keystr(path), tuple(leaf.shape), leaf.dtype)).encode())
        plain = leaf.detach().cpu().contiguous()
        hasher.update(plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b"")
    return hasher.hexdigest()
