"""Selective prediction of numbers: the error among the examples with the smallest predictive variance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from bayes_share.evaluation.checks import check_values
from bayes_share.evaluation.numbers.forecast import by_example, check_targets
from bayes_share.models.predictive import Predictive


@dataclass(frozen=True, eq=False)
class ErrorCoverage:
    """The RMSE among examples whose predictive variance is at most a threshold, for all thresholds.

    Args:
        coverage: ``[step]``, the share of examples that are kept, increasing to 1. There is a step for each distinct
            variance.
        rmse: ``[step]``, the RMSE of these examples, in the units of the targets.
    """

    coverage: Float64[Tensor, "step"]
    rmse: Float64[Tensor, "step"]

    @property
    def area(self) -> float:
        """The area under the curve, ``Σ_k (coverage_k − coverage_{k−1}) · rmse_k``; smaller is better."""
        return (self.coverage.diff(prepend=self.coverage.new_zeros(1)) * self.rmse).sum().item()


def error_coverage(predictive: Predictive, targets: Num[Tensor, "example *output"]) -> ErrorCoverage:
    """Compute the RMSE of the mean against coverage, rejecting examples with the largest predictive variance first.

    Like `bayes_share.evaluation.selective.risk_coverage` with the squared error as the risk (El-Yaniv and Wiener 2010).
    Examples with equal variance form a single step. For several outputs, variance and squared error are averaged over
    the outputs.

    Args:
        predictive: the predictive distributions.
        targets: the observed targets.

    Raises:
        InputError: if targets are not finite or have another shape, or a mean or variance does not exist.
    """
    targets = check_targets(predictive, targets)
    variance, squared = by_example(predictive.variance), by_example((targets - predictive.mean).square())
    check_values("variances", variance)
    check_values("squared errors", squared)
    return _curve(variance, squared)


def _curve(variance: Float[Tensor, "example"], squared: Float[Tensor, "example"]) -> ErrorCoverage:
    distinct, group = variance.unique(sorted=True, return_inverse=True)
    kept = group.bincount(minlength=len(distinct)).cumsum(0).double()
    total = torch.zeros_like(distinct).index_add_(0, group, squared).cumsum(0)
    return ErrorCoverage(kept / len(variance), (total / kept).sqrt())
