"""The interface of sources of batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from bayes_share.errors import unknown
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.execution import Execution
from bayes_share.tensors.trees import Tree

LastBatch = Literal["drop", "pad"]
"""Handling of a short last batch of an epoch: drop it, or pad it with examples of weight 0."""


@dataclass(frozen=True)
class TargetCheck:
    """Functions that prepare targets for a likelihood. They raise InputError if a target has no probability.

    Args:
        whole: prepares all targets of a training.
        part: prepares those of a batch, which may all be unknown.
    """

    whole: Callable[[Tensor], Tensor]
    part: Callable[[Tensor], Tensor]


@runtime_checkable
class Source(Protocol):
    """The examples of a training, in batches.

    All sources follow these rules:

    - The batches of an epoch depend only on ``(seed, epoch)``, not on earlier batches. So an epoch can start at any
      batch, and a resumed training gets the same batches as an uninterrupted one.
    - Random numbers of a batch, such as those of augmentation, are drawn when the batch is taken. Before that, the
      training loop seeds torch's generators by ``(seed, "step", t)``. Other generators are seeded by the batch's
      position.
    - An epoch has exactly `steps_per_epoch` batches. The caller iterates until there are no more.
    - Batches are on the device of the execution and have one size: a short last batch is dropped, or padded with weight
      0.
    - Batch sizes and the numbers of steps and examples are per member, for any feeding.
    - `on`, `checked` and `fed` return a new source and do not change this one.
    """

    @property
    def data(self) -> Any:
        """The data that examples are taken from, as given by the user."""

    @property
    def num_data(self) -> int | float:
        """The number of training examples, or the sum of their weights; scales priors and penalties."""

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""

    @property
    def goes_on_within_epochs(self) -> bool:
        """Whether training can resume at any batch of an epoch. Otherwise it resumes at the end of an epoch."""

    @property
    def validation(self) -> "Source | None":
        """A source of the data's own validation examples, or None."""

    def on(self, execution: Execution, dtype: torch.dtype) -> "Source":
        """Return the source for a device and a model's dtype."""

    def fed(self, feeding: Feeding) -> "Source":
        """Return the source with batches for the given feeding.

        Raises:
            InputError: if members cannot have their own orders or weights.
        """

    def first(self, count: int) -> Batch:
        """Return the first examples, at most one batch, without augmentation, for checks before the first step."""

    def checked(self, check: TargetCheck) -> "Source":
        """Return the source with prepared targets: all at once, or batch by batch."""

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from number `first` on.

        Raises:
            InputError: if there are more or fewer batches than promised, or a batch is invalid. Raised during
                iteration.
        """

    def in_order(self) -> Iterable[Batch]:
        """Return an iterable over all examples in a fixed order, without augmentation, padding or dropped examples.

        It can be iterated over repeatedly. Weights multiply the log-likelihood of each example.
        """

    def in_random_order(self, seed: int) -> Iterable[Batch]:
        """Return the same examples in a random order that depends only on the seed, the same in each iteration.

        Statistics of batches, such as those of batch norms, then do not depend on how the user sorted the data. Custom
        samplers and iterables keep their own order.
        """

    def inputs(self, x: Tree) -> Tree:
        """Convert the user's inputs to inputs of the network, on the device."""

    def identity(self) -> dict[str, Any]:
        """Return everything that is known about the examples, as plain values. It identifies the data of a training."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `epoch` needs to resume after the last taken batch; empty for most sources."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""


def check_last_batch(last_batch: str) -> None:
    """Raise InputError for an unknown handling of a short last batch."""
    if last_batch not in get_args(LastBatch):
        raise unknown("last_batch", last_batch, get_args(LastBatch))
