"""Torch optimizers over the kinds of parameters: groups, rates, and batches cut into parts."""

from collections.abc import Collection, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.clock import precision_on
from bayes_share.sharing.kinds import parameter_kinds

OptimizerName = Literal["sgd", "adam", "adamw"]


def parameter_groups(
    network: nn.Module,
    learning_rate: float,
    weight_decay: float,
    factor_rate: float,
    divide: bool,
    have_prior: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer, one for each kind of parameter and number of members.

    A penalty on a member's own parameters is averaged over the members, so their decay is ``weight_decay / members``
    where it is to `divide`; rank-1 factors are not pulled to 0, and have `factor_rate` times the learning rate. Those
    that have a prior, by name, are in groups of their own without decay. Frozen parameters are left out.
    """
    parameters = dict(network.named_parameters())
    groups: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
    for name, kind in parameter_kinds(network).items():
        if parameters[name].requires_grad:
            members = 1 if kind == "base" else parameters[name].shape[0]
            groups.setdefault((kind, members, name in have_prior), []).append(parameters[name])
    return [
        {
            "params": members_parameters,
            "kind": kind,
            "base_rate": learning_rate * (factor_rate if kind == "factor" else 1.0),
            "lr": rate_on(members_parameters[0].device),
            "weight_decay": 0.0 if kind == "factor" or has_prior else weight_decay / (members if divide else 1),
        }
        for (kind, members, has_prior), members_parameters in groups.items()
    ]


def rate_on(device: torch.device) -> Tensor:
    """A learning rate that a step sets, where the parameters are."""
    return torch.zeros((), dtype=precision_on(device), device=device)


def make_optimizer(name: OptimizerName, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """The torch optimizer of a name; SGD has Nesterov momentum where it has any.

    They are the fused ones, which take the learning rate as a tensor; the others read it on the host.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    raise unknown("optimizer", name, get_args(OptimizerName))


def load_optimizer(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Take over the memory of an optimizer; its learning rates stay the tensors that they are.

    Raises:
        ValueError: memory of another shape than its parameter, which the fused optimizers would read past its end.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state_dict)
    for parameter, memory in optimizer.state.items():
        for name, value in memory.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                shapes = f"{list(value.shape)}, and its parameter has {list(parameter.shape)}"
                raise ValueError(f"the optimizer's {name} has shape {shapes}")
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate.fill_(group["lr"])


def set_rates(optimizer: torch.optim.Optimizer, multiple: Tensor) -> None:
    """Set the learning rate of every group to this multiple of its base rate, on the device."""
    for group in optimizer.param_groups:
        torch.mul(multiple, group["base_rate"], out=group["lr"])


def micro_batches(batch: Batch, accumulate: int, members: int = 1) -> Iterator[tuple[Batch, float]]:
    """Cut a batch into parts that fit into memory one by one, each with its share of the batch.

    A batch that is split among members is cut within each member's part, so that every member sees the same examples
    however many parts there are.

    Raises:
        InputError: a batch that does not divide.
    """
    x, y = batch
    if accumulate == 1:
        yield batch, 1.0
        return
    if len(x) % (accumulate * members):
        among = f" for each of {members} members" if members > 1 else ""
        raise InputError(
            f"a batch of {len(x)} does not divide into {accumulate} parts to accumulate gradients over{among}"
        )
    for rows in torch.arange(len(x), device=x.device).view(members, accumulate, -1).unbind(1):
        yield (x[rows.flatten()], y[rows.flatten()]), 1 / accumulate
