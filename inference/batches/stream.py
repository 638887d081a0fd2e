"""Batches that come one by one from the host, such as a loader's."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from bayes_share.errors import InputError, named
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.finite import FiniteInputs
from bayes_share.inference.batches.pairs import as_batch
from bayes_share.inference.batches.rows import padded
from bayes_share.inference.batches.source import LastBatch, TargetCheck, check_last_batch
from bayes_share.inference.execution import Execution
from bayes_share.tensors.seeding import seeded_everywhere
from bayes_share.tensors.trees import Tree, each_tensor, rows, to_device


@runtime_checkable
class Reader(Protocol):
    """What gives pairs of inputs and targets, on the host; each kind in a file of its own."""

    @property
    def given(self) -> Any:
        """The user's own loader, which stays as it is."""

    @property
    def num_data(self) -> int:
        """Training examples."""

    @property
    def batch_size(self) -> int | None:
        """Examples in a full batch; None where batches differ by intent, and are taken as they are."""

    @property
    def num_batches(self) -> int:
        """What an epoch gives, a short last batch included."""

    @property
    def is_last_short(self) -> bool:
        """Whether the last batch of an epoch is known to be short."""

    @property
    def goes_on_within_epochs(self) -> bool:
        """As of `Source`."""

    def fed(self, members: int) -> "Reader":
        """The same examples, from an order for each of so many members: an epoch has their batches one after the other.

        Raises:
            InputError: there is one order.
        """

    def first(self) -> Any:
        """The first batch, which is still to come afterwards."""

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """The batches of an epoch, from number `first` on and without number `stop`.

        Raises:
            InputError: the epoch has more or fewer batches than `num_batches`; at its end, for only then it is known.
        """

    def in_order(self) -> Iterator[Any]:
        """All batches of one pass, in an order that is the same each time where that can be."""

    def state_dict(self) -> dict[str, Any]:
        """As of `Source`."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of `Source`."""


