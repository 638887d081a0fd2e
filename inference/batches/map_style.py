"""Batches of a `torch.utils.data.DataLoader` over a map-style dataset, with control over its sampler."""

import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bayes_share.errors import InputError
from bayes_share.inference.batches.rows import whole_order
from bayes_share.inference.batches.samplers import Samplers
from bayes_share.tensors.seeding import seed_globals, seeded_everywhere

Request = tuple[tuple[int | str, ...], Any]
"""The random key of a batch, and the indices of its examples."""


class MapStyle:
    """Batches of a loader over a map-style dataset. A `Reader` that resumes exactly at any batch.

    The whole order of an epoch is drawn from the sampler under the key ``(seed, "epoch", epoch)``, which seeds the
    global generators of torch, numpy and Python and any ``generator`` of the loader or a sampler. Batches before the
    first requested one are not loaded. Before a batch is made, in this process or in a worker, the global generators
    are seeded by its position. So the random numbers of the dataset and of `collate_fn` depend on the seed, the epoch
    and the position, but not on the number of workers or on earlier batches.

    This does not hold for a dataset that draws from its own generators, counts its calls, or uses ``get_worker_info``.
    Its order is still reproducible, its random numbers are not.

    The loader is not changed. Its dataset, sampler or batch_sampler, batch_size, drop_last, collate_fn, workers and
    their start method, pin_memory and timeout are used. ``set_epoch`` of a sampler is called.

    Args:
        loader: a loader over a map-style dataset.
        num_data: number of training examples. None: the size of the dataset, or the number of examples that a custom
            sampler visits if they are the same in each epoch.
        num_batches: number of batches in an epoch, for a sampler without ``len()``.

    Raises:
        InputError: if the order of a custom sampler does not depend on the key alone, a number is missing or wrong, or
            there is no batch.
    """

    goes_on_within_epochs = True

    def __init__(self, loader: DataLoader, num_data: int | None = None, num_batches: int | None = None) -> None:
        self.given = loader
        self._samplers = Samplers(loader, num_batches)
        self._loading: _Loading | None = None
        self._members = 1  # with their own order
        self.num_batches = self._samplers.num_batches
        order = self._samplers.order(0, 0)
        if not order:
            raise InputError("the loader has no batches: its dataset or its sampler is empty")
        self._check_number(order, 0)
        if not self._samplers.are_from_torch and order != self._samplers.order(0, 0):
            raise InputError(
                "the sampler's order is not reproducible, so training cannot be resumed: let it draw from the global "
                "generators of torch, numpy or Python, or from a torch.Generator in its attribute generator"
            )
        self.batch_size: int | None = None
        if self._is_batched:
            size = getattr(loader.batch_sampler, "batch_size", None) if loader.batch_size is None else loader.batch_size
            self.batch_size = size
        self.is_last_short = self.batch_size is not None and len(order[-1]) < self.batch_size
        self.num_data = self._samplers.num_data() if num_data is None else num_data

    def fed(self, members: int) -> "MapStyle":
        """Return a reader of the same loader with a separate order for each member.

        Raises:
            InputError: if the sampler gives all members the same order.
        """
        other = copy(self)
        other._members = members
        if self._samplers.order(0, 0) == self._samplers.order(0, 0, 1):
            raise InputError(
                'feed="own" requires a separate order for each member, but the sampler\'s order is fixed: '
                "pass a DataLoader with shuffle=True"
            )
        return other

    def first(self) -> Any:
        """Return the first batch of `in_order`.

        It is loaded in a worker if the loader has workers, because a dataset may open its files there.
        """
        with seeded_everywhere("first batch"):
            return next(_Loading(self.given, self._is_batched, 1).of([(("first batch",), self._fixed_order()[0])]))

    def epoch(self, seed: int, epoch: int, first: int, stop: int) -> Iterator[Any]:
        """Yield the batches in the sampler's order, from number `first` on."""
        orders = [self._samplers.order(seed, epoch, member) for member in range(self._members)]
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
        """Yield all examples in the order of the dataset, or in the first epoch's order of a custom sampler."""
        return self._whole(self._fixed_order())

    def in_random_order(self, seed: int) -> Iterator[Any]:
        """Yield all examples in a random order, or in the order of a custom sampler's epoch 0."""
        if (size := self._samplers.all_in_batches_of) is None:
            return self._whole(self._samplers.order(seed, 0))
        order = whole_order(len(self.given.dataset), seed)  # type: ignore[arg-type]
        return self._whole([part.tolist() for part in order.split(size)])

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict: orders are drawn from their keys."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    @property
    def _is_batched(self) -> bool:
        """Whether the sampler gives the indices of batches. Otherwise the dataset returns whole batches by index."""
        return self.given.batch_sampler is not None

    def _check_number(self, order: list[Any], epoch: int) -> None:
        if len(order) > self.num_batches:  # at most one more was asked for
            raise InputError(f"the sampler gave more than {self.num_batches} batches in epoch {epoch}")
        if len(order) < self.num_batches:
            raise InputError(f"the sampler gave {len(order)} batches in epoch {epoch} instead of {self.num_batches}")

    def _whole(self, order: list[Any]) -> Iterator[Any]:
        """Yield the batches of a pass, from the indices of each."""
        requests: list[Request] = [(("in order", number), which) for number, which in enumerate(order)]
        with seeded_everywhere("workers in order"):
            batches = _Loading(self.given, self._is_batched).of(requests)
        yield from batches

    def _fixed_order(self) -> list[Any]:
        if (size := self._samplers.all_in_batches_of) is None:
            return self._samplers.order(0, 0)
        count = len(self.given.dataset)  # type: ignore[arg-type]
        return [list(range(first, min(first + size, count))) for first in range(0, count, size)]


