"""Selective prediction: the error rate among the images with the highest confidence."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_values


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The error rate among images whose confidence is at least a threshold, for all thresholds.

    Args:
        coverage: ``[step]``, the share of images with at least the threshold confidence, increasing to 1. There is a
            step for each distinct confidence.
        risk: ``[step]``, the error rate among these images.
        num_images: the number of images.
    """

    coverage: Float64[Tensor, "step"]
    risk: Float64[Tensor, "step"]
    num_images: int

    @property
    def aurc(self) -> float:
        """The area under the risk-coverage curve, 0 to 1; smaller is better.

        It is ``Σ_k (coverage_k − coverage_{k−1}) · risk_k``. If all confidences are distinct, this is the mean of the
        risk at 1, 2, … images (Geifman et al. 2018, arXiv 1805.08206, section 3).
        """
        widths = self.coverage.diff(prepend=self.coverage.new_zeros(1))
        return (widths * self.risk).sum().item()

    @property
    def best_aurc(self) -> float:
        """The area if all right answers had higher confidence than all wrong ones; 0 only if all are right."""
        wrong = round(self.risk[-1].item() * self.num_images)
        errors = torch.arange(1, wrong + 1, dtype=torch.float64)
        return (errors / (self.num_images - wrong + errors)).sum().item() / self.num_images

    @property
    def excess_aurc(self) -> float:
        """The difference between `aurc` and `best_aurc` (Geifman et al. 2018, eq. 4)."""
        return self.aurc - self.best_aurc

    def coverage_at_risk(self, risk: float) -> float:
        """Return the largest coverage with a risk of at most `risk`; 0 if there is none.

        >>> curve = risk_coverage(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([True, False, True, True]))
        >>> curve.coverage_at_risk(0.25), curve.coverage_at_risk(0.1)
        (1.0, 0.25)
        """
        allowed = self.coverage[self.risk <= risk]
        return allowed[-1].item() if len(allowed) else 0.0


def risk_coverage(confidence: Float[Tensor, "image"], right: Bool[Tensor, "image"]) -> RiskCoverage:
    """Compute the risk-coverage curve of a confidence score.

    Sources: El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017, arXiv 1705.08500. Images with equal confidence form a
    single step, so their order does not matter.

    Args:
        confidence: the largest probability, or the negative of an uncertainty; may be infinite.
        right: whether each prediction is right.

    Raises:
        InputError: if there are no images, a confidence is NaN, or the lengths differ.

    >>> curve = risk_coverage(torch.tensor([0.9, 0.8, 0.8, 0.6]), torch.tensor([True, False, True, False]))
    >>> torch.stack([curve.coverage, curve.risk])
    tensor([[0.2500, 0.7500, 1.0000],
            [0.0000, 0.3333, 0.5000]], dtype=torch.float64)
    >>> round(curve.aurc, 4)  # 0.25 * 0 + 0.5 / 3 + 0.25 / 2
    0.2917
    """
    check_values("confidences", confidence)
    if right.shape != confidence.shape:
        raise InputError(f"there are {len(confidence)} confidences for {right.numel()} examples")
    distinct, group = confidence.unique(sorted=True, return_inverse=True)
    answered = group.bincount(minlength=len(distinct)).flip(0).cumsum(0)
    wrong = group[~right].bincount(minlength=len(distinct)).flip(0).cumsum(0)
    return RiskCoverage(answered.double() / len(confidence), wrong.double() / answered, len(confidence))
