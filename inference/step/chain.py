"""A Markov chain that moves by gradients of batches: its position, step sizes and kept samples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayes_share.inference.algorithm import Batch, Forward, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.thinning import Thinning, spread
from bayes_share.inference.step.clock import Clock
from bayes_share.inference.step.position import Position
from bayes_share.inference.step.starts import check_members_will_differ, check_trainable
from bayes_share.inference.step.steps import DataFeed, Steps
from bayes_share.models.model import Model

_NEW = 0.02  # weight of the latest step in a running mean


@dataclass
class GradientChain:
    """The position and velocity of a chain, and its kept samples.

    Args:
        position: the position of the chain.
        clock: the step counter.
        rates: ``[step]``: the learning rate of each step, as a multiple of its maximum.
        slowing: the divisor of the learning rate: a running mean over the burn-in, constant afterwards.
        adapting: ``[step]``: the weight of a step's value in this running mean.
        velocity: the velocity of each trained parameter, by name. Empty for a chain without momentum.
        gradients: the gradients of the potential divided by num_data, in the coordinates of the chain, by name. They
            exist between the two halves of a step.
        steepness: the likelihood's steepness on the batch, to which `slowing` adapts. It exists between the two halves
            of a step, if the learning rate depends on it.
        samples: the kept parameters and buffers, by their names in the model.
    """

    position: Position
    clock: Clock
    rates: Tensor
    slowing: Tensor
    adapting: Tensor
    velocity: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    steepness: Tensor | None = None
    samples: list[dict[str, Tensor]] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        model: Model,
        num_data: int | float,
        num_steps: int,
        rate_at: Callable[[int, int], float],
        feed: DataFeed,
        name: str,
        burn_in: float,
    ) -> "GradientChain":
        """Return a chain at the parameters of a model, before the first step.

        Args:
            model: the model in training mode. The chain changes it.
            num_data: number of training examples.
            num_steps: total number of steps.
            rate_at: the multiple of the learning rate, a function of the step and the number of steps.
            feed: how members are fed.
            name: name of the algorithm, for messages.
            burn_in: fraction of all steps in which the learning rate adapts to the likelihood.

        Raises:
            InputError: as in `Position.start`, or if all sampled parameters are shared and members would stay equal.
        """
        check_trainable(model)
        position = Position.start(model, num_data, name)
        if all(position.kinds[sampled] == "base" for sampled in position.sampled):
            check_members_will_differ(model, feed)
        clock = Clock.start(num_steps, next(iter(position.trained.values())).device)

        def adapting(step: int, num_steps: int) -> float:
            return max(1 / (step + 1), _NEW) if step == 0 or step < burn_in * num_steps else 0.0

        rates = clock.table(rate_at)
        return cls(position, clock, rates, rates.new_ones(()), clock.table(adapting))

    @property
    def model(self) -> Model:
        """The model at the current position."""
        return self.position.model

    @property
    def num_parameters(self) -> int:
        """The number of trained values. Shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_kept(self) -> int:
        """The number of kept samples."""
        return len(self.samples)

    @property
    def averaged(self) -> list[Tensor]:
        """The tensors that an update uses and that may be averaged over parts of a batch: gradients and steepness."""
        return [*self.gradients.values(), *([] if self.steepness is None else [self.steepness])]

    def find_gradients(self, steps: Steps, batch: Batch) -> StepInfo:
        """Compute the gradients of the potential, including the prior, with the batch in place of all data."""
        self.model.zero_grad()
        found = steps.add_gradient(self.model, batch)
        self.steepness = steps.steepness(found)
        log_prior, self.gradients = self.position.gradients()
        loss = found.loss - log_prior / self.position.num_data
        return StepInfo(loss, found.log_lik, torch.zeros_like(loss), found.accuracy, self.rate(steps))

    def adapt(self, steps: Steps, bearable: float = 1.0) -> Tensor:
        """Adapt the learning rate to the steepness during burn-in; return the rate of the current step.

        Args:
            steps: the options of the steps.
            bearable: the likelihood's steepness up to which the default learning rate is not reduced.
        """
        if self.steepness is not None:
            slowing = (self.steepness / bearable).clamp(min=1.0)
            self.slowing.add_(self.clock.read(self.adapting) * (slowing - self.slowing))
            self.steepness = None
        return self.rate(steps)

    def rate(self, steps: Steps) -> Tensor:
        """Return the learning rate of the current step."""
        return steps.highest_rate * self.clock.read(self.rates) / self.slowing

    def move(self, changes: dict[str, Tensor]) -> None:
        """Add changes to the coordinates, by parameter name, and count the step."""
        self.position.move(changes)
        self.gradients = {}
        self.clock.advance()

    def keep(self, burn_in: float, keep: int, steps: int) -> None:
        """Keep a sample if one is due after this number of steps; see `Thinning`."""
        if Thinning(self.clock.num_steps, burn_in, keep).keeps(steps - 1):
            self.samples.append(self.position.copy())

    def draw(self, sample: int) -> Forward:
        """Return a kept sample, the latest first, or the current position if no sample was kept."""
        return drawn(self.model, spread(self.samples, sample) if self.samples else {})

    def state_dict(self) -> dict[str, Any]:
        """Return the chain and its samples."""
        own = {"velocity": self.velocity, "step": self.clock.steps, "slowing": self.slowing, "samples": self.samples}
        return {**self.position.state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.position.load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.velocity = {name: value.to(device).clone() for name, value in state_dict["velocity"].items()}
        self.slowing.copy_(state_dict.get("slowing", torch.ones(())))  # missing in older states, which had no slowing
        self.clock.set(state_dict["step"])
        self.samples = [{name: value.to(device) for name, value in sample.items()} for sample in state_dict["samples"]]
