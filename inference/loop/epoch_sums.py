"""Sums of the diagnostics of an epoch's steps, on the device."""

import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.inference.algorithm import Batch, StepInfo


class EpochSums:
    """The sums over the steps of an epoch so far, weighted by the examples that count in each step.

    Args:
        device: the device of the diagnostics.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(5, dtype=torch.float64, device=device)
        self._one = torch.ones((), device=device)

    def add(self, info: StepInfo, batch: Batch) -> None:
        """Add the diagnostics of a step."""
        accuracy = info.accuracy.nan_to_num()  # undefined without classes, or if no label in the batch is known
        figures = torch.stack([info.loss, info.log_lik, self._one, accuracy, ~info.accuracy.isnan()])
        self.values += figures if batch.counted is None else figures * batch.counted.mean()

    def take_means(self) -> Float64[Tensor, "3"]:
        """Return the means of loss, log-likelihood and accuracy, which is NaN if undefined, and start a new epoch."""
        sums = self.values
        means = torch.cat([sums[:2] / sums[2], sums[3:4] / sums[4]])
        sums.zero_()
        return means

    def load(self, values: Tensor) -> None:
        """Continue from saved `values`."""
        self.values = values.to(self.values.device)
