"""Steps of algorithms, of whichever of the three kinds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from bayes_share.inference.algorithm import Batch, Composed, GradientMethod, Inference, StepInfo, Transition
from bayes_share.tensors.seeding import seeded


def take_step(algorithm: Inference[Any], state: Any, batch: Batch | tuple[Any, Tensor], steps: int) -> StepInfo:
    """Take a step, and do what is done now and then.

    Args:
        algorithm: takes it.
        state: is changed.
        batch: some of the training data; all of it for a `Transition`.
        steps: taken so far.

    Returns:
        What the step reports; of several trainings, the means over them.
    """
    info = step(algorithm, state, batch)
    after_step(algorithm, state, steps + 1)
    return info


class Runner:
    """How the parts of a step are run: at once. Subclasses record a step, so that it can be replayed."""

    def also(self, act: Callable[..., object], *tensors: Tensor) -> None:
        """Call a function that must run on the host in every step, in a replayed one too.

        Args:
            act: seeds a generator, or exchanges messages with other processes.
            tensors: its arguments: tensors of the step, which it may change in-place.
        """
        act(*tensors)

    def run(self, takes: Sequence[Callable[[], StepInfo]]) -> list[StepInfo]:
        """Take the steps of several trainings, none of which depends on another."""
        return in_turn(takes, self.also)


AT_ONCE = Runner()
"""The runner of an ordinary step."""

Also = Callable[..., None]
"""The method `Runner.also`."""


def in_turn(takes: Sequence[Callable[[], StepInfo] | None], also: Also = AT_ONCE.also) -> list[StepInfo]:
    """One step after the other; of several, each draws random numbers that do not depend on the others.

    Args:
        takes: take the steps; None: another process takes it.
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
    """A key for the random numbers of a step's parts, drawn on the host and seen by no mode that looks at operators."""
    with _disable_current_modes():
        return int(torch.randint(2**62, ()))


def of_training(key: int, number: int) -> tuple[int, str, int]:
    """The key of the random numbers that one of several trainings draws in a step."""
    return key, "training", number


def its_gradient(method: GradientMethod[Any], state: Any, batch: Batch) -> StepInfo:
    """That of the whole batch."""
    return method.gradient(state, batch)


def step(
    algorithm: Inference[Any],
    state: Any,
    batch: Batch | tuple[Any, Tensor],
    run: Callable[[Sequence[Callable[[], StepInfo]]], list[StepInfo]] = in_turn,
    gradient: Callable[[GradientMethod[Any], Any, Batch], StepInfo] = its_gradient,
) -> StepInfo:
    """Take a step, and leave what is done now and then to the caller; see `take_step`.

    Args:
        algorithm: takes it.
        state: is changed.
        batch: some of the training data.
        run: takes the steps of several trainings, none of which depends on another.
        gradient: leaves the gradient of a training's objective where its update follows it.
    """
    batch = Batch(*batch)
    match algorithm:
        case GradientMethod():
            info = gradient(algorithm, state, batch)
            algorithm.update(state)
            return info
        case Composed():
            parts = zip(algorithm.trainings(state), algorithm.batches(state, batch), strict=True)
            return _mean(run([partial(step, method, own, part, run, gradient) for (method, own), part in parts]))
        case Transition():
            return algorithm.transition(state, batch)
    raise TypeError(f"{type(algorithm).__name__} takes no steps: it is no GradientMethod, Transition or Composed")


def trainings(algorithm: Inference[Any], state: Any) -> Iterator[tuple[Inference[Any], Any]]:
    """The trainings that an algorithm is composed of, each with its state: itself where it is none of others."""
    if isinstance(algorithm, Composed):
        for method, own in algorithm.trainings(state):
            yield from trainings(method, own)
    else:
        yield algorithm, state


def why_eager(algorithm: Inference[Any], state: Any) -> str | None:
    """Why a step of an algorithm cannot be recorded and replayed, in a sentence; None where it can."""
    return next((reason for method, own in trainings(algorithm, state) if (reason := _why_eager(method, own))), None)


def after_step(algorithm: Inference[Any], state: Any, steps: int) -> None:
    """Do what is done now and then, first of the trainings that an algorithm is composed of, then its own."""
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
