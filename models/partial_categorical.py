"""A categorical distribution whose values may say that they are not known."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, constraints


class PartialCategorical(Categorical):
    """A categorical distribution that gives one value, which stands for "not known", probability 1.

    Args:
        logits: ``[..., class]``.
        ignore_index: the value that stands for "not known"; it is never drawn.
    """

    def __init__(self, logits: Tensor, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        super().__init__(logits=logits)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers: the classes, and the value that stands for "not known"."""
        return constraints.integer_interval(min(0, self.ignore_index), max(self._num_events - 1, self.ignore_index))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability of a class; 0 where the value is not known."""
        is_ignored = value == self.ignore_index
        return super().log_prob(value.masked_fill(is_ignored, 0)).masked_fill(is_ignored, 0.0)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PartialCategorical":
        """See `torch.distributions.Distribution.expand`."""
        new = self._get_checked_instance(PartialCategorical, _instance)
        new.ignore_index = self.ignore_index
        return super().expand(torch.Size(batch_shape), _instance=new)
