"""Tensors in memory, of any shape."""

import itertools
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.rows import Rows
from bayes_share.inference.batches.source import LastBatch, TargetCheck
from bayes_share.inference.execution import Execution
from bayes_share.models.targets import check_finite_examples
from bayes_share.tensors.trees import (
    Tree,
    check_tree,
    device_of,
    digest,
    num_examples,
    rows,
    split,
    tensors_of,
    to_device,
)


class Tensors:
    """Inputs and targets as tensors: a batch is a gather. A `Source`.

    Args:
        x: all inputs, a tensor ``[example, ...]`` or a dict, tuple or list of such.
        y: all targets ``[example, ...]``.
        batch_size: examples in a step; None: all of them.
        last_batch: what becomes of what remains of an epoch.
        weights: ``[example]``: what the log-likelihood of each example is multiplied by; None: 1.
        data: what they are taken from, as the user has it; None: the pair of them.

    Raises:
        InputError: inputs and targets that are not tensors, hold NaN or do not go together; a batch larger than the
            data; weights that are none.
    """

    goes_on_within_epochs = True
    validation = None

    def __init__(
        self,
        x: Tree,
        y: Tensor,
        batch_size: int | None = None,
        last_batch: LastBatch = "drop",
        weights: Tensor | None = None,
        data: Any = None,
    ) -> None:
        check_tree("x", x)
        if not isinstance(y, Tensor):
            raise InputError(f"y must be a tensor, not {type(y).__name__}: torch.as_tensor makes one of an array")
        check_tree("y", y)
        if num_examples(x) != len(y):
            raise InputError(f"{num_examples(x)} inputs and {len(y)} targets do not go together")
        for leaf in tensors_of(x):
            if leaf.is_floating_point() or leaf.is_complex():
                check_finite_examples("inputs", leaf)
        self.data = (x, y) if data is None else data
        self._given = (x, y)
        self._rows = Rows(len(y), len(y) if batch_size is None else batch_size, last_batch)
        self._x, self._targets = x, y
        self.weights = None if weights is None else checked_weights(weights, len(y)).to(y.device)
        self._execution = Execution()

    @property
    def num_data(self) -> int | float:
        """All examples, or the sum of their weights: so many count as repeating them would make of them."""
        if self.weights is None:
            return self._rows.num_data
        total = float(self.weights.sum())
        return int(total) if total.is_integer() else total

    @property
    def batch_size(self) -> int:
        """Examples in a step."""
        return self._rows.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._rows.steps_per_epoch

    def on(self, execution: Execution, dtype: torch.dtype) -> "Tensors":
        """All of them on the device; their precision stays what it is."""
        other = copy(self)
        other._x = to_device(self._x, execution.torch_device)
        other._targets = self._targets.to(execution.torch_device)
        other.weights = None if self.weights is None else self.weights.to(execution.torch_device)
        other._execution = execution
        return other

    def fed(self, feeding: Feeding) -> "Tensors":
        """The same examples, in an order for each that `feeding` says."""
        other = copy(self)
        other._rows = self._rows.fed(feeding, are_augmented=False)
        return other

    def first(self, count: int) -> Batch:
        """The first examples."""
        return Batch(self.inputs(rows(self._x, slice(count))), self._targets[:count])

    def checked(self, check: TargetCheck) -> "Tensors":
        """The same inputs, with all targets as the likelihood takes them."""
        other = copy(self)
        other._targets = check.whole(self._targets)
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Batches in the order of the epoch."""
        for which, weights in self._rows.epoch(seed, epoch, first, device_of(self._x)):
            batch = Batch(self._execution.place_inputs(rows(self._x, which)), self._targets[which], weights)
            yield batch if self.weights is None else _weighted(batch, self.weights[which], self.weights.mean())

    def in_order(self) -> Iterable[Batch]:
        """All examples as they are."""
        return _InOrder(self)

    def inputs(self, x: Tree) -> Tree:
        """The same inputs, on the device."""
        return self._execution.place_inputs(x)

    def identity(self) -> dict[str, Any]:
        """A digest of all numbers, and how they are cut into batches."""
        return {
            "data": digest(*self._given),
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "last_batch": self._rows.last_batch,
            **({} if self.weights is None else {"weights": digest(self.weights)}),
        }

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over."""


def checked_weights(weights: Tensor, num_data: int | float) -> Float64[Tensor, "example"]:
    """Weights of so many examples, in float64.

    Raises:
        InputError: something else than a tensor of such numbers, or numbers that are negative, not finite or all 0.
    """
    if not isinstance(weights, Tensor) or weights.shape != (num_data,) or weights.is_complex():
        what = f"of shape {list(weights.shape)}" if isinstance(weights, Tensor) else f"a {type(weights).__name__}"
        raise InputError(f"weights are a tensor of one number for each of {num_data} examples, and these are {what}")
    found = weights.detach().double()
    if not bool((found.isfinite() & (found >= 0)).all()):
        place = int((~found.isfinite() | (found < 0)).nonzero()[0])
        raise InputError(f"weights are finite and not negative, and that of example {place} is {float(found[place]):g}")
    if not bool(found.any()):
        raise InputError("the weights of all examples are 0: there is nothing to train on")
    return found


def _weighted(batch: Batch, weights: Tensor, mean: Tensor) -> Batch:
    """A batch with weights of its examples, beside what it has for padding or a bootstrap."""
    counts = torch.ones_like(weights) if batch.weights is None else batch.weights
    return batch._replace(weights=weights * counts, counts=counts * mean)


@dataclass(frozen=True)
class _InOrder:
    """The batches of `Tensors.in_order`, each made when it is asked for."""

    source: Tensors

    def __iter__(self) -> Iterator[Batch]:
        source = self.source
        parts = split(source._x, source.batch_size)
        every = itertools.repeat(None) if source.weights is None else source.weights.split(source.batch_size)
        for x, y, weights in zip(parts, source._targets.split(source.batch_size), every, strict=False):
            yield Batch(source.inputs(x), y, weights)
