"""Drivers of training steps: eager, or by replays of a recorded step."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure

from bayes_share.errors import is_out_of_memory
from bayes_share.inference.algorithm import Batch, Inference, StepInfo
from bayes_share.inference.step.compiled import compile_network
from bayes_share.inference.step.drivers import AT_ONCE, trainings, why_eager
from bayes_share.inference.step.graphs import Graphs
from bayes_share.inference.step.processes import OneProcess, Processes
from bayes_share.inference.step.recorded_step import RecordedStep, copied_batch
from bayes_share.inference.step.recording import ReadsNothing, Recording
from bayes_share.layers.copying import check_separate
from bayes_share.models.model import Model
from bayes_share.sharing.streams import Stream
from bayes_share.tensors.attributes import attributes_of, changed, has_parts
from bayes_share.tensors.trees import cloned, copied

_WARM_UP_STEPS = 3  # steps before the first recording, in which optimizers allocate state and libraries select kernels
_MAX_FORMS = 4  # recorded forms of batches, each with its own memory
_TOLERANCE = 0.05  # of a step's change: the order of summation may differ, and bfloat16 rounds
_ROUNDING = 1e-5
_SMALLEST = 1e-30
_log = logging.getLogger(__name__)


class Driver(ABC):
    """Takes the steps of a training.

    Args:
        processes: the processes that take each step together. None: a single process.
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
        """Make the whole state available in this process."""
        self._processes.complete(algorithm, state)

    def forget(self) -> None:
        """Discard everything recorded for a state whose tensors have been replaced."""
        self._processes.forget()

    @abstractmethod
    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        """Take a step without the occasional work after it."""


class Eager(Driver):
    """A `Driver` that runs every step eagerly."""

    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        return self._processes.step(algorithm, state, batch, AT_ONCE)


