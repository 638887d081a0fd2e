"""What the promise of conformal prediction comes to on finitely many examples, so that a coverage can be judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_share.evaluation.conformal.threshold import check_alpha, rank_of

_LEVEL = 0.95


@dataclass(frozen=True)
class Range:
    """Where coverage lies in 95 % of cases.

    Args:
        low: at least.
        high: at most.
    """

    low: float
    high: float

    def __contains__(self, coverage: float) -> bool:
        """Whether a coverage lies there."""
        return self.low <= coverage <= self.high


def range_of_coverage(alpha: float, num_calibrated: int | None, num_tested: int) -> Range:
    """Where the coverage of test examples lies in 95 % of cases, over calibration and test examples.

    A threshold that is fitted to n examples covers one more with a probability that depends on these n: it is
    Beta(n + 1 − l, l), where l is (n + 1)α rounded down (Vovk 2012, arXiv 1209.2673, proposition 2b), as scores tie at
    random. So the number of m test examples that are covered is beta-binomial.

    Args:
        alpha: the miscoverage that is allowed.
        num_calibrated: n; None where nothing was calibrated and the coverage of each example is 1 − α.
        num_tested: m, at least 1.

    Raises:
        InputError: an alpha that is not between 0 and 1.

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
        if not others:  # every set is everything
            return Range(1.0, 1.0)
        logs = betaln(covered + rank, missed + others) - betaln(rank, others)
    at_most = np.cumsum(np.exp(ways + logs))
    low, high = np.searchsorted(at_most, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).clip(max=num_tested)
    return Range(float(low / num_tested), float(high / num_tested))


def verdict(judged: Sequence[tuple[str, float, Range]]) -> str:
    """One sentence on whether coverages keep what was promised.

    Args:
        judged: what each is of, the coverage, and its range.

    >>> verdict([("LAC at 90 %", 0.83, Range(0.78, 1.0))])
    'Every coverage is within the range expected if the guarantee holds.'
    >>> verdict([("LAC at 90 %", 0.70, Range(0.78, 1.0))])
    'Outside the range expected if the guarantee holds: LAC at 90 % (70.0 %, below 78.0 %).'
    """
    outside = [
        f"{what} ({_percent(found)}, {'below' if found < wanted.low else 'above'} "
        f"{_percent(wanted.low if found < wanted.low else wanted.high)})"
        for what, found, wanted in judged
        if found not in wanted
    ]
    if not outside:
        return "Every coverage is within the range expected if the guarantee holds."
    return f"Outside the range expected if the guarantee holds: {'; '.join(outside)}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
