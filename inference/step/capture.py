"""Who takes the steps of a training: each as usual, or by replays of one that was recorded."""

import copy
import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure

from bayes_share.inference.algorithm import Batch, Inference, StepInfo
from bayes_share.inference.step.drivers import after_step, step, take_step, why_eager
from bayes_share.inference.step.recorded_step import AsOperators, InGraph, Recorded, copied_batch
from bayes_share.inference.step.recording import ReadsNothing
from bayes_share.tensors.trees import copied

_WARM = 3  # steps that are taken as usual first: optimizers make what they keep, libraries choose their kernels
_MOST = 4  # forms of batches that are recorded, each with memory of its own
_MOST_APART = 0.05  # of the way that a step goes: kernels may add in another order, and round to bfloat16
_ROUNDING = 1e-5
_SMALLEST = 1e-30
_log = logging.getLogger(__name__)


@runtime_checkable
class Driver(Protocol):
    """Who takes the steps of a training."""

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take a step, as `take_step` does."""

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """See to it that the whole state is here, before it is looked at."""

    def forget(self) -> None:
        """Forget what was recorded of a state, whose tensors are now others."""


class Eager:
    """Operator by operator, as Python comes to them. A `Driver`."""

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take it."""
        return take_step(algorithm, state, batch, steps)

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """It is."""

    def forget(self) -> None:
        """There is nothing."""


class Captured:
    """The first steps are taken as usual; then one is recorded for each form of batch, and replayed. A `Driver`.

    By the law of a step nothing but tensors changes from one to the next, so that a replay is a step. Its random
    numbers are those that the generators then give. What cannot be recorded is taken as usual, and the log says why: an
    algorithm that moves by transitions, a network whose operators read the host, batches of many forms. So is all, from
    then on, where the first replay of a step gives other numbers than the step itself on a copy of the state. On a GPU
    the networks of a deep ensemble are computed side by side, a stream each.

    On a CPU this is slower than `Eager`, and keeps all that a step computes with: it is there to show that captured
    steps are the same, where there is no GPU.

    Args:
        device: where the steps are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: dict[Hashable, Recorded] = {}
        self._checked: set[Hashable] = set()
        self._taken = 0
        self._is_tried = False
        self.reason: str | None = None
        """Why steps are taken as usual after all; None where they are not."""

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take it, recorded or not."""
        form = _form_of(batch)
        may_record = self._taken >= _WARM and self.reason is None and (form in self._steps or len(self._steps) < _MOST)
        self._taken += 1
        if may_record and not self._is_tried:
            self._is_tried = True
            self.reason = _why_not(algorithm, state, batch)
            how = f"taken one by one: {self.reason}" if self.reason else f"captured ({_WAYS[self._device.type]})"
            _log.info("steps are %s", how)
        if not may_record or self.reason is not None:
            with _aside(self._device) if self._taken <= _WARM else nullcontext():
                return take_step(algorithm, state, batch, steps)
        if form in self._steps and form in self._checked:
            info = self._steps[form].replay(batch)
        elif form in self._steps:
            info = self._first_replay(algorithm, state, batch, form)
        elif self._device.type == "cuda":
            try:
                self._steps[form] = InGraph(algorithm, state, batch)
            except RuntimeError as error:  # nothing was run: the step is still to be taken
                self.reason = str(error).partition("\n")[0]
                _log.warning("steps are taken one by one after all: the capture failed (%s)", self.reason)
                return take_step(algorithm, state, batch, steps)
            info = self._first_replay(algorithm, state, batch, form)
        else:
            recorded = AsOperators(algorithm, state, batch)
            self._steps[form], info = recorded, recorded.first
        after_step(algorithm, state, steps + 1)
        return info

    def complete(self, algorithm: Inference[Any], state: Any) -> None:
        """It is."""

    def forget(self) -> None:
        """Record anew, after the first steps."""
        self._steps.clear()
        self._checked.clear()
        self._taken = 0

    def _first_replay(self, algorithm: Inference[Any], state: Any, batch: Batch, form: Hashable) -> StepInfo:
        """Replay a step, and take it on a copy of the state too; where they differ, go on with the latter."""
        before, other = copied(state.state_dict()), copy.deepcopy(state)
        with torch.random.fork_rng(devices=_devices()):
            expected = step(algorithm, other, copied_batch(batch))
        info = self._steps[form].replay(batch)
        self._checked.add(form)
        if (apart := _apart(before, state.state_dict(), other.state_dict())) is None:
            return info
        self.reason = f"a replay of the recorded step gave other numbers ({apart})"
        _log.warning("steps are taken one by one after all: %s", self.reason)
        state.load_state_dict(copied(other.state_dict()))
        self._steps.clear()
        return expected


_WAYS = {"cuda": "a CUDA graph", "cpu": "operators that are run again, which is slower on a CPU"}


def _why_not(algorithm: Inference[Any], state: Any, batch: Batch) -> str | None:
    """Why a step cannot be recorded, found out by one on a copy of the state; None where it can."""
    if (reason := why_eager(algorithm, state)) is not None:
        return reason
    try:
        with torch.random.fork_rng(devices=_devices()), ReadsNothing():
            step(algorithm, copy.deepcopy(state), copied_batch(batch))
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
