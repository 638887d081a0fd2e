"""The processes that take the steps of a training, one or several."""

from typing import Any, Protocol, runtime_checkable

from bayes_share.inference.algorithm import Batch, Composed, Inference, StepInfo
from bayes_share.inference.step.drivers import Runner, after_step, step
from bayes_share.inference.step.ranks import ALONE, Ranks


@runtime_checkable
class Processes(Protocol):
    """The processes that take the steps of a training: `OneProcess`, or several (`OfRanks`)."""

    @property
    def ranks(self) -> Ranks:
        """This process and the number of processes."""

    def begin(self, algorithm: Inference[Any], state: Any) -> None:
        """Make the states of all processes equal, before the first step."""

    def step(self, algorithm: Inference[Any], state: Any, batch: Batch, runner: Runner) -> StepInfo:
        """Take a step. The caller calls `after_step`."""

    def side_by_side(self, algorithm: Inference[Any], state: Any) -> int:
        """Return the number of networks whose steps this process may take at the same time."""

    def after_step(self, algorithm: Inference[Any], state: Any, steps: int) -> None:
        """Do an algorithm's occasional work after a step."""

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Bring the whole state to all processes."""

    def forget(self) -> None:
        """Make the states equal again in the next `begin`, because the state was replaced."""


class OneProcess:
    """A single process, which takes every step alone; see `Processes`."""

    ranks = ALONE

    def begin(self, algorithm: Inference[Any], state: Any) -> None:
        """Do nothing: there is only one state."""

    def step(self, algorithm: Inference[Any], state: Any, batch: Batch, runner: Runner) -> StepInfo:
        """Take a step on the whole batch."""
        return step(algorithm, state, batch, runner.run)

    def side_by_side(self, algorithm: Inference[Any], state: Any) -> int:
        """Return the number of trainings that the algorithm is composed of."""
        return len(algorithm.trainings(state)) if isinstance(algorithm, Composed) else 1

    def after_step(self, algorithm: Inference[Any], state: Any, steps: int) -> None:
        """Do an algorithm's occasional work after a step."""
        after_step(algorithm, state, steps)

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """Do nothing: the state is always complete."""

    def forget(self) -> None:
        """Do nothing: there is only one state."""
