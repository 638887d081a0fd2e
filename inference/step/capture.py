"""Who takes the steps of a training: each as usual, or by replays of one that was recorded."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure

from bayes_share.inference.algorithm import Batch, Composed, Inference, StepInfo
from bayes_share.inference.step.drivers import AT_ONCE, why_eager
from bayes_share.inference.step.graphs import Graphs
from bayes_share.inference.step.processes import OneProcess, Processes
from bayes_share.inference.step.recorded_step import RecordedStep, copied_batch
from bayes_share.inference.step.recording import ReadsNothing, Recording
from bayes_share.tensors.trees import copied

_WARM = 3  # steps that are taken as usual first: optimizers make what they keep, libraries choose their kernels
_MOST = 4  # forms of batches that are recorded, each with memory of its own
_MOST_APART = 0.05  # of the way that a step goes: kernels may add in another order, and round to bfloat16
_ROUNDING = 1e-5
_SMALLEST = 1e-30
_log = logging.getLogger(__name__)


class Driver(ABC):
    """Who takes the steps of a training.

    Args:
        processes: take them together; None: one process alone.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes: Processes = processes or OneProcess()

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take a step, as `take_step` does."""
        self._processes.begin(algorithm, state)
        info = self._step(algorithm, state, batch)
        self._processes.after_step(algorithm, state, steps + 1)
        return info

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """See to it that the whole state is here, before it is looked at."""
        self._processes.complete(algorithm, state)

    def forget(self) -> None:
        """Forget what was recorded of a state, whose tensors are now others."""
        self._processes.forget()

    @abstractmethod
    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        """Take a step, without what is done now and then."""


class Eager(Driver):
    """Operator by operator, as Python comes to them. A `Driver`."""

    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        return self._processes.step(algorithm, state, batch, AT_ONCE)


class Captured(Driver):
    """The first steps are taken as usual; then one is recorded for each form of batch, and replayed. A `Driver`.

    By the law of a step nothing but tensors changes from one to the next, so that a replay is a step. Its random
    numbers are those that the generators then give. What cannot be recorded is taken as usual, and the log says why: an
    algorithm that moves by transitions, a network whose operators read the host, batches of many forms. So is all, from
    then on, where the first replay of a step gives other numbers than the step itself on a copy of the state. On a GPU
    the networks of a deep ensemble are computed side by side, a stream each.

    A step of several processes is recorded in parts, with the messages that they exchange between them. All processes
    agree on how a step is taken: where one of them cannot record it, or finds other numbers, none replays it.

    On a CPU this is slower than `Eager`, and keeps all that a step computes with: it is there to show that captured
    steps are the same, where there is no GPU.

    Args:
        device: where the steps are computed.
        processes: take them together; None: one process alone.
    """

    def __init__(self, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self._device = device
        self._steps: dict[Hashable, RecordedStep] = {}
        self._checked: set[Hashable] = set()
        self._taken = 0
        self._is_tried = False
        self.reason: str | None = None
        """Why steps are taken as usual after all; None where they are not."""

    def forget(self) -> None:
        """Record anew, after the first steps."""
        super().forget()
        self._steps.clear()
        self._checked.clear()
        self._taken = 0

    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        """Take it, recorded or not."""
        form = _form_of(batch)
        may_record = self._taken >= _WARM and self.reason is None and (form in self._steps or len(self._steps) < _MOST)
        self._taken += 1
        if may_record and not self._is_tried:
            self._is_tried = True
            self.reason = self._agreed(_why_not(algorithm, state, batch, self._processes))
            how = f"taken one by one: {self.reason}" if self.reason else f"captured ({_WAYS[self._device.type]})"
            _log.info("steps are %s", how)
        if not may_record or self.reason is not None:
            with _aside(self._device) if self._taken <= _WARM else nullcontext():
                return self._eagerly(algorithm, state, batch)
        if form in self._checked:
            return self._steps[form].replay(batch)
        if form in self._steps:
            return self._first_replay(algorithm, state, batch, form)
        if self._device.type != "cuda":
            self._steps[form] = RecordedStep(algorithm, state, batch, Recording(), self._processes)
            return self._steps[form].first
        try:
            self._steps[form] = RecordedStep(algorithm, state, batch, self._graphs(algorithm, state), self._processes)
            reason = None
        except RuntimeError as error:  # nothing was run: the step is still to be taken
            reason = str(error).partition("\n")[0]
        if (reason := self._agreed(reason)) is None:
            return self._first_replay(algorithm, state, batch, form)
        self._give_up(f"the capture failed ({reason})")
        return self._eagerly(algorithm, state, batch)

    def _eagerly(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        return self._processes.step(algorithm, state, batch, AT_ONCE)

    def _graphs(self, algorithm: Inference[Any], state: Any) -> Graphs:
        return Graphs(len(algorithm.trainings(state)) if isinstance(algorithm, Composed) else 1)

    def _first_replay(self, algorithm: Inference[Any], state: Any, batch: Batch, form: Hashable) -> StepInfo:
        """Replay a step, and take it on a copy of the state too; where they differ, go on with the latter."""
        before, other = copied(state.state_dict()), copy.deepcopy(state)
        with torch.random.fork_rng(devices=_devices()):
            expected = self._eagerly(algorithm, other, copied_batch(batch))
        info = self._steps[form].replay(batch)
        self._checked.add(form)
        apart = self._agreed(_apart(before, state.state_dict(), other.state_dict()))
        if apart is None:
            return info
        self._give_up(f"a replay of the recorded step gave other numbers ({apart})")
        state.load_state_dict(copied(other.state_dict()))
        return expected

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        _log.warning("steps are taken one by one after all: %s", reason)
        self._steps.clear()

    def _agreed(self, reason: str | None) -> str | None:
        """In all processes, the reason of the first one that has a reason not to replay steps; None if none has."""
        ranks = self._processes.ranks
        have = ranks.any_says(*(reason is not None and number == ranks.rank for number in range(ranks.count)))
        return ranks.told(have.index(True), reason) if any(have) else None


_WAYS = {"cuda": "a CUDA graph", "cpu": "operators that are run again, which is slower on a CPU"}


def _why_not(algorithm: Inference[Any], state: Any, batch: Batch, processes: Processes) -> str | None:
    """Why a step cannot be recorded, found out by one on a copy of the state; None where it can."""
    if (reason := why_eager(algorithm, state)) is not None:
        return reason
    try:
        with torch.random.fork_rng(devices=_devices()), ReadsNothing() as runner:
            processes.step(algorithm, copy.deepcopy(state), copied_batch(batch), runner)
    except Exception as error:  # whatever a network raises that cannot be copied or looked at
        return f"{error or type(error).__name__}".partition("\n")[0]
    return None


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _apart(before: Any, found: Any, expected: Any) -> str | None:
    """By how much a step went elsewhere than it should have, where that is more than rounding; None where it is not."""
    worst = 0.0
    for start, here, there in zip(*(tree_leaves(content) for content in (before, found, expected)), strict=True):
        if not isinstance(there, Tensor) or not there.is_floating_point() or not there.numel():
            continue
        moved = (there - start).abs().max() if start.shape == there.shape else there.abs().max()
        apart = (here - there).abs().max() / (moved + _ROUNDING * there.abs().max()).clamp_min(_SMALLEST)
        worst = max(worst, float(apart.nan_to_num(nan=1.0)) if not there.isnan().any() else 0.0)
    return None if worst <= _MOST_APART else f"its parameters or statistics moved {worst:.0%} of a step elsewhere"


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a stream of its own where there are streams, as what is captured later will be."""
    if device.type != "cuda":
        yield
        return
    current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        yield
    current.wait_stream(aside)


def _form_of(batch: Batch) -> Hashable:
    leaves = tree_leaves(tuple(batch))
    return str(tree_structure(tuple(batch))), tuple(
        (leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in leaves
    )
