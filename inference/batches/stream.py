"""Batches that are read one after another on the host, for example from a loader."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
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
    """Reads pairs of inputs and targets on the host. Each kind of reader has its own file."""

    @property
    def given(self) -> Any:
        """The user's loader. It is not changed."""

    @property
    def num_data(self) -> int:
        """The number of training examples."""

    @property
    def batch_size(self) -> int | None:
        """The number of examples in a full batch; None if batch sizes vary by design."""

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch, including a short last one."""

    @property
    def is_last_short(self) -> bool:
        """Whether the last batch of an epoch is known to be short."""

    @property
    def goes_on_within_epochs(self) -> bool:
        """As in `Source`."""

    def fed(self, members: int) -> "Reader":
        """Return a reader with a separate order for each member.

        Its epochs have one batch per member for each step, one member after another.

        Raises:
            InputError: if there is only one order.
        """

    def first(self) -> Any:
        """Return the first batch. It is not skipped in the first epoch."""

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number `first` on, excluding number `stop`.

        Raises:
            InputError: if the epoch has more or fewer batches than `num_batches`; may be raised only at its end.
        """

    def in_order(self) -> Iterator[Any]:
        """Yield all batches of one pass, in the same order each time if possible."""

    def in_random_order(self, seed: int) -> Iterator[Any]:
        """Yield all batches of one pass in a random order of the examples, or in the reader's only order."""

    def state_dict(self) -> dict[str, Any]:
        """As in `Source`."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in `Source`."""


class Stream:
    """The batches of a reader, checked on the host and moved to the device. A short last one is dropped or padded.

    A `Source`. While a batch is read, the global generators of torch, numpy and Python are seeded by its position,
    ``(seed, "batch", epoch, number)``; afterwards those of the step are restored. So a step draws the same random
    numbers whether its batch was made in this process or in a worker.

    Args:
        reader: the reader of the batches.
        last_batch: handling of a short last batch of an epoch.

    Raises:
        InputError: if the first batch is invalid, no batch is left, or batches of varying sizes should be padded.
    """

    validation = None

    def __init__(self, reader: Reader, last_batch: LastBatch = "drop") -> None:
        check_last_batch(last_batch)
        self._reader, self._last_batch = reader, last_batch
        self._first = as_batch(reader.first(), "the first batch")
        self._execution = Execution()
        self._check: TargetCheck | None = None
        self._members = 1  # with their own batches
        if last_batch == "pad" and reader.batch_size is None:
            raise InputError("batches of varying sizes are not padded: omit last_batch='pad'")
        if not self.steps_per_epoch:
            raise InputError(
                f"the only batch of an epoch has fewer than {reader.batch_size} examples and is dropped: use smaller "
                f"batches, or last_batch='pad'"
            )

    @property
    def data(self) -> Any:
        """The user's loader."""
        return self._reader.given

    @property
    def num_data(self) -> int:
        """The number of training examples."""
        return self._reader.num_data

    @property
    def batch_size(self) -> int:
        """The number of examples in a full batch, or in the first one if sizes vary."""
        return self._reader.batch_size or len(self._first.targets)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch, excluding a short one that is dropped."""
        return self._reader.num_batches - (self._last_batch == "drop" and self._reader.is_last_short)

    @property
    def goes_on_within_epochs(self) -> bool:
        """Whether the reader can resume at any batch of an epoch."""
        return self._reader.goes_on_within_epochs

    def on(self, execution: Execution, dtype: torch.dtype) -> "Stream":
        """Return the source with batches moved to the device. Their dtype does not change."""
        other = copy(self)
        other._execution = execution
        return other

    def fed(self, feeding: Feeding) -> "Stream":
        """Return the source with a separate order for each member, if the reader supports it.

        Raises:
            InputError: if members should have their own weights, or their own orders and there is only one.
        """
        if feeding.is_bootstrap:
            raise InputError(
                f"a {type(self.data).__name__} does not identify the examples in a batch, as a bootstrap needs: "
                f'feed="bootstrap" requires examples in memory, from load_data(...) or as a pair (x, y)'
            )
        if feeding.members == 1:
            return self
        other = copy(self)
        other._reader, other._members = self._reader.fed(feeding.members), feeding.members
        return other

    def first(self, count: int) -> Batch:
        """Return the first examples of the first batch."""
        few = slice(count)
        return self._moved("the first batch", Batch(rows(self._first.inputs, few), self._first.targets[few]))

    def checked(self, check: TargetCheck) -> "Stream":
        """Return the source with targets prepared for the likelihood, batch by batch."""
        other = copy(self)
        other._check = check
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, with weights if short batches are padded."""
        finite_inputs = FiniteInputs(self._execution.torch_device)
        pairs = self._reader.epoch(seed, epoch, first, self.steps_per_epoch)
        for number in itertools.count(first):
            with seeded_everywhere(seed, "batch", epoch, number):
                of_members = list(itertools.islice(pairs, self._members))
            if not of_members:
                break
            name = f"batch {number} of epoch {epoch}"
            parts = [self._ready(name, as_batch(pair, name)) for pair in of_members]
            batch = parts[0] if len(parts) == 1 else _side_by_side(name, parts)
            finite_inputs.add(name, batch.inputs)
            yield batch
        finite_inputs.check()

    def in_order(self) -> Iterable[Batch]:
        """Return a pass over all batches."""
        return _Whole(self, self._reader.in_order)

    def in_random_order(self, seed: int) -> Iterable[Batch]:
        """Return a pass over all batches, in random order if the reader supports it."""
        return _Whole(self, partial(self._reader.in_random_order, seed))

    def inputs(self, x: Tree) -> Tree:
        """Move inputs to the device."""
        return self._execution.place_inputs(x)

    def identity(self) -> dict[str, Any]:
        """Return the numbers of examples and batches; their content is not known."""
        return {
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "last_batch": self._last_batch,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the reader's state."""
        return self._reader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the reader's state."""
        self._reader.load_state_dict(state_dict)

    def _ready(self, name: str, batch: Batch) -> Batch:
        """Return a batch of a step on the device, padded and with weights if short batches are padded."""
        size = self._reader.batch_size
        if self._last_batch == "drop" or size is None:
            return self._moved(name, batch)
        which, weights = padded(torch.arange(len(batch.targets)), max(size, len(batch.targets)))
        if len(which) > len(batch.targets):
            batch = Batch(rows(batch.inputs, which), batch.targets[which])
        return self._moved(name, batch._replace(weights=weights))

    def _moved(self, name: str, batch: Batch) -> Batch:
        """Return a batch with prepared targets on the device."""
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
    """Concatenate the batches of all members."""
    sizes = {len(batch.targets) for batch in batches}
    if len(sizes) > 1:
        raise InputError(
            f"the members' batches must have equal sizes, but those of {name} have {sorted(sizes)} examples"
        )
    joined: Batch = each_tensor(lambda *parts: torch.cat(parts), *batches)
    return joined


@dataclass(frozen=True)
class _Whole:
    """A pass over all batches, each read on demand.

    Args:
        source: the source.
        read: starts the pass in the source's reader.
    """

    source: Stream
    read: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Batch]:
        source, pairs = self.source, self.read()
        finite_inputs = FiniteInputs(source._execution.torch_device)
        for number in itertools.count():
            with seeded_everywhere("in order", number):
                pair = next(pairs, None)
            if pair is None:
                break
            name = f"batch {number}"
            batch = source._moved(name, as_batch(pair, name))
            finite_inputs.add(name, batch.inputs)
            yield batch
        finite_inputs.check()