class Captured(Driver):
    """A `Driver` that runs the first steps eagerly, then records one for each form of batch, and replays it.

    Only tensors change from one step to the next (see `GradientMethod`), so a replay is a step. Its random numbers come
    from the current state of the generators. Steps that cannot be recorded run eagerly, and the log says why:
    transitions of a Markov chain, and networks with operators that read values on the host. So do further forms of
    batches after the first few. If the first replay of a recorded step gives a different result than an eager step on a
    copy of the state, all further steps run eagerly. On a GPU the networks of a deep ensemble run in parallel, each on
    its own stream.

    A step of several processes is recorded in parts, with the messages between processes sent between the parts. All
    processes agree on how to take a step: if one of them cannot record it or gets a different result, none replays it.

    On a CPU this is slower than `Eager` and keeps all intermediate tensors in memory. It serves to test captured steps
    without a GPU.

    Args:
        device: the device that computes the steps.
        processes: the processes that take each step together. None: a single process.
    """

    def __init__(self, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # of the warm-up and all captures
        self._steps: dict[Hashable, RecordedStep] = {}
        self._checked: set[Hashable] = set()
        self._taken = 0
        self._is_tried = False
        self.reason: str | None = None
        """Why steps are not recorded, or None."""

    def forget(self) -> None:
        """Discard the recorded steps; new ones are recorded after the first steps."""
        super().forget()
        self._steps.clear()
        self._checked.clear()
        self._taken = 0

    def _step(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        """Take a step, recorded or not."""
        form = _form_of(batch)
        may_record = (
            self._taken >= _WARM_UP_STEPS
            and self.reason is None
            and (form in self._steps or len(self._steps) < _MAX_FORMS)
        )
        self._taken += 1
        if may_record and not self._is_tried:
            self._is_tried = True
            self.reason = self._agreed(_why_not_recordable(algorithm, state, batch, self._processes))
            how = f"not captured: {self.reason}" if self.reason else f"captured ({_METHODS[self._device.type]})"
            _log.info("steps are %s", how)
        if not may_record or self.reason is not None:
            with _separate(self._stream) if self._taken <= _WARM_UP_STEPS else nullcontext():
                return self._eagerly(algorithm, state, batch)
        if form in self._checked:
            return self._steps[form].replay(batch)
        if form in self._steps:
            return self._first_replay(algorithm, state, batch, form)
        if self._device.type != "cuda":
            self._steps[form] = RecordedStep(algorithm, state, batch, Recording(), self._processes)
            return self._steps[form].first
        graphs = Graphs(self._processes.side_by_side(algorithm, state), self._stream)
        try:
            self._steps[form] = RecordedStep(algorithm, state, batch, graphs, self._processes)
            reason = None
        except RuntimeError as error:  # nothing has run yet, so the step is taken below
            reason = str(error).partition("\n")[0]
        if (reason := self._agreed(reason)) is None:
            return self._first_replay(algorithm, state, batch, form)
        self._give_up(f"the capture failed ({reason})")
        return self._eagerly(algorithm, state, batch)

    def _eagerly(self, algorithm: Inference[Any], state: Any, batch: Batch) -> StepInfo:
        return self._processes.step(algorithm, state, batch, AT_ONCE)

    def _first_replay(self, algorithm: Inference[Any], state: Any, batch: Batch, form: Hashable) -> StepInfo:
        """Replay a step and also take it on a copy of the state. If the results differ, continue from the copy."""
        try:
            before, other = cloned(state.state_dict()), _copy(algorithm, state)
            with torch.random.fork_rng(devices=_devices()):
                expected = self._eagerly(algorithm, other, copied_batch(batch))
        except RuntimeError as error:
            # Other processes have already exchanged messages in this step, and cannot take it again.
            if self._processes.ranks.count > 1 or not is_out_of_memory(error):
                raise
            before = other = None  # frees their memory
            self._give_up("there is too little memory for a captured step and an ordinary one")
            return self._eagerly(algorithm, state, batch)
        info = self._steps[form].replay(batch)
        self._checked.add(form)
        difference = self._agreed(_difference(before, state.state_dict(), other.state_dict()))
        if difference is None:
            return info
        self._give_up(f"a replay of the recorded step gave a different result ({difference})")
        state.load_state_dict(copied(other.state_dict()))
        return expected

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        _log.warning("steps are no longer captured: %s", reason)
        self._steps.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the graphs' memory

    def _agreed(self, reason: str | None) -> str | None:
        """Return, in all processes, the reason of the first process that has one not to replay steps, or None."""
        ranks = self._processes.ranks
        have = ranks.any_says(*(reason is not None and number == ranks.rank for number in range(ranks.count)))
        return ranks.told(have.index(True), reason) if any(have) else None


_METHODS = {"cuda": "a CUDA graph", "cpu": "replayed operators, which is slower on a CPU"}


def _why_not_recordable(algorithm: Inference[Any], state: Any, batch: Batch, processes: Processes) -> str | None:
    """Return why a step cannot be recorded, from a trial on a copy of the state; None if it can."""
    if (reason := why_eager(algorithm, state)) is not None:
        return reason
    try:
        trial = copy.deepcopy(state)
        for model, other in zip(_models(algorithm, state), _models(algorithm, trial), strict=True):
            check_separate(model, other)
        before = _attributes(algorithm, trial)
        with torch.random.fork_rng(devices=_devices()), ReadsNothing() as runner:
            processes.step(algorithm, trial, copied_batch(batch), runner)
    except Exception as error:  # any error of a network that cannot be copied or traced
        return f"{error or type(error).__name__}".partition("\n")[0]
    assigned = sorted({name for each in map(changed, before, _attributes(algorithm, trial)) for name in each})
    return f"the network assigns attributes that are not buffers ({', '.join(assigned)})" if assigned else None


def _models(algorithm: Inference[Any], state: Any) -> list[Model]:
    return [own.model for _, own in trainings(algorithm, state) if hasattr(own, "model")]


def _attributes(algorithm: Inference[Any], state: Any) -> list[dict[str, Any]]:
    """Return the attributes of all modules of the networks that hold values; a replay does not assign them."""
    return [
        {name: value for name, value in attributes_of(module).items() if not has_parts(value)}
        for model in _models(algorithm, state)
        for module in model.network.modules()
    ]


def _copy(algorithm: Inference[Any], state: Any) -> Any:
    """Return a copy of a state. Networks that are compiled are compiled in the copy too, to the same code."""
    other = copy.deepcopy(state)
    for (_, own), (_, new) in zip(trainings(algorithm, state), trainings(algorithm, other), strict=True):
        model = getattr(own, "model", None)
        if model is not None and model.network._compiled_call_impl is not None:
            compile_network(new.model.network)
    return other


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _difference(before: Any, found: Any, expected: Any) -> str | None:
    """Return a message if the result of a step differs from the expected one by more than rounding, otherwise None."""
    worst = 0.0
    for start, here, there in zip(*(tree_leaves(content) for content in (before, found, expected)), strict=True):
        if not isinstance(there, Tensor) or not there.is_floating_point() or not there.numel():
            continue
        moved = (there - start).abs().max() if start.shape == there.shape else there.abs().max()
        difference = (here - there).abs().max() / (moved + _ROUNDING * there.abs().max()).clamp_min(_SMALLEST)
        worst = max(worst, float(difference.nan_to_num(nan=1.0)) if not there.isnan().any() else 0.0)
    return None if worst <= _TOLERANCE else f"parameters or statistics differ by {worst:.0%} of the step"


@contextmanager
def _separate(separate: Stream | None) -> Iterator[None]:
    """Use a separate stream on a GPU, as a captured step will. None: do nothing."""
    if separate is None:
        yield
        return
    current = torch.cuda.current_stream(separate.device)
    separate.wait_stream(current)
    with torch.cuda.stream(separate):
        yield
    current.wait_stream(separate)


def _form_of(batch: Batch) -> Hashable:
    leaves = tree_leaves(tuple(batch))
    return str(tree_structure(tuple(batch))), tuple(
        (leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf for leaf in leaves
    )
