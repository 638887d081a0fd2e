"""Bootstrap intervals of scores over test images, and paired differences of scores on the same images."""

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
_AT_A_TIME = 2**20  # maximum number of image indices in memory, over all resamples of a chunk


def bootstrap(
    statistic: Callable[[Int64[Tensor, "image"]], float],
    num_images: int,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Compute a percentile bootstrap interval of a statistic of images.

    Each resample draws `num_images` images with replacement. The interval is bounded by the quantiles
    ``(1 ∓ confidence) / 2`` of the statistic over the resamples (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap", section 13.3). It reflects the variation over test images, not over training runs. A single image shows
    no variation, so the ends and the error are then NaN.

    Args:
        statistic: a function of image indices, which may contain duplicates.
        num_images: the number of images.
        resamples: the number of resamples.
        seed: the seed; for a given seed, the resamples do not depend on the statistic.
        confidence: the level of the interval, between 0 and 1.

    Raises:
        InputError: if there are no images, fewer than 2 resamples, or a confidence outside (0, 1).

    >>> numbers = torch.arange(100.0)
    >>> found = bootstrap(lambda images: numbers[images].mean().item(), 100)
    >>> round(found.value, 1), round(found.error, 1)  # the standard error is 2.9
    (49.5, 3.0)
    """
    parts = _resamples(num_images, resamples, seed)
    values = [statistic(images) if num_images > 1 else math.nan for part in parts for images in part]
    found = torch.tensor(values, dtype=torch.float64)
    return percentile_interval(statistic(torch.arange(num_images)), found, confidence)


def bootstrap_mean(
    values: Float[Tensor, "image"], resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Compute the percentile bootstrap interval of a mean. Same result as `bootstrap`, but much faster.

    Args:
        values: one value per image, such as an entry of `per_image`.
        resamples: the number of resamples.
        seed: the seed; the resamples are those of `bootstrap` for the same seed.
        confidence: the level of the interval, between 0 and 1.

    Raises:
        InputError: if there are no values, a value is NaN, or `bootstrap` would reject the other arguments.

    >>> found = bootstrap_mean(torch.arange(100.0))
    >>> round(found.value, 1), round(found.error, 1)
    (49.5, 3.0)
    """
    check_values("values", values)
    values = values.double().cpu()
    means = resampled_means(values[:, None], resamples, seed).squeeze(-1)
    return percentile_interval(values.mean().item(), means, confidence)


def score_intervals(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Compute accuracy, NLL, Brier score and ECE (15 bins) of the mixture with 95 % intervals.

    The first three are means over images; their intervals are bootstrapped over images, or over examples if these have
    several positions. The interval of the ECE is `ece_interval`, since the ECE of a resample is biased upwards even
    relative to the ECE of the sample. For several labels, all values are means over the labels.

    Args:
        predictions: logits and labels.
        resamples: the number of resamples.
        seed: the seed; predictions with the same number of images get the same resamples.

    Raises:
        InputError: if there are fewer than 2 resamples.
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
    """Compute ``one − other`` of accuracy, NLL, Brier score and squared calibration error on the same images.

    Each difference is a mean of differences per image, and its standard error is that of this mean. The difficulty of
    an image that affects both predictions cancels, so this error is smaller than one computed from the errors of the
    two scores. Calibration is compared by the debiased `squared_calibration_error`, because a difference of plug-in
    ECEs favours the more accurate of two calibrated runs.

    Args:
        one: logits and labels.
        other: predictions of the same images by another method.

    Returns:
        The differences by name. `count` is the number of images; the error is None for a single image.

    Raises:
        InputError: if the labels of the two differ.
    """
    for predictions in (one, other):
        check_kind(predictions)
    check_same_images(one.labels, other.labels)
    ours, theirs = score_terms(one), score_terms(other)
    return {name: estimate((ours[name] - theirs[name]).tolist()) for name in ours}


def score_terms(predictions: Predictions) -> dict[str, Float64[Tensor, "image"]]:
    """Compute the terms whose means are the scores: those of `per_image` and of the squared calibration error.

    There is one term per image, or one per example, by `terms_by_example`, if examples have several positions.

    Args:
        predictions: logits and labels; for several labels, the terms are means over the labels.
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
    """Compute the means of several columns on the resamples that `bootstrap` uses.

    Args:
        columns: values per image; the mean of a resample that contains an infinite value is infinite, and that of a
            resample of a single image NaN, since it does not vary.
        resamples: the number of resamples.
        seed: the seed of the resamples.

    Raises:
        InputError: if there are no images, or fewer than 2 resamples.
    """
    num_images = len(columns)
    if num_images == 1:
        columns = torch.full_like(columns, math.nan)
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
    """Yield image indices drawn with replacement, in chunks of resamples."""
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
    """Compute the interval of `bootstrap` from the values on resamples.

    The error is NaN if a value is infinite or NaN.
    """
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be between 0 and 1, and is {confidence}")
    outside = (1 - confidence) / 2
    ends = torch.tensor([outside, 1 - outside], dtype=torch.float64)
    is_finite = bool(resampled.isfinite().all())
    low, high = resampled.quantile(ends, interpolation="linear" if is_finite else "nearest").tolist()
    return Interval(value, low, high, resampled.std().item() if is_finite else math.nan)
