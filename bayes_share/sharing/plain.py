"""The plain networks that the members of a converted network are: their tensors, and modules that hold them."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from bayes_share.layers.factored import Factored

IN_SEVERAL_PLACES = "shared_by_layers"
"""The attribute of a module that sharing put in the place of others of its kind: the plain network has one in each."""


def empty_copy(network: nn.Module) -> nn.Module:
    """The plain form of a network, with shapes in place of numbers, which members are filled into."""
    copy = deepcopy(network)
    for module in list(copy.modules()):
        if isinstance(module, Factored):
            module.remove_factors()
    places = [(name, module) for name, module in places_of(copy) if hasattr(module, IN_SEVERAL_PLACES)]
    for name, module in places:
        own = deepcopy(module)
        delattr(own, IN_SEVERAL_PLACES)
        copy.set_submodule(name, own)
    return copy.to("meta")


def places_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of a network, once; one that sharing put in several places, once for each of them."""
    seen = set()
    for name, module in network.named_modules(remove_duplicate=False):
        if module not in seen or hasattr(module, IN_SEVERAL_PLACES):
            seen.add(module)
            yield name, module


def member_tensors(network: nn.Module, member: int) -> dict[str, Tensor]:
    """The parameters and buffers of the plain network that one member of a converted network is.

    Names are those of the network before it was converted; gradients pass to the base weights and factors.
    """
    tensors = {}
    for prefix, module in places_of(network):
        for name, tensor in _plain_tensors(module, member):
            tensors[f"{prefix}.{name}" if prefix else name] = tensor
    return tensors


def under_all_names(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values by name, those of a tied parameter repeated under each name that it has in another module."""
    parameters = dict(network.named_parameters())
    by_parameter = {parameters[name]: value for name, value in values.items() if name in parameters}
    buffers = {name: value for name, value in values.items() if name not in parameters}
    return buffers | {
        f"{prefix}.{name}" if prefix else name: by_parameter[parameter]
        for prefix, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter in by_parameter
    }


def _which(tensor: Tensor) -> tuple[Any, ...]:
    """What is equal for two tensors of a member that are one, of which each may be a view that was made anew."""
    return tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride()


def fill(empty: nn.Module, tensors: Mapping[str, Tensor], like: nn.Module) -> nn.Module:
    """A copy of an empty network with these parameters and buffers, what sharing had made one apart again.

    Args:
        empty: what `empty_copy` gave.
        tensors: by name; what is one tensor under two names, and was so before anything was shared, stays one.
        like: the converted network; says what is trained, and which modules are in training mode.
    """
    plain = deepcopy(empty)
    trained = {name: parameter.requires_grad for name, parameter in like.named_parameters(remove_duplicate=False)}
    made: dict[tuple[Any, ...], Tensor] = {}
    modules = dict(plain.named_modules(remove_duplicate=False))
    converted = dict(like.named_modules(remove_duplicate=False))
    for full_name, identity in identities(tensors, like).items():
        prefix, _, name = full_name.rpartition(".")
        module, tensor = modules[prefix], tensors[full_name]
        is_parameter = name in module._parameters
        key = (*identity, is_parameter)
        if key not in made:
            copy = tensor.detach().clone()
            made[key] = nn.Parameter(copy, trained[full_name]) if is_parameter else copy
        (module._parameters if is_parameter else module._buffers)[name] = made[key]
    for prefix, module in modules.items():
        module.training = converted[prefix].training
    return plain


def identities(tensors: Mapping[str, Tensor], like: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What is equal for two tensors of a member, by name, that are one where nothing is shared.

    Args:
        tensors: of the member.
        like: the converted network; what it shares is not one in a network that does not.
    """
    modules = dict(like.named_modules(remove_duplicate=False))
    found = {}
    for full_name, tensor in tensors.items():
        prefix, _, name = full_name.rpartition(".")
        found[full_name] = (*_which(tensor), full_name if _is_shared(modules[prefix], name) else None)
    return found


def _is_shared(module: nn.Module, name: str) -> bool:
    """Whether other modules may have a tensor because they share it, and not because it was tied before."""
    of_layer = isinstance(module, Factored) and "weight" in name
    return of_layer or hasattr(module, IN_SEVERAL_PLACES)


class KeptMembers:
    """The folded members of an ensemble, made again when a parameter or buffer is another or was changed in place.

    A write that autograd does not see (through ``.data``) is not noticed; `forget` is called when training begins.
    """

    def __init__(self) -> None:
        # Each tensor with an alias, which keeps the memory that it had from being used again, and its version.
        self._seen: list[tuple[Tensor, Tensor, int]] = []
        self._members: list[nn.Module] = []

    def of(self, network: nn.Module, empty: nn.Module, ensemble_size: int) -> list[nn.Module]:
        """The members, each a plain network in eval mode."""
        if not self._is_current(network):
            self._seen = [(tensor, tensor.detach(), tensor._version) for tensor in _all_tensors(network)]
            self._members = [fill(empty, member_tensors(network, i), network) for i in range(ensemble_size)]
        return self._members

    def forget(self) -> None:
        """Free the memory."""
        self._seen, self._members = [], []

    def _is_current(self, network: nn.Module) -> bool:
        now = list(_all_tensors(network))
        return len(now) == len(self._seen) and all(
            tensor is before and tensor._version == version and tensor.data_ptr() == alias.data_ptr()
            for tensor, (before, alias, version) in zip(now, self._seen, strict=True)
        )

    def __reduce__(self) -> tuple[type["KeptMembers"], tuple[()]]:
        return KeptMembers, ()


def _plain_tensors(module: nn.Module, member: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(module, Factored):
        yield from module.member_tensors(member).items()
        return
    has_members = getattr(module, "ensemble_size", None) is not None
    own = (*getattr(module, "member_parameters", ()), *getattr(module, "member_buffers", ())) if has_members else ()
    tensors = (
        *module.named_parameters(recurse=False, remove_duplicate=False),
        *module.named_buffers(recurse=False, remove_duplicate=False),
    )
    for name, tensor in tensors:
        yield name, tensor[member] if name in own else tensor


def _all_tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
