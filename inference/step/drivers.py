"""Take steps of any algorithm."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from bayes_share.inference.algorithm import Batch, Composed, GradientMethod, Inference, StepInfo, Transition
from bayes_share.tensors.seeding import seeded


def take_step(algorithm: Inference[Any], state: Any, batch: Batch | tuple[Any, Tensor], steps: int) -> StepInfo:
    """Take a step, then do the algorithm's occasional work, such as keeping a sample.

    Args:
        algorithm: the algorithm.
        state: the state. It is changed in place.
        batch: a batch of training data; all data for a `Transition`.
        steps: number of steps taken so far.

    Returns:
        The diagnostics of the step, or their means over several trainings.
    """
    info = step(algorithm, state, batch)
    after_step(algorithm, state, steps + 1)
    return info


class Runner:
    """Runs the parts of a step immediately. Subclasses also record the step for replay."""

    def also(self, act: Callable[..., object], *tensors: Tensor) -> None:
        """Call a function that must run on the host in every step, including replayed ones.

        Args:
            act: seeds a generator, or exchanges messages with other processes.
            tensors: its arguments: tensors of the step, which it may change in-place.
        """
        act(*tensors)

    def run(self, takes: Sequence[Callable[[], StepInfo]]) -> list[StepInfo]:
        """Take the steps of several independent trainings."""
        return in_turn(takes, self.also)


AT_ONCE = Runner()
"""The runner of an eager step."""

Also = Callable[..., None]
"""The method `Runner.also`."""


def in_turn(takes: Sequence[Callable[[], StepInfo] | None], also: Also = AT_ONCE.also) -> list[StepInfo]:
    """Take steps one after another. For several trainings, each has random numbers independent of the others.

    Args:
        takes: functions that take the steps. None: another process takes the step.
        also: see `Runner.also`.
    """
    if len(takes) == 1 and takes[0] is not None:
        return [takes[0]()]
    key, infos = [0], []

    def begin() -> None:
        key[0] = drawn_key()

    also(begin)
    with ExitStack() as stack:
        for number, take in enumerate(takes):
            if take is not None:
                also(lambda number=number: stack.enter_context(seeded(*of_training(key[0], number))))
                infos.append(take())
                also(stack.close)
    return infos


def drawn_key() -> int:
    """Draw a random key for the parts of a step, on the host and hidden from dispatch modes."""
    with _disable_current_modes():
        return int(torch.randint(2**62, ()))


def of_training(key: int, number: int) -> tuple[int, str, int]:
    """Return the random key of one of several trainings in a step."""
    return key, "training", number


def its_gradient(method: GradientMethod[Any], state: Any, batch: Batch) -> StepInfo:
    """Compute the gradient of the whole batch."""
    return method.gradient(state, batch)


def step(
    algorithm: Inference[Any],
    state: Any,
    batch: Batch | tuple[Any, Tensor],
    run: Callable[[Sequence[Callable[[], StepInfo]]], list[StepInfo]] = in_turn,
    gradient: Callable[[GradientMethod[Any], Any, Batch], StepInfo] = its_gradient,
) -> StepInfo:
    """Take a step without the occasional work after it; see `take_step`.

    Args:
        algorithm: the algorithm.
        state: the state. It is changed in place.
        batch: a batch of training data.
        run: takes the steps of several independent trainings.
        gradient: computes the gradient of a training's objective, which its update then uses.
    """
    batch = Batch(*batch)
    match algorithm:
        case GradientMethod():
            info = gradient(algorithm, state, batch)
            rate = algorithm.update(state)
            return info if rate is None else replace(info, learning_rate=rate)
        case Composed():
            parts = zip(algorithm.trainings(state), algorithm.batches(state, batch), strict=True)
            return _mean(run([partial(step, method, own, part, run, gradient) for (method, own), part in parts]))
        case Transition():
            return algorithm.transition(state, batch)
    raise TypeError(
        f"{type(algorithm).__name__} must be a GradientMethod, Transition or Composed algorithm to take steps"
    )


def trainings(algorithm: Inference[Any], state: Any) -> Iterator[tuple[Inference[Any], Any]]:
    """Yield the trainings that an algorithm is composed of, with their states, or the algorithm itself."""
    if isinstance(algorithm, Composed):
        for method, own in algorithm.trainings(state):
            yield from trainings(method, own)
    else:
        yield algorithm, state


def why_eager(algorithm: Inference[Any], state: Any) -> str | None:
    """Return why a step cannot be recorded and replayed, as a sentence; None if it can."""
    return next((reason for method, own in trainings(algorithm, state) if (reason := _why_eager(method, own))), None)


def after_step(algorithm: Inference[Any], state: Any, steps: int) -> None:
    """Do the occasional work after a step, first of an algorithm's trainings, then of the algorithm."""
    if isinstance(algorithm, Composed):
        for method, own in algorithm.trainings(state):
            after_step(method, own, steps)
    algorithm.after_step(state, steps)


def _why_eager(method: Inference[Any], state: Any) -> str | None:
    if isinstance(method, GradientMethod):
        return method.why_eager(state)
    return f"a step of {type(method).__name__} is a transition"


def _mean(infos: Sequence[StepInfo]) -> StepInfo:
    if len(infos) == 1:
        return infos[0]
    return StepInfo(
        **{each.name: torch.stack([getattr(info, each.name) for info in infos]).mean(0) for each in fields(StepInfo)}
    )
