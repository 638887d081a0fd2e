"""A Markov chain that moves by gradients of batches: where it is, how far, and the samples that it left."""

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

_NEW = 0.02  # part of a mean over the latest steps that is the latest


@dataclass
class GradientChain:
    """The position and velocity of a chain, and the samples that it left.

    Args:
        position: of the chain.
        clock: how many of how many steps were taken.
        rates: the learning rate in each step, as a multiple of its highest value.
        slowing: what the learning rate is divided by: a mean over the latest steps of the burn-in, and fixed after it.
        adapting: how much of a step's own value that takes in, in each step.
        velocity: of each trained parameter, by name; none where a chain has no momentum.
        gradients: of the potential over num_data, in the coordinates of the chain, by name; between the two halves of a
            step.
        samples: kept parameters and buffers, each by its name in the model.
    """

    position: Position
    clock: Clock
    rates: Tensor
    slowing: Tensor
    adapting: Tensor
    velocity: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
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
        """At the parameters of a model, before the first of so many steps.

        Args:
            model: in training mode; is moved.
            num_data: training examples.
            num_steps: how many there will be.
            rate_at: the multiple of the learning rate at a step, of so many.
            feed: how members are fed.
            name: of the algorithm, for messages.
            burn_in: part of all steps in which the learning rate adapts to the likelihood.

        Raises:
            InputError: what `Position.start` says; or members that are equal and would stay so, because what is sampled
                is shared.
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
        """The model at the position."""
        return self.position.model

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_kept(self) -> int:
        """How many samples there are to draw from."""
        return len(self.samples)

    def find_gradients(self, steps: Steps, batch: Batch, bearable: float = 1.0) -> StepInfo:
        """Compute the gradients of the potential, the prior's part with them, at a batch that stands for all data.

        Args:
            steps: how they are taken.
            batch: of the training data.
            bearable: the steepness of the likelihood up to which the default learning rate is left as it is.
        """
        self.model.zero_grad()
        found = steps.add_gradient(self.model, batch)
        if (slowing := steps.slowing(found)) is not None:
            self.slowing.add_(self.clock.read(self.adapting) * ((slowing / bearable).clamp(min=1.0) - self.slowing))
        log_prior, self.gradients = self.position.gradients()
        loss = found.loss - log_prior / self.position.num_data
        return StepInfo(loss, found.log_lik, torch.zeros_like(loss), found.accuracy, self.rate(steps))

    def rate(self, steps: Steps) -> Tensor:
        """The learning rate of the step that is being taken."""
        return steps.highest_rate * self.clock.read(self.rates) / self.slowing

    def move(self, changes: dict[str, Tensor]) -> None:
        """Add to the coordinates, by the parameters' names, and count the step."""
        self.position.move(changes)
        self.gradients = {}
        self.clock.advance()

    def keep(self, burn_in: float, keep: int, steps: int) -> None:
        """Keep a sample, where it is time for one after so many steps; see `Thinning`."""
        if Thinning(self.clock.num_steps, burn_in, keep).keeps(steps - 1):
            self.samples.append(self.position.copy())

    def draw(self, sample: int) -> Forward:
        """A sample that was kept, the latest first; the position where none was kept yet."""
        return drawn(self.model, spread(self.samples, sample) if self.samples else {})

    def state_dict(self) -> dict[str, Any]:
        """The chain and its samples."""
        own = {"velocity": self.velocity, "step": self.clock.steps, "slowing": self.slowing, "samples": self.samples}
        return {**self.position.state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.position.load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.velocity = {name: value.to(device).clone() for name, value in state_dict["velocity"].items()}
        self.slowing.copy_(state_dict.get("slowing", torch.ones(())))  # of older states, which were never slowed
        self.clock.set(state_dict["step"])
        self.samples = [{name: value.to(device) for name, value in sample.items()} for sample in state_dict["samples"]]
