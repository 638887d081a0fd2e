"""The plain network of each member of a converted network: its tensors, and modules that hold them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factored import Factored
from bayes_share.tensors.attributes import attributes_of, changed, follow
from bayes_share.tensors.references import references

IN_SEVERAL_PLACES = "shared_by_layers"
"""Attribute of a module that sharing put in several places. The plain network has a separate one in each."""


def empty_copy(network: nn.Module) -> nn.Module:
    """Return the original form of a network with empty parameters (on the meta device), for `fill`.

    Raises:
        InputError: A module keeps parameters in a list, tuple or dict, where a member cannot replace them.
    """
    copy = copy_of(network)
    _check_no_listed_parameters(copy)
    for module in list(copy.modules()):
        if isinstance(module, Factored):
            module.remove_factors()
    places = [(name, module) for name, module in places_of(copy) if hasattr(module, IN_SEVERAL_PLACES)]
    for name, module in places:
        own = copy_of(module)
        delattr(own, IN_SEVERAL_PLACES)
        copy.set_submodule(name, own)
    return copy.to("meta")


def _check_no_listed_parameters(network: nn.Module) -> None:
    for module_name, module in network.named_modules():
        if type(module).__module__.startswith(("torch.", "bayes_share.")):
            continue  # recurrent layers, which renew their list
        for name, value in attributes_of(module).items():
            if isinstance(value, list | tuple | dict) and any(
                isinstance(part, nn.Parameter) for part in references(value)
            ):
                raise InputError(
                    f"{module_name or 'the network itself'} keeps parameters in {name}, a {type(value).__name__}, "
                    "where members cannot have their own: use nn.ParameterList or nn.ParameterDict"
                )


def places_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module once, or once for each place in which sharing put it."""
    seen = set()
    for name, module in network.named_modules(remove_duplicate=False):
        if module not in seen or hasattr(module, IN_SEVERAL_PLACES):
            seen.add(module)
            yield name, module


def tied_names(network: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that the network itself ties, not counting weights shared across layers."""
    names: dict[nn.Parameter, list[str]] = {}
    for prefix, module in network.named_modules():
        if not getattr(module, "shares_across", False):
            for name, parameter in module.named_parameters(prefix, recurse=False):
                names.setdefault(parameter, []).append(name)
    return [of_one for of_one in names.values() if len(of_one) > 1]


def member_tensors(network: nn.Module, member: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of one member's plain network.

    Names are those of the original network. Gradients flow to the base weights and factors.
    """
    tensors = {}
    for prefix, module in places_of(network):
        for name, tensor in _plain_tensors(module, member):
            tensors[f"{prefix}.{name}" if prefix else name] = tensor
    return tensors


def under_all_names(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Repeat the values of tied parameters under each of their names."""
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
    """Return a key that is equal for two views of the same values."""
    return tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride()


def fill(empty: nn.Module, tensors: Mapping[str, Tensor], like: nn.Module) -> nn.Module:
    """Return a copy of an empty network with these parameters and buffers.

    Modules that sharing made one are separate again.

    Args:
        empty: The result of `empty_copy`.
        tensors: Parameters and buffers by name. Tensors that the original network ties stay tied.
        like: The converted network, for `requires_grad` and the training mode of modules.
    """
    follow_attributes(empty, like)
    plain = copy_of(empty)
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
    """Return a key for each tensor of a member, equal for tensors that are tied in the original network.

    Args:
        tensors: The tensors of the member.
        like: The converted network. Weights that it shares get different keys.
    """
    modules = dict(like.named_modules(remove_duplicate=False))
    found = {}
    for full_name, tensor in tensors.items():
        prefix, _, name = full_name.rpartition(".")
        found[full_name] = (*_which(tensor), full_name if _is_shared(modules[prefix], name) else None)
    return found


def _is_shared(module: nn.Module, name: str) -> bool:
    """Whether a tensor may occur several times because of sharing rather than because it was tied before."""
    of_layer = isinstance(module, Factored) and "weight" in name
    return of_layer or hasattr(module, IN_SEVERAL_PLACES)


class KeptMembers:
    """The folded members of an ensemble. They are folded again when the ensemble has changed.

    Each call compares the bits of all parameters and buffers, and the other attributes of modules, with a snapshot.
    This detects all changes, including those through ``.data``, a numpy view or a replayed CUDA graph. The members have
    the same attributes as the network, not copies, so that a change within a dict or list takes effect. The snapshot
    takes as much memory as the converted network; ``benchmarks/README.md`` has the time of the comparison.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._attributes: list[dict[str, Any]] = []
        self._members: list[nn.Module] = []

    def of(self, network: nn.Module, empty: nn.Module, ensemble_size: int) -> list[nn.Module]:
        """Return the members as plain networks in eval mode."""
        if not self._is_current(network):
            self.forget()  # first, so that no two copies are held
            self._members = [fill(empty, member_tensors(network, i), network) for i in range(ensemble_size)]
            for member in self._members:
                follow_attributes(member, network)
            self._tensors = [tensor.detach().clone() for tensor in _all_tensors(network)]
            self._attributes = [_of_members(module) for module in network.modules()]
        return self._members

    def forget(self) -> None:
        """Free the memory."""
        self._tensors, self._attributes, self._members = [], [], []

    def _is_current(self, network: nn.Module) -> bool:
        now = list(_all_tensors(network))
        return (
            len(now) == len(self._tensors)
            and not any(map(changed, self._attributes, map(_of_members, network.modules())))
            and all(_same_bits(*pair) for pair in zip(now, self._tensors, strict=True))
        )

    def __reduce__(self) -> tuple[type["KeptMembers"], tuple[()]]:
        return KeptMembers, ()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_OF_NO_MEMBER = ("ensemble_size", "way", "fold_above")


def follow_attributes(network: nn.Module, other: nn.Module) -> None:
    """Give a network the present attributes of the modules of another one, of which one is converted and one is plain.

    These are options, and state that is neither a parameter nor a buffer. Both networks then have the same objects.
    """
    both = (net.named_modules(remove_duplicate=False) for net in (network, other))
    for (_, module), (_, present) in zip(*both, strict=True):
        is_converted = type(module) is not type(present)  # its private attributes are those of its class
        private = [name for name in vars(module) if name.startswith("_")] if is_converted else []
        follow(module, present, (*_OF_NO_MEMBER, *private))


def _of_members(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a converted module that its members have too."""
    return {name: value for name, value in attributes_of(module).items() if name not in _OF_NO_MEMBER}


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits: NaN equals NaN, and 0 differs from -0."""
    if one.dtype != other.dtype or one.device != other.device or one.shape != other.shape or one.is_meta:
        return False
    if one.is_complex():
        one, other = torch.view_as_real(one.resolve_conj()), torch.view_as_real(other.resolve_conj())
    kind = _INTEGERS[one.element_size()]
    return torch.equal(one.detach().view(kind), other.view(kind))


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
