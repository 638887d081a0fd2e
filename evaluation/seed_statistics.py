"""Means over seeds with standard errors, paired differences, and intervals."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bayes_share.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    Args:
        mean: the mean of n values.
        error: its standard error: the standard deviation of the values (with divisor n - 1) over √n; None for one
            value, NaN if the mean is not finite.
        count: n.
    """

    mean: float
    error: float | None
    count: int

    def is_clear(self, confidence: float = 0.95) -> bool:
        """Return whether Student's confidence interval of the mean excludes 0. False for a single value.

        Args:
            confidence: the level of the interval, without correction for multiple comparisons.

        >>> estimate([1.0, 2.0, 3.0]).is_clear(), estimate([3.0, 4.0, 5.0]).is_clear()
        (False, True)
        """
        if self.error is None:
            return False
        from scipy.stats import t

        return bool(abs(self.mean) > t.ppf((1 + confidence) / 2, self.count - 1) * self.error)


@dataclass(frozen=True)
class Interval:
    """A value with a confidence interval.

    Args:
        value: the value on the given data.
        low: the lower end; NaN for a bootstrap of a single example.
        high: the upper end; NaN for a bootstrap of a single example.
        error: the estimated standard error of the value; NaN if the value is infinite on some bootstrap resample, or
            for a bootstrap of a single example.
    """

    value: float
    low: float
    high: float
    error: float


def estimate(values: Iterable[float]) -> Estimate:
    """Compute the mean of values and its standard error, which is NaN if the mean is not finite.

    Raises:
        InputError: if there are no values.

    >>> estimate([1.0, 3.0])
    Estimate(mean=2.0, error=1.0, count=2)
    """
    numbers = list(values)
    if not numbers:
        raise InputError("there are no values to take the mean of")
    count = len(numbers)
    mean = _sum(numbers) / count
    if count == 1:
        return Estimate(mean, None, 1)
    if not math.isfinite(mean):
        return Estimate(mean, math.nan, count)
    variance = _sum([(number - mean) * (number - mean) for number in numbers]) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count)


def _sum(numbers: list[float]) -> float:
    """Sum with `math.fsum`, or with `sum` if fsum raises because of infinite values or overflow."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Compute the mean of ``one - other`` over common seeds.

    Effects of a seed on both, such as the initialisation or the order of the images, cancel. The standard error is
    therefore smaller than one computed from the errors of the two means.

    Args:
        one: scores by seed.
        other: scores to compare with, by seed.

    Raises:
        InputError: if there is no common seed.

    >>> paired_difference({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 3.0})
    Estimate(mean=2.0, error=0.0, count=2)
    """
    common = [seed for seed in one if seed in other]
    if not common:
        raise InputError("the two have no common seed")
    return estimate(one[seed] - other[seed] for seed in common)
