"""Selective prediction of numbers: the error among the examples of which a forecast is most sure."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from bayes_share.evaluation.checks import check_values
from bayes_share.evaluation.numbers.forecast import by_example, check_targets
from bayes_share.models.predictive import Predictive


@dataclass(frozen=True, eq=False)
class ErrorCoverage:
    """The RMSE among the examples whose predictive standard deviation is at most a threshold, for every threshold.

    Args:
        coverage: ``[step]``, the share of examples that are kept, rising to 1; a step for each distinct deviation.
        rmse: ``[step]``, the root of the mean squared error of those, in the targets' units.
    """

    coverage: Float64[Tensor, "step"]
    rmse: Float64[Tensor, "step"]

    @property
    def area(self) -> float:
        """The area under the curve, smaller is better: ``Σ_k (coverage_k − coverage_{k−1}) · rmse_k``."""
        return (self.coverage.diff(prepend=self.coverage.new_zeros(1)) * self.rmse).sum().item()


def error_coverage(predictive: Predictive, targets: Num[Tensor, "example *output"]) -> ErrorCoverage:
    """The RMSE of the mean over coverage, the examples of the largest predictive variance given up first.

    As `bayes_share.evaluation.selective.risk_coverage`, with the squared error as the risk (El-Yaniv and Wiener 2010):
    examples of equal variance are one step, whatever their order. Of several outputs both are means over the outputs.

    Args:
        predictive: of numbers.
        targets: what came true.

    Raises:
        InputError: targets that are not finite or of another shape; a mean or variance that does not exist.
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
