"""Deep copies of networks, including networks whose weights are computed by hooks."""

from collections.abc import Iterator
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bayes_share.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def copy_of(network: Module) -> Module:
    """Return a deep copy of a network, which may have weights computed by hooks.

    The hooks of ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` store the computed weight in the module
    as a non-leaf tensor, which torch cannot deep-copy. The copy has the value of this tensor until the hook runs again.

    Raises:
        InputError: if a lazy module is not initialised; names the module.
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
    """Raise InputError if a lazy module is not initialised; the message names the module."""
    for name, module in network.named_modules():
        tensors = (*module._parameters.values(), *module._buffers.values())
        if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
            raise InputError(
                f"{name or 'the network itself'}, a {type(module).__name__}, is not initialised: call the network once "
                f"on a batch"
            )


def _all_modules(network: nn.Module) -> Iterator[nn.Module]:
    """Iterate over all modules of a network, including modules in attributes that are not registered."""
    for module in network.modules():
        yield module
        for value in vars(module).values():
            if isinstance(value, nn.Module):
                yield from _all_modules(value)
