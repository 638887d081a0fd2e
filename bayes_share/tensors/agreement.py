"""Comparison of outputs that two computations should give equally, up to rounding."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_DOUBLE, _OTHERWISE = 1e-4, 1e-2  # rounding in float64 and in shorter dtypes, relative to the variation of an output
_EPSILONS = 10.0  # and at least this many machine epsilons


def largest_difference(found: Any, expected: Any) -> float | None:
    """Return the largest difference between two outputs, relative to the variation of the expected output.

    Each entry of each tensor has its own scale: its largest deviation from the mean over members or, if all members
    are equal there, over members and examples. Therefore large constants, such as logits of -1e9 for padding, and
    tensors in other units do not hide differences. Entries that happen to vary little have the scale of the first
    decile of all entries that vary. The scale also includes the square root of the machine epsilon times the absolute
    value, for constants that are rounded. A scalar has the scale of its absolute value.

    Args:
        found: a tree of tensors ``[member, example, ...]`` and plain values.
        expected: the same, by the computation that is known to be right.

    Returns:
        The difference, infinite if integers or plain values differ; None if structures or shapes differ.
    """
    one, other = tree_leaves(found), tree_leaves(expected)
    if len(one) != len(other):
        return None
    largest = 0.0
    for left, right in zip(one, other, strict=True):
        if isinstance(left, Tensor) != isinstance(right, Tensor):
            return None
        if not isinstance(left, Tensor):
            is_plain = isinstance(left, bool | int | float | str) or isinstance(right, bool | int | float | str)
            largest = max(largest, math.inf if is_plain and left != right else 0.0)
        elif left.shape != right.shape:
            return None
        elif left.numel():
            largest = max(largest, _difference(left, right))
    return largest


def rounding(outputs: Any) -> float:
    """Return the relative difference, as in `largest_difference`, that rounding can explain.

    Args:
        outputs: a tree of tensors; the least precise dtype counts.
    """
    dtypes = {leaf.dtype for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and _is_rounded(leaf)}
    shorter = dtypes - {torch.float64, torch.complex128}
    return max([_DOUBLE, *(max(_OTHERWISE, _EPSILONS * torch.finfo(dtype).eps) for dtype in shorter)])


def varies(outputs: Any) -> bool:
    """Return whether any tensor ``[member, example, ...]`` varies over members or examples, or any scalar is not 0."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.numel()]
    return any(bool((variation(leaf) > 0).any()) for leaf in tensors)


def variation(outputs: Tensor) -> Tensor:
    """Return the largest deviation of each entry from its mean over members or, if these are equal, over examples.

    Args:
        outputs: ``[member, example, ...]``.

    Returns:
        ``[...]``; for a scalar, its absolute value. Values that are not finite are ignored.
    """
    values = _real(outputs)
    if outputs.ndim == 0:
        return values.abs().nan_to_num(0, 0, 0)
    of_members = _deviation(values, 0)
    if outputs.ndim == 1:
        return of_members.amax(0)
    of_examples = _deviation(values.flatten(0, 1), 0).amax(0)
    of_members = of_members.flatten(0, 1).amax(0)
    return torch.where(of_members > 0, of_members, of_examples)


def _is_rounded(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def _real(tensor: Tensor) -> Tensor:
    """Return the values in a real dtype of at least 32 bits; complex numbers have another axis at the end."""
    tensor = tensor.detach()
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _deviation(values: Tensor, axis: int) -> Tensor:
    """Return the absolute deviation from the mean along an axis, 0 where a value is not finite or all are equal."""
    finite = values.isfinite()
    mean = values.masked_fill(~finite, 0).sum(axis, keepdim=True) / finite.sum(axis, keepdim=True).clamp_min(1)
    largest = values.masked_fill(~finite, -math.inf).amax(axis, keepdim=True)
    smallest = values.masked_fill(~finite, math.inf).amin(axis, keepdim=True)
    return (values - mean).abs().masked_fill(~finite | (largest <= smallest), 0)  # the mean of equal values is rounded


def _difference(found: Tensor, expected: Tensor) -> float:
    if not _is_rounded(expected) or not _is_rounded(found):
        return 0.0 if torch.equal(found, expected) else math.inf
    left, right = _real(found), _real(expected)
    same = (left == right) | (left.isnan() & right.isnan())
    apart = (left - right).abs().masked_fill(same, 0).nan_to_num(nan=math.inf)
    scale = variation(expected)
    if expected.ndim > 0:
        scale = _with_floor(scale) + math.sqrt(torch.finfo(expected.dtype).eps) * right.abs().nan_to_num(0, 0, 0)
    return float(torch.where(apart > 0, apart / scale, 0.0).max())


def _with_floor(scale: Tensor) -> Tensor:
    """Raise the scales to at least the first decile of the scales that are not 0."""
    positive = scale[scale > 0]
    if not len(positive):
        return scale
    return scale.clamp_min(float(positive.kthvalue(max(1, len(positive) // 10)).values))
