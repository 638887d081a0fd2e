"""Inputs of a network: a tensor, or a dict, tuple or list of tensors, each with the examples first.

Beside tensors there may be plain values and None, which are the same for all examples.
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
"""A tensor ``[example, ...]``, or a dict, tuple or list of such, which may be nested, and hold plain values too."""

_PLAIN = bool | int | float | str | None


def tensors_of(x: Tree) -> list[Tensor]:
    """The tensors, in order."""
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def each_tensor(change: Callable[..., Any], x: Tree, *others: Tree) -> Tree:
    """The same with other tensors; plain values stay.

    Args:
        change: gives a tensor for one of `x` and those of the others in its place.
        x: a tree.
        others: of the same form.
    """
    return tree_map(lambda leaf, *rest: change(leaf, *rest) if isinstance(leaf, Tensor) else leaf, x, *others)


def check_tree(what: str, x: Tree) -> None:
    """See whether something can be the inputs of a network: tensors of as many examples.

    Args:
        what: its name, for messages.
        x: anything.

    Raises:
        InputError: something else than tensors and plain values, no tensor, one without an axis of examples, or of
            another number of them.
    """
    leaves = tree_leaves(x)
    tensors = tensors_of(x)
    if not leaves:
        raise InputError(f"{what} must be a tensor, or a non-empty dict, tuple or list of tensors")
    for leaf in leaves:
        if not isinstance(leaf, Tensor) and not (tensors and isinstance(leaf, _PLAIN)):
            one = "be a tensor" if leaf is x else "hold tensors"
            if isinstance(leaf, Mapping):
                raise InputError(f"{what} must {one}, not {type(leaf).__name__}: convert it with dict(...)")
            raise InputError(f"{what} must {one}, not {type(leaf).__name__}: convert arrays with torch.as_tensor")
    for leaf in tensors:
        if leaf.ndim == 0:
            raise InputError(f"{what} must have the examples on the first axis, and is a scalar")
    if len(sizes := sorted({len(leaf) for leaf in tensors})) > 1:
        raise InputError(f"the tensors of {what} must have equally many examples, and have {sizes[0]} and {sizes[1]}")


def num_examples(x: Tree) -> int:
    """The number of examples.

    >>> num_examples({"image": torch.zeros(3, 8, 8), "age": torch.zeros(3)})
    3
    """
    return len(x) if isinstance(x, Tensor) else len(tensors_of(x)[0])


def rows(x: Tree, which: Tensor | slice) -> Tree:
    """Some of the examples, by their numbers or a slice."""
    return x[which] if isinstance(x, Tensor) else each_tensor(lambda leaf: leaf[which], x)


def split(x: Tree, size: int) -> Iterator[Tree]:
    """All examples in order, so many at a time; the last part may have fewer."""
    if isinstance(x, Tensor):
        yield from x.split(size)
        return
    for first in range(0, max(1, num_examples(x)), size):
        yield rows(x, slice(first, first + size))


def joined(parts: Sequence[Tree]) -> Tree:
    """Parts of the examples, one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    return each_tensor(lambda *leaves: torch.cat(leaves), *parts)


def to_device(x: Tree, device: torch.device) -> Tree:
    """The same on a device; from pinned memory the copy is not waited for."""
    # To the host it must be: the numbers would be read before they are there.
    is_waited_for = device.type == "cpu"
    if isinstance(x, Tensor):
        return x.to(device, non_blocking=not is_waited_for)
    return each_tensor(lambda leaf: leaf.to(device, non_blocking=not is_waited_for), x)


def device_of(x: Tree) -> torch.device:
    """Where the first of the tensors lies."""
    return tensors_of(x)[0].device


def copied(content: Any) -> Any:
    """A copy of nested tensors and plain values, on the host."""
    return each_tensor(lambda leaf: leaf.detach().to("cpu", copy=True), content)


def is_finite(x: Tree) -> Tensor:
    """Whether all numbers are finite, as a tensor where they lie; numbers that are whole are."""
    flags = [leaf.isfinite().all() for leaf in tensors_of(x) if leaf.is_floating_point() or leaf.is_complex()]
    return torch.stack(flags).all() if flags else torch.ones((), dtype=torch.bool, device=device_of(x))


def digest(*trees: Tree) -> str:
    """The same for the same numbers of the same shapes, dtypes and names only, on every device.

    Args:
        trees: of tensors, and of plain values as a state has them.
    """
    found = sha256()
    for path, leaf in tree_flatten_with_path(trees)[0]:
        if not isinstance(leaf, Tensor):
            found.update(repr((keystr(path), leaf)).encode())
            continue
        found.update(repr((keystr(path), tuple(leaf.shape), leaf.dtype)).encode())
        plain = leaf.detach().cpu().contiguous()
        found.update(plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b"")
    return found.hexdigest()
