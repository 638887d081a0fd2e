"""The share of the gap between the score of one network and that of a deep ensemble that a method closes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.seed_statistics import Interval

_MOST_EXACT = 50_000  # enumerate all resamples if there are at most this many


@dataclass(frozen=True)
class Share:
    """The share of a gap that is closed.

    Args:
        value: (N₁ − N) / (N₁ − N_D), with means over seeds: 0 for a score equal to that of one network, 1 for that of
            the deep ensemble.
        interval: its bootstrap interval over seeds; None for a single seed.
        seeds: the number of seeds.
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
    """Compute the share of the gap between one network and a deep ensemble that a method closes.

    The interval is the percentile bootstrap of the ratio over seeds (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap", section 13.3). A resampled seed contributes all three scores, so effects of the seed on all of them
    cancel. For up to 6 seeds, all resamples are enumerated and the result is exact. Intervals for few seeds are too
    narrow; `coverage` computes by how much. For 2 and 3 seeds they are the ranges of the ratios.

    Args:
        single: the score of one network, by seed; lower is better.
        deep: the score of the deep ensemble, by seed.
        method: the score of the method, by seed.
        confidence: the level of the interval.
        resamples: the number of random resamples, used for more than 6 seeds.

    Returns:
        The share over the common seeds. None if there is no common seed, the deep ensemble is not better than one
        network, or the bootstrap interval of the gap contains 0.

    Raises:
        InputError: if a score is NaN or infinite, the confidence is outside (0, 1), or there are fewer than 2
            resamples.

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
    kept = gaps != 0  # a gap of 0 is possible in a rare resample
    return Share(value, _interval(value, ((means[0] - means[2]) / gaps)[kept], confidence), len(seeds))


def coverage(seeds: int, confidence: float = 0.95) -> float:
    """Approximate the actual coverage of a percentile interval over at least 2 seeds.

    For 2 seeds it is the exact probability that the range of two values contains their median. For more seeds it is the
    coverage of an interval for the mean of normal values that uses the normal instead of the Student quantile, and a
    standard deviation with divisor n instead of n - 1.

    >>> [round(coverage(seeds), 2) for seeds in (2, 3, 5, 20)]
    [0.5, 0.75, 0.85, 0.93]
    """
    from scipy.stats import norm, t

    if seeds == 2:
        return 0.5
    reach = norm.ppf((1 + confidence) / 2) * math.sqrt((seeds - 1) / seeds)
    return float(2 * t.cdf(reach, seeds - 1) - 1)


def _resampled(count: int, resamples: int) -> Int64[Tensor, "resample seed"]:
    """Return index resamples: all of them if there are few, otherwise random ones."""
    if count**count <= _MOST_EXACT:
        return torch.tensor(list(product(range(count), repeat=count)))
    if resamples < 2:
        raise InputError(f"a bootstrap requires at least 2 resamples, not {resamples}")
    return torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(0))


def _interval(value: float, resampled: Float64[Tensor, "resample"], confidence: float) -> Interval:
    """Compute a percentile interval whose ends are resampled values, without interpolation.

    For few seeds the resampled values lie far apart.
    """
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be between 0 and 1, and is {confidence}")
    outside = (1 - confidence) / 2
    low = resampled.quantile(outside, interpolation="lower").item()
    high = resampled.quantile(1 - outside, interpolation="higher").item()
    return Interval(value, low, high, resampled.std().item())
