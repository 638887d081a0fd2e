"""Conformal intervals of numbers: CQR and scaled residuals, from predictions alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_scores
from bayes_share.evaluation.conformal.threshold import Threshold, fit_threshold, seed_for, uniform

Numbers = Float[Tensor, "example"]
Ends = tuple[Float64[Tensor, "example"], Float64[Tensor, "example"]]
"""The lower and the upper ends of intervals; an interval whose lower end is above its upper one is empty."""

_ROUNDING = 4 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class QuantileIntervals:
    """A fitted widening of intervals between two quantiles, to be called on those of new examples.

    Args:
        alpha: the miscoverage that is allowed.
        threshold: what is added at both ends; negative where intervals were too wide.
        num_examples: that it was fitted to.
        seed: of the random numbers that break ties.
    """

    alpha: float
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, lower: Numbers, upper: Numbers) -> Ends:
        """The ends of each example's interval; infinite where too few examples were given to fit one.

        Args:
            lower: the same quantile as when it was fitted.
            upper: likewise.

        Raises:
            InputError: numbers that are not finite, or the two of different length.
        """
        low, high = _checked({"lower quantiles": lower, "upper quantiles": upper})
        return _widened(low, high, torch.ones_like(low), self.threshold, self.seed)


@dataclass(frozen=True)
class ScaledIntervals:
    """A fitted number of standard deviations around the mean, to be called on those of new examples.

    Args:
        alpha: the miscoverage that is allowed.
        threshold: how many standard deviations.
        num_examples: that it was fitted to.
        seed: of the random numbers that break ties.
    """

    alpha: float
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, mean: Numbers, sd: Numbers) -> Ends:
        """The ends of each example's interval; infinite where too few examples were given to fit one.

        Args:
            mean: predicted.
            sd: predicted, positive.

        Raises:
            InputError: numbers that are not finite, a standard deviation that is not positive, or the two of different
                length.
        """
        centre, scale = _checked_scale(mean, sd)
        return _widened(centre, centre, scale, self.threshold, self.seed)


def fit_quantile_intervals(
    lower: Numbers, upper: Numbers, targets: Numbers, alpha: float = 0.1, seed: int = 0
) -> QuantileIntervals:
    """Conformalised quantile regression, CQR (Romano, Patterson and Candès 2019, arXiv 1905.03222).

    The interval of one more exchangeable example, widened or narrowed by the same amount at both ends, holds its target
    with a probability of at least 1 − α, and with n examples of at most ``1 − α + 1/(n + 1)``.

    Args:
        lower: a predicted quantile, such as that of α/2, of examples on which nothing was fitted or chosen.
        upper: likewise, such as that of 1 − α/2.
        targets: what was measured.
        alpha: the miscoverage that is allowed, between 0 and 1.
        seed: of the random numbers that break ties, which occur among counts.

    Raises:
        InputError: numbers that are not finite, not as many of each, or another alpha.

    Of a `Predictive`, the quantiles are its own:

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
    """Intervals of so many predicted standard deviations around the mean (Lei et al. 2018, arXiv 1604.04173, sec. 5.2).

    They have the coverage of `fit_quantile_intervals`. Of a `Predictive` the standard deviation is
    ``predictive.stddev``.

    Args:
        mean: predicted, of examples on which nothing was fitted or chosen.
        sd: predicted, positive.
        targets: what was measured.
        alpha: the miscoverage that is allowed, between 0 and 1.
        seed: of the random numbers that break ties.

    Raises:
        InputError: numbers that are not finite, a standard deviation that is not positive, not as many of each, or
            another alpha.

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
    # A target at an end, as is common among counts, is in where its tie-breaker says so, and not as rounding has it.
    rounding = _ROUNDING * (torch.maximum(low.abs(), high.abs()) + width.abs())
    outward = width + torch.where(ties <= threshold.tie, rounding, -rounding)
    return low - outward, high + outward


def _checked_scale(mean: Numbers, sd: Numbers) -> Ends:
    centre, scale = _checked({"means": mean, "standard deviations": sd})
    if not bool((scale > 0).all()):
        raise InputError(f"standard deviations must be positive, and the smallest is {scale.min().item():.6g}")
    return centre, scale


def _checked(columns: dict[str, Tensor]) -> list[Float64[Tensor, "example"]]:
    """Columns in float64 on the CPU, as many numbers in each, and all of them finite."""
    (first, column), *others = columns.items()
    for what, values in columns.items():
        check_scores(what, values)
    for what, values in others:
        if len(values) != len(column):
            raise InputError(f"there are {len(column)} {first}, and {len(values)} {what}")
    return [values.detach().double().cpu() for values in columns.values()]
