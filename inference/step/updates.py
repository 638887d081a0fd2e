"""Apply gradients: torch optimizers with a learning rate for each kind of parameter."""

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
        steps: learning rates, their schedule, clipping and similar options.
    """

    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    steps: Steps = Steps()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(OptimizerName):
            raise unknown("optimizer", self.optimizer, get_args(OptimizerName))
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be at least 0 and below 1, and is {self.momentum}")
        check_not_negative(self, "weight_decay")

    @property
    def is_decay_decoupled(self) -> bool:
        """Whether weight decay is not a term of the objective, and so is the same for all parameters."""
        return self.optimizer == "adamw"

    def groups(self, model: nn.Module, have_prior: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the parameter groups of a model, with rates that a `Stepper` sets; see `parameter_groups`."""
        rate, factor_rate, is_decoupled = self.steps.highest_rate, self.steps.factor_rate, self.is_decay_decoupled
        groups = parameter_groups(
            model, rate, self.weight_decay, factor_rate, is_decoupled=is_decoupled, have_prior=have_prior
        )
        return on_a_clock(groups)

    def start(self, groups: list[dict[str, Any]], num_steps: int) -> "Stepper":
        """Return the optimizer of parameter groups before the first step."""
        return Stepper.start(make_optimizer(self.optimizer, groups, self.momentum), self.steps, num_steps)


@dataclass
class Stepper:
    """An optimizer with its state, its step counter and its learning-rate schedule.

    Args:
        optimizer: a torch optimizer, or one with the same interface.
        steps: the options of the steps.
        clock: the step counter.
        rates: ``[step]``: the learning rate of each step, as a multiple of its maximum.
        slowing: the divisor of the learning rate in the latest step.
        steepness: the likelihood's steepness on the batch, which determines the divisor. It exists between the two
            halves of a step, if the learning rate depends on it.
    """

    optimizer: torch.optim.Optimizer
    steps: Steps
    clock: Clock
    rates: Tensor
    slowing: Tensor
    steepness: Tensor | None = None

    @classmethod
    def start(cls, optimizer: torch.optim.Optimizer, steps: Steps, num_steps: int) -> "Stepper":
        """Return a stepper before the first step."""
        clock = Clock.start(num_steps, optimizer.param_groups[0]["lr"].device)
        rates = clock.table(steps.rate_at)
        return cls(optimizer, steps, clock, rates, rates.new_ones(()))

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters of the optimizer."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def gradients(self) -> list[Tensor]:
        """The existing gradients of the optimizer's parameters."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @property
    def averaged(self) -> list[Tensor]:
        """The tensors that `follow` uses and that may be averaged over parts of a batch: `gradients` and steepness."""
        return self.gradients if self.steepness is None else [*self.gradients, self.steepness]

    def begin(self) -> Tensor:
        """Clear the gradients of the previous step and set the learning rates; return the rate."""
        self.optimizer.zero_grad()
        return self.set_rates()

    def set_rates(self) -> Tensor:
        """Set the learning rates of the current step; return the rate."""
        multiple = self.clock.read(self.rates)
        for group in self.optimizer.param_groups:
            torch.mul(multiple, group["base_rate"], out=group["lr"])
        return self.steps.highest_rate * multiple

    def measure(self, terms: Terms) -> None:
        """Store the likelihood's steepness, by which `follow` divides the learning rates; see `Steps.steepness`.

        Adam's steps do not depend on the size of the gradient and are not slowed.
        """
        self.steepness = self.steps.steepness(terms) if isinstance(self.optimizer, torch.optim.SGD) else None

    def follow(self) -> Tensor:
        """Take the optimizer's step and count it; return the learning rate."""
        rate = self._slowed(self.steps.highest_rate * self.clock.read(self.rates))
        self.optimizer.step()
        self.clock.advance()
        return rate

    def _slowed(self, rate: Tensor) -> Tensor:
        """Divide a rate and the learning rates of the current step by the steepness if it is above 1."""
        if self.steepness is None:
            return rate
        slowing = self.steepness.clamp(min=1.0)
        self.steepness = None
        for group in self.optimizer.param_groups:
            group["lr"].div_(slowing)
        # Momentum sums past gradients, each of which must keep the learning rate of its own step.
        for memory in self.optimizer.state.values():
            if memory.get("momentum_buffer") is not None:
                memory["momentum_buffer"].mul_(slowing / self.slowing)
        self.slowing.copy_(slowing)
        return rate / slowing

    def clip(self) -> None:
        """Clip the joint norm of all gradients to `Steps.clip_norm`."""
        if self.steps.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.steps.clip_norm)

    def kept(self, before: Model, after: Model, members: Sequence[int]) -> "Stepper":
        """Return a stepper for a model of some of the members, with their optimizer state and the same options.

        Args:
            before: the model whose parameters the optimizer has.
            after: the model of the kept members, from `Model.keep`.
            members: indices of the kept members.
        """
        names: dict[Tensor, str] = {parameter: name for name, parameter in before.named_parameters()}
        parameters = dict(after.named_parameters())
        # deepcopy uses the memo's entries instead of copying these tensors.
        optimizer = deepcopy(self.optimizer, {id(old): parameters[name] for old, name in names.items()})
        for old, memory in self.optimizer.state.items():
            name = names[old]
            for key, value in memory.items():
                if isinstance(value, Tensor) and value.ndim:
                    optimizer.state[parameters[name]][key] = before.kept_values({name: value}, members)[name]
        return Stepper(optimizer, self.steps, deepcopy(self.clock), self.rates, self.slowing.clone())

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, the step and the divisor of the rate."""
        return {"optimizer": self.optimizer.state_dict(), "step": self.clock.steps, "slowing": self.slowing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`. Other entries are ignored."""
        load_optimizer(self.optimizer, state_dict["optimizer"])
        self.clock.set(state_dict["step"])
        self.slowing.copy_(state_dict.get("slowing", torch.ones(())))  # missing in older states, which had no slowing


