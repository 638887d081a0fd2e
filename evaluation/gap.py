"""The share of a gap that is closed: between one network's score and a deep ensemble's, where is a method's?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.seed_statistics import Interval

_MOST_EXACT = 50_000  # resamples that are gone through one by one, where there are no more


@dataclass(frozen=True)
class Share:
    """What part of a gap is closed.

    Args:
        value: (N₁ − N) / (N₁ − N_D) of the means over seeds: 0 is as one network, 1 as the deep ensemble.
        interval: of it, over seeds; None of a single seed.
        seeds: that it is computed from.
    """

    value: float
    interval: Interval | None
    seeds: int


def share_of_gap(
    single: Mapping[int, float],
    deep: Mapping[int, float],
    method: Mapping[int, float],
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Share | None:
    """The share of the gap between one network and a deep ensemble that a method closes.

    The interval is the percentile bootstrap of the whole ratio over seeds (Efron and Tibshirani 1993, "An Introduction
    to the Bootstrap", section 13.3): seeds are drawn with replacement, and a seed brings all three of its scores, so
    that what it does to all of them cancels. Of up to 6 seeds all resamples are gone through, and nothing is random.
    Intervals of few seeds are too narrow, as `coverage` says: those of 2 and 3 are the ranges of their ratios.

    Args:
        single: a score of one network, by seed; lower is better.
        deep: that of the deep ensemble.
        method: that of what is measured.
        confidence: of the interval.
        resamples: of many seeds.

    Returns:
        The share, over the seeds that all three have. None where they have none in common, or there is no gap to
        divide by: the deep ensemble is no better, or the gap's own interval holds 0.

    Raises:
        InputError: a score that is NaN or infinite, a confidence that cannot be, or fewer than 2 resamples.

    >>> found = share_of_gap({0: 3.0, 1: 4.0}, {0: 1.0, 1: 2.0}, {0: 2.0, 1: 2.0})
    >>> found.value, found.interval.low, found.interval.high
    (0.75, 0.5, 1.0)
    """
    seeds = [seed for seed in single if seed in deep and seed in method]
    if not seeds:
        return None
    scores = torch.tensor([[of[seed] for seed in seeds] for of in (single, deep, method)], dtype=torch.float64)
    if not bool(scores.isfinite().all()):
        raise InputError("the share of a gap requires finite scores")
    one, best, own = scores.mean(1).tolist()
    if one <= best:
        return None
    value = (one - own) / (one - best)
    if len(seeds) == 1:
        return Share(value, None, 1)
    means = scores[:, _resampled(len(seeds), resamples)].mean(-1)
    gaps = means[0] - means[1]
    if _interval(one - best, gaps, confidence).low <= 0:
        return None
    kept = gaps != 0  # in a rare resample, of many seeds
    return Share(value, _interval(value, ((means[0] - means[2]) / gaps)[kept], confidence), len(seeds))


def coverage(seeds: int, confidence: float = 0.95) -> float:
    """How often a percentile interval of so many seeds holds what it should, about, at 2 or more.

    It is exact for the range of two about their median, and else that of a mean of normal numbers, whose interval has
    the normal quantile in place of Student's, and a deviation divided by n in place of n - 1.

    >>> [round(coverage(seeds), 2) for seeds in (2, 3, 5, 20)]
    [0.5, 0.75, 0.85, 0.93]
    """
    from scipy.stats import norm, t

    if seeds == 2:
        return 0.5
    reach = norm.ppf((1 + confidence) / 2) * math.sqrt((seeds - 1) / seeds)
    return float(2 * t.cdf(reach, seeds - 1) - 1)


def _resampled(count: int, resamples: int) -> Int64[Tensor, "resample seed"]:
    """Indices drawn with replacement: all there are of few, else so many."""
    if count**count <= _MOST_EXACT:
        return torch.tensor(list(product(range(count), repeat=count)))
    if resamples < 2:
        raise InputError(f"a bootstrap requires at least 2 resamples, not {resamples}")
    return torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(0))


def _interval(value: float, resampled: Float64[Tensor, "resample"], confidence: float) -> Interval:
    """As `percentile_interval`, but with values that there are at the ends: of few seeds these lie far apart."""
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be between 0 and 1, and is {confidence}")
    outside = (1 - confidence) / 2
    low = resampled.quantile(outside, interpolation="lower").item()
    high = resampled.quantile(1 - outside, interpolation="higher").item()
    return Interval(value, low, high, resampled.std().item())
