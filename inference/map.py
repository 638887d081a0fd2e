"""Maximum a posteriori: one value for every parameter, by stochastic gradients."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError, unknown
from bayes_share.inference.base import Batch, Build, Forward, StepInfo
from bayes_share.inference.optimization import (
    OptimizerName,
    Schedule,
    ScheduleName,
    make_optimizer,
    micro_batches,
    parameter_groups,
    set_rates,
)
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import members_equal
from bayes_share.sharing.members import Feed


@dataclass
class MAPState:
    """A model, its optimizer, and how many of how many steps were taken."""

    model: Model
    optimizer: torch.optim.Optimizer
    num_steps: int
    step: int = 0

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers, the optimizer's memory and the step."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state_dict["model"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.step = state_dict["step"]


@dataclass(frozen=True)
class MAP:
    """Maximum a posteriori estimation, for single networks and BatchEnsembles alike.

    Minimises the mean of the members' negative log-likelihoods per example plus ``weight_decay / 2`` times the squared
    norm of what members share and the mean over members of the squared norm of what they do not. That is the maximum
    of the posterior under a normal prior of precision ``weight_decay * num_data``; "adamw" departs from it by design.

    Args:
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw" (whose decay is decoupled from the gradient).
        learning_rate: of base weights, biases and norms, at its highest.
        momentum: of "sgd".
        weight_decay: of everything but the rank-1 factors; of a member's own parameters, divided by the members
            (but for "adamw", whose decay does not depend on the size of the gradient).
        factor_rate: learning rate of the rank-1 factors r and s, as a multiple of `learning_rate`.
        factor_decay: pull of r and s toward their signs (+1 or -1), divided as the decay of a member's own parameters.
        schedule: of the learning rate: "cosine", "step" or "constant".
        warmup: part of all steps in which the learning rate climbs from near 0.
        milestones: of the "step" schedule, as parts of all steps.
        gamma: what the learning rate is multiplied by at each milestone.
        clip_norm: largest norm of the gradient; longer ones are scaled down to it. None: no clipping.
        accumulate: parts that each batch is cut into, so that only one has to fit into memory at a time.
        feed: "tile": every member sees every image; "split": each member sees its own part of the batch.
    """

    optimizer: OptimizerName = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    factor_rate: float = 0.5
    factor_decay: float = 0.0
    schedule: ScheduleName = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    clip_norm: float | None = None
    accumulate: int = 1
    feed: Feed = "tile"

    def __post_init__(self) -> None:
        self._schedule()
        for what, option, known in (("optimizer", self.optimizer, OptimizerName), ("feed", self.feed, Feed)):
            if option not in get_args(known):
                raise unknown(what, option, get_args(known))
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"the learning rate must be positive, and is {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"the momentum must be from 0 to below 1, and is {self.momentum}")
        for name in ("weight_decay", "factor_rate", "factor_decay"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, and is {getattr(self, name)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"the norm to clip gradients to must be positive, and is {self.clip_norm}")
        if self.accumulate < 1:
            raise InputError(f"a batch is cut into at least 1 part to accumulate over, not {self.accumulate}")

    def init(self, build: Build, num_data: int, num_steps: int) -> MAPState:
        """A fresh model in training mode and its optimizer.

        Raises:
            InputError: members that are equal and would stay so, because all are fed alike.
        """
        model = build().train()
        if model.ensemble_size > 1 and self.feed == "tile" and not _has_dropout(model) and members_equal(model):
            raise InputError(
                "all members are equal and see the same images, so they would stay equal: "
                'start the factors with init="normal" or "random_sign", or feed with "split"'
            )
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("every parameter of the model is frozen: there is nothing to train")
        # AdamW's decay is no term of the objective, whose gradient Adam would rescale: it is the same for all.
        divide = self.optimizer != "adamw"
        groups = parameter_groups(model, self.learning_rate, self.weight_decay, self.factor_rate, divide)
        return MAPState(model, make_optimizer(self.optimizer, groups, self.momentum), num_steps)

    def step(self, state: MAPState, batch: Batch) -> StepInfo:
        """One step of the optimizer on a batch."""
        rate = self._schedule().at(state.step, state.num_steps)
        set_rates(state.optimizer, rate)
        state.optimizer.zero_grad()
        log_lik, accuracy = self._backward(state.model, batch)
        if self.optimizer != "adamw":
            self._pull_factors_by_gradient(state.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.clip_norm)
        if self.optimizer == "adamw":
            self._pull_factors_decoupled(state.optimizer)
        state.optimizer.step()
        state.step += 1
        return StepInfo(-log_lik, log_lik, torch.zeros_like(log_lik), accuracy, self.learning_rate * rate)

    def finish(self, state: MAPState, batches: Iterable[Batch]) -> None:
        """Nothing is left to do."""

    def draw(self, state: MAPState, sample: int) -> Forward:
        """The network itself, whatever the sample: a point has one draw."""
        device = next(state.model.parameters()).device

        def forward(x: Tensor) -> Tensor:
            with evaluating(state.model), torch.no_grad():
                return state.model(x.to(device))

        return forward

    def _schedule(self) -> Schedule:
        return Schedule(self.schedule, self.warmup, self.milestones, self.gamma)

    def _backward(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave the gradient of the mean negative log-likelihood; give the mean log-likelihood and the accuracy."""
        sums = []
        members = model.ensemble_size if self.feed == "split" else 1
        for (x, y), share in micro_batches(batch, self.accumulate, members):
            logits = model(x, self.feed)
            targets = model.targets(y, self.feed)
            log_lik = model.likelihood.log_lik(logits, targets).mean() * share
            with torch.autocast(log_lik.device.type, enabled=False):  # gradients in the dtype of their parameters
                (-log_lik).backward()
            sums.append(torch.stack([log_lik.detach(), model.likelihood.correct(logits, targets).mean() * share]))
        log_lik, accuracy = torch.stack(sums).sum(0)
        return log_lik, accuracy

    def _pull_factors_by_gradient(self, optimizer: torch.optim.Optimizer) -> None:
        for factor, _ in self._pulled_factors(optimizer):
            pull = factor.detach() - factor.detach().sign()
            factor.grad = torch.add(factor.grad, pull, alpha=self.factor_decay / len(factor))  # type: ignore[arg-type]

    @torch.no_grad()
    def _pull_factors_decoupled(self, optimizer: torch.optim.Optimizer) -> None:
        for factor, rate in self._pulled_factors(optimizer):
            factor.sub_(factor - factor.sign(), alpha=rate * self.factor_decay)

    def _pulled_factors(self, optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, float]]:
        """The factors that are pulled to their signs, each with its learning rate."""
        groups = [group for group in optimizer.param_groups if group["kind"] == "factor" and self.factor_decay > 0]
        return [(factor, group["lr"]) for group in groups for factor in group["params"] if factor.grad is not None]


def _has_dropout(model: nn.Module) -> bool:
    def probability(module: nn.Module) -> float:
        if isinstance(module, nn.MultiheadAttention):
            return module.dropout
        return module.p if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0

    return any(probability(module) > 0 for module in model.modules())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and every module of it back into the mode it was in."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True
