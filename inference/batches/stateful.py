"""Iterables of batches that know where they are, as stateful loaders do."""

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
    """An iterable of batches whose state says which batch is next.

    ``state_dict()`` is asked for between two batches, and at the end of an epoch, after the iterable has said that it
    is over. After ``load_state_dict(state)``, ``iter()`` goes on with the batch that was next; after that of the end of
    an epoch, with the next epoch.
    """

    def __iter__(self) -> Iterator[Any]:
        """The batches from the present state on, to the end of the epoch."""

    def state_dict(self) -> Any:
        """The state, of tensors, numbers, texts, lists and dicts."""

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over a state."""


class Stateful:
    """Batches of an iterable that has a state. A `Reader`, which goes on exactly where the iterable does.

    Args:
        given: the iterable; its state is that after the batches that were taken for training.
        num_data: as of `Iterated`.
        num_batches: as of `Iterated`, of a whole epoch.

    Raises:
        InputError: a state that cannot lie in a checkpoint, or what `Iterated` refuses.
    """

    goes_on_within_epochs = True

    def __init__(self, given: HasState, num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = given
        self._beginning = _plain_state(given)
        with _left_as_it_is(given):
            self._batches = Iterated(given, num_data, num_batches)
        self.num_data, self.num_batches = self._batches.num_data, self._batches.num_batches
        self.batch_size, self.is_last_short = self._batches.batch_size, self._batches.is_last_short

    def fed(self, members: int) -> "Stateful":
        """There is one order.

        Raises:
            InputError: always.
        """
        raise InputError(
            f'a {type(self.given).__name__} has one order, and not one for each of {members} members: for feed="own" '
            f"hand in a DataLoader over a dataset by index, or examples in memory"
        )

    def first(self) -> Any:
        """The first batch from the state that the iterable was handed in with."""
        return self._batches.first()

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """What the iterable gives from its state on."""
        return self._batches.epoch(seed, epoch, first, stop)

    def in_order(self) -> Iterator[Any]:
        """A pass from the state that the iterable was handed in with, to which it does not go back."""
        with _left_as_it_is(self.given):
            self.given.load_state_dict(deepcopy(self._beginning))
            yield from self._batches.in_order()

    def state_dict(self) -> dict[str, Any]:
        """The iterable's own state."""
        return {"loader": deepcopy(self.given.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The iterable takes its state over."""
        self.given.load_state_dict(state_dict["loader"])


@contextmanager
def _left_as_it_is(given: HasState) -> Iterator[None]:
    """Put an iterable back into the state that it is in."""
    state = deepcopy(given.state_dict())
    try:
        yield
    finally:
        given.load_state_dict(state)


def _plain_state(given: HasState) -> Any:
    """The state of an iterable, if it can lie in a checkpoint."""
    state = deepcopy(given.state_dict())
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception as error:  # whatever pickle meets
        raise InputError(
            f"the state of this {type(given).__name__} must be of tensors, numbers, texts, lists and dicts, which a "
            f"checkpoint can hold"
        ) from error
    return state
