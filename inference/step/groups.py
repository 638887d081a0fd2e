"""The parameters of a network in groups, each with the rate and the decay that suit its kind."""

from collections.abc import Collection
from math import isfinite
from typing import Any

from torch import nn

from bayes_share.errors import InputError
from bayes_share.sharing.kinds import further_terms, parameter_kinds


def parameter_groups(
    net: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    factor_rate: float = 0.5,
    *,
    is_decoupled: bool = True,
    have_prior: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer, one for each kind of parameter and number of members.

    Rank-1 factors have no weight decay, which would pull them to 0, and a rate of their own. The loss that goes with
    the groups is a mean over the members. Frozen parameters are left out. Make them once it is known what the batch
    does not reach: `ensemble` was given an example, or `Ensemble.settle` was called.

    Args:
        net: an ensemble, a `Model`, or any other network, whose parameters are all of one kind.
        learning_rate: of all but the factors.
        weight_decay: of all but the factors.
        factor_rate: the learning rate of the factors, as a multiple of `learning_rate`.
        is_decoupled: whether the optimizer subtracts the decay from the parameters itself, as AdamW does. Otherwise, as
            in SGD and Adam, it is a term of the gradient: the decay of a member's own parameters is then divided by the
            members, since the loss is a mean over them.
        have_prior: the names of parameters that have no decay, in place of which the loss has a prior.

    Returns:
        Dicts with ``params``, ``lr`` and ``weight_decay``, and with ``kind`` ("base", "member" or "factor") and
        ``is_further`` (whether factors are of terms beyond the first), which optimizers pass over.

    Raises:
        InputError: a rate or a decay that is negative or not finite.

    >>> from bayes_share.sharing import ensemble
    >>> groups = parameter_groups(ensemble(nn.Linear(3, 2), 4), learning_rate=1e-2, weight_decay=0.1)
    >>> [(group["kind"], group["lr"], group["weight_decay"]) for group in groups]
    [('base', 0.01, 0.1), ('member', 0.01, 0.1), ('factor', 0.005, 0.0)]
    """
    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay, "factor_rate": factor_rate}
    for name, number in numbers.items():
        if not (isfinite(number) and number >= 0):
            raise InputError(f"{name} must be a number of 0 or more, and is {number}")
    parameters = dict(net.named_parameters())
    groups: dict[tuple[str, int, bool, bool], list[nn.Parameter]] = {}
    further = further_terms(net)
    for name, kind in parameter_kinds(net).items():
        if parameters[name].requires_grad:
            members = 1 if kind == "base" else parameters[name].shape[0]
            group = kind, members, name in have_prior, name in further
            groups.setdefault(group, []).append(parameters[name])
    return [
        {
            "params": members_parameters,
            "kind": kind,
            "is_further": is_further,
            "lr": learning_rate * (factor_rate if kind == "factor" else 1.0),
            "weight_decay": 0.0 if kind == "factor" or has_prior else weight_decay / (1 if is_decoupled else members),
        }
        for (kind, members, has_prior, is_further), members_parameters in groups.items()
    ]
