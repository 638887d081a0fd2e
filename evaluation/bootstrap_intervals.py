"""How far scores would move with other test images: bootstrap intervals, and differences on the same images."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.binary import mean_over_labels
from bayes_share.evaluation.calibration_estimates import ece_interval, squared_error_terms
from bayes_share.evaluation.checks import check_same_images, check_values
from bayes_share.evaluation.positions import sums_by_example, terms_by_example
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.evaluation.scores import per_image
from bayes_share.evaluation.seed_statistics import Estimate, Interval, estimate

_MEANS = ("accuracy", "nll", "brier")  # the scores that are means over images
_AT_A_TIME = 2**20  # images of resamples in memory


def bootstrap(
    statistic: Callable[[Int64[Tensor, "image"]], float],
    num_images: int,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The percentile bootstrap of any number that is computed from images.

    Each resample has as many images as there are, drawn with replacement; the interval reaches from the quantile
    ``(1 − confidence) / 2`` of the statistic over the resamples to the one as far from the other end (Efron and
    Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3). It says how much other test images would
    change the number, not how much another training would.

    Args:
        statistic: a function of the indices of images, of which some come more than once.
        num_images: images there are.
        resamples: how often images are drawn.
        seed: the same seed draws the same images, whatever the statistic is.
        confidence: of the interval, between 0 and 1.

    Raises:
        InputError: no images, fewer than 2 resamples, or a confidence that cannot be.

    >>> numbers = torch.arange(100.0)
    >>> found = bootstrap(lambda images: numbers[images].mean().item(), 100)
    >>> round(found.value, 1), round(found.error, 1)  # the standard error is 2.9
    (49.5, 3.0)
    """
    parts = _resamples(num_images, resamples, seed)
    values = [statistic(images) for part in parts for images in part]
    found = torch.tensor(values, dtype=torch.float64)
    return percentile_interval(statistic(torch.arange(num_images)), found, confidence)


