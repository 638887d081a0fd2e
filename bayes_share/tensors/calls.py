"""How a batch reaches a network: as one argument, or as several."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """What a network is called with.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call_of(network: nn.Module, batch: Any) -> Call:
    """The arguments that a batch is for a network.

    A dict becomes keyword arguments where ``forward`` can be called with its keys, and a tuple becomes positional
    arguments where ``forward`` can be called with as many. Everything else is one argument.

    Args:
        network: that is called; of one whose ``forward`` takes anything and that holds one module, such as a compiled
            or a parallel one, that module is asked.
        batch: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of such.

    >>> call_of(nn.Bilinear(2, 3, 1), {"input1": 1, "input2": 2})
    Call(args=(), kwargs={'input1': 1, 'input2': 2})
    >>> call_of(nn.Bilinear(2, 3, 1), (1, 2))
    Call(args=(1, 2), kwargs={})
    >>> call_of(nn.Linear(2, 3), (1, 2))
    Call(args=((1, 2),), kwargs={})
    """
    if isinstance(batch, Mapping) and batch and all(isinstance(name, str) for name in batch):
        call = Call((), dict(batch))
    elif type(batch) is tuple and batch:
        call = Call(batch, {})
    else:
        return Call((batch,), {})
    return call if _takes(network, call) else Call((batch,), {})


def argument_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the positional arguments of a network."""
    return tuple(name for name, found in _signature(network).parameters.items() if found.kind in _BY_PLACE)


def _takes(network: nn.Module, call: Call) -> bool:
    try:
        _signature(network).bind(*call.args, **call.kwargs)
    except TypeError:
        return False
    return True


def _signature(network: nn.Module) -> inspect.Signature:
    signature = inspect.signature(network.forward)
    inside = list(network.children())
    if len(inside) == 1 and {parameter.kind for parameter in signature.parameters.values()} >= set(_ANY):
        return _signature(inside[0])
    return signature