class Stream:
    """A reader's batches, each checked on the host, padded or dropped where it is the last and short, and moved.

    A `Source`. While a batch is read, the global generators of torch, numpy and Python are those of its place, ``(seed,
    "batch", epoch, number)``, and the step's are left alone. So a step draws the same numbers wherever its batch was
    made, in this process or in a worker.

    Args:
        reader: of the batches.
        last_batch: what becomes of a short last batch.

    Raises:
        InputError: a first batch that is none, or padding where batches differ in size.
    """

    validation = None

    def __init__(self, reader: Reader, last_batch: LastBatch = "drop") -> None:
        check_last_batch(last_batch)
        self._reader, self._last_batch = reader, last_batch
        self._first = as_batch(reader.first(), "the first batch")
        self._execution = Execution()
        self._check: TargetCheck | None = None
        self._members = 1  # that have batches of their own
        if last_batch == "pad" and reader.batch_size is None:
            raise InputError("batches of various sizes are taken as they are: leave last_batch='pad' out")
        if not self.steps_per_epoch:
            raise InputError(
                f"the only batch of an epoch has fewer than {reader.batch_size} examples, and is dropped: give smaller "
                f"batches, or last_batch='pad'"
            )

    @property
    def data(self) -> Any:
        """The user's loader."""
        return self._reader.given

    @property
    def num_data(self) -> int:
        """Training examples."""
        return self._reader.num_data

    @property
    def batch_size(self) -> int:
        """Examples in a full batch, or in the first."""
        return self._reader.batch_size or len(self._first.targets)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, without a short one that is dropped."""
        return self._reader.num_batches - (self._last_batch == "drop" and self._reader.is_last_short)

    @property
    def goes_on_within_epochs(self) -> bool:
        """As the reader says."""
        return self._reader.goes_on_within_epochs

    def on(self, execution: Execution, dtype: torch.dtype) -> "Stream":
        """Batches that are moved to the device as they come; their precision stays what it is."""
        other = copy(self)
        other._execution = execution
        return other

    def fed(self, feeding: Feeding) -> "Stream":
        """The same examples, from an order for each member where the reader has such.

        Raises:
            InputError: members are to have weights of their own, or orders where there is one.
        """
        if feeding.is_bootstrap:
            raise InputError(
                f"a {type(self.data).__name__} does not say which examples a batch has, and a bootstrap counts each: "
                f'feed="bootstrap" takes examples in memory, load_data(...) or a pair (x, y)'
            )
        if feeding.members == 1:
            return self
        other = copy(self)
        other._reader, other._members = self._reader.fed(feeding.members), feeding.members
        return other

    def first(self, count: int) -> Batch:
        """The first examples of the first batch."""
        few = slice(count)
        return self._moved("the first batch", Batch(rows(self._first.inputs, few), self._first.targets[few]))

    def checked(self, check: TargetCheck) -> "Stream":
        """The same batches, with targets as the likelihood takes them."""
        other = copy(self)
        other._check = check
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch, with weights where a short one is padded."""
        looks = FiniteInputs(self._execution.torch_device)
        pairs = self._reader.epoch(seed, epoch, first, self.steps_per_epoch)
        for number in itertools.count(first):
            with seeded_everywhere(seed, "batch", epoch, number):
                of_members = list(itertools.islice(pairs, self._members))
            if not of_members:
                break
            name = f"batch {number} of epoch {epoch}"
            parts = [self._ready(name, as_batch(pair, name)) for pair in of_members]
            batch = parts[0] if len(parts) == 1 else _side_by_side(name, parts)
            looks.add(name, batch.inputs)
            yield batch
        looks.check()

    def in_order(self) -> Iterable[Batch]:
        """A pass over all batches."""
        return _InOrder(self)

    def inputs(self, x: Tree) -> Tree:
        """The same inputs, on the device."""
        return self._execution.place_inputs(x)

    def identity(self) -> dict[str, Any]:
        """How many examples and batches there are: what is in them is not known."""
        return {
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "last_batch": self._last_batch,
        }

    def state_dict(self) -> dict[str, Any]:
        """The reader's."""
        return self._reader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The reader takes it over."""
        self._reader.load_state_dict(state_dict)

    def _ready(self, name: str, batch: Batch) -> Batch:
        """A batch of a step: all of one size, and with weights, where short ones are padded."""
        size = self._reader.batch_size
        if self._last_batch == "drop" or size is None:
            return self._moved(name, batch)
        which, weights = padded(torch.arange(len(batch.targets)), max(size, len(batch.targets)))
        if len(which) > len(batch.targets):
            batch = Batch(rows(batch.inputs, which), batch.targets[which])
        return self._moved(name, batch._replace(weights=weights))

    def _moved(self, name: str, batch: Batch) -> Batch:
        """A batch with targets that are checked, on the device."""
        inputs, targets, weights, _ = batch
        if self._check is not None:
            with named(name):
                targets = self._check.part(targets)
        device = self._execution.torch_device
        return Batch(
            self._execution.place_inputs(inputs),
            to_device(targets, device),
            None if weights is None else to_device(weights, device),
        )


def _side_by_side(name: str, batches: Sequence[Batch]) -> Batch:
    """One batch of those of all members, one after the other."""
    sizes = {len(batch.targets) for batch in batches}
    if len(sizes) > 1:
        raise InputError(f"the members' batches must be of one size, and those of {name} have {sorted(sizes)} examples")
    joined: Batch = each_tensor(lambda *parts: torch.cat(parts), *batches)
    return joined


@dataclass(frozen=True)
class _InOrder:
    """The batches of `Stream.in_order`, each read when it is asked for."""

    source: Stream

    def __iter__(self) -> Iterator[Batch]:
        source, pairs = self.source, self.source._reader.in_order()
        looks = FiniteInputs(source._execution.torch_device)
        for number in itertools.count():
            with seeded_everywhere("in order", number):
                pair = next(pairs, None)
            if pair is None:
                break
            name = f"batch {number}"
            batch = source._moved(name, as_batch(pair, name))
            looks.add(name, batch.inputs)
            yield batch
        looks.check()
