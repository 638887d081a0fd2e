"""A categorical distribution that ignores missing labels."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, constraints


class PartialCategorical(Categorical):
    """A categorical distribution with a log probability of 0 for a value that marks missing labels.

    Args:
        logits: ``[..., class]``.
        ignore_index: the value that marks a missing label; it is never sampled.
    """

    def __init__(self, logits: Tensor, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        super().__init__(logits=logits)

    @property
    def support(self) -> constraints.Constraint:
        """The integers of an interval that contains the classes and `ignore_index`."""
        return constraints.integer_interval(min(0, self.ignore_index), max(self._num_events - 1, self.ignore_index))

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log probability of the classes, 0 where the label is missing."""
        is_ignored = value == self.ignore_index
        return super().log_prob(value.masked_fill(is_ignored, 0)).masked_fill(is_ignored, 0.0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PartialCategorical":
        """See `torch.distributions.Distribution.expand`."""
        new = self._get_checked_instance(PartialCategorical, _instance)
        new.ignore_index = self.ignore_index
        return super().expand(torch.Size(batch_shape), _instance=new)
