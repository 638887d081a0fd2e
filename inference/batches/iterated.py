"""Iterables of batches that restart in every epoch."""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from bayes_share.errors import InputError
from bayes_share.inference.batches.pairs import as_batch
from bayes_share.inference.batches.samplers import Samplers
from bayes_share.tensors.seeding import seeded_everywhere


class Iterated:
    """Batches of an iterable that restarts when it is iterated over. A `Reader` that resumes at the end of an epoch.

    While a batch is read, `Stream` seeds the global generators of torch, numpy and Python by the seed, the epoch and
    the position of the batch. So iterables that draw from them in this process give the same batches in the same epoch.

    Args:
        given: the iterable.
        num_data: number of training examples. None: that of a loader, or else counted in one pass.
        num_batches: number of batches in an epoch. None: its ``len()``.

    Raises:
        InputError: if a number is missing or wrong, or there is no batch.
    """

    goes_on_within_epochs = False

    def __init__(self, given: Iterable[Any], num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = given
        self.num_batches = _num_batches(given, num_data, num_batches)
        if num_data is None and isinstance(given, DataLoader):
            num_data = _num_data(given, num_batches)
        with seeded_everywhere("first batch"):
            few = islice(iter(given), 1 if num_data is not None else self.num_batches + 1)
            first, *others = self._sizes(few)
        self.batch_size: int | None = first
        if num_data is None:
            self._check_counted(1 + len(others))
            self.num_data, self.is_last_short = first + sum(others), [first, *others][-1] < first
        else:
            self.num_data, self.is_last_short = num_data, 0 < first * self.num_batches - num_data < first

    def fed(self, members: int) -> "Iterated":
        """Reject separate orders for members: an iterable has one order.

        Raises:
            InputError: always.
        """
        raise InputError(
            f'a {type(self.given).__name__} has one order, not one for each of {members} members: feed="own" requires '
            f"a DataLoader over a map-style dataset, or examples in memory"
        )

    def first(self) -> Any:
        """Return the first batch, which was read when this reader was created."""
        return self._first

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """Yield the batches of a new iteration, the first of which counts as batch number `first`."""
        with seeded_everywhere(seed, "epoch", epoch):  # seeds the workers of a loader
            batches = iter(self.given)
        number = first
        for batch in islice(batches, self.num_batches + 1 - first):
            if number < stop:
                yield batch
            elif number < self.num_batches and len(as_batch(batch, "the last batch").targets) == self.batch_size:
                raise InputError(f"the last batch is full, but num_data {self.num_data} implies a short one")
            number += 1
        if number != self.num_batches:
            if number > self.num_batches:
                raise InputError(f"this {self._name} gave more than {self.num_batches} batches in epoch {epoch}")
            raise InputError(f"this {self._name} gave {number} batches in epoch {epoch} instead of {self.num_batches}")

    def in_order(self) -> Iterator[Any]:
        """Yield the batches of a pass from the beginning."""
        with seeded_everywhere("in order"):
            batches = iter(self.given)
        yield from islice(batches, self.num_batches)

    def in_random_order(self, seed: int) -> Iterator[Any]:
        """Yield the batches of `in_order`: an iterable has one order."""
        return self.in_order()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict: every epoch starts from the beginning."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    @property
    def _name(self) -> str:
        return type(self.given).__name__

    def _sizes(self, batches: Iterator[Any]) -> list[int]:
        """Return the number of examples in each batch, and store the first batch."""
        sizes = []
        for number, batch in enumerate(batches):
            sizes.append(len(as_batch(batch, "the first batch" if number == 0 else f"batch {number}").targets))
            if number == 0:
                self._first = batch
        if not sizes:
            raise InputError(f"this {self._name} has no batches")
        return sizes

    def _check_counted(self, count: int) -> None:
        if count != self.num_batches:
            found = f"more than {self.num_batches}" if count > self.num_batches else count
            raise InputError(f"this {self._name} gives {found} batches, but its len() is {self.num_batches}")


def _num_data(loader: DataLoader, num_batches: int | None) -> int | None:
    """Return the number of training examples of a loader with its own iteration or an iterable-style dataset."""
    if not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None:
        return Samplers(loader, num_batches).num_data()
    return len(loader.dataset) if isinstance(loader.dataset, Sized) else None


def _num_batches(given: Iterable[Any], num_data: int | None, num_batches: int | None) -> int:
    """Return the number of batches in an epoch from the iterable and the user."""
    name = type(given).__name__
    try:
        found: int | None = len(given)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        found = None
    if found is None and None in (num_data, num_batches):
        missing = [
            what for what, number in (("num_data", num_data), ("steps_per_epoch", num_batches)) if number is None
        ]
        raise InputError(f"this {name} has no len(): give {' and '.join(missing)}")
    if None not in (found, num_batches) and found != num_batches:
        raise InputError(f"this {name} has {found} batches in an epoch, but steps_per_epoch is {num_batches}")
    promised = num_batches if found is None else found
    assert promised is not None
    return promised
