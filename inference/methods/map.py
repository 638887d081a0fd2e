"""Maximum a posteriori (MAP) estimation by stochastic gradients: a point estimate of every parameter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayes_share.inference.algorithm import Batch, Build, Feeding, Forward, GradientMethod, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.step.named_priors import NamedPriors
from bayes_share.inference.step.starts import check_members_will_differ, check_trainable
from bayes_share.inference.step.steps import check_not_negative
from bayes_share.inference.step.updates import Descent, Stepper
from bayes_share.models.model import Model
from bayes_share.options.records import Flat


@dataclass
class MAPState:
    """A model and what moves it.

    Args:
        model: with the parameters.
        stepper: the optimizer on its way.
        num_data: training examples.
        priors: those that the model's user named.
    """

    model: Model
    stepper: Stepper
    num_data: int | float
    priors: NamedPriors = field(init=False)

    def __post_init__(self) -> None:
        self.priors = NamedPriors(self.model)

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers, the optimizer's memory and the step."""
        return {"model": self.model.state_dict(), **self.stepper.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state_dict["model"])
        self.priors = NamedPriors(self.model)  # around the signs that were read back
        self.stepper.load_state_dict(state_dict)


@dataclass(frozen=True, init=False)
class MAP(Flat, GradientMethod[MAPState]):
    """Maximum a posteriori estimation, for single networks and BatchEnsembles.

    Minimises the mean over members of the negative log-likelihood per example, plus ``weight_decay / 2`` times the
    squared norm of the shared parameters, plus ``weight_decay / 2`` times the mean over members of the squared norm of
    a member's own parameters. The minimum is the maximum of the posterior under a normal prior of precision
    ``weight_decay * num_data``. With "adamw" it is not, since the decay is decoupled from the gradient.

    A parameter that a rule of ``Model(priors=...)`` names has that prior in place of the weight decay: the objective
    contains its negative log density, divided by `num_data`. None is a flat prior. Priors must have unbounded support,
    and must not be hierarchical.

    Args:
        descent: the optimizer, its learning rates and its weight decay; each option can be passed by its own name.
        factor_decay: decay of r and s toward their initial signs (+1 or -1), and of further terms toward 0, where they
            have no prior; scaled like the decay of a member's own parameters.
    """

    descent: Descent = Descent()  # noqa: RUF009 (frozen)
    factor_decay: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(self, "factor_decay")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> MAPState:
        """A fresh model in training mode and its optimizer.

        Raises:
            InputError: members that are equal and would stay so, because all are fed alike; a prior under which there
                is no mode, or that is not over all real numbers.
        """
        model = build().train()
        check_members_will_differ(model, self.descent.steps.feed)
        check_trainable(model)
        groups = self.descent.groups(model, model.named_in_priors())
        return MAPState(model, self.descent.start(groups, num_steps), num_data)

    def feeding(self, state: MAPState) -> Feeding:
        """As `feed` says."""
        return self.descent.steps.feeding(state.model)

    def gradient(self, state: MAPState, batch: Batch) -> StepInfo:
        """The gradient of the objective, without the decays, which the optimizer adds; so is the loss."""
        state.stepper.begin()
        found = self.descent.steps.add_gradient(state.model, batch)
        rate = state.stepper.slow(found)
        log_prior = state.priors.ascend(1 / state.num_data) / state.num_data
        if not self.descent.is_decay_decoupled:
            self._pull_factors_by_gradient(state)
        return StepInfo(found.loss - log_prior, found.log_lik, torch.zeros_like(found.loss), found.accuracy, rate)

    def gradients(self, state: MAPState) -> Sequence[Tensor]:
        """Those of the parameters."""
        return state.stepper.gradients

    def update(self, state: MAPState) -> None:
        """Clip, and take a step of the optimizer."""
        state.stepper.clip()
        if self.descent.is_decay_decoupled:
            self._pull_factors_decoupled(state)
        state.stepper.follow()

    def draw(self, state: MAPState, sample: int) -> Forward:
        """The network itself, whatever the sample: a point has one draw."""
        return drawn(state.model)

    def keep_members(self, state: MAPState, members: Sequence[int]) -> MAPState:
        """The model of these members, and the optimizer's memory of them."""
        model = state.model.keep(members)
        return MAPState(model, state.stepper.kept(state.model, model, members), state.num_data)

    def not_drawn(self) -> str | None:
        """A point is none."""
        return "a point estimate has no draws of a posterior"

    def _pull_factors_by_gradient(self, state: MAPState) -> None:
        for factor, centre, _ in self._pulled_factors(state):
            pull = factor.detach() - centre
            factor.grad = torch.add(factor.grad, pull, alpha=self.factor_decay / len(factor))  # type: ignore[arg-type]

    @torch.no_grad()
    def _pull_factors_decoupled(self, state: MAPState) -> None:
        for factor, centre, rate in self._pulled_factors(state):
            factor.sub_((factor - centre) * (rate * self.factor_decay))

    def _pulled_factors(self, state: MAPState) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The factors that are pulled, each with what it is pulled to and its learning rate."""
        if not self.factor_decay:
            return []
        groups = [group for group in state.stepper.optimizer.param_groups if group["kind"] == "factor"]
        return [
            (factor, torch.zeros_like(factor) if group["is_further"] else factor.detach().sign(), group["lr"])
            for group in groups
            for factor in group["params"]
            if factor.grad is not None and factor not in state.priors
        ]
