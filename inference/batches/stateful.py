"""Iterables of batches with a state, such as stateful loaders."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import torch

from bayes_share.errors import InputError
from bayes_share.inference.batches.iterated import Iterated


@runtime_checkable
class HasState(Protocol):
    """An iterable of batches whose state determines the next batch.

    ``state_dict()`` is called between two batches, and at the end of an epoch after the iterator has stopped. After
    ``load_state_dict(state)``, ``iter()`` continues with the next batch, or with the next epoch if the state is from
    the end of an epoch.
    """

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the batches from the current state to the end of the epoch."""

    def state_dict(self) -> Any:
        """Return the state as tensors, numbers, strings, lists and dicts."""

    def load_state_dict(self, state_dict: Any) -> None:
        """Load a state."""


class Stateful:
    """Batches of an iterable with a state. A `Reader` that resumes exactly where the iterable does.

    Args:
        given: the iterable. Its state is that after the batches taken for training.
        num_data: as in `Iterated`.
        num_batches: as in `Iterated`, for a whole epoch.

    Raises:
        InputError: if the state cannot be stored in a checkpoint, or `Iterated` rejects the iterable.
    """

    goes_on_within_epochs = True

    def __init__(self, given: HasState, num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = given
        self._beginning = _plain_state(given)
        with _restoring_state(given):
            self._batches = Iterated(given, num_data, num_batches)
        self.num_data, self.num_batches = self._batches.num_data, self._batches.num_batches
        self.batch_size, self.is_last_short = self._batches.batch_size, self._batches.is_last_short

    def fed(self, members: int) -> "Stateful":
        """Reject separate orders for members: an iterable has one order.

        Raises:
            InputError: always.
        """
        raise InputError(
            f'a {type(self.given).__name__} has one order, not one for each of {members} members: feed="own" requires '
            f"a DataLoader over a map-style dataset, or examples in memory"
        )

    def first(self) -> Any:
        """Return the first batch from the iterable's initial state."""
        return self._batches.first()

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """Yield the batches from the iterable's current state on."""
        return self._batches.epoch(seed, epoch, first, stop)

    def in_order(self) -> Iterator[Any]:
        """Yield the batches of a pass from the iterable's initial state, then restore its current state."""
        with _restoring_state(self.given):
            self.given.load_state_dict(deepcopy(self._beginning))
            yield from self._batches.in_order()

    def in_random_order(self, seed: int) -> Iterator[Any]:
        """Yield the batches of `in_order`: an iterable has one order."""
        return self.in_order()

    def state_dict(self) -> dict[str, Any]:
        """Return the iterable's state."""
        return {"loader": deepcopy(self.given.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the iterable's state."""
        self.given.load_state_dict(state_dict["loader"])


@contextmanager
def _restoring_state(given: HasState) -> Iterator[None]:
    """Restore the current state of an iterable afterwards."""
    state = deepcopy(given.state_dict())
    try:
        yield
    finally:
        given.load_state_dict(state)


def _plain_state(given: HasState) -> Any:
    """Return the state of an iterable after checking that a checkpoint can store it."""
    state = deepcopy(given.state_dict())
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception as error:  # pickle raises errors of any type
        raise InputError(
            f"the state of this {type(given).__name__} must consist of tensors, numbers, strings, lists and dicts to "
            f"be stored in a checkpoint"
        ) from error
    return state
