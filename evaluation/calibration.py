"""Whether confidence is accuracy: reliability in bins of confidence, and the errors that are read off them.

These are our own because netcal's answer another question in three cases. Where the labels that occur are two or
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
        return ((self._gaps * self.count[self.count > 0]).sum() / self.count.sum()).item()

    @property
    def mce(self) -> float:
        """The largest gap of a bin that is not empty."""
        return self._gaps.max().item()

    @property
    def average_calibration_error(self) -> float:
        """The mean gap over the bins that are not empty, each of the same weight."""
        return self._gaps.mean().item()

    @property
    def _gaps(self) -> Float64[Tensor, "filled"]:
        return (self.accuracy - self.confidence)[self.count > 0].abs()


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
    check_bins(bins)
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    return reliability_of(confidence, (predicted == labels).double(), bins)


def reliability_of(
    confidence: Float64[Tensor, "image"], right: Float64[Tensor, "image"], bins: int = 15
) -> Reliability:
    """The same from confidences, for whatever is to be right as often as they say.

    Args:
        confidence: of each image, from 0 to 1.
        right: how right it is: 0 or 1, or a share of people who agree.
        bins: as in `reliability`.

    Raises:
        InputError: fewer than one bin.
    """
    check_bins(bins)
    index = bin_of(confidence, bins)
    count = index.bincount(minlength=bins)
    return Reliability(
        edges=_edges(bins).to(confidence.device),
        count=count,
        confidence=index.bincount(confidence, minlength=bins) / count,
        accuracy=index.bincount(right, minlength=bins) / count,
    )


def bin_of(confidence: Float64[Tensor, "image"], bins: int) -> Int64[Tensor, "image"]:
    """The number of each confidence's bin.

    >>> bin_of(torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64), bins=2)
    tensor([0, 0, 1, 1])
    """
    # Only the inner edges divide, so that no rounding above 1 opens one more bin.
    return torch.bucketize(confidence, _edges(bins)[1:-1].to(confidence.device))


def _edges(bins: int) -> Float64[Tensor, "edge"]:
    # k / bins, correctly rounded; a multiple of a rounded width (linspace) may miss a confidence that is on the edge.
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The expected calibration error of the most probable class (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    ``Σ_b count_b / images · |accuracy_b − confidence_b|``; the bins are those of `reliability`. The plug-in estimate,
    which published figures are: it is biased upwards, the more the fewer the images and the lower the accuracy, so a
    calibrated classifier does not have 0. `squared_calibration_error` is unbiased, and `ece_interval` an interval.

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


def mce(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The maximum calibration error: the largest gap of a bin that is not empty (Guo et al. 2017, eq. 4).

    A bin of one image counts as one of thousands, so with few images it is large whatever the method: biased upwards.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width: ``(lo, hi]``, the first one closed.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> mce(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.75
    """
    return reliability(probs, labels, bins).mce


def average_calibration_error(
    probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15
) -> float:
    """The mean gap over the bins that are not empty, however many images they hold.

    Neumann, Zisserman and Vedaldi 2018, "Relaxed softmax"; netcal's ACE, not the adaptive error. Biased upwards.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width: ``(lo, hi]``, the first one closed.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> average_calibration_error(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.625
    """
    return reliability(probs, labels, bins).average_calibration_error


def classwise_ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The mean over classes of the ECE of each class's probability (Kull et al. 2019, arXiv 1910.12656, eq. 3).

    ``1 / classes · Σ_c Σ_b |Σ_{i in bin b of c} (1[y_i = c] − p_ic)| / images``. It sees the probabilities that are not
    the largest too, of which most are small: with many classes it is small for every method, and it is compared
    between methods on the same data only. A class that never comes counts: its probabilities should be 0. Biased
    upwards, as the ECE is.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width: ``(lo, hi]``, the first one closed.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> classwise_ece(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))  # (0.625 + 0.625) / 2
    0.625
    """
    check_bins(bins)
    check_probs(probs, labels)
    columns = (column.double().contiguous() for column in probs.unbind(-1))
    return (
        sum(reliability_of(column, (labels == c).double(), bins).ece for c, column in enumerate(columns))
        / probs.shape[-1]
    )


def adaptive_ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The ECE of the most probable class in bins of equal mass, which adapt to where the confidences are.

    Nixon et al. 2019, arXiv 1904.01685, section 3.3, of the largest probability alone; theirs also averages over the
    classes. Sorted by confidence, the image of rank r = 0, 1, … is in bin ``⌊r · bins / images⌋``. Images of the same
    confidence have the mean of their ranks, so they are in one bin and their order does not matter; the bins are then
    less equal. With fewer images than bins, each confidence has a bin of its own, and the others are empty. Biased
    upwards, as the ECE is.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses, NaN among it; says where.

    >>> probs = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
    >>> round(adaptive_ece(probs, torch.tensor([0, 1, 0, 0]), bins=2), 6)  # (|0.5 - 0.65| + |1 - 0.85|) / 2
    0.15
    """
    check_bins(bins)
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    _, group, size = confidence.unique(sorted=True, return_inverse=True, return_counts=True)
    last = size.cumsum(0) - 1
    twice_mean_rank = 2 * last - size + 1  # in whole numbers, so that no rounding moves an image over an edge
    index = (twice_mean_rank * bins // (2 * len(labels)))[group]
    gaps = index.bincount((predicted == labels).double() - confidence, minlength=bins)
    return (gaps.abs().sum() / len(labels)).item()


def check_bins(bins: int) -> None:
    """Raise an InputError where there are no bins."""
    if bins < 1:
        raise InputError(f"calibration requires at least one bin, not {bins}")
