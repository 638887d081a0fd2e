"""How a gradient is followed: torch optimizers over the kinds of parameters, their rates and their clock."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.step.clock import Clock, precision_on
from bayes_share.inference.step.groups import parameter_groups
from bayes_share.inference.step.objective import Terms
from bayes_share.inference.step.steps import Steps, check_not_negative
from bayes_share.models.model import Model
from bayes_share.options.records import Flat

OptimizerName = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True, init=False)
class Descent(Flat):
    """A torch optimizer and its options.

    Args:
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw" (decoupled weight decay).
        momentum: momentum of "sgd".
        weight_decay: weight decay of all parameters except the rank-1 factors and those with a prior. For a member's
            own parameters it is divided by the number of members, except with "adamw", whose decay does not depend on
            the size of the gradient.
        steps: learning rates, their schedule, clipping and the like.
    """

    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    steps: Steps = Steps()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName):
            raise unknown("optimizer", self.optimizer, get_args(OptimizerName))
        if not 0 <= self.momentum < 1:
            raise InputError(f"the momentum must be from 0 to below 1, and is {self.momentum}")
        check_not_negative(self, "weight_decay")

    @property
    def is_decay_decoupled(self) -> bool:
        """Whether the decay is no term of the objective, whose gradient Adam would rescale: then it is one for all."""
        return self.optimizer == "adamw"

    def groups(self, model: nn.Module, have_prior: Collection[str] = ()) -> list[dict[str, Any]]:
        """The parameter groups of a model, of which a `Stepper` sets the rates; see `parameter_groups`."""
        rate, factor_rate, is_decoupled = self.steps.highest_rate, self.steps.factor_rate, self.is_decay_decoupled
        groups = parameter_groups(
            model, rate, self.weight_decay, factor_rate, is_decoupled=is_decoupled, have_prior=have_prior
        )
        return on_a_clock(groups)

    def start(self, groups: list[dict[str, Any]], num_steps: int) -> "Stepper":
        """The optimizer over some groups, before the first step."""
        return Stepper.start(make_optimizer(self.optimizer, groups, self.momentum), self.steps, num_steps)


@dataclass
class Stepper:
    """An optimizer on its way: with its memory, how many of how many steps it has taken, and the rate in each.

    Args:
        optimizer: of torch, or like one.
        steps: how it follows gradients.
        clock: counts the steps.
        rates: the learning rate in each step, as a multiple of its highest value.
        slowing: what the rate was divided by in the latest step.
    """

    optimizer: torch.optim.Optimizer
    steps: Steps
    clock: Clock
    rates: Tensor
    slowing: Tensor

    @classmethod
    def start(cls, optimizer: torch.optim.Optimizer, steps: Steps, num_steps: int) -> "Stepper":
        """Before the first of so many steps."""
        clock = Clock.start(num_steps, optimizer.param_groups[0]["lr"].device)
        rates = clock.table(steps.rate_at)
        return cls(optimizer, steps, clock, rates, rates.new_ones(()))

    @property
    def parameters(self) -> list[Tensor]:
        """All that the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def gradients(self) -> list[Tensor]:
        """Those that there are, of what the optimizer moves."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def begin(self) -> Tensor:
        """Forget the gradients of the step before, and set the rates of the one that begins; gives the rate."""
        self.optimizer.zero_grad()
        return self.set_rates()

    def set_rates(self) -> Tensor:
        """Set the rates of the step that begins; gives the rate."""
        multiple = self.clock.read(self.rates)
        for group in self.optimizer.param_groups:
            torch.mul(multiple, group["base_rate"], out=group["lr"])
        return self.steps.highest_rate * multiple

    def slow(self, terms: Terms) -> Tensor:
        """Divide the rates of the step that begins where `Steps.slowing` says so; gives the rate.

        Adam's steps are of a size of their own, whatever that of the gradient, and are not slowed.
        """
        slowing = self.steps.slowing(terms) if isinstance(self.optimizer, torch.optim.SGD) else None
        rate = self.steps.highest_rate * self.clock.read(self.rates)
        if slowing is None:
            return rate
        for group in self.optimizer.param_groups:
            group["lr"].div_(slowing)
        # Momentum is a sum of past gradients, each to be followed at the rate of its own step.
        for memory in self.optimizer.state.values():
            if memory.get("momentum_buffer") is not None:
                memory["momentum_buffer"].mul_(slowing / self.slowing)
        self.slowing.copy_(slowing)
        return rate / slowing

    def follow(self) -> None:
        """Take the optimizer's step, and count it."""
        self.optimizer.step()
        self.clock.advance()

    def clip(self) -> None:
        """Scale the gradients down to the largest norm that they may have."""
        if self.steps.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.steps.clip_norm)

    def kept(self, before: Model, after: Model, members: Sequence[int]) -> "Stepper":
        """The same for the model of some of the members, with the memory of these; its options are those of all.

        Args:
            before: the model that the optimizer moves.
            after: that of the members, as `Model.keep` gives it.
            members: which ones.
        """
        names: dict[Tensor, str] = {parameter: name for name, parameter in before.named_parameters()}
        parameters = dict(after.named_parameters())
        # What a deep copy finds in its memo it does not copy.
        optimizer = deepcopy(self.optimizer, {id(old): parameters[name] for old, name in names.items()})
        for old, memory in self.optimizer.state.items():
            name = names[old]
            for key, value in memory.items():
                if isinstance(value, Tensor) and value.ndim:
                    optimizer.state[parameters[name]][key] = before.kept_values({name: value}, members)[name]
        return Stepper(optimizer, self.steps, deepcopy(self.clock), self.rates, self.slowing.clone())

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's memory, the step, and what its rate was divided by."""
        return {"optimizer": self.optimizer.state_dict(), "step": self.clock.steps, "slowing": self.slowing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; other entries are left alone."""
        load_optimizer(self.optimizer, state_dict["optimizer"])
        self.clock.set(state_dict["step"])
        self.slowing.copy_(state_dict.get("slowing", torch.ones(())))  # of older states, which were never slowed


def on_a_clock(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same groups with rates that a `Stepper` sets in each step, as multiples of their own."""
    return [{**group, "base_rate": group["lr"], "lr": rate_on(group["params"][0].device)} for group in groups]


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
