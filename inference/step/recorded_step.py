"""A step that is recorded once and replayed."""

from dataclasses import fields
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.inference.algorithm import Batch, Inference, StepInfo
from bayes_share.inference.step.graphs import Graphs
from bayes_share.inference.step.processes import OneProcess, Processes
from bayes_share.inference.step.recording import Recording


class RecordedStep:
    """A step that is recorded once and replayed, on batches of one form.

    Args:
        algorithm: the algorithm.
        state: the state. Replays change it, and so does the recording if the tape runs what it records.
        batch: the batch of the recorded step.
        tape: records the step: its operators, which also run (`Recording`), or CUDA graphs, which do not (`Graphs`).
        processes: the processes that take each step together. None: a single process.
    """

    def __init__(
        self,
        algorithm: Inference[Any],
        state: Any,
        batch: Batch,
        tape: Recording | Graphs,
        processes: Processes | None = None,
    ) -> None:
        self._batch, self._tape = copied_batch(batch), tape
        with tape:
            self.first = (processes or OneProcess()).step(algorithm, state, self._batch, tape)
        """The diagnostics of the recorded step."""

    def replay(self, batch: Batch) -> StepInfo:
        """Take a step on another batch of the same form."""
        for place, leaf in zip(tree_leaves(tuple(self._batch)), tree_leaves(tuple(batch)), strict=True):
            if isinstance(place, Tensor):
                place.copy_(leaf)
        present = self._tape.replay()
        return StepInfo(**{field.name: present(getattr(self.first, field.name)) for field in fields(StepInfo)})


def copied_batch(batch: Batch) -> Batch:
    """Return a copy of a batch."""
    return Batch(*tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tuple(batch)))
