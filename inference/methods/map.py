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
    """The model and its optimizer.

    Args:
        model: the model in training.
        stepper: the optimizer with its learning rates and step count.
        num_data: number of training examples.
        priors: the priors given by the user, set from the model.
    """

    model: Model
    stepper: Stepper
    num_data: int | float
    priors: NamedPriors = field(init=False)

    def __post_init__(self) -> None:
        self.priors = NamedPriors(self.model)

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the model. Shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, buffers, the optimizer state and the step."""
        return {"model": self.model.state_dict(), **self.stepper.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state_dict["model"])
        self.priors = NamedPriors(self.model)  # centred at the loaded signs
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
        factor_decay: decay of r and s toward their signs (+1 or -1), and of further terms toward 0, if they have no
            prior; scaled like the decay of a member's own parameters.
    """

    descent: Descent = Descent()  # noqa: RUF009 (frozen)
    factor_decay: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(self, "factor_decay")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> MAPState:
        """Return a new model in training mode and its optimizer.

        Raises:
            InputError: if all parameters are frozen; if the members are equal and would stay equal, because all are
                trained on the same examples; if a prior has no mode, or does not have all real numbers as its support.
        """
        model = build().train()
        check_members_will_differ(model, self.descent.steps.feed)
        check_trainable(model)
        groups = self.descent.groups(model, model.named_in_priors())
        return MAPState(model, self.descent.start(groups, num_steps), num_data)

    def feeding(self, state: MAPState) -> Feeding:
        """Return how `feed` assigns the examples of a batch to members."""
        return self.descent.steps.feeding(state.model)

    def gradient(self, state: MAPState, batch: Batch) -> StepInfo:
        """Compute the gradient of the loss, the priors and a factor decay that is not decoupled.

        The optimizer adds the weight decay. The reported loss includes the priors, but no decay.
        """
        rate = state.stepper.begin()
        terms = self.descent.steps.add_gradient(state.model, batch)
        state.stepper.measure(terms)
        log_prior = state.priors.ascend(1 / state.num_data) / state.num_data
        if not self.descent.is_decay_decoupled:
            self._add_factor_decay_to_gradients(state)
        return StepInfo(terms.loss - log_prior, terms.log_lik, torch.zeros_like(terms.loss), terms.accuracy, rate)

    def gradients(self, state: MAPState) -> Sequence[Tensor]:
        """Return the gradients of the parameters, and the steepness if the learning rate depends on it."""
        return state.stepper.averaged

    def update(self, state: MAPState) -> Tensor:
        """Clip the gradients and take a step of the optimizer."""
        state.stepper.clip()
        if self.descent.is_decay_decoupled:
            self._decay_factors(state)
        return state.stepper.follow()

    def draw(self, state: MAPState, sample: int) -> Forward:
        """Return the trained network. It is the same for every `sample`."""
        return drawn(state.model)

    def keep_members(self, state: MAPState, members: Sequence[int]) -> MAPState:
        """Return the model of the given members and their optimizer state."""
        model = state.model.keep(members)
        return MAPState(model, state.stepper.kept(state.model, model, members), state.num_data)

    def not_drawn(self) -> str | None:
        """Return the reason that a point estimate has no posterior draws."""
        return "a point estimate has no posterior draws"

    def _add_factor_decay_to_gradients(self, state: MAPState) -> None:
        for factor, centre, _ in self._decayed_factors(state):
            distance = factor.detach() - centre
            factor.grad = torch.add(factor.grad, distance, alpha=self.factor_decay / len(factor))  # type: ignore[arg-type]

    @torch.no_grad()
    def _decay_factors(self, state: MAPState) -> None:
        for factor, centre, rate in self._decayed_factors(state):
            factor.sub_((factor - centre) * (rate * self.factor_decay))

    def _decayed_factors(self, state: MAPState) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return the factors with a decay, each with the value it decays to and its learning rate."""
        if not self.factor_decay:
            return []
        groups = [group for group in state.stepper.optimizer.param_groups if group["kind"] == "factor"]
        return [
            (factor, torch.zeros_like(factor) if group["is_further"] else factor.detach().sign(), group["lr"])
            for group in groups
            for factor in group["params"]
            if factor.grad is not None and factor not in state.priors
        ]
