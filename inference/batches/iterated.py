"""Iterables of batches, which are gone through from the beginning in every epoch."""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from bayes_share.errors import InputError
from bayes_share.inference.batches.pairs import as_batch
from bayes_share.seeding import seeded_everywhere


class Iterated:
    """Batches of any iterable that begins anew when it is asked to. A `Reader`, which goes on at the end of an epoch.

    While a batch is read, the global generators of torch, numpy and Python are set by the seed, the epoch and the
    batch's place (`Stream`), so that what draws from them in this process gives the same batches in the same epoch.

    Args:
        given: the iterable.
        num_data: training examples; None: counted, in one pass, where the iterable is no loader of a dataset that has a
            ``len()``.
        num_batches: in an epoch; None: its ``len()``.

    Raises:
        InputError: an iterator, which begins only once; numbers that are not known; no batch.
    """

    goes_on_within_epochs = False

    def __init__(self, given: Iterable[Any], num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = given
        self.num_batches = _promised(given, num_data, num_batches)
        if num_data is None and isinstance(given, DataLoader) and isinstance(given.dataset, Sized):
            num_data = len(given.dataset)
        with seeded_everywhere("first batch"):
            if num_data is None:
                sizes = self._sizes()
                num_data, self.is_last_short = sum(sizes), sizes[-1] < sizes[0]
                self.batch_size: int | None = sizes[0]
            else:
                self.batch_size = len(as_batch(self.first(), "the first batch").targets)
                room = self.batch_size * self.num_batches - num_data
                self.is_last_short = 0 < room < self.batch_size
        self.num_data = num_data

    def first(self) -> Any:
        """The first batch of a pass that is not gone on with."""
        with seeded_everywhere("first batch"):
            found = next(iter(self.given), None)
        if found is None:
            raise InputError(f"this {self._name} gives no batch")
        return found

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """What the iterable gives when it begins, which is to be batch number `first`."""
        with seeded_everywhere(seed, "epoch", epoch):  # where a loader's workers get their seeds
            batches = iter(self.given)
        number = first
        for batch in islice(batches, self.num_batches + 1 - first):
            if number < stop:
                yield batch
            number += 1
        if number != self.num_batches:
            found = "more batches" if number > self.num_batches else f"{number} batches"
            raise InputError(f"this {self._name} gave {found} in epoch {epoch}, and not {self.num_batches}, as it said")

    def in_order(self) -> Iterator[Any]:
        """A pass from the beginning."""
        with seeded_everywhere("in order"):
            batches = iter(self.given)
        yield from islice(batches, self.num_batches)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: an epoch is gone through from its beginning."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over."""

    @property
    def _name(self) -> str:
        return type(self.given).__name__

    def _sizes(self) -> list[int]:
        """The examples of each batch."""
        found = islice(iter(self.given), self.num_batches + 1)
        sizes = [len(as_batch(batch, f"batch {number}").targets) for number, batch in enumerate(found)]
        if not sizes or len(sizes) != self.num_batches:
            more = "more" if len(sizes) > self.num_batches else len(sizes) or "no"
            raise InputError(f"this {self._name} gives {more} batches, and its len() is {self.num_batches}")
        return sizes


def _promised(given: Iterable[Any], num_data: int | None, num_batches: int | None) -> int:
    """How many batches an epoch has, as the iterable and the user say."""
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
        raise InputError(f"this {name} has {found} batches in an epoch, and steps_per_epoch is {num_batches}")
    promised = num_batches if found is None else found
    assert promised is not None
    return promised
