"""Copies of networks, also of those whose weights a hook computes."""

from collections.abc import Iterator
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bayes_share.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def copy_of(network: Module) -> Module:
    """A deep copy of a network, which may have weights that a hook computes.

    The hooks of ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` leave the weight that they computed in
    the module, with its graph, which torch does not copy. The copy has its numbers until the hook is called again.

    Raises:
        InputError: lazy modules without shapes; names one.
    """
    check_initialised(network)
    computed = {
        id(value): value.detach().clone()
        for module in _all_modules(network)
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return deepcopy(network, computed)


def check_initialised(network: nn.Module) -> None:
    """Raise an InputError, which names the module, where a lazy module has no shapes yet."""
    for name, module in network.named_modules():
        tensors = (*module._parameters.values(), *module._buffers.values())
        if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
            raise InputError(
                f"{name or 'the network itself'}, a {type(module).__name__}, has no shapes yet: call the network on a "
                f"batch once"
            )


def _all_modules(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network, and of those that it holds without having them registered."""
    for module in network.modules():
        yield module
        for value in vars(module).values():
            if isinstance(value, nn.Module):
                yield from _all_modules(value)
