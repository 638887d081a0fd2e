"""Whether confidence is accuracy: reliability in bins of confidence, and the expected calibration error.

The ECE is our own because netcal's answers another question in three cases. Where the labels that occur are two or
fewer, netcal takes the task for a binary one: with two classes it bins the probability of class 1, not the confidence,
and with more it stops with an error. A confidence on an edge it puts into the bin above, ``[lo, hi)``. Everywhere else
the two agree, which the tests check.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_probs


@dataclass(frozen=True, eq=False)
class Reliability:
    """Images in bins of equal width by their confidence, the probability of their most probable class.

    Args:
        edges: ``[bin + 1]``, from 0 to 1. Bin b is ``(edges[b], edges[b + 1]]``, and the first one holds 0 too.
        count: ``[bin]``, the images in the bin.
        confidence: ``[bin]``, their mean confidence; NaN in an empty bin.
        accuracy: ``[bin]``, the share of them whose most probable class is right; NaN in an empty bin.
    """

    edges: Float64[Tensor, "edge"]
    count: Int64[Tensor, "bin"]
    confidence: Float64[Tensor, "bin"]
    accuracy: Float64[Tensor, "bin"]

    @property
    def ece(self) -> float:
        """The mean over images of the gap between their bin's accuracy and confidence."""
        gap = (self.accuracy - self.confidence).abs()
        return ((gap * self.count).nansum() / self.count.sum()).item()


def reliability(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> Reliability:
    """Count images, and average their confidence and accuracy, in bins of confidence.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width: ``(lo, hi]``, the first one closed, so a confidence of exactly 1 is in the last.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> reliability(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]), bins=4).count
    tensor([0, 1, 0, 1])
    """
    if bins < 1:
        raise InputError(f"calibration needs at least one bin, and was given {bins}")
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    # k / bins, correctly rounded; a multiple of a rounded width (linspace) may miss a confidence that is on the edge.
    edges = torch.arange(bins + 1, dtype=torch.float64, device=probs.device) / bins
    # Only the inner edges divide, so that no rounding above 1 opens one more bin.
    index = torch.bucketize(confidence, edges[1:-1])
    count = index.bincount(minlength=bins)
    right = (predicted == labels).double()
    return Reliability(
        edges=edges,
        count=count,
        confidence=index.bincount(confidence, minlength=bins) / count,
        accuracy=index.bincount(right, minlength=bins) / count,
    )


def ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The expected calibration error of the most probable class (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    ``Σ_b count_b / images · |accuracy_b − confidence_b|``; the bins are those of `reliability`.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width: ``(lo, hi]``, the first one closed.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> ece(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))  # (|1 - 0.5| + |0 - 0.75|) / 2
    0.625
    """
    return reliability(probs, labels, bins).ece