def on_a_clock(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with rates that a `Stepper` sets in each step, as multiples of the given rates."""
    return [{**group, "base_rate": group["lr"], "lr": rate_on(group["params"][0].device)} for group in groups]


def rate_on(device: torch.device) -> Tensor:
    """Return a learning-rate tensor on the device of the parameters, for a step to set."""
    return torch.zeros((), dtype=precision_on(device), device=device)


def make_optimizer(name: OptimizerName, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """Return a torch optimizer by name. SGD has Nesterov momentum if the momentum is above 0.

    All are fused optimizers, which take the learning rate as a tensor; others read it on the host. All can be captured
    in a CUDA graph.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True)
    if name == "adam":
        return _Adam(groups, fused=True, capturable=True)
    if name == "adamw":
        return _AdamW(groups, fused=True, capturable=True)
    raise unknown("optimizer", name, get_args(OptimizerName))


class _Adam(torch.optim.Adam):
    """Adam without torch's warning about eager steps on a GPU of an optimizer that can be captured."""

    _warned_capturable_if_run_uncaptured = True


class _AdamW(torch.optim.AdamW):
    """AdamW without the same warning."""

    _warned_capturable_if_run_uncaptured = True


def load_optimizer(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Load the state of an optimizer. Its learning rates remain the same tensors, and it can still be captured.

    Raises:
        ValueError: if a state tensor differs in shape from its parameter; fused optimizers would read beyond its end.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    can_be_captured = [{"capturable": True} if "capturable" in group else {} for group in optimizer.param_groups]
    optimizer.load_state_dict(state_dict)
    for group, own in zip(optimizer.param_groups, can_be_captured, strict=True):
        group |= own  # older states have False
    for parameter, memory in optimizer.state.items():
        for name, value in memory.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                shapes = f"{list(value.shape)}, but its parameter has {list(parameter.shape)}"
                raise ValueError(f"the optimizer's {name} has shape {shapes}")
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate.fill_(group["lr"])
