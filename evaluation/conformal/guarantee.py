"""The range of coverages expected on finite test sets if the conformal guarantee holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_share.evaluation.conformal.threshold import check_alpha, rank_of

_LEVEL = 0.95


@dataclass(frozen=True)
class Range:
    """A range that contains the coverage with a probability of 95 %.

    Args:
        low: lower end.
        high: upper end.
    """

    low: float
    high: float

    def __contains__(self, coverage: float) -> bool:
        """Return whether a coverage is in the range."""
        return self.low <= coverage <= self.high


def range_of_coverage(alpha: float, num_calibrated: int | None, num_tested: int) -> Range:
    """Compute the range that holds 95 % of coverages, over random calibration and test examples.

    Given n calibration examples, a threshold covers a new example with a probability that follows
    Beta(n + 1 − l, l), where l is (n + 1)α rounded down (Vovk 2012, arXiv 1209.2673, proposition 2b; ties are broken at
    random). The number of covered examples among m test examples is therefore beta-binomial.

    Args:
        alpha: the allowed miscoverage.
        num_calibrated: n; None if nothing was calibrated and each example is covered with probability 1 − α.
        num_tested: m, at least 1.

    Raises:
        InputError: if alpha is not between 0 and 1.

    >>> range_of_coverage(0.1, 37, 74), 0.83 in range_of_coverage(0.1, 37, 74), 0.83 in range_of_coverage(0.1, None, 74)
    (Range(low=0.7972972972972973, high=1.0), True, True)
    """
    from scipy.special import betaln, gammaln

    check_alpha(alpha)
    covered = np.arange(num_tested + 1)
    missed = num_tested - covered
    ways = gammaln(num_tested + 1) - gammaln(covered + 1) - gammaln(missed + 1)
    if num_calibrated is None:
        logs = covered * math.log1p(-alpha) + missed * math.log(alpha)
    else:
        rank = rank_of(alpha, num_calibrated)
        others = num_calibrated + 1 - rank
        if not others:  # every set contains all classes
            return Range(1.0, 1.0)
        logs = betaln(covered + rank, missed + others) - betaln(rank, others)
    at_most = np.cumsum(np.exp(ways + logs))
    low, high = np.searchsorted(at_most, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).clip(max=num_tested)
    return Range(float(low / num_tested), float(high / num_tested))


def verdict(judged: Sequence[tuple[str, float, Range]]) -> str:
    """Return a sentence on whether coverages agree with the guarantee.

    Args:
        judged: for each coverage, its description, its value, and the expected range.

    >>> verdict([("LAC at 90 %", 0.83, Range(0.78, 1.0))])
    'Every conformal coverage is within the range expected if the guarantee holds.'
    >>> verdict([("LAC at 90 %", 0.70, Range(0.78, 1.0))])
    'Conformal coverages outside the range expected if the guarantee holds: LAC at 90 % (70.0 %, below 78.0 %).'
    """
    outside = [
        f"{what} ({_percent(found)}, {'below' if found < wanted.low else 'above'} "
        f"{_percent(wanted.low if found < wanted.low else wanted.high)})"
        for what, found, wanted in judged
        if found not in wanted
    ]
    if not outside:
        return "Every conformal coverage is within the range expected if the guarantee holds."
    return f"Conformal coverages outside the range expected if the guarantee holds: {'; '.join(outside)}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
