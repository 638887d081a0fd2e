"""Maximum a posteriori: one value for every parameter, by stochastic gradients."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch, Build, Forward, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.step.clock import Clock
from bayes_share.inference.step.named_priors import NamedPriors
from bayes_share.inference.step.objective import GradientOptions, check_members_will_differ, check_trainable
from bayes_share.inference.step.updates import (
    OptimizerName,
    load_optimizer,
    make_optimizer,
    parameter_groups,
    set_rates,
)
from bayes_share.models.model import Model


@dataclass
class MAPState:
    """A model, its optimizer, and how many of how many steps were taken.

    Args:
        model: with the parameters.
        optimizer: of them, with its memory.
        num_data: training examples.
        clock: how many of how many steps were taken.
        rates: the learning rate in each step, as a multiple of its highest value.
        priors: those that the model's user named.
    """

    model: Model
    optimizer: torch.optim.Optimizer
    num_data: int
    clock: Clock
    rates: Tensor
    priors: NamedPriors = field(init=False)

    def __post_init__(self) -> None:
        self.priors = NamedPriors(self.model)

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers, the optimizer's memory and the step."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.clock.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state_dict["model"])
        self.priors = NamedPriors(self.model)  # around the signs that were read back
        load_optimizer(self.optimizer, state_dict["optimizer"])
        self.clock.set(state_dict["step"])


@dataclass(frozen=True)
class MAP(GradientOptions):
    """Maximum a posteriori estimation, for single networks and BatchEnsembles alike.

    Minimises the mean of the members' negative log-likelihoods per example plus ``weight_decay / 2`` times the squared
    norm of what members share and the mean over members of the squared norm of what they do not. That is the maximum
    of the posterior under a normal prior of precision ``weight_decay * num_data``; "adamw" departs from it by design.

    A parameter that a rule of ``Model(priors=...)`` names has that prior in place of the decay: the objective has its
    negative log density over `num_data`. None is a flat prior. Priors are over all real numbers, and not hierarchical.

    Args:
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw" (whose decay is decoupled from the gradient).
        momentum: of "sgd".
        weight_decay: of everything but the rank-1 factors and what has a prior of its own; of a member's own
            parameters, divided by the members (but for "adamw", whose decay does not depend on the size of the
            gradient).
        factor_decay: pull of r and s toward their signs (+1 or -1), where they have no prior of their own; divided as
            the decay of a member's own parameters.
    """

    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    factor_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in get_args(OptimizerName):
            raise unknown("optimizer", self.optimizer, get_args(OptimizerName))
        if not 0 <= self.momentum < 1:
            raise InputError(f"the momentum must be from 0 to below 1, and is {self.momentum}")
        self.check_not_negative("weight_decay", "factor_decay")

    def init(self, build: Build, num_data: int, num_steps: int) -> MAPState:
        """A fresh model in training mode and its optimizer.

        Raises:
            InputError: members that are equal and would stay so, because all are fed alike; a prior under which there
                is no mode, or that is not over all real numbers.
        """
        model = build().train()
        check_members_will_differ(model, self.feed)
        check_trainable(model)
        # AdamW's decay is no term of the objective, whose gradient Adam would rescale: it is the same for all.
        divide = self.optimizer != "adamw"
        named = model.named_in_priors()
        groups = parameter_groups(model, self.learning_rate, self.weight_decay, self.factor_rate, divide, named)
        clock = Clock.start(num_steps, groups[0]["lr"].device)
        optimizer = make_optimizer(self.optimizer, groups, self.momentum)
        return MAPState(model, optimizer, num_data, clock, clock.table(self.rate_at))

    def step(self, state: MAPState, batch: Batch) -> StepInfo:
        """One step of the optimizer on a batch; the loss it reports has the priors' term, and no decay."""
        info = self.gradient(state, batch)
        self.update(state)
        return info

    def gradient(self, state: MAPState, batch: Batch) -> StepInfo:
        """The gradient of the objective, without the decays, which the optimizer adds."""
        rate = state.clock.read(state.rates)
        set_rates(state.optimizer, rate)
        state.optimizer.zero_grad()
        log_lik, accuracy = self.accumulate_gradient(state.model, batch)
        log_prior = state.priors.ascend(1 / state.num_data) / state.num_data
        if self.optimizer != "adamw":
            self._pull_factors_by_gradient(state)
        return StepInfo(-log_lik - log_prior, log_lik, torch.zeros_like(log_lik), accuracy, self.learning_rate * rate)

    def update(self, state: MAPState) -> None:
        """Clip, and take a step of the optimizer."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.clip_norm)
        if self.optimizer == "adamw":
            self._pull_factors_decoupled(state)
        state.optimizer.step()
        state.clock.advance()

    def finish(self, state: MAPState, batches: Iterable[Batch]) -> None:
        """Nothing is left to do."""

    def draw(self, state: MAPState, sample: int) -> Forward:
        """The network itself, whatever the sample: a point has one draw."""
        return drawn(state.model)

    def _pull_factors_by_gradient(self, state: MAPState) -> None:
        for factor, _ in self._pulled_factors(state):
            pull = factor.detach() - factor.detach().sign()
            factor.grad = torch.add(factor.grad, pull, alpha=self.factor_decay / len(factor))  # type: ignore[arg-type]

    @torch.no_grad()
    def _pull_factors_decoupled(self, state: MAPState) -> None:
        for factor, rate in self._pulled_factors(state):
            factor.sub_((factor - factor.sign()) * (rate * self.factor_decay))

    def _pulled_factors(self, state: MAPState) -> list[tuple[Tensor, Tensor]]:
        """The factors that are pulled to their signs, each with its learning rate."""
        groups = [
            group for group in state.optimizer.param_groups if group["kind"] == "factor" and self.factor_decay > 0
        ]
        factors = [(factor, group["lr"]) for group in groups for factor in group["params"]]
        return [(factor, rate) for factor, rate in factors if factor.grad is not None and factor not in state.priors]
