"""What a sample of images says of the population's calibration error, at fixed bins of confidence.

With bins of equal width, the population's ECE is ``Σ_b |E[(right − confidence) · 1_b]|``, and its squared error
``Σ_b P(b) · E[right − confidence | b]²``. The plug-in ECE is biased upwards, as noise in a bin never cancels: of a
calibrated classifier it is about ``Σ_b σ_b √(2 / π)`` in place of 0, more for fewer images and for less accurate
classifiers. The squared error has an unbiased estimate, and the ECE an interval that covers it.
`benchmarks/calibration.py` measures both.
"""

import math
from functools import cache

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.evaluation.calibration import bin_of, check_bins
from bayes_share.evaluation.checks import check_probs
from bayes_share.evaluation.positions import terms_by_example
from bayes_share.evaluation.seed_statistics import Interval

_Z = 1.959964  # of a normal number, 2.5 % are above it
_DRAWS = 4000


def squared_calibration_error(
    probs: Float[Tensor, "image class"],
    labels: Int64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> float:
    """The debiased squared calibration error of the most probable class; below 0 by chance where there is little.

    An unbiased estimate of ``Σ_b P(b) · E[right − confidence | b]²`` over the bins of `reliability`, the calibration
    part of the Brier score of "is the predicted class right?" (Murphy 1973). From the plug-in square the variance of
    each bin's mean is taken off: Kumar, Liang and Ma 2019, arXiv 1909.10155, section 4; Ferro and Fricker 2012, "A
    bias-corrected decomposition of the Brier score". So its mean over samples is 0 for a calibrated classifier,
    whatever its accuracy and however few images there are, and it is what runs are compared by. Its square root, where
    there is one, is on the scale of the ECE, and at least as large in the population.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width, as of `bayes_share.evaluation.calibration.reliability`.
        examples: the example that each image is a position of, where they are not independent.

    Raises:
        InputError: fewer than one bin, or what `check_probs` refuses; says where.

    Both in one bin, 0.6 below and 0.6 above what they should be: nothing speaks against calibration.

    >>> probs = torch.tensor([[0.6, 0.4], [0.62, 0.38]])
    >>> round(squared_calibration_error(probs, torch.tensor([1, 0])), 4)  # -0.6 * 0.38
    -0.228
    """
    return squared_error_terms(probs, labels, bins, examples).mean().item()


def squared_error_terms(
    probs: Float[Tensor, "image class"],
    labels: Int64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> Float64[Tensor, "image"]:
    """A number for each image, of which `squared_calibration_error` is the mean, to take errors and differences from.

    With the residual ``d_i = right_i − confidence_i`` and ``u_i = d_i · mean of the other d in i's bin`` (0 for an
    image that is alone; images of its own example are not among the others), the estimate is ``mean u_i``. The number
    is ``2 u_i − mean of u in i's bin``: the mean is the same, and the spread is that of the estimate's influence
    function, so that ``sd / √images`` is its standard error, and up to √2 times as large where the classifier is
    calibrated.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width.
        examples: the example that each image is a position of, where they are not independent.

    Raises:
        InputError: as of `squared_calibration_error`.
    """
    return squared_error_terms_of(*_confidence_and_right(probs, labels, bins), bins, examples)


def squared_error_terms_of(
    confidence: Float64[Tensor, "image"],
    right: Float64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> Float64[Tensor, "image"]:
    """The same from confidences, and whether each is right, 0 or 1."""
    residual, index = right - confidence, bin_of(confidence, bins)
    count = index.bincount(minlength=bins).clamp(min=1)
    total = index.bincount(residual, minlength=bins)
    own, own_count = _of_own_example(residual, index, bins, examples)
    left = count[index] - own_count
    others = (total[index] - own) / left.clamp(min=1)
    product = torch.where(left > 0, residual * others, 0.0)
    return 2 * product - (index.bincount(product, minlength=bins) / count)[index]


def _of_own_example(
    residual: Float64[Tensor, "image"],
    index: Int64[Tensor, "image"],
    bins: int,
    examples: Int64[Tensor, "image"] | None,
) -> tuple[Float64[Tensor, "image"], Int64[Tensor, "image"]]:
    """The sum of the residuals of an image's own example in its bin, and how many these are."""
    if examples is None:
        return residual, torch.ones_like(index)
    cells, inverse, counts = (examples.to(index) * bins + index).unique(return_inverse=True, return_counts=True)
    sums = residual.new_zeros(len(cells)).index_add_(0, inverse, residual)
    return sums[inverse], counts[inverse]


def ece_interval(
    probs: Float[Tensor, "image class"],
    labels: Int64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> Interval:
    """The plug-in ECE with an interval that covers the population's ECE at these bins in 95 % of samples or more.

    The ECE is ``Σ_b |m_b|`` of means ``m_b`` that are nearly normal. Each end leaves out 2.5 % at most:

    - Below: ``ECE − q``, where q is the 97.5 % quantile of the derivative of ``Σ |·|`` at the means, ``Σ_b |h_b|`` over
      bins whose sign is not certain and ``Σ_b ± h_b`` over the others, with h drawn from the means' normal distribution
      (Fang and Santos 2019, "Inference on directionally differentiable functions", theorem 3.3). It is 0 for most
      samples of a calibrated classifier: its true value is on the boundary, and only the upper end bounds it.
    - Above: ``Σ_b |m_b|`` is at least ``Σ_b s_b m_b`` with the population's signs s, a mean over images, which has the
      score bound of Wilson (1927) with ``E[confidence (1 − confidence)] + e − e²`` as the variance where the error
      is e, the most that it can be.

    In the benchmark's grid it covers in 0.97 of samples or more. It is wide, since the plug-in ECE is biased upwards by
    an amount that depends on the unknown error of each bin. Where images are positions of examples, variances are of
    sums over examples, and the bound above is of as many images as would have them if they were independent.

    Args:
        probs: each row sums to 1.
        labels: the right classes.
        bins: how many, of equal width.
        examples: the example that each image is a position of, where they are not independent.

    Returns:
        The plug-in ECE, the interval, and the standard deviation of the ECE over samples, at most.

    Raises:
        InputError: as of `squared_calibration_error`.

    >>> probs = torch.tensor([[0.75, 0.25]]).expand(400, 2)
    >>> found = ece_interval(probs, (torch.arange(400) % 4 == 0).long())  # right in 3 of 4, as it says
    >>> found.value, found.low, round(found.high, 3)
    (0.0, 0.0, 0.047)
    """
    return ece_interval_of(*_confidence_and_right(probs, labels, bins), bins, examples)


def ece_interval_of(
    confidence: Float64[Tensor, "image"],
    right: Float64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> Interval:
    """The same from confidences, and whether each is right, 0 or 1."""
    num_images, index = len(confidence), bin_of(confidence, bins)
    residual, claimed = right - confidence, confidence * (1 - confidence)
    means = index.bincount(residual, minlength=bins) / num_images
    value = means.abs().sum().item()
    own, own_count = _of_own_example(residual, index, bins, examples)
    squares = index.bincount(own.square() / own_count, minlength=bins)  # of the sum of each example in each bin
    errors = torch.maximum(squares, index.bincount(claimed, minlength=bins)).sqrt() / num_images
    signed = means.sign()[index] * residual
    of_examples = terms_by_example(signed, examples)
    num_examples = len(of_examples)
    is_certain = means.abs() > math.sqrt(2 * math.log(num_examples)) * errors
    noise = _normal(bins).to(errors.device) * errors
    noise = torch.where(is_certain, noise, noise.abs()).sum(1)
    error = math.sqrt(of_examples.var(correction=0).item() / num_examples)
    alone = math.sqrt(signed.var(correction=0).item() / num_images)  # if images were independent
    effect = max(1.0, (error / alone) ** 2) if alone else 1.0
    return Interval(
        value=value,
        low=max(0.0, value - noise.quantile(0.975).item()),
        high=min(1.0, _upper(value, claimed.mean().item(), num_images / effect)),
        error=error,
    )


def _upper(value: float, claimed: float, num_images: float) -> float:
    """The larger e with ``(e − value)² = z² (claimed + e − e²) / images``."""
    square = _Z**2 / num_images
    half = value + square / 2
    return (half + math.sqrt(max(half**2 - (1 + square) * (value**2 - square * claimed), 0.0))) / (1 + square)


@cache
def _normal(bins: int) -> Float64[Tensor, "draw bin"]:
    """The same numbers for every sample, so that the same predictions have the same interval."""
    return torch.randn(_DRAWS, bins, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _confidence_and_right(
    probs: Tensor, labels: Tensor, bins: int
) -> tuple[Float64[Tensor, "image"], Float64[Tensor, "image"]]:
    check_bins(bins)
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    return confidence, (predicted == labels).double()
