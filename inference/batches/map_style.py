"""A `torch.utils.data.DataLoader` over a map-style dataset, whose sampler the training drives."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    get_worker_info,
)

from bayes_share.errors import InputError
from bayes_share.tensors.seeding import seed_globals, seeded_everywhere

Request = tuple[tuple[int | str, ...], Any]
"""The key of a batch's randomness, and the indices of its examples."""


class MapStyle:
    """Batches of a loader over a dataset of examples by index. A `Reader`, which goes on exactly at any batch.

    The order of an epoch is the sampler's, drawn whole under the key ``(seed, "epoch", epoch)``: of the global
    generators of torch, numpy and Python and of any ``generator`` that a sampler or the loader has. Batches before the
    first that is asked for are not loaded. Where a batch is made, in this process or in a worker, the global generators
    are set to the key of its place before. So what the dataset and `collate_fn` draw from them depends on the seed, the
    epoch and the place, and on neither the number of workers nor what was drawn before.

    That cannot hold for a dataset that draws from generators of its own, counts its calls, or asks which worker it is
    in (``get_worker_info``): there, the order is still the same, and what it draws is not.

    The loader itself stays as it is. Taken over from it are dataset, sampler or batch_sampler, batch_size, drop_last,
    collate_fn, workers and how they are started, pin_memory and timeout. ``set_epoch`` of a sampler is called.

    Args:
        loader: over a map-style dataset.
        num_data: training examples; None: as many as the dataset has, or as a sampler of one's own visits.
        num_batches: in an epoch, where the sampler has no ``len()``.

    Raises:
        InputError: a loader that gives batches in any order, a sampler whose order does not depend on the key, numbers
            that are not known, or no batch.
    """

    goes_on_within_epochs = True

    def __init__(self, loader: DataLoader, num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = loader
        self._samplers = list(_samplers(loader))
        self._loading: _Loading | None = None
        self._members = 1  # that have an order of their own
        self.num_batches = _promised(self._samplers[0], num_batches)
        order = self._order(0, 0)
        if not order:
            raise InputError("the loader gives no batch: its dataset or its sampler is empty")
        self._check_number(order, 0)
        if not _is_torchs(self._samplers) and order != self._order(0, 0):
            raise InputError(
                "the sampler gives another order each time, so that no training could be resumed: let it draw from the "
                "global generators of torch, numpy or Python, or from a torch.Generator that is its attribute generator"
            )
        self.batch_size: int | None = None
        if self._is_batched:
            size = getattr(loader.batch_sampler, "batch_size", None) if loader.batch_size is None else loader.batch_size
            self.batch_size = size
        self.is_last_short = self.batch_size is not None and len(order[-1]) < self.batch_size
        self.num_data = _num_data(loader, self._samplers, order) if num_data is None else num_data

    def fed(self, members: int) -> "MapStyle":
        """The same loader, whose sampler gives an order for each member.

        Raises:
            InputError: it gives the same one to all.
        """
        other = copy(self)
        other._members = members
        if other._order(0, 0) == other._order(0, 0, 1):
            raise InputError(
                'the sampler has one order whatever it draws, and with feed="own" each member has an order of its own: '
                "hand in a DataLoader with shuffle=True"
            )
        return other

    def first(self) -> Any:
        """The first batch of `in_order`, made where the others are: a dataset may open its files in its workers."""
        with seeded_everywhere("first batch"):
            return next(_Loading(self.given, self._is_batched, 1).of([(("first batch",), self._fixed_order()[0])]))

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """The batches that the sampler has from number `first` on."""
        orders = [self._order(seed, epoch, member) for member in range(self._members)]
        for order in orders:
            self._check_number(order, epoch)
        requests: list[Request] = [
            ((seed, "batch", epoch, number, *([member] if member else [])), order[number])
            for number in range(first, stop)
            for member, order in enumerate(orders)
        ]
        if self._loading is None:
            self._loading = _Loading(self.given, self._is_batched)
        with seeded_everywhere(seed, "workers", epoch):
            batches = self._loading.of(requests)
        yield from batches

    def in_order(self) -> Iterator[Any]:
        """All examples in the order of the dataset; where the sampler is one's own, in that of its first epoch."""
        requests: list[Request] = [(("in order", number), which) for number, which in enumerate(self._fixed_order())]
        with seeded_everywhere("workers in order"):
            batches = _Loading(self.given, self._is_batched).of(requests)
        yield from batches

    def state_dict(self) -> dict[str, Any]:
        """Nothing: an order is drawn anew from its key."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over."""

    @property
    def _is_batched(self) -> bool:
        """Whether the sampler gives the indices of batches; otherwise the dataset itself gives batches, by index."""
        return self.given.batch_sampler is not None

    def _order(self, seed: int, epoch: int, member: int = 0) -> list[Any]:
        """The indices of each batch of an epoch, or of a member's own."""
        key = (seed, "epoch", epoch, member) if member else (seed, "epoch", epoch)
        for sampler in self._samplers:
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        with seeded_everywhere(*key), _own_generators_seeded(self.given, *self._samplers):
            order = list(islice(self._samplers[0], self.num_batches + 1))
        return [list(which) for which in order] if self._is_batched else order

    def _check_number(self, order: list[Any], epoch: int) -> None:
        if len(order) != self.num_batches:
            found = "more batches" if len(order) > self.num_batches else f"{len(order)} batches"
            raise InputError(f"the sampler gives {found} in epoch {epoch}, and not {self.num_batches}, as it said")

    def _fixed_order(self) -> list[Any]:
        inner, size = self._samplers[-1], getattr(self.given.batch_sampler, "batch_size", None)
        if size is not None and type(self.given.batch_sampler) is BatchSampler and _visits_all(inner):
            count = len(self.given.dataset)  # type: ignore[arg-type]
            return [list(range(first, min(first + size, count))) for first in range(0, count, size)]
        return self._order(0, 0)


class _Requests(Dataset):
    """A dataset that makes batches under the keys that they are asked for with, in whichever process."""

    def __init__(self, dataset: Dataset, is_batched: bool) -> None:
        self.dataset, self.is_batched = dataset, is_batched

    def __getitem__(self, request: Request) -> Any:
        key, which = request
        seed_globals(*key)
        if not self.is_batched:
            return self.dataset[which]
        together = getattr(self.dataset, "__getitems__", None)  # as torch's own fetcher does
        return together(which) if together else [self.dataset[index] for index in which]


class _Loading:
    """A loader like the user's, for lists of requests; workers that are to stay do, from one list to the next.

    Args:
        loader: the user's.
        is_batched: as of `_Requests`.
        num_workers: at most.
    """

    def __init__(self, loader: DataLoader, is_batched: bool, num_workers: int | None = None) -> None:
        self._requests: list[Request] = []
        num_workers = loader.num_workers if num_workers is None else min(num_workers, loader.num_workers)
        with warnings.catch_warnings():  # of too many workers, which the user's loader gave already
            warnings.simplefilter("ignore")
            self._loader = DataLoader(
                _Requests(loader.dataset, is_batched),
                batch_size=None,
                sampler=self,
                collate_fn=loader.collate_fn,
                num_workers=num_workers,
                pin_memory=loader.pin_memory and torch.cuda.is_available(),
                timeout=loader.timeout,
                worker_init_fn=_WorkerStart(loader.worker_init_fn),
                multiprocessing_context=loader.multiprocessing_context,
                prefetch_factor=loader.prefetch_factor,
                persistent_workers=loader.persistent_workers,
            )

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def of(self, requests: list[Request]) -> Iterator[Any]:
        """The batches that are asked for; workers draw their seed from torch's global generator now."""
        self._requests = requests
        return iter(self._loader)


@dataclass(frozen=True)
class _WorkerStart:
    """What a worker does first: it shows the user's dataset as its own, and starts as the user says.

    Args:
        start: the user's ``worker_init_fn``, which may open files in ``get_worker_info().dataset``.
    """

    start: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Requests):
            vars(info)["dataset"] = info.dataset.dataset  # torch lets nobody set it
        if self.start is not None:
            self.start(worker)


