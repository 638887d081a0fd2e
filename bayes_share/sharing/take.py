"""Taking a member out of an ensemble, as an ensemble of one that keeps its base weights and factors apart."""

from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.copying import copy_of
from bayes_share.layers.factored import Factored
from bayes_share.sharing.members import Ensemble


def take_member(net: Ensemble, member: int) -> Ensemble:
    """The ensemble of one member that a member of an ensemble is: the same outputs, and its own copy of all.

    Other than `fold`, which multiplies the factors into the weights, it keeps base weights, r and s as they are.

    Args:
        net: what `ensemble` made; it is left alone.
        member: which one, from 0.

    Raises:
        InputError: no such member.

    >>> from bayes_share.sharing.members import ensemble
    >>> take_member(ensemble(nn.Linear(3, 2), ensemble_size=4), 1).network.r.shape
    torch.Size([1, 3])
    """
    if not 0 <= member < net.ensemble_size:
        raise InputError(f"member is one of 0 to {net.ensemble_size - 1}, not {member}")
    taken = copy_of(net)
    taken.ensemble_size = 1
    # By identity, with the whole one kept alive so that its identity is not used again: what was tied stays tied.
    rows: dict[int, tuple[Tensor, Tensor]] = {}
    for module in taken.network.modules():
        for name in _own_names(module):
            whole = getattr(module, name, None)
            if whole is None:
                continue
            if id(whole) not in rows:
                # A layer that was left out of the ensemble has one row, which serves all members.
                rows[id(whole)] = (whole, _row(whole, member if len(whole) > 1 else 0))
            setattr(module, name, rows[id(whole)][1])
        if _has_own_size(module):
            module.ensemble_size = 1  # type: ignore[assignment]
    return taken


def _own_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's parameters and buffers with a row for each member."""
    if isinstance(module, Factored):
        return module.owned
    if not _has_own_size(module):
        return ()
    return (*getattr(module, "member_parameters", ()), *getattr(module, "member_buffers", ()))


def _has_own_size(module: nn.Module) -> bool:
    """Whether a module holds the number of its members; a factored one reads it off its factors."""
    return not isinstance(module, Factored) and getattr(module, "ensemble_size", None) is not None


def _row(whole: Tensor, member: int) -> Tensor:
    row = whole.detach()[member : member + 1].clone()
    return nn.Parameter(row, whole.requires_grad) if isinstance(whole, nn.Parameter) else row
