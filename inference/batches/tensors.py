"""Examples in memory as tensors of any shape."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.rows import Rows, whole_order
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
    tensors_of,
    to_device,
)


class Tensors:
    """Inputs and targets as tensors in memory, from which batches are gathered. A `Source`.

    Args:
        x: all inputs: a tensor ``[example, ...]``, or a dict, tuple or list of tensors.
        y: all targets ``[example, ...]``.
        batch_size: number of examples in a step. None: all examples.
        last_batch: handling of a short last batch of an epoch.
        weights: ``[example]``: weights that multiply the log-likelihood of each example. None: all are 1.
        data: the object that the tensors come from, for the user. None: the pair of them.

    Raises:
        InputError: if inputs or targets are not tensors, contain NaN or differ in length; the batch size exceeds the
            number of examples; or the weights are invalid.
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
            raise InputError(f"y must be a tensor, not {type(y).__name__}: convert an array with torch.as_tensor")
        check_tree("y", y)
        if num_examples(x) != len(y):
            raise InputError(f"x has {num_examples(x)} examples and y has {len(y)}")
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
        """The number of examples, or the sum of their weights, as if examples were repeated."""
        if self.weights is None:
            return self._rows.num_data
        total = float(self.weights.sum())
        return int(total) if total.is_integer() else total

    @property
    def batch_size(self) -> int:
        """The number of examples in a step."""
        return self._rows.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return self._rows.steps_per_epoch

    def on(self, execution: Execution, dtype: torch.dtype) -> "Tensors":
        """Return the source with all tensors on the device. Their dtypes do not change."""
        other = copy(self)
        other._x = to_device(self._x, execution.torch_device)
        other._targets = self._targets.to(execution.torch_device)
        other.weights = None if self.weights is None else self.weights.to(execution.torch_device)
        other._execution = execution
        return other

    def fed(self, feeding: Feeding) -> "Tensors":
        """Return the source with the given feeding."""
        other = copy(self)
        other._rows = self._rows.fed(feeding, are_augmented=False)
        return other

    def first(self, count: int) -> Batch:
        """Return the first examples."""
        return Batch(self.inputs(rows(self._x, slice(count))), self._targets[:count])

    def checked(self, check: TargetCheck) -> "Tensors":
        """Return the source with all targets prepared for the likelihood."""
        other = copy(self)
        other._targets = check.whole(self._targets)
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Yield batches in the order of the epoch."""
        for which, weights in self._rows.epoch(seed, epoch, first, device_of(self._x)):
            batch = Batch(self._execution.place_inputs(rows(self._x, which)), self._targets[which], weights)
            yield batch if self.weights is None else _weighted(batch, self.weights[which], self.weights.mean())

    def in_order(self) -> Iterable[Batch]:
        """Return all examples in order."""
        starts = range(0, self._rows.num_data, self.batch_size)
        return _Whole(self, [slice(start, start + self.batch_size) for start in starts])

    def in_random_order(self, seed: int) -> Iterable[Batch]:
        """Return all examples in a random order."""
        order = whole_order(self._rows.num_data, seed).to(device_of(self._x))
        return _Whole(self, order.split(self.batch_size))

    def inputs(self, x: Tree) -> Tree:
        """Move inputs to the device."""
        return self._execution.place_inputs(x)

    def identity(self) -> dict[str, Any]:
        """Return a digest of all values, and how they are divided into batches."""
        return {
            "data": digest(*self._given),
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "last_batch": self._rows.last_batch,
            **({} if self.weights is None else {"weights": digest(self.weights)}),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""


def checked_weights(weights: Tensor, num_data: int | float) -> Float64[Tensor, "example"]:
    """Return valid weights of examples in float64.

    Raises:
        InputError: if they are not a real tensor ``[example]``, or a weight is negative or not finite, or all are 0.
    """
    if not isinstance(weights, Tensor) or weights.shape != (num_data,) or weights.is_complex():
        what = f"one of shape {list(weights.shape)}" if isinstance(weights, Tensor) else f"a {type(weights).__name__}"
        raise InputError(f"weights must be a tensor with one value for each of {num_data} examples, not {what}")
    found = weights.detach().double()
    if not bool((found.isfinite() & (found >= 0)).all()):
        place = int((~found.isfinite() | (found < 0)).nonzero()[0])
        raise InputError(
            f"weights must be finite and not negative, and that of example {place} is {float(found[place]):g}"
        )
    if not bool(found.any()):
        raise InputError("the weights of all examples are 0: there is nothing to train on")
    return found


def _weighted(batch: Batch, weights: Tensor, mean: Tensor) -> Batch:
    """Multiply the weights of a batch, from padding or a bootstrap, by the examples' own weights."""
    counts = torch.ones_like(weights) if batch.weights is None else batch.weights
    return batch._replace(weights=weights * counts, counts=counts * mean)


@dataclass(frozen=True)
class _Whole:
    """A pass over all examples. Each batch is computed on demand.

    Args:
        source: the source.
        order: the indices of each batch.
    """

    source: Tensors
    order: Sequence[slice | Tensor]

    def __iter__(self) -> Iterator[Batch]:
        source = self.source
        for which in self.order:
            weights = None if source.weights is None else source.weights[which]
            yield Batch(source.inputs(rows(source._x, which)), source._targets[which], weights)
