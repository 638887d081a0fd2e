"""Deep copies of networks, including networks whose weights are computed by hooks."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bayes_share.errors import InputError
from bayes_share.tensors.references import references

Module = TypeVar("Module", bound=nn.Module)


def copy_of(network: Module) -> Module:
    """Return a deep copy of a network, which may have weights computed by hooks.

    The hooks of ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` store the computed weight in the module
    as a non-leaf tensor, which torch cannot deep-copy. The copy has the value of this tensor until the hook runs again.

    Raises:
        InputError: if a lazy module is not initialised, or a function in an attribute or hook uses a module or tensor
            of the network, which its copy would use too; names the module.
    """
    check_initialised(network)
    computed = {
        id(value): value.detach().clone()
        for module in _all_modules(network)
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copy = deepcopy(network, computed)
    check_separate(network, copy)
    return copy


def check_separate(network: nn.Module, copy: nn.Module) -> None:
    """Check that a deep copy of a network does not refer to modules, parameters or buffers of the network.

    ``deepcopy`` copies neither functions nor the variables that they use. Parts of the copy would then compute with the
    original, and never be trained.

    Raises:
        InputError: if an attribute or a hook refers to the original; names it.
    """
    own = {id(part) for _, part in _parts(copy)}  # what copies itself as itself is shared on purpose
    original = {id(part): name for name, part in _parts(network) if id(part) not in own}
    modules = list(_all_modules(copy))
    if not _used(original, [vars(module) for module in modules]):
        return
    names = {module: name for name, module in copy.named_modules()}
    for module in modules:
        for name, value in vars(module).items():
            if used := _used(original, value):
                kind = type(module).__name__
                of = f"the {kind} {names[module]}" if names.get(module) else f"the {kind}"
                what = f"a {name.removeprefix('_').removesuffix('s').replace('_', ' ')}" if "_hooks" in name else name
                raise InputError(
                    f"{what} of {of} is or contains a function that uses {used[0] or 'the network itself'}, and a copy "
                    "of the network would still use that of the original: define a method instead of a lambda or a "
                    "nested function"
                )


def _used(parts: Mapping[int, str], value: Any) -> list[str]:
    """Return the name of the first of these parts that a value refers to, if there is one."""
    return [parts[id(part)] for part in references(value) if id(part) in parts][:1]


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """Iterate over all modules, parameters and buffers with their names, empty for modules without one."""
    names = {module: name for name, module in network.named_modules()}
    for module in _all_modules(network):
        name = names.get(module, "")
        yield name, module
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{name}.{own}" if name else own, tensor


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
    seen: set[nn.Module] = set()
    open_ = [network]
    while open_:
        for module in open_.pop().modules():
            if module not in seen:
                seen.add(module)
                yield module
                open_.extend(value for value in vars(module).values() if isinstance(value, nn.Module))