class _Requests(Dataset):
    """A dataset of batches by request, which seeds the global generators by the key of the request."""

    def __init__(self, dataset: Dataset, is_batched: bool) -> None:
        self.dataset, self.is_batched = dataset, is_batched

    def __getitem__(self, request: Request) -> Any:
        key, which = request
        seed_globals(*key)
        if not self.is_batched:
            return self.dataset[which]
        together = getattr(self.dataset, "__getitems__", None)  # as torch's fetcher does
        return together(which) if together else [self.dataset[index] for index in which]


class _Loading:
    """A loader like the user's, for lists of requests. Persistent workers are kept from one list to the next.

    Args:
        loader: the user's loader.
        is_batched: as in `_Requests`.
        num_workers: maximum number of workers.
    """

    def __init__(self, loader: DataLoader, is_batched: bool, num_workers: int | None = None) -> None:
        self._requests: list[Request] = []
        num_workers = loader.num_workers if num_workers is None else min(num_workers, loader.num_workers)
        with warnings.catch_warnings():  # the user's loader has already warned of too many workers
            warnings.simplefilter("ignore")
            self._loader = DataLoader(
                _Requests(loader.dataset, is_batched),
                batch_size=None,
                sampler=self,
                collate_fn=loader.collate_fn,
                num_workers=num_workers,
                pin_memory=loader.pin_memory and torch.cuda.is_available(),
                timeout=loader.timeout,
                worker_init_fn=_WorkerInit(loader.worker_init_fn),
                multiprocessing_context=loader.multiprocessing_context,
                prefetch_factor=loader.prefetch_factor,
                persistent_workers=loader.persistent_workers,
            )

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def of(self, requests: list[Request]) -> Iterator[Any]:
        """Return an iterator over the requested batches. Workers are seeded from torch's global generator now."""
        self._requests = requests
        return iter(self._loader)


@dataclass(frozen=True)
class _WorkerInit:
    """The start of a worker: it makes the user's dataset available and calls the user's ``worker_init_fn``.

    Args:
        start: the user's ``worker_init_fn``, which may open files of ``get_worker_info().dataset``.
    """

    start: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Requests):
            vars(info)["dataset"] = info.dataset.dataset  # torch forbids setting it as an attribute
        if self.start is not None:
            self.start(worker)
