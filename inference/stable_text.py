"""Texts of values that are the same in every process, to compare the values of two trainings."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Transform

from bayes_share.tensors.trees import digest

_LISTED = 8  # maximum number of values that are written out
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def without_addresses(text: str) -> str:
    """Remove the addresses from the default texts of objects and functions, such as ``<function f at 0x7f...>``.

    >>> without_addresses("<function crop at 0x7f3a2c>")
    '<function crop>'
    """
    return _ADDRESS.sub("", text)


def text_of(value: Any, signed: bool = True) -> str:
    """Describe a value: numbers up to 6 digits, and large tensors by a digest.

    Objects of unknown types are described by their class, and functions by their names.

    Args:
        value: the value.
        signed: whether to keep the signs of tensors.

    >>> import torch
    >>> text_of({"scale": torch.full((3,), 0.1), "kinds": [1, None]})
    '{scale: 0.1, kinds: [1, None]}'
    """

    def within(part: Any) -> str:
        return text_of(part, signed)

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Tensor):
        return _text_of_tensor(value.detach() if signed else value.detach().abs())
    if isinstance(value, Independent):
        return within(value.base_dist)
    if isinstance(value, Distribution | Transform):
        own = {name: part for name, part in sorted(vars(value).items()) if _determines(name, part)}
        return f"{type(value).__name__}({', '.join(f'{name}={within(part)}' for name, part in own.items())})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {within(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(within, value))}]"
    if isinstance(value, partial):
        return f"{within(value.func)}({within([*value.args, value.keywords])})"
    if value is None or isinstance(value, bool | int | str):
        return str(value)
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def text_of_module(module: nn.Module) -> str:
    """Describe a module, without its children: its class and the options that its ``repr`` has."""
    options = " ".join(without_addresses(module.extra_repr()).split())
    return f"{type(module).__name__}({options})"


def _text_of_tensor(value: Tensor) -> str:
    """Describe a tensor: by one value if all are equal."""
    if not value.numel():
        return f"empty {list(value.shape)}"
    is_expanded = all(step == 0 or size == 1 for step, size in zip(value.stride(), value.shape, strict=True))
    first = value[(0,) * value.ndim]
    if is_expanded or bool((value == first).all()):
        return text_of(first.item())
    if value.numel() <= _LISTED:
        return text_of(value.tolist())
    return f"{list(value.shape)} {digest(value.float() if value.is_floating_point() else value)[:16]}"


def _determines(name: str, part: Any) -> bool:
    """Return whether an attribute of a distribution or transform is a parameter. Shapes and caches are not."""
    if isinstance(part, list | tuple):
        return bool(part) and all(_determines(name, each) for each in part)
    is_number = isinstance(part, int | float) and not isinstance(part, bool)
    return isinstance(part, Tensor | Distribution | Transform) or (is_number and not name.startswith("_"))