def bootstrap_mean(
    values: Float[Tensor, "image"], resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The percentile bootstrap of the mean of a number for each image, as `bootstrap` has it, and much faster.

    Args:
        values: for example, one of `per_image`.
        resamples: how often images are drawn.
        seed: the same seed draws the same images as in `bootstrap`.
        confidence: of the interval, between 0 and 1.

    Raises:
        InputError: no values or NaN among them, or what `bootstrap` refuses.

    >>> found = bootstrap_mean(torch.arange(100.0))
    >>> round(found.value, 1), round(found.error, 1)
    (49.5, 3.0)
    """
    check_values("values", values)
    values = values.double().cpu()
    means = resampled_means(values[:, None], resamples, seed).squeeze(-1)
    return percentile_interval(values.mean().item(), means, confidence)


def score_intervals(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Accuracy, NLL, Brier score and ECE (15 bins) of the mixture, each with its interval of 95 %.

    Those of the means are by the bootstrap over images, or over examples where these have several positions; that of
    the ECE is `ece_interval`, as resamples of an ECE are larger than the ECE itself. Of several labels all are means
    over the labels.

    Args:
        predictions: logits and labels.
        resamples: how often images are drawn.
        seed: the same seed draws the same images, of every predictions of as many images.

    Raises:
        InputError: fewer than 2 resamples.
    """
    check_kind(predictions)
    columns = _row_terms(predictions)
    values = torch.stack([columns[name] for name in _MEANS], dim=1)
    sums, counts = sums_by_example(values, predictions.examples)
    resampled = resampled_means(torch.cat([sums, counts[:, None]], dim=1), resamples, seed)
    found = {
        name: percentile_interval(values[:, index].mean().item(), resampled[:, index] / resampled[:, -1])
        for index, name in enumerate(_MEANS)
    }
    each = [
        ece_interval(problem.log_probs.exp().cpu(), problem.labels.cpu(), examples=problem.examples)
        for problem in predictions.problems()
    ]
    return {**found, "ece": mean_over_labels(each)}


def paired_differences(one: Predictions, other: Predictions) -> dict[str, Estimate]:
    """``one − other`` of accuracy, NLL, Brier score and squared calibration error on the same images.

    What makes an image hard for both cancels, which the difference of two scores with their own errors would count
    twice. Each is a mean over images, and its standard error that of the mean of the images' differences. Calibration
    is compared by the debiased `squared_calibration_error`: a difference of plug-in ECEs favours the more accurate of
    two calibrated runs.

    Args:
        one: logits and labels.
        other: the same images by another method.

    Returns:
        The differences; `count` is the number of images, and of one image there is no error.

    Raises:
        InputError: the two are not of the same images.
    """
    for predictions in (one, other):
        check_kind(predictions)
    check_same_images(one.labels, other.labels)
    ours, theirs = score_terms(one), score_terms(other)
    return {name: estimate((ours[name] - theirs[name]).tolist()) for name in ours}


def score_terms(predictions: Predictions) -> dict[str, Float64[Tensor, "image"]]:
    """A number for each image, of which a score is the mean: of `per_image`, and of the squared calibration error.

    Where examples have several positions, it is a number for each example, as `terms_by_example` has it.

    Args:
        predictions: logits and labels; of several labels the terms are means over the labels.
    """
    return {name: terms_by_example(terms, predictions.examples) for name, terms in _row_terms(predictions).items()}


def _row_terms(predictions: Predictions) -> dict[str, Float64[Tensor, "image"]]:
    each = []
    for problem in predictions.problems():
        mixture, labels = problem.log_probs.cpu(), problem.labels.cpu()
        squared = squared_error_terms(mixture.exp(), labels, examples=problem.examples)
        each.append({**per_image(mixture, labels), "squared_calibration_error": squared})
    return {name: torch.stack([terms[name] for terms in each]).mean(0) for name in each[0]}


def resampled_means(
    columns: Float64[Tensor, "image column"], resamples: int = 1000, seed: int = 0
) -> Float64[Tensor, "resample column"]:
    """The means of several columns on the same resamples, which are those of `bootstrap`.

    Args:
        columns: numbers for each image; the mean over images of which some are infinite is infinite.
        resamples: how often images are drawn.
        seed: the same seed draws the same images.

    Raises:
        InputError: no images, or fewer than 2 resamples.
    """
    num_images = len(columns)
    finite = columns.masked_fill(columns.isinf(), 0.0)  # 0 times infinity is NaN
    ends = [(end, (columns == end).double()) for end in (math.inf, -math.inf) if bool((columns == end).any())]
    means = []
    for part in _resamples(num_images, resamples, seed):
        ones = torch.ones(part.shape, dtype=torch.float64)
        counts = torch.zeros(part.shape, dtype=torch.float64).scatter_add_(1, part, ones)
        found = counts @ finite / num_images
        for end, there in ends:
            found += torch.where(counts @ there > 0, end, 0.0)
        means.append(found)
    return torch.cat(means)


def _resamples(num_images: int, resamples: int, seed: int) -> Iterator[Int64[Tensor, "resample image"]]:
    """Indices of images, drawn with replacement, for some resamples at a time."""
    if num_images < 1:
        raise InputError("there are no examples to draw from")
    if resamples < 2:
        raise InputError(f"a bootstrap requires at least 2 resamples, not {resamples}")
    generator = torch.Generator().manual_seed(seed)
    at_a_time = max(1, _AT_A_TIME // num_images)
    for first in range(0, resamples, at_a_time):
        shape = (min(at_a_time, resamples - first), num_images)
        yield torch.randint(num_images, shape, generator=generator)


def percentile_interval(value: float, resampled: Float64[Tensor, "resample"], confidence: float = 0.95) -> Interval:
    """The interval of a number from its values on resamples, as `bootstrap` has it; infinite ones have no error."""
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be between 0 and 1, and is {confidence}")
    outside = (1 - confidence) / 2
    ends = torch.tensor([outside, 1 - outside], dtype=torch.float64)
    is_finite = bool(resampled.isfinite().all())
    low, high = resampled.quantile(ends, interpolation="linear" if is_finite else "nearest").tolist()
    return Interval(value, low, high, resampled.std().item() if is_finite else math.nan)
