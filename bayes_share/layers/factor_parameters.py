"""Parameters with one row per member: new factors of a weight, and copies of a shared parameter."""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit


def factor_parameter(
    weight: Tensor,
    ensemble_size: int,
    shape: Sequence[int],
    init: FactorInit,
    existing: Tensor | None = None,
    groups: Sequence[int] = (),
) -> nn.Parameter:
    """Create a factor ``[member, *shape]`` of a weight, on its device and in its dtype, trained if the weight is.

    Args:
        weight: the weight that the factor belongs to.
        ensemble_size: the number of members.
        shape: the shape of one member's factor.
        init: the initialisation of the factor.
        existing: a factor that is multiplied into the new one, ``[1, *shape]`` or broadcastable to it.
        groups: the sizes of groups of channels that start with equal values, in order; empty: one group per channel.
    """
    drawn = init.draw((ensemble_size, len(groups)) if groups else (ensemble_size, *shape), weight)
    if groups:
        drawn = drawn.repeat_interleave(torch.tensor(groups, device=drawn.device), 1)
    return nn.Parameter(drawn if existing is None else drawn * existing.detach(), weight.requires_grad)


def own_parameter(shared: nn.Parameter, ensemble_size: int) -> nn.Parameter:
    """Create a parameter ``[member, ...]`` with one copy of a shared parameter per member."""
    copies = shared.detach().expand(ensemble_size, *shared.shape).clone()
    return nn.Parameter(copies, shared.requires_grad)


def row_of(rows: Tensor, member: int) -> Tensor:
    """Return the row ``[1, ...]`` of a member. A single row is shared by all members."""
    index = member if len(rows) > 1 else 0
    return rows[index : index + 1]


def check_ensemble_size(ensemble_size: int) -> None:
    """Raise InputError unless the ensemble size is an integer of at least 1."""
    if not isinstance(ensemble_size, Integral) or ensemble_size < 1:
        raise InputError(f"ensemble_size must be an integer of at least 1, and is {ensemble_size!r}")
