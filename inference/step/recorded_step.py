"""A step that is recorded once and replayed: as a CUDA graph, and on a CPU as the list of its operators."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.inference.algorithm import Batch, Composed, Inference, StepInfo
from bayes_share.inference.step.drivers import drawn_key, in_turn, of_training, step
from bayes_share.inference.step.recording import Recording
from bayes_share.tensors.seeding import seed_from, seeded


@runtime_checkable
class Recorded(Protocol):
    """A recorded step."""

    def replay(self, batch: Batch) -> StepInfo:
        """Take a step."""


class AsOperators:
    """A step as the operators that it ran; the one that is recorded is taken, and reports `first`."""

    def __init__(self, algorithm: Inference[Any], state: Any, batch: Batch) -> None:
        self._batch = copied_batch(batch)
        with Recording() as self._recording:
            self.first = step(algorithm, state, self._batch, self._in_turn)

    def replay(self, batch: Batch) -> StepInfo:
        """Take a step on another batch of the same form."""
        _copy_into(self._batch, batch)
        with torch.autocast("cpu", enabled=False):  # what it cast is among the operators
            renewed = self._recording.replay()
        return _changed(self.first, renewed)

    def _in_turn(self, takes: Sequence[Callable[[], StepInfo]]) -> list[StepInfo]:
        """As `in_turn`; a replay seeds the generator at the same places."""
        if len(takes) == 1:
            return in_turn(takes)
        key, stack, infos = [0], ExitStack(), []

        def begin() -> None:
            key[0] = drawn_key()

        self._recording.also(begin)
        for number, take in enumerate(takes):
            self._recording.also(lambda number=number: stack.enter_context(seeded(*of_training(key[0], number))))
            infos.append(take())
            self._recording.also(stack.close)
        return infos


class InGraph:
    """A step as a CUDA graph, with its own memory; the one that is recorded is not taken.

    Each of several networks has a stream of its own, and a state of the generator, which is seeded before a replay.
    """

    def __init__(self, algorithm: Inference[Any], state: Any, batch: Batch) -> None:
        self._batch, self._graph, self._is_within = copied_batch(batch), torch.cuda.CUDAGraph(), False
        self._default = torch.cuda.default_generators[torch.cuda.current_device()]
        count = len(algorithm.trainings(state)) if isinstance(algorithm, Composed) else 1
        self._numbers = [self._default.clone_state() for _ in range(count if count > 1 else 0)]
        for numbers in self._numbers:
            self._graph.register_generator_state(numbers)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._info = step(algorithm, state, self._batch, self._side_by_side)

    def replay(self, batch: Batch) -> StepInfo:
        """Take a step on another batch of the same form."""
        _copy_into(self._batch, batch)
        if self._numbers:
            key = drawn_key()
            for number, numbers in enumerate(self._numbers):
                numbers.manual_seed(seed_from(*of_training(key, number)))
        self._graph.replay()
        return _changed(self._info, torch.clone)  # the next replay writes where these are

    def _side_by_side(self, takes: Sequence[Callable[[], StepInfo]]) -> list[StepInfo]:
        """Steps of several networks; their backward passes follow on the same streams."""
        if len(takes) == 1:
            return in_turn(takes)
        if self._is_within:
            raise RuntimeError("networks within networks are not computed side by side")
        self._is_within = True
        current, streams = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in takes]
        usual, infos = self._default.graphsafe_get_state(), []
        for take, stream, numbers in zip(takes, streams, self._numbers, strict=True):
            stream.wait_stream(current)
            self._default.graphsafe_set_state(numbers)
            try:
                with torch.cuda.stream(stream):
                    infos.append(take())
            finally:
                self._default.graphsafe_set_state(usual)
        for stream in streams:
            current.wait_stream(stream)
        self._is_within = False
        return infos


def copied_batch(batch: Batch) -> Batch:
    """The same in tensors of its own."""
    return Batch(*tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tuple(batch)))


def _copy_into(static: Batch, batch: Batch) -> None:
    for place, leaf in zip(tree_leaves(tuple(static)), tree_leaves(tuple(batch)), strict=True):
        if isinstance(place, Tensor):
            place.copy_(leaf)


def _changed(info: StepInfo, change: Any) -> StepInfo:
    return StepInfo(**{field.name: change(getattr(info, field.name)) for field in fields(info)})
