"""Attributes of modules that are neither parameters, buffers nor submodules."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from bayes_share.tensors.references import references

_INTERNAL = {*vars(nn.Module()), "_compiled_call_impl"}


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module: options, and state that is not registered.

    Tensors with a graph are left out: they are results of the last call.
    """
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _INTERNAL and (not isinstance(value, Tensor) or value.is_leaf)
    }


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of attributes, as from `attributes_of`, that were assigned or removed.

    An equal number or text is no change. Changes within an object are not seen.
    """
    names = [name for name in now if name not in before or not _is_same(now[name], before[name])]
    return names + [name for name in before if name not in now]


def has_parts(value: Any) -> bool:
    """Return whether an attribute refers to modules, parameters or tensors with a graph."""
    return any(isinstance(found, nn.Module | nn.Parameter) or not found.is_leaf for found in references(value))


def follow(module: nn.Module, other: nn.Module, besides: Collection[str] = ()) -> None:
    """Make the attributes of a module the same objects as those of another module.

    Only attributes that both modules have are replaced, and none that refers to modules or parameters, since each
    network has its own.

    Args:
        module: the module; it is changed.
        other: the other module.
        besides: names of attributes that are left unchanged.
    """
    there, here = attributes_of(other), attributes_of(module)
    for name in here.keys() & there.keys() - set(besides):
        if not _is_same(here[name], there[name]) and not has_parts(here[name]) and not has_parts(there[name]):
            vars(module)[name] = there[name]


@contextmanager
def restoring(*networks: nn.Module) -> Iterator[None]:
    """Restore the attributes of all modules afterwards, and the contents of those that are dicts or lists.

    A trial in another dtype may have stored tensors of this dtype there. Hooks that the networks added are removed too,
    since an attribute may say that they are there.
    """
    before = [(module, dict(vars(module))) for network in networks for module in network.modules()]
    contents = [
        (value, value.copy())
        for _, attributes in before
        for value in attributes.values()
        if type(value) in (dict, OrderedDict, list)
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        for value, content in contents:
            value.clear()
            value.update(content) if isinstance(value, dict) else value.extend(content)


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and type(one) in (bool, int, float, str) and bool(one == other))
