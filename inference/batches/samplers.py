"""The samplers of a `torch.utils.data.DataLoader`: the order of an epoch, and the number of training examples."""

import logging
from collections.abc import Hashable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, SubsetRandomSampler

from bayes_share.errors import InputError
from bayes_share.tensors.seeding import seeded_everywhere

_log = logging.getLogger(__name__)


class Samplers:
    """The sampler of a loader's batches (or of indices, if the dataset returns batches) and the samplers it wraps.

    Args:
        loader: a loader over a map-style dataset. It is not changed, but ``set_epoch`` of its samplers is called.
        num_batches: number of batches in an epoch, for a sampler without ``len()``.

    Raises:
        InputError: if the number of batches is missing or wrong.
    """

    def __init__(self, loader: DataLoader, num_batches: int | None = None) -> None:
        self._loader = loader
        self._each = list(_samplers(loader))
        self.num_batches = _num_batches(self._each[0], num_batches)

    @property
    def are_from_torch(self) -> bool:
        """Whether all samplers are torch's."""
        return all(type(sampler).__module__.startswith("torch.utils.data") for sampler in self._each)

    @property
    def all_in_batches_of(self) -> int | None:
        """The batch size if every example of the dataset is visited once per epoch; otherwise None."""
        is_plain = type(self._loader.batch_sampler) is BatchSampler and _visits_all(self._each[-1])
        return self._loader.batch_sampler.batch_size if is_plain else None  # type: ignore[union-attr]

    def order(self, seed: int, epoch: int, member: int = 0) -> list[Any]:
        """Return the indices of each batch of an epoch, for all members or for one; one more if there are too many."""
        key = (seed, "epoch", epoch, member) if member else (seed, "epoch", epoch)
        with self._seeded(epoch, *key):
            order = list(islice(self._each[0], self.num_batches + 1))
        return order if self._loader.batch_sampler is None else [list(which) for which in order]

    def num_data(self) -> int:
        """Return the number of training examples.

        For torch's samplers, this is the number of examples that they choose from. A custom sampler that visits the
        same examples in epochs 0 and 1 has this many. Otherwise each epoch is a sample of the dataset.

        Raises:
            InputError: if the number cannot be determined.
        """
        if self._loader.batch_sampler is None:
            raise InputError("the dataset returns batches, whose examples are not counted: give num_data")
        if type(self._each[-1]) is SubsetRandomSampler:
            return len(self._each[-1])
        visited = [] if self.are_from_torch else [self._visited(epoch) for epoch in (0, 1)]
        if visited and None not in visited and visited[0] == visited[1]:
            return len(visited[0])  # type: ignore[arg-type]
        dataset = self._loader.dataset
        if not isinstance(dataset, Sized):
            raise InputError(f"{type(dataset).__name__} has no len(): give num_data")
        if visited and visited[0] != visited[1]:
            _log.warning(
                "the sampler visits different examples in each epoch, so num_data is %d, the size of the dataset: "
                "give num_data if it chooses from fewer",
                len(dataset),
            )
        return len(dataset)

    def _visited(self, epoch: int) -> set[Hashable] | None:
        """Return the indices that an epoch visits, with those of a dropped last batch; None if they have no hashes."""
        if type(self._each[0]) is BatchSampler:
            with self._seeded(epoch, 0, "epoch", epoch):
                indices = list(islice(self._each[1], (self.num_batches + 1) * self._each[0].batch_size))
        else:
            indices = [index for which in self.order(0, epoch) for index in which]
        return set(indices) if all(isinstance(index, Hashable) for index in indices) else None

    @contextmanager
    def _seeded(self, epoch: int, *key: int | str) -> Iterator[None]:
        """Seed everything that the order of an epoch may depend on."""
        for sampler in self._each:
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        with seeded_everywhere(*key), _seeded_generators(self._loader, *self._each):
            yield


def _samplers(loader: DataLoader) -> Iterator[Any]:
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "sampler", None)


def _visits_all(sampler: Any) -> bool:
    """Return whether a sampler visits every example of its dataset once per epoch."""
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _num_batches(sampler: Any, given: int | None) -> int:
    """Return the number of batches in an epoch from the sampler and the user."""
    try:
        found = len(sampler)
    except (TypeError, NotImplementedError):
        if given is None:
            raise InputError("the sampler has no len(): give steps_per_epoch") from None
        return given
    if given not in (None, found):
        raise InputError(f"the loader has {found} batches in an epoch, but steps_per_epoch is {given}")
    return found


@contextmanager
def _seeded_generators(*owners: Any) -> Iterator[None]:
    """Seed the generators of samplers or a loader from torch's global one, and restore them afterwards."""
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = {id(each): each for each in found if isinstance(each, torch.Generator)}.values()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    with ExitStack() as stack:
        for generator in generators:
            stack.callback(generator.set_state, generator.get_state())
            generator.manual_seed(seed)
        yield
