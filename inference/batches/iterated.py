"""Iterables of batches, which are gone through from the beginning in every epoch."""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from bayes_share.errors import InputError
from bayes_share.inference.batches.pairs import as_batch
from bayes_share.tensors.seeding import seeded_everywhere


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
            few = islice(iter(given), 1 if num_data is not None else self.num_batches + 1)
            first, *others = self._sizes(few)
        self.batch_size: int | None = first
        if num_data is None:
            self._check_counted(1 + len(others))
            self.num_data, self.is_last_short = first + sum(others), [first, *others][-1] < first
        else:
            self.num_data, self.is_last_short = num_data, 0 < first * self.num_batches - num_data < first

    def fed(self, members: int) -> "Iterated":
        """There is one order.

        Raises:
            InputError: always.
        """
        raise InputError(
            f'a {type(self.given).__name__} has one order, and not one for each of {members} members: for feed="own" '
            f"hand in a DataLoader over a dataset by index, or examples in memory"
        )

    def first(self) -> Any:
        """The first batch of a pass that was not gone on with."""
        return self._first

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """What the iterable gives when it begins, which is to be batch number `first`."""
        with seeded_everywhere(seed, "epoch", epoch):  # where a loader's workers get their seeds
            batches = iter(self.given)
        number = first
        for batch in islice(batches, self.num_batches + 1 - first):
            if number < stop:
                yield batch
            elif number < self.num_batches and len(as_batch(batch, "the last batch").targets) == self.batch_size:
                raise InputError(f"the last batch is as large as the first, and short by num_data {self.num_data}")
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

    def _sizes(self, batches: Iterator[Any]) -> list[int]:
        """The examples of each batch, of which the first is kept."""
        sizes = []
        for number, batch in enumerate(batches):
            sizes.append(len(as_batch(batch, "the first batch" if number == 0 else f"batch {number}").targets))
            if number == 0:
                self._first = batch
        if not sizes:
            raise InputError(f"this {self._name} gives no batch")
        return sizes

    def _check_counted(self, count: int) -> None:
        if count != self.num_batches:
            found = "more" if count > self.num_batches else count
            raise InputError(f"this {self._name} gives {found} batches, and its len() is {self.num_batches}")


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
