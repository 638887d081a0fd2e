"""Split the rows of a table into three parts: at random, by groups or by time."""

import numpy as np
import torch

from bayes_share.data.source import stratified
from bayes_share.data.tables.column_types import kind_of, numbers, seconds
from bayes_share.data.tables.table import Column, check_complete, quoted
from bayes_share.errors import InputError
from bayes_share.tensors.seeding import generator

Indices = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The indices of the training, validation and test rows, each ``[row]`` in ascending order."""

_SHARES = (7, 1, 2)


def divide_at_random(classes: np.ndarray, split_seed: int, where: str) -> Indices:
    """Split rows 70/10/20 at random, stratified by class.

    Args:
        classes: the class of each row ``[row]``, integers; all 0 if the target has no classes.
        split_seed: the seed of the split, which depends on nothing else but the classes.
        where: the table, for messages.

    Raises:
        InputError: a part would be empty.
    """
    train, validation, test = _stratified(classes, _SHARES, split_seed)
    if not (len(train) and len(validation) and len(test)):
        raise InputError(
            f"{where}: {len(classes)} rows are too few to divide 70/10/20; 10 rows (of a class) are enough"
        )
    return train, validation, test


def hold_out(classes: np.ndarray, split_seed: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a tenth of the training rows for validation, at random, stratified by class.

    Args:
        classes: see `divide_at_random`.
        split_seed: see `divide_at_random`.
        where: the table, for messages.

    Raises:
        InputError: a part would be empty.
    """
    train, validation = _stratified(classes, (9, 1), split_seed)
    if not (len(train) and len(validation)):
        raise InputError(f"{where}: {len(classes)} training rows are too few to hold out a tenth; 10 are enough")
    return train, validation


def divide_by(column: Column, split_seed: int) -> Indices:
    """Split rows about 70/10/20 by the values of a column, so that rows with equal values are in the same part.

    Dates and numbers are times: the earliest rows are for training and the latest for testing. Texts are groups, which
    are assigned to parts at random.

    Args:
        column: the column to split by, without missing values.
        split_seed: the seed of the assignment of groups.

    Raises:
        InputError: a value is missing, or there are fewer than three distinct values.
    """
    check_complete(column, f"each row must have a {quoted(column.name)}, by which rows are split")
    kind = kind_of(column)
    if kind in ("number", "date"):
        values = numbers(column) if kind == "number" else seconds(column)
        order, group = np.unique(values, return_inverse=True)
        rank = np.arange(len(order))
    else:
        order, group = np.unique(np.array(column.texts, dtype=object), return_inverse=True)
        rank = torch.randperm(len(order), generator=generator(split_seed, "split")).numpy()
    if len(order) < len(_SHARES):
        raise column.error(f"it has {len(order)} different values, but three parts need at least three")
    place = rank[group]
    first, second = _cuts(np.bincount(place))
    return tuple(np.flatnonzero(part) for part in (place < first, (place >= first) & (place < second), place >= second))  # type: ignore[return-value]


def _cuts(sizes: np.ndarray) -> tuple[int, int]:
    """Return where to cut ordered groups: nearest to 70 and 80 % of the rows, without empty parts.

    Args:
        sizes: the number of rows in each group.
    """
    shares = np.cumsum(sizes) / sizes.sum()  # after each group
    first = int(np.abs(shares[:-2] - 0.7).argmin()) + 1
    second = first + int(np.abs(shares[first:-1] - 0.8).argmin()) + 1
    return first, second


def _stratified(classes: np.ndarray, shares: tuple[int, ...], split_seed: int) -> list[np.ndarray]:
    parts = stratified(torch.from_numpy(classes.astype(np.int64)), shares, generator(split_seed, "split"))
    return [part.numpy() for part in parts]
