"""The contract of a source of batches."""

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
"""What becomes of a last batch of an epoch that is short: it is left out, or filled up with examples of weight 0."""


@dataclass(frozen=True)
class TargetCheck:
    """How a likelihood takes targets: it raises an InputError where one has no probability, and casts them.

    Args:
        whole: for all targets of the training.
        part: for those of a batch, which may all be left out by the likelihood.
    """

    whole: Callable[[Tensor], Tensor]
    part: Callable[[Tensor], Tensor]


@runtime_checkable
class Source(Protocol):
    """The examples of a training, in batches.

    What every kind of source keeps to:

    - The batches of an epoch depend on ``(seed, epoch)`` alone, and on no batch that was taken before. So an epoch can
      be begun anywhere, and a training that goes on gets the batches that one that was never stopped gets.
    - What is drawn for a batch, such as an augmentation, is drawn when it is taken: the loop seeds torch's generators
      by ``(seed, "step", t)`` before. A source that draws from others seeds these by the batch's place.
    - An epoch has `steps_per_epoch` batches, no more and no fewer; whoever takes them asks until there are no more.
    - Batches are on the device of the execution, of one size: a short last one is dropped, or padded with weight 0.
    - Sizes, numbers of steps and of data are those for one member, whoever the examples are for.
    - A source is not changed by `on`, `checked` and `fed`, which give another one.
    """

    @property
    def data(self) -> Any:
        """What the examples are taken from, as the user has it."""

    @property
    def num_data(self) -> int | float:
        """Training examples, or the sum of their weights, which scales priors and penalties."""

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    @property
    def goes_on_within_epochs(self) -> bool:
        """Whether an epoch can be begun at any of its batches; otherwise a training goes on at the end of an epoch."""

    @property
    def validation(self) -> "Source | None":
        """The examples to validate on that the data themselves hold, as another source."""

    def on(self, execution: Execution, dtype: torch.dtype) -> "Source":
        """The same examples for a device, and for a model of a precision."""

    def fed(self, feeding: Feeding) -> "Source":
        """The same examples, in batches for those that `feeding` says.

        Raises:
            InputError: members cannot each have an order, or weights, of their own.
        """

    def first(self, count: int) -> Batch:
        """The first examples, at most a batch, not augmented, to be looked at before the first step."""

    def checked(self, check: TargetCheck) -> "Source":
        """The same examples with targets that are checked and cast: at once, or batch by batch as they come."""

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch, from number `first` on.

        Raises:
            InputError: while they are taken: more or fewer batches than were promised, or one that is none.
        """

    def in_order(self) -> Iterable[Batch]:
        """All examples in a fixed order, not augmented, none padded or dropped, as often as it is iterated over.

        Their weights are what the log-likelihood of each is multiplied by.
        """

    def inputs(self, x: Tree) -> Tree:
        """Inputs as the user has them, as the network takes them, on the device."""

    def identity(self) -> dict[str, Any]:
        """What can be known of the examples, as plain values: differs where the training would be another one."""

    def state_dict(self) -> dict[str, Any]:
        """What `epoch` needs to go on after the batch that was taken last; for most kinds nothing."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def check_last_batch(last_batch: str) -> None:
    """Raise an InputError where this is no way to treat a short last batch."""
    if last_batch not in get_args(LastBatch):
        raise unknown("last_batch", last_batch, get_args(LastBatch))
