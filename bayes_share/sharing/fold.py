"""Folding: a member of an ensemble as a network of its own, without factors and without sharing."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.plain import fill, member_tensors, under_all_names


def fold(net: nn.Module, member: int | None = None, parameters: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The plain torch network that a member of an ensemble is: no factors, no sharing, the same outputs.

    It has the classes and parameter names of the network that was converted, so it loads into the original
    architecture's `state_dict` and exports as that does.

    Args:
        net: what `ensemble` made.
        member: which one, from 0; None for a network without members.
        parameters: a draw of a posterior: values to use in place of parameters of these names of `net`.

    Raises:
        InputError: no such member, a network without one or with several and none named, an unknown parameter.
    """
    if not isinstance(net, Ensemble):
        if member is not None:
            raise InputError(f"this {type(net).__name__} has no members: fold it with member=None")
        return deepcopy(net)
    if member is None or not 0 <= member < net.ensemble_size:
        raise InputError(f"member is one of 0 to {net.ensemble_size - 1}, not {member}")
    if parameters:
        missing = [name for name in parameters if name not in dict(net.named_parameters())]
        if missing:
            raise InputError(f"{', '.join(missing)}: the ensemble has no parameter of this name")
    with torch.no_grad():
        values = under_all_names(net, parameters or {})
        tensors = torch.func.functional_call(_Tensors(net.network), values, (member,), tie_weights=False)
    return fill(net.plain, tensors, net.network)


class _Tensors(nn.Module):
    """`member_tensors` as a module, so that `functional_call` can put other parameters in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, member: int) -> dict[str, Tensor]:
        return member_tensors(self.network, member)
