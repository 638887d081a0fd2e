"""Folding: a member, or a network that shares weights, as a plain network."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factored import Factored
from bayes_share.sharing.member_networks import (
    IN_SEVERAL_PLACES,
    empty_copy,
    fill,
    member_tensors,
    tied_names,
    under_all_names,
)
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members


def fold(net: nn.Module, member: int | None = None, parameters: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return a member of an ensemble, or a network that shares weights, as a plain torch network with the same outputs.

    The result has no factors, shares nothing, and has the classes and parameter names of the original network: its
    state dict loads into the original architecture, and it exports like the original. Layers that the network tied
    itself, such as an embedding and the last layer, become separate if their factors differ or one of them is owned by
    the members. A warning then says that the original architecture cannot hold them.

    Args:
        net: The result of `ensemble`, `share_layers` or `share_groups`, in any order.
        member: Number of the member, from 0. None for a network without members.
        parameters: Values to use instead of parameters of these names in `net`, such as a posterior draw.

    Raises:
        InputError: There is no such member; the network has no members, or several and none is given; or a parameter is
            unknown.
    """
    if isinstance(net, Ensemble):
        if member is None or not 0 <= member < net.ensemble_size:
            raise InputError(f"member must be from 0 to {net.ensemble_size - 1}, and is {member}")
        network, empty, tied = net.network, net.plain, net.tied
    else:
        if member is not None and isinstance(net, Members):
            raise InputError(
                f"the members of this {type(net).__name__} are computed by one network, and cannot be separated"
            )
        if member is not None:
            raise InputError(f"this {type(net).__name__} has no members: use member=None")
        if not parameters and not any(_is_shared(module) for module in net.modules()):
            return copy_of(net)
        network, empty, tied = net, empty_copy(net), tied_names(net)
    if parameters:
        missing = [name for name in parameters if name not in dict(net.named_parameters())]
        if missing:
            raise InputError(f"the {_called(net)} has no parameter {', '.join(missing)}")
    # `under_all_names` gives names in what holds the parameters: the ensemble, or the network alone.
    prefixed = _Tensors(network)
    values = under_all_names(net, parameters or {})
    if not isinstance(net, Ensemble):
        values = {f"network.{name}": value for name, value in values.items()}
    with torch.no_grad():
        tensors = torch.func.functional_call(prefixed, values, (member or 0,), tie_weights=False)
    plain = fill(empty, tensors, network)
    for names in _untied(tied, plain):
        warnings.warn(
            f"{' and '.join(names)} are the same weight in the original network, but differ here because of "
            "their factors, so that this network cannot be loaded into the original: use it as it is",
            stacklevel=2,
        )
    return plain


def _untied(tied: Sequence[Sequence[str]], plain: nn.Module) -> list[list[str]]:
    """Return groups of tied names whose weights differ in the plain network."""
    there = dict(plain.named_parameters(remove_duplicate=False))
    found = [[name for name in names if name in there] for names in tied]
    return [names for names in found if any(not torch.equal(there[names[0]], there[name]) for name in names[1:])]


def _is_shared(module: nn.Module) -> bool:
    return isinstance(module, Factored) or hasattr(module, IN_SEVERAL_PLACES)


def _called(net: nn.Module) -> str:
    return "ensemble" if isinstance(net, Ensemble) else "network"


class _Tensors(nn.Module):
    """`member_tensors` as a module, so that `functional_call` can replace parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, member: int) -> dict[str, Tensor]:
        return member_tensors(self.network, member)
