"""Parameter groups of a network, each with the learning rate and weight decay for its kind."""

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
    """Return parameter groups for a torch optimizer, one for each kind of parameter and number of members.

    Rank-1 factors have their own learning rate and no weight decay, which would pull them to 0. The groups are meant
    for a loss that is a mean over members. Frozen parameters are left out. Create the groups only when it is known
    which layers the batch does not reach: after `ensemble` with an example, or after `Ensemble.settle`.

    Args:
        net: an ensemble, a `Model`, or any other network, in which all parameters have the same kind.
        learning_rate: learning rate of all parameters except factors.
        weight_decay: weight decay of all parameters except factors.
        factor_rate: learning rate of the factors, as a multiple of `learning_rate`.
        is_decoupled: whether the optimizer applies weight decay directly to the parameters, as AdamW does. Otherwise,
            as in SGD and Adam, it is a term of the gradient, and the decay of parameters with a value per member is
            divided by the number of members, because the loss is a mean over them.
        have_prior: names of parameters without weight decay, because the loss includes their prior.

    Returns:
        Dicts with ``params``, ``lr`` and ``weight_decay``, and with ``kind`` ("base", "member" or "factor") and
        ``is_further`` (whether they are factors of terms after the first), which optimizers ignore.

    Raises:
        InputError: if a rate or the weight decay is negative or not finite.

    >>> from bayes_share.sharing import ensemble
    >>> groups = parameter_groups(ensemble(nn.Linear(3, 2), 4), learning_rate=1e-2, weight_decay=0.1)
    >>> [(group["kind"], group["lr"], group["weight_decay"]) for group in groups]
    [('base', 0.01, 0.1), ('member', 0.01, 0.1), ('factor', 0.005, 0.0)]
    """
    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay, "factor_rate": factor_rate}
    for name, number in numbers.items():
        if not (isfinite(number) and number >= 0):
            raise InputError(f"{name} must be finite and not negative, and is {number}")
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
