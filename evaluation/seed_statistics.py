"""Numbers with their errors: means over repetitions, differences within pairs, intervals."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bayes_share.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions.

    Args:
        mean: of the values.
        error: its standard error, the values' standard deviation (n - 1) over √n; None for one value, NaN where the
            mean is not finite.
        count: how many values there are, n.
    """

    mean: float
    error: float | None
    count: int

    def is_clear(self, confidence: float = 0.95) -> bool:
        """Whether Student's interval around the mean leaves out 0; one value says nothing.

        Args:
            confidence: of the interval, for this one comparison: of 20 that are nothing, one is clear at 0.95.

        >>> estimate([1.0, 2.0, 3.0]).is_clear(), estimate([3.0, 4.0, 5.0]).is_clear()
        (False, True)
        """
        if self.error is None:
            return False
        from scipy.stats import t

        return bool(abs(self.mean) > t.ppf((1 + confidence) / 2, self.count - 1) * self.error)


@dataclass(frozen=True)
class Interval:
    """A number with an interval, which says how far it would move with other images.

    Args:
        value: on the images themselves.
        low: the lower end.
        high: the upper end.
        error: an estimate of the standard error of the value; NaN where the value is infinite on some resample.
    """

    value: float
    low: float
    high: float
    error: float


def estimate(values: Iterable[float]) -> Estimate:
    """The mean of values, with its standard error, which is NaN where the mean is not finite.

    Raises:
        InputError: no values.

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
    """Exact where the sum is a finite number; `math.fsum` raises where infinite ones cancel, or it overflows."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """The mean of ``one - other`` over the seeds that both have.

    What a seed does to both (initialisation, the order of the images) cancels, which the difference of two means with
    their own standard errors would count twice.

    Args:
        one: scores by seed.
        other: the same, of what is compared with it.

    Raises:
        InputError: no seed in common.

    >>> paired_difference({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 3.0})
    Estimate(mean=2.0, error=0.0, count=2)
    """
    common = [seed for seed in one if seed in other]
    if not common:
        raise InputError("the two have no common seed")
    return estimate(one[seed] - other[seed] for seed in common)
