"""Estimates of the population calibration error for fixed bins of confidence.

With bins of equal width, the population ECE is ``Σ_b |E[(right − confidence) · 1_b]|``, and the squared calibration
error is ``Σ_b P(b) · E[right − confidence | b]²``. The plug-in ECE is biased upwards, because the noise within a bin
does not cancel: for a calibrated classifier it is about ``Σ_b σ_b √(2 / π)`` instead of 0, which is larger for fewer
images and for less accurate classifiers. This module has an unbiased estimate of the squared error and an interval for
the ECE. `benchmarks/calibration.py` measures both.
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

_Z = 1.959964  # the 97.5 % quantile of the standard normal distribution
_DRAWS = 4000


def squared_calibration_error(
    probs: Float[Tensor, "image class"],
    labels: Int64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> float:
    """The debiased squared calibration error of the most probable class; it can be negative by chance.

    An unbiased estimate of ``Σ_b P(b) · E[right − confidence | b]²`` over the bins of `reliability`, the calibration
    part of the Brier score for the event that the predicted class is right (Murphy 1973). It subtracts the variance of
    the mean of each bin from the plug-in square: Kumar, Liang and Ma 2019, arXiv 1909.10155, section 4; Ferro and
    Fricker 2012, "A bias-corrected decomposition of the Brier score". Its expectation is 0 for a calibrated classifier,
    whatever the accuracy and the number of images, which is why runs are compared by it. An image alone in its bin
    counts as 0, so with fewer than about three images per bin the error is underestimated. Its square root, if it is
    positive, is on the scale of the ECE; in the population it is at least as large as the ECE.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width, as in `bayes_share.evaluation.calibration.reliability`.
        examples: the index of the example that each image is a position of; None if the images are independent.

    Raises:
        InputError: if `bins` is less than 1, or `check_probs` rejects the input.

    Two images in one bin with residuals of −0.6 and 0.38 are no evidence of miscalibration:

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
    """Compute the terms whose mean is `squared_calibration_error`, for standard errors and paired differences.

    Let ``d_i = right_i − confidence_i`` and ``u_i = d_i · mean of the other d in the bin of i``, where images of the
    same example are excluded and ``u_i = 0`` if no other image is left. The estimate is ``mean u_i``. The terms are
    ``2 u_i − mean of u in the bin of i``. They have the same mean, and the spread of the influence function of the
    estimate, so ``sd / √images`` is its standard error. For a calibrated classifier it is too large by a factor of up
    to √2.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width.
        examples: the index of the example that each image is a position of; None if the images are independent.

    Raises:
        InputError: see `squared_calibration_error`.
    """
    return squared_error_terms_of(*_confidence_and_right(probs, labels, bins), bins, examples)


def squared_error_terms_of(
    confidence: Float64[Tensor, "image"],
    right: Float64[Tensor, "image"],
    bins: int = 15,
    examples: Int64[Tensor, "image"] | None = None,
) -> Float64[Tensor, "image"]:
    """Compute the same from confidences and correctness, 0 or 1."""
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
    """For each image, the sum and the number of the residuals of its own example in its bin."""
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
    """Compute the plug-in ECE with a conservative 95 % interval for the population ECE with the same bins.

    The ECE is ``Σ_b |m_b|``, where the means ``m_b`` are approximately normal. Each end has an error of at most 2.5 %:

    - Lower end: ``ECE − q``, where q is the 97.5 % quantile of the directional derivative of ``Σ |·|`` at the means:
      ``Σ_b |h_b|`` over the bins whose sign is uncertain plus ``Σ_b ± h_b`` over the others, with h drawn from the
      normal distribution of the means (Fang and Santos 2019, "Inference on directionally differentiable functions",
      theorem 3.3). For most samples of a calibrated classifier it is 0, since the true value is on the boundary.
    - Upper end: ``Σ_b |m_b|`` is at least ``Σ_b s_b m_b`` with the signs s of the population. This is a mean over
      images, so the score bound of Wilson (1927) applies, with the largest possible variance,
      ``E[confidence (1 − confidence)] + e − e²`` for an ECE of e.

    The coverage on the grid of the benchmark is at least 0.97. The interval is wide, because the bias of the plug-in
    ECE depends on the unknown error of each bin. If images are positions of examples, variances are computed from sums
    over examples, and the upper end uses the effective number of independent images.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        bins: the number of bins of equal width.
        examples: the index of the example that each image is a position of; None if the images are independent.

    Returns:
        The plug-in ECE, its interval, and an upper bound on its standard error.

    Raises:
        InputError: see `squared_calibration_error`.

    >>> probs = torch.tensor([[0.75, 0.25]]).expand(400, 2)
    >>> found = ece_interval(probs, (torch.arange(400) % 4 == 0).long())  # right in 3 of 4 images: calibrated
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
    """Compute the same from confidences and correctness, 0 or 1."""
    num_images, index = len(confidence), bin_of(confidence, bins)
    residual, claimed = right - confidence, confidence * (1 - confidence)
    means = index.bincount(residual, minlength=bins) / num_images
    value = means.abs().sum().item()
    own, own_count = _of_own_example(residual, index, bins, examples)
    squares = index.bincount(own.square() / own_count, minlength=bins)  # sums per example and bin
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
    """The larger root e of ``(e − value)² = z² (claimed + e − e²) / images``."""
    square = _Z**2 / num_images
    half = value + square / 2
    return (half + math.sqrt(max(half**2 - (1 + square) * (value**2 - square * claimed), 0.0))) / (1 + square)


@cache
def _normal(bins: int) -> Float64[Tensor, "draw bin"]:
    """Standard normal draws from a fixed seed, so that the interval is deterministic."""
    return torch.randn(_DRAWS, bins, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _confidence_and_right(
    probs: Tensor, labels: Tensor, bins: int
) -> tuple[Float64[Tensor, "image"], Float64[Tensor, "image"]]:
    check_bins(bins)
    check_probs(probs, labels)
    confidence, predicted = probs.double().max(-1)
    return confidence, (predicted == labels).double()