def _samplers(loader: DataLoader) -> Iterator[Any]:
    """What gives the indices of batches (or of examples, where the dataset makes batches), and the samplers in it."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while sampler is not None:
        yield sampler
        sampler = getattr(sampler, "sampler", None)


def _is_torchs(samplers: list[Any]) -> bool:
    return all(type(sampler).__module__.startswith("torch.utils.data") for sampler in samplers)


def _visits_all(sampler: Any) -> bool:
    """Whether a sampler visits every example of its dataset once in an epoch."""
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _promised(sampler: Any, given: int | None) -> int:
    """How many batches an epoch has, as the sampler and the user say."""
    try:
        found = len(sampler)
    except (TypeError, NotImplementedError):
        if given is None:
            raise InputError("the sampler has no len(): give steps_per_epoch") from None
        return given
    if given not in (None, found):
        raise InputError(f"the loader gives {found} batches in an epoch, and steps_per_epoch is {given}")
    return found


def _num_data(loader: DataLoader, samplers: list[Any], order: list[Any]) -> int:
    """How many examples are trained on."""
    if loader.batch_sampler is None:
        raise InputError("the dataset gives batches, and their examples are not counted: give num_data")
    if not _is_torchs(samplers) or type(samplers[-1]) is SubsetRandomSampler:
        indices = [index for which in order for index in which]
        if type(samplers[-1]) is SubsetRandomSampler:
            return len(samplers[-1])
        if all(isinstance(index, Hashable) for index in indices):
            return len(set(indices))
    if not isinstance(loader.dataset, Sized):
        raise InputError(f"{type(loader.dataset).__name__} has no len(): give num_data")
    return len(loader.dataset)


@contextmanager
def _own_generators_seeded(*owners: Any) -> Iterator[None]:
    """Seed the generators that samplers or a loader have, from torch's global one; leave them as they were found."""
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = {id(each): each for each in found if isinstance(each, torch.Generator)}.values()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    with ExitStack() as stack:
        for generator in generators:
            stack.callback(generator.set_state, generator.get_state())
            generator.manual_seed(seed)
        yield
