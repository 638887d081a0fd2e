"""Reliability in bins of confidence, and binned calibration errors.

We do not use netcal's errors, because they differ in three cases. If at most two distinct labels occur, netcal treats
the task as binary: with two classes it bins the probability of class 1 instead of the confidence, and with more classes
it raises an error. It also puts a confidence that lies on an edge into the upper bin, ``[lo, hi)``. In all other cases
the results agree, as the tests check.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_probs


@dataclass(frozen=True, eq=False)
class Reliability:
    """Counts, mean confidence and accuracy in bins of equal width of the confidence.

    The confidence of an image is the probability of its most probable class.

    Args:
        edges: ``[bin + 1]``, from 0 to 1. Bin b is ``(edges[b], edges[b + 1]]``; the first one also contains 0.
        count: ``[bin]``, the number of images in the bin.
        confidence: ``[bin]``, their mean confidence; NaN for an empty bin.
        accuracy: ``[bin]``, the share whose most probable class is right; NaN for an empty bin.
    """

    edges: Float64[Tensor, "edge"]
    count: Int64[Tensor, "bin"]
    confidence: Float64[Tensor, "bin"]
    accuracy: Float64[Tensor, "bin"]

    @property
    def ece(self) -> float:
        """The gap between accuracy and confidence, averaged over bins weighted by their counts."""
        return ((self._gaps * self.count[self.count > 0]).sum() / self.count.sum()).item()

    @property
    def mce(self) -> float:
        """The largest gap of a non-empty bin."""
        return self._gaps.max().item()

    @property
    def average_calibration_error(self) -> float:
        """The unweighted mean of the gaps of the non-empty bins."""
        return self._gaps.mean().item()

    @property
    def _gaps(self) -> Float64[Tensor, "filled"]:
        return (self.accuracy - self.confidence)[self.count > 0].abs()


def reliability(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> Reliability:
    """Bin images by confidence, and compute the mean confidence and accuracy of each bin.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

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
    """Compute `reliability` from confidences and correctness.

    Args:
        confidence: the confidence of each image, from 0 to 1.
        right: whether each prediction is right, 0 or 1; or the share of people who agree with it.
        bins: see `reliability`.

    Raises:
        InputError: if `bins` is less than 1.
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
    """Return the index of the bin of each confidence.

    >>> bin_of(torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64), bins=2)
    tensor([0, 0, 1, 1])
    """
    # Only inner edges are used, so that a confidence rounded to above 1 stays in the last bin.
    return torch.bucketize(confidence, _edges(bins)[1:-1].to(confidence.device))


def _edges(bins: int) -> Float64[Tensor, "edge"]:
    # k / bins is correctly rounded. linspace multiplies a rounded width, and can miss a confidence on an edge.
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The expected calibration error of the most probable class (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    ``Σ_b count_b / images · |accuracy_b − confidence_b|``, with the bins of `reliability`. This is the plug-in estimate
    that publications report. It is biased upwards, more so with fewer images and lower accuracy, so it is not 0 for a
    calibrated classifier. See `squared_calibration_error` for an unbiased estimate and `ece_interval` for an interval.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

    >>> ece(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))  # (|1 - 0.5| + |0 - 0.75|) / 2
    0.625
    """
    return reliability(probs, labels, bins).ece


def mce(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The maximum calibration error: the largest gap of a non-empty bin (Guo et al. 2017, eq. 4).

    Biased upwards: a bin with a single image counts as much as one with thousands, so the value is large for every
    method if there are few images.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

    >>> mce(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.75
    """
    return reliability(probs, labels, bins).mce


def average_calibration_error(
    probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15
) -> float:
    """The unweighted mean of the gaps of the non-empty bins.

    Neumann, Zisserman and Vedaldi 2018, "Relaxed softmax". This is netcal's ACE, not the adaptive error. Biased
    upwards.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

    >>> average_calibration_error(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.625
    """
    return reliability(probs, labels, bins).average_calibration_error


def classwise_ece(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], bins: int = 15) -> float:
    """The ECE of the probability of each class, averaged over classes (Kull et al. 2019, arXiv 1910.12656, eq. 3).

    ``1 / classes · Σ_c Σ_b |Σ_{i in bin b of c} (1[y_i = c] − p_ic)| / images``. All probabilities count, not only the
    largest of each image. Most of them are small if there are many classes, so the value is then small for every
    method; compare it only between methods on the same data. Classes without examples count too: their probabilities
    should be 0. Biased upwards, like the ECE.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, ``(lo, hi]``; the first one also contains 0.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

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
    """The ECE of the most probable class, with bins that hold equal numbers of images.

    Nixon et al. 2019, arXiv 1904.01685, section 3.3, restricted to the largest probability; theirs also averages over
    classes. The image of rank r = 0, 1, … by confidence is in bin ``⌊r · bins / images⌋``. Images with equal confidence
    get their mean rank, so they share a bin and their order does not matter, but the bins are then less equal. With
    fewer images than bins, each distinct confidence has its own bin, and the other bins are empty. Biased upwards, like
    the ECE.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input, for example because of NaN.

    >>> probs = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
    >>> round(adaptive_ece(probs, torch.tensor([0, 1, 0, 0]), bins=2), 6)  # (|0.5 - 0.65| + |1 - 0.85|) / 2
    0.15
    """
    check_bins(bins)
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    _, group, size = confidence.unique(sorted=True, return_inverse=True, return_counts=True)
    last = size.cumsum(0) - 1
    twice_mean_rank = 2 * last - size + 1  # integer arithmetic: no rounding at bin edges
    index = (twice_mean_rank * bins // (2 * len(labels)))[group]
    gaps = index.bincount((predicted == labels).double() - confidence, minlength=bins)
    return (gaps.abs().sum() / len(labels)).item()


def check_bins(bins: int) -> None:
    """Raise InputError if the number of bins is less than 1."""
    if bins < 1:
        raise InputError(f"calibration requires at least one bin, not {bins}")
