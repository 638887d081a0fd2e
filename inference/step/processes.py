"""What a step of a training is: that of one process, or of several together."""

from typing import Any, Protocol, runtime_checkable

from bayes_share.inference.algorithm import Batch, Inference, StepInfo
from bayes_share.inference.step.drivers import Runner, after_step, step
from bayes_share.inference.step.ranks import ALONE, Ranks


@runtime_checkable
class Processes(Protocol):
    """The processes that take the steps of a training: `OneProcess`, or several (`OfRanks`)."""

    @property
    def ranks(self) -> Ranks:
        """This process among them."""

    def begin(self, algorithm: Inference[Any], state: Any) -> None:
        """Make the states of all processes equal, before the first step."""

    def step(self, algorithm: Inference[Any], state: Any, batch: Batch, runner: Runner) -> StepInfo:
        """Take a step; `after_step` is left to the caller."""

    def after_step(self, algorithm: Inference[Any], state: Any, steps: int) -> None:
        """Do what an algorithm does now and then, after so many steps."""

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Bring the whole state to all processes."""

    def forget(self) -> None:
        """Have the next `begin` make the states equal again, because the state was replaced."""


class OneProcess:
    """One process, which takes every step alone; see `Processes`."""

    ranks = ALONE

    def begin(self, algorithm: Inference[Any], state: Any) -> None:
        """Do nothing: there is one state."""

    def step(self, algorithm: Inference[Any], state: Any, batch: Batch, runner: Runner) -> StepInfo:
        """Take a step on the whole batch."""
        return step(algorithm, state, batch, runner.run)

    def after_step(self, algorithm: Inference[Any], state: Any, steps: int) -> None:
        """Do what an algorithm does now and then, after so many steps."""
        after_step(algorithm, state, steps)

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Do nothing: the state is whole."""

    def forget(self) -> None:
        """Do nothing: there is one state."""
