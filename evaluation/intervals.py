"""How far scores would move with other test images: bootstrap intervals, and differences on the same images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.calibration import bin_of
from bayes_share.evaluation.checks import check_same_images, check_values
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.repeats import Estimate, estimate
from bayes_share.evaluation.scores import per_image

_BINS = 15
_MEANS = ("accuracy", "nll", "brier")  # the scores that are means over images
_AT_A_TIME = 2**20  # images of resamples in memory


@dataclass(frozen=True)
class Interval:
    """A number with the interval in which it lies over resampled images.

    Args:
        value: on the images themselves.
        low: the lower end.
        high: the upper end.
        error: the standard deviation over the resamples, which estimates the standard error of the value.
    """

    value: float
    low: float
    high: float
    error: float


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
    means = _resampled_means(values[:, None], resamples, seed).squeeze(-1)
    return percentile_interval(values.mean().item(), means, confidence)


def score_intervals(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Accuracy, NLL, Brier score and ECE (15 bins) of the mixture, each with its bootstrap interval of 95 %.

    The ECE of a resample is larger in the mean than that of the images themselves, as drawing them adds noise to every
    bin. So of predictions that are nearly calibrated the value may lie below its interval.

    Args:
        predictions: logits and labels.
        resamples: how often images are drawn.
        seed: the same seed draws the same images, of every predictions of as many images.

    Raises:
        InputError: fewer than 2 resamples.
    """
    columns = _columns(predictions)
    found = _scores(_resampled_means(columns, resamples, seed))
    values = _scores(columns.mean(0, keepdim=True))
    return {name: percentile_interval(values[name].item(), found[name]) for name in found}


def paired_differences(
    one: Predictions, other: Predictions, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """``one − other`` of accuracy, NLL, Brier score and ECE (15 bins) on the same images.

    What makes an image hard for both cancels, which the difference of two scores with their own errors would count
    twice. Of a mean over images the standard error is that of the mean of the images' differences; of the ECE it is the
    standard deviation over resamples of images that are drawn for both.

    Args:
        one: logits and labels.
        other: the same images by another method.
        resamples: how often images are drawn for the ECE.
        seed: of the resamples.

    Returns:
        The differences; `count` is the number of images, and of one image there is no error.

    Raises:
        InputError: the two are not of the same images, or fewer than 2 resamples.
    """
    check_same_images(one.labels, other.labels)
    ours, theirs = _columns(one), _columns(other)
    means = {name: estimate((ours - theirs)[:, index].tolist()) for index, name in enumerate(_MEANS)}
    both = torch.cat([ours, theirs], dim=1)
    value = _ece_difference(both.mean(0, keepdim=True)).item()
    resampled = _ece_difference(_resampled_means(both, resamples, seed))
    count = len(both)
    return {**means, "ece": Estimate(value, resampled.std().item() if count > 1 else None, count)}


def _ece_difference(means: Float64[Tensor, "resample column"]) -> Float64[Tensor, "resample"]:
    ours, theirs = (_scores(half)["ece"] for half in means.chunk(2, dim=1))
    return ours - theirs


def _columns(predictions: Predictions) -> Float64[Tensor, "image column"]:
    """What each image adds to the means, and to the gap between accuracy and confidence of each bin.

    So every score is a function of the mean over images, and a resample is a product with its counts.
    """
    mixture, labels = predictions.log_probs.cpu(), predictions.labels.cpu()
    scores = per_image(mixture, labels)
    confidence = mixture.max(-1).values.exp()
    gaps = torch.zeros(len(labels), _BINS, dtype=torch.float64)
    gaps.scatter_(1, bin_of(confidence, _BINS)[:, None], (scores["accuracy"] - confidence)[:, None])
    return torch.cat([torch.stack([scores[name] for name in _MEANS], dim=1), gaps], dim=1)


def _scores(means: Float64[Tensor, "resample column"]) -> dict[str, Float64[Tensor, "resample"]]:
    found = {name: means[:, index] for index, name in enumerate(_MEANS)}
    return {**found, "ece": means[:, len(_MEANS) :].abs().sum(1)}


def _resampled_means(
    columns: Float64[Tensor, "image column"], resamples: int, seed: int
) -> Float64[Tensor, "resample column"]:
    num_images = len(columns)
    means = []
    for part in _resamples(num_images, resamples, seed):
        ones = torch.ones(part.shape, dtype=torch.float64)
        counts = torch.zeros(part.shape, dtype=torch.float64).scatter_add_(1, part, ones)
        means.append(counts @ columns / num_images)
    return torch.cat(means)


def _resamples(num_images: int, resamples: int, seed: int) -> Iterator[Int64[Tensor, "resample image"]]:
    """Indices of images, drawn with replacement, for some resamples at a time."""
    if num_images < 1:
        raise InputError("there are no images to draw from")
    if resamples < 2:
        raise InputError(f"a bootstrap takes at least 2 resamples, not {resamples}")
    generator = torch.Generator().manual_seed(seed)
    at_a_time = max(1, _AT_A_TIME // num_images)
    for first in range(0, resamples, at_a_time):
        shape = (min(at_a_time, resamples - first), num_images)
        yield torch.randint(num_images, shape, generator=generator)


def percentile_interval(value: float, resampled: Float64[Tensor, "resample"], confidence: float = 0.95) -> Interval:
    """The interval of a number from its values on resamples, as `bootstrap` has it."""
    if not 0 < confidence < 1:
        raise InputError(f"the confidence of an interval is between 0 and 1, and is {confidence}")
    outside = (1 - confidence) / 2
    low, high = resampled.quantile(torch.tensor([outside, 1 - outside], dtype=torch.float64)).tolist()
    return Interval(value, low, high, resampled.std().item())
