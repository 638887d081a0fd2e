"""Selecting members of an ensemble."""

from collections.abc import Iterator, Sequence
from operator import index
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factored import Factored

if TYPE_CHECKING:
    from bayes_share.sharing.members import Ensemble


def take_member(net: "Ensemble", member: int) -> "Ensemble":
    """Return one member as an ensemble of size 1, as `Ensemble.keep` does.

    Args:
        net: The ensemble. It is not changed.
        member: Number of the member, from 0.

    Raises:
        InputError: There is no such member.

    >>> from bayes_share.sharing.ensemble_conversion import ensemble
    >>> take_member(ensemble(nn.Linear(3, 2), ensemble_size=4), 1).network.r.shape
    torch.Size([1, 3])
    """
    return net.keep([member])


def checked_members(members: Sequence[int], ensemble_size: int) -> list[int]:
    """Check numbers of members and return them as ints.

    Raises:
        InputError: There are none, a number is out of range, or one occurs twice.
    """
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise InputError(f"members must be a list of member numbers, not {members!r:.60}")
    for member in members:
        if isinstance(member, bool) or not hasattr(member, "__index__") or not 0 <= index(member) < ensemble_size:
            raise InputError(f"members must be from 0 to {ensemble_size - 1}, and one is {member!r:.60}")
    found = [index(member) for member in members]
    if not found or len(set(found)) < len(found):
        raise InputError(f"members must be a non-empty list of distinct members, not {found}")
    return found


def keep_rows(network: nn.Module, members: Sequence[int], ensemble_size: int) -> None:
    """Remove all other members from a converted network, in place.

    Args:
        network: The network inside an `Ensemble`. Parameters and buffers with a member axis are replaced by new ones.
        members: Numbers of the members to keep, in their new order.
        ensemble_size: Number of members before.
    """
    # By id, so that tied tensors stay tied. The original is kept alive so that its id is not reused.
    rows: dict[int, tuple[Tensor, Tensor]] = {}
    for module in network.modules():
        for name in _own_names(module):
            whole = getattr(module, name)
            if whole is None:
                continue
            if id(whole) not in rows:
                # A layer that is not part of the ensemble has one row for all members.
                rows[id(whole)] = (whole, _rows(whole, members if len(whole) == ensemble_size else [0]))
            setattr(module, name, rows[id(whole)][1])
        if _has_own_size(module):
            module.ensemble_size = len(members)  # type: ignore[assignment]


def own_tensors(network: nn.Module, ensemble_size: int) -> Iterator[str]:
    """Yield the names of parameters and buffers with a row for each member.

    Args:
        network: A converted network, or a module that contains one.
        ensemble_size: Number of members.
    """
    for prefix, module in network.named_modules(remove_duplicate=False):
        for name in _own_names(module):
            whole = getattr(module, name)
            if whole is not None and len(whole) == ensemble_size:
                yield f"{prefix}.{name}" if prefix else name


def _own_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's parameters and buffers with a member axis."""
    if isinstance(module, Factored):
        return module.owned
    if not _has_own_size(module):
        return ()
    return (*getattr(module, "member_parameters", ()), *getattr(module, "member_buffers", ()))


def _has_own_size(module: nn.Module) -> bool:
    """Whether a module stores the number of members. Layers with factors infer it from these."""
    return not isinstance(module, Factored) and getattr(module, "ensemble_size", None) is not None


def _rows(whole: Tensor, members: Sequence[int]) -> Tensor:
    rows = whole.detach()[torch.tensor(members, device=whole.device)]
    return nn.Parameter(rows, whole.requires_grad) if isinstance(whole, nn.Parameter) else rows
