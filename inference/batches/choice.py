"""The source of batches for what a user hands in."""

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

BatchSize = int | Literal["auto"] | None
"""Examples in a batch; "auto": as many as is usual, or all; None: all."""

_USUAL = 128


def batches_of(
    data: Any,
    batch_size: BatchSize = "auto",
    last_batch: LastBatch = "drop",
    num_data: int | None = None,
    steps_per_epoch: int | None = None,
) -> Source:
    """The batches of whatever holds examples.

    Args:
        data: `Data` of images; a pair ``(x, y)`` of all inputs, a tensor or a dict, tuple or list of tensors, and all
            targets; a `DataLoader`, or another iterable of pairs ``(inputs, targets)``, which begins anew whenever it
            is iterated over, or has ``state_dict`` and ``load_state_dict``. Or a `Source`, which is left as it is.
        batch_size: examples in a batch of images or tensors. "auto": 128, or all where there are fewer; None: all.
            Others come in batches of their own.
        last_batch: "drop" or "pad": what becomes of a last batch of an epoch with fewer examples.
        num_data: training examples, of an iterable that does not tell them.
        steps_per_epoch: its batches in an epoch, the last one included, where it has no ``len()``.

    Raises:
        InputError: something else, or what the kind of source refuses.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Data):
        return _counted(Images(data, _size(batch_size, len(data.train)), last_batch), num_data, steps_per_epoch)
    if _is_pair(data):
        x, y = data
        size = _size(batch_size, len(y) if isinstance(y, Tensor) and y.ndim else 0)
        return _counted(Tensors(x, y, size, last_batch), num_data, steps_per_epoch)
    if batch_size not in ("auto", None):
        raise InputError(f"a {type(data).__name__} comes in batches of its own: leave batch_size {batch_size} out")
    return Stream(_reader(data, num_data, steps_per_epoch), last_batch)


def _size(given: BatchSize, num_data: int) -> int | None:
    return (min(_USUAL, num_data) or None) if given == "auto" else given


def _reader(data: Any, num_data: int | None, steps_per_epoch: int | None) -> Reader:
    for what, number in (("num_data", num_data), ("steps_per_epoch", steps_per_epoch)):
        if number is not None and (type(number) is not int or number < 1):
            raise InputError(f"{what} is a whole number of at least 1, not {number!r}")
    if isinstance(data, HasState):
        return Stateful(data, num_data, steps_per_epoch)
    if isinstance(data, DataLoader):
        if data.num_workers > 1 and not getattr(data, "in_order", True):
            raise InputError("a DataLoader with in_order=False gives another order each time: leave it out")
        # One with an iteration of its own is not driven by its sampler.
        if not isinstance(data.dataset, IterableDataset) and type(data).__iter__ is DataLoader.__iter__:
            return MapStyle(data, num_data, steps_per_epoch)
        return Iterated(data, num_data, steps_per_epoch)
    _check_begins_anew(data)
    return Iterated(data, num_data, steps_per_epoch)


def _is_pair(data: Any) -> bool:
    """Whether something is all inputs and all targets; a list, or a tuple of pairs, is an iterable of batches."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[1], tuple | list | dict)


def _counted(source: Any, num_data: int | None, steps_per_epoch: int | None) -> Any:
    """A source whose examples are in memory, unless somebody counts them otherwise."""
    for what, number in (("num_data", num_data), ("steps_per_epoch", steps_per_epoch)):
        if number not in (None, getattr(source, what)):
            raise InputError(f"{what} is {getattr(source, what)} for these data, and not {number}: leave it out")
    return source


def _check_begins_anew(data: Any) -> None:
    """Raise an InputError unless this is an iterable of batches that can be gone through in every epoch."""
    name = type(data).__name__
    if isinstance(data, Iterator):
        raise InputError(
            f"a {name} can be gone through only once, and training goes through the data in every epoch: hand in a "
            f"DataLoader, a list of batches or an object whose __iter__ begins anew"
        )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise InputError(f"a {name} has examples, and training takes batches: hand in a DataLoader of it")
    if isinstance(data, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(data, Iterable):
        raise InputError(
            f"data are what load_data gives, a pair of tensors (x, y), a DataLoader or another iterable of batches, "
            f"not a {name}"
        )
    if iter(data) is iter(data):
        raise InputError(
            f"this {name} gives the same iterator each time, which can be gone through only once: have its __iter__ "
            f"begin anew"
        )
