"""Conversion of a batch to the arguments of a network."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_map

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """The arguments of a call of a network.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def copied(self) -> "Call":
        """Return the call with copies of all tensors, for a network that may change its inputs in place."""
        return Call(
            tuple(_copied(value) for value in self.args), {name: _copied(value) for name, value in self.kwargs.items()}
        )


def call_of(network: nn.Module, batch: Any) -> Call:
    """Convert a batch to the arguments of a network.

    A dict becomes keyword arguments if ``forward`` accepts its keys, and a tuple becomes positional arguments if
    ``forward`` accepts that many. Anything else is passed as one argument.

    Args:
        network: the network to call. For a wrapper, such as a compiled or data-parallel module, whose ``forward``
            accepts any arguments, the signature of the wrapped module is used.
        batch: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.

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
    """Return the names of the positional parameters of a network's ``forward``."""
    return tuple(name for name, parameter in _signature(network).parameters.items() if parameter.kind in _POSITIONAL)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


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
