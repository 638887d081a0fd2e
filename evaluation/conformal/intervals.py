"""Conformal intervals for numbers, from predicted quantiles (CQR) or moments (scaled residuals)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_scores
from bayes_share.evaluation.conformal.threshold import Threshold, fit_threshold, seed_for, uniform

Numbers = Float[Tensor, "example"]
Ends = tuple[Float64[Tensor, "example"], Float64[Tensor, "example"]]
"""The lower and upper ends of intervals; an interval whose lower end is above its upper end is empty."""

_ROUNDING = 4 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class QuantileIntervals:
    """A fitted correction of intervals between two predicted quantiles.

    Args:
        alpha: the allowed miscoverage.
        threshold: the amount by which both ends are moved outwards; negative if the intervals were too wide.
        num_examples: the number of calibration examples.
        seed: the seed of the random numbers that break ties.
    """

    alpha: float
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, lower: Numbers, upper: Numbers) -> Ends:
        """Compute the interval of each example. All are infinite if there were too few calibration examples.

        Args:
            lower: the lower quantiles, of the same level as in the fit.
            upper: the upper quantiles, of the same level as in the fit.

        Raises:
            InputError: if a value is not finite, or the lengths differ.
        """
        low, high = _checked({"lower quantiles": lower, "upper quantiles": upper})
        return _widened(low, high, torch.ones_like(low), self.threshold, self.seed)


@dataclass(frozen=True)
class ScaledIntervals:
    """A fitted multiple of the predicted standard deviation around the predicted mean.

    Args:
        alpha: the allowed miscoverage.
        threshold: the number of standard deviations.
        num_examples: the number of calibration examples.
        seed: the seed of the random numbers that break ties.
    """

    alpha: float
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, mean: Numbers, sd: Numbers) -> Ends:
        """Compute the interval of each example. All are infinite if there were too few calibration examples.

        Args:
            mean: predicted means.
            sd: predicted standard deviations, positive.

        Raises:
            InputError: if a value is not finite, a standard deviation is not positive, or the lengths differ.
        """
        centre, scale = _checked_scale(mean, sd)
        return _widened(centre, centre, scale, self.threshold, self.seed)


def fit_quantile_intervals(
    lower: Numbers, upper: Numbers, targets: Numbers, alpha: float = 0.1, seed: int = 0
) -> QuantileIntervals:
    """Fit conformalised quantile regression, CQR (Romano, Patterson and Candès 2019, arXiv 1905.03222).

    Both ends of the intervals are moved by the same amount. The interval of a new exchangeable example contains its
    target with a probability of at least 1 − α, and, with n calibration examples, of at most ``1 − α + 1/(n + 1)``.

    Args:
        lower: predicted lower quantiles, for example of level α/2, of examples not used for fitting or selection.
        upper: predicted upper quantiles, for example of level 1 − α/2.
        targets: the targets of the examples.
        alpha: the allowed miscoverage, between 0 and 1.
        seed: the seed of the random numbers that break ties, which occur for counts.

    Raises:
        InputError: if a value is not finite, the lengths differ, or alpha is out of range.

    With the quantiles of a `Predictive`:

    >>> from torch.distributions import Normal
    >>> from bayes_share.models.predictive import Predictive
    >>> narrow = Predictive(Normal(torch.zeros(1, 1, 99).double(), 0.5))
    >>> targets = torch.linspace(-2, 2, 99).double()
    >>> intervals = fit_quantile_intervals(*narrow.quantile([0.05, 0.95]), targets, alpha=0.1)
    >>> lower, upper = intervals(*narrow.quantile([0.05, 0.95]))
    >>> round(lower[0].item(), 2), round(upper[0].item(), 2)
    (-1.84, 1.84)
    """
    low, high, values = _checked({"lower quantiles": lower, "upper quantiles": upper, "targets": targets})
    scores = torch.maximum(low - values, values - high)
    return QuantileIntervals(*_fitted(scores, alpha, seed))


def fit_scaled_intervals(
    mean: Numbers, sd: Numbers, targets: Numbers, alpha: float = 0.1, seed: int = 0
) -> ScaledIntervals:
    """Fit the mean ± a multiple of the standard deviation (Lei et al. 2018, arXiv 1604.04173, section 5.2).

    The intervals have the coverage guarantee of `fit_quantile_intervals`. The standard deviation of a `Predictive` is
    ``predictive.stddev``.

    Args:
        mean: predicted means of examples not used for fitting or selection.
        sd: predicted standard deviations, positive.
        targets: the targets of the examples.
        alpha: the allowed miscoverage, between 0 and 1.
        seed: the seed of the random numbers that break ties.

    Raises:
        InputError: if a value is not finite, a standard deviation is not positive, the lengths differ, or alpha is out
            of range.

    >>> targets = torch.linspace(-2, 2, 99).double()
    >>> intervals = fit_scaled_intervals(torch.zeros(99), torch.full((99,), 0.5), targets, alpha=0.1)
    >>> [round(end.item(), 2) for end in intervals(torch.tensor([10.0]), torch.tensor([2.0]))]
    [2.65, 17.35]
    """
    centre, scale = _checked_scale(mean, sd)
    _, values = _checked({"means": centre, "targets": targets})
    return ScaledIntervals(*_fitted((values - centre).abs() / scale, alpha, seed))


def _fitted(scores: Float64[Tensor, "example"], alpha: float, seed: int) -> tuple[float, Threshold, int, int]:
    seed = seed_for(seed, scores)
    return alpha, fit_threshold(scores, uniform(seed, "ties of scores", len(scores)), alpha), len(scores), seed


def _widened(low: Tensor, high: Tensor, scale: Tensor, threshold: Threshold, seed: int) -> Ends:
    width = threshold.score * scale
    ties = uniform(seed_for(seed, low, high, scale), "ties of intervals", len(low))
    # Whether an interval contains a target at its end, which is common for counts, must depend on the tie-breaker and
    # not on rounding.
    rounding = _ROUNDING * (torch.maximum(low.abs(), high.abs()) + width.abs())
    outward = width + torch.where(ties <= threshold.tie, rounding, -rounding)
    return low - outward, high + outward


def _checked_scale(mean: Numbers, sd: Numbers) -> Ends:
    centre, scale = _checked({"means": mean, "standard deviations": sd})
    if not bool((scale > 0).all()):
        raise InputError(f"standard deviations must be positive, and the smallest is {scale.min().item():.6g}")
    return centre, scale


def _checked(columns: dict[str, Tensor]) -> list[Float64[Tensor, "example"]]:
    """Check that columns are finite and of equal length, and convert them to float64 on the CPU."""
    (first, column), *others = columns.items()
    for what, values in columns.items():
        check_scores(what, values)
    for what, values in others:
        if len(values) != len(column):
            raise InputError(f"there are {len(column)} {first}, and {len(values)} {what}")
    return [values.detach().double().cpu() for values in columns.values()]
