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
        figures = torch.stack([info.loss, info.log_lik, self._one, info.correct, info.known])
        self.values += figures if batch.counted is None else figures * batch.counted.mean()

    def take_means(self) -> Float64[Tensor, "3"]:
        """Return the means of loss, log-likelihood and accuracy, and start a new epoch.

        The accuracy is NaN without classes. With classes, it and the log-likelihood are means over the examples with a
        known class.
        """
        loss, log_lik, count, correct, known = self.values
        means = torch.stack([loss / count, log_lik / torch.where(known > 0, known, count), correct / known])
        self.values.zero_()
        return means

    def load(self, values: Tensor) -> None:
        """Continue from saved `values`."""
        self.values = values.to(self.values.device)
