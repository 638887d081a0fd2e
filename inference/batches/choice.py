"""Choose the source of batches for the user's data."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bayes_share.data import Data
from bayes_share.errors import InputError
from bayes_share.inference.batches.images import Images
from bayes_share.inference.batches.iterated import Iterated
from bayes_share.inference.batches.map_style import MapStyle
from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.inference.batches.stateful import HasState, Stateful
from bayes_share.inference.batches.stream import Reader, Stream
from bayes_share.inference.batches.tensors import Tensors
from bayes_share.inference.step.ranks import Ranks
from bayes_share.inference.step.same_data import check_sampler

BatchSize = int | Literal["auto"] | None
"""The number of examples in a batch. "auto": 128, or all if there are fewer. None: all."""

_DEFAULT_SIZE = 128


def batches_of(
    data: Any,
    batch_size: BatchSize = "auto",
    last_batch: LastBatch = "drop",
    num_data: int | None = None,
    steps_per_epoch: int | None = None,
) -> Source:
    """Return a source of batches for the given data.

    Args:
        data: `Data` of images; a pair ``(x, y)`` of all inputs (a tensor, or a dict, tuple or list of tensors) and all
            targets; a `DataLoader`; or another iterable of pairs ``(inputs, targets)`` that restarts whenever it is
            iterated over, or has ``state_dict`` and ``load_state_dict``. A `Source` is returned unchanged.
        batch_size: number of examples in a batch of images or tensors. "auto": 128, or all if there are fewer. None:
            all. Loaders and iterables define their own batches.
        last_batch: "drop" or "pad": handling of a last batch of an epoch with fewer examples.
        num_data: number of training examples, for an iterable that does not provide it, or a custom sampler that
            chooses different examples in each epoch from a part of its dataset.
        steps_per_epoch: number of batches in an epoch, including the last one, for an iterable without ``len()``.

    Raises:
        InputError: if the data are of a different type, the source rejects them, or there are several processes and a
            `DistributedSampler`.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Data):
        return _with_checked_counts(
            Images(data, _size(batch_size, len(data.train)), last_batch), num_data, steps_per_epoch
        )
    if _is_pair(data):
        x, y = data
        size = _size(batch_size, len(y) if isinstance(y, Tensor) and y.ndim else 0)
        return _with_checked_counts(Tensors(x, y, size, last_batch), num_data, steps_per_epoch)
    if batch_size not in ("auto", None):
        raise InputError(f"a {type(data).__name__} defines its own batches: omit batch_size {batch_size}")
    return Stream(_reader(data, num_data, steps_per_epoch), last_batch)


def _size(given: BatchSize, num_data: int) -> int | None:
    return (min(_DEFAULT_SIZE, num_data) or None) if given == "auto" else given


def _reader(data: Any, num_data: int | None, steps_per_epoch: int | None) -> Reader:
    for what, number in (("num_data", num_data), ("steps_per_epoch", steps_per_epoch)):
        if number is not None and (type(number) is not int or number < 1):
            raise InputError(f"{what} must be an integer of at least 1, not {number!r}")
    check_sampler(data, Ranks.here())
    if isinstance(data, HasState):
        return Stateful(data, num_data, steps_per_epoch)
    if isinstance(data, DataLoader):
        if data.num_workers > 1 and not getattr(data, "in_order", True):
            raise InputError("a DataLoader with in_order=False changes its order each time: omit in_order")
        # A loader with its own `__iter__` is not driven by its sampler.
        if not isinstance(data.dataset, IterableDataset) and type(data).__iter__ is DataLoader.__iter__:
            return MapStyle(data, num_data, steps_per_epoch)
        return Iterated(data, num_data, steps_per_epoch)
    _check_restarts(data)
    return Iterated(data, num_data, steps_per_epoch)


def _is_pair(data: Any) -> bool:
    """Return whether data are all inputs and all targets. A list, or a tuple of pairs, is an iterable of batches."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[1], tuple | list | dict)


def _with_checked_counts(source: Any, num_data: int | None, steps_per_epoch: int | None) -> Any:
    """Return a source in memory after checking counts given by the user."""
    for what, number in (("num_data", num_data), ("steps_per_epoch", steps_per_epoch)):
        if number not in (None, getattr(source, what)):
            raise InputError(f"{what} is {getattr(source, what)} for these data, not {number}: omit it")
    return source


def _check_restarts(data: Any) -> None:
    """Raise InputError unless the data are an iterable of batches that restarts in every epoch."""
    name = type(data).__name__
    if isinstance(data, Iterator):
        raise InputError(
            f"a {name} can be iterated over only once, and training iterates over the data in every epoch: pass a "
            f"DataLoader, a list of batches or an object whose __iter__ returns a new iterator"
        )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise InputError(f"a {name} contains examples, and training requires batches: pass a DataLoader of it")
    if isinstance(data, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(data, Iterable):
        raise InputError(
            f"data must be the result of load_data, a pair of tensors (x, y), a DataLoader or another iterable of "
            f"batches, not a {name}"
        )
    if iter(data) is iter(data):
        raise InputError(
            f"this {name} returns the same iterator each time, which can be iterated over only once: its __iter__ must "
            f"return a new iterator"
        )
