"""Central prediction intervals: coverage, width and interval score."""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets


def central_interval(forecast: Forecast, coverage: float = 0.9) -> Float[Tensor, "2 example *output"]:
    """Return the lower and upper ends of the central intervals: the quantiles of levels ``(1 ∓ coverage) / 2``.

    Args:
        forecast: the predictive distributions.
        coverage: the nominal coverage, between 0 and 1.

    Raises:
        InputError: if the coverage is out of range, or the distribution has no ``cdf``.
    """
    if not 0 < coverage < 1:
        raise InputError(f"the coverage of an interval must be between 0 and 1, and is {coverage}")
    return forecast.quantile([(1 - coverage) / 2, (1 + coverage) / 2])


def covered(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> Bool[Tensor, "example *output"]:
    """Return whether each target is in its closed central interval. For counts, the coverage exceeds the nominal one.

    Raises:
        InputError: if targets are not finite or have another shape, or the coverage is out of range.
    """
    targets = check_targets(forecast, targets)
    low, high = central_interval(forecast, coverage)
    return (low <= targets) & (targets <= high)


def width(forecast: Forecast, coverage: float = 0.9) -> Float[Tensor, "example *output"]:
    """Return the width of each central interval, in the units of the targets.

    Raises:
        InputError: if the coverage is out of range.
    """
    low, high = central_interval(forecast, coverage)
    return high - low


def interval_score(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> Float[Tensor, "example *output"]:
    """Compute the interval score: the width plus ``2 / (1 − coverage)`` times the distance of the target from it.

    Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", eq. 43. Smaller is better;
    its expectation is minimised by the true central interval.

    Raises:
        InputError: if targets are not finite or have another shape, or the coverage is out of range.
    """
    targets = check_targets(forecast, targets)
    low, high = central_interval(forecast, coverage)
    return score_of(low, high, targets, coverage)


def score_of(low: Tensor, high: Tensor, targets: Tensor, coverage: float) -> Tensor:
    """Compute the interval score from the ends of intervals."""
    outside = (low - targets).clamp(min=0) + (targets - high).clamp(min=0)
    return torch.as_tensor(high - low + 2 / (1 - coverage) * outside)
