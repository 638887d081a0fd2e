"""Central prediction intervals: what they cover, how wide they are, and a proper score of both."""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets


def central_interval(forecast: Forecast, coverage: float = 0.9) -> Float[Tensor, "2 example *output"]:
    """The lower and upper ends of the central intervals: the quantiles ``(1 ∓ coverage) / 2``.

    Args:
        forecast: with quantiles.
        coverage: the probability between the ends, between 0 and 1.

    Raises:
        InputError: another coverage; a distribution without a ``cdf``.
    """
    if not 0 < coverage < 1:
        raise InputError(f"the coverage of an interval must be between 0 and 1, and is {coverage}")
    return forecast.quantile([(1 - coverage) / 2, (1 + coverage) / 2])


def covered(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> Bool[Tensor, "example *output"]:
    """Whether each target is in its central interval, ends included; of counts intervals cover more than they must.

    Raises:
        InputError: targets that are not finite or of another shape; another coverage.
    """
    targets = check_targets(forecast, targets)
    low, high = central_interval(forecast, coverage)
    return (low <= targets) & (targets <= high)


def width(forecast: Forecast, coverage: float = 0.9) -> Float[Tensor, "example *output"]:
    """The width of each central interval, in the targets' units.

    Raises:
        InputError: another coverage.
    """
    low, high = central_interval(forecast, coverage)
    return high - low


def interval_score(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> Float[Tensor, "example *output"]:
    """The interval score: the width, and ``2 / (1 − coverage)`` times how far the target lies outside.

    Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", eq. 43; smaller is better,
    and no other interval has a smaller mean than the true one.

    Raises:
        InputError: targets that are not finite or of another shape; another coverage.
    """
    targets = check_targets(forecast, targets)
    low, high = central_interval(forecast, coverage)
    return score_of(low, high, targets, coverage)


def score_of(low: Tensor, high: Tensor, targets: Tensor, coverage: float) -> Tensor:
    """The interval score of intervals that are given by their ends."""
    outside = (low - targets).clamp(min=0) + (targets - high).clamp(min=0)
    return torch.as_tensor(high - low + 2 / (1 - coverage) * outside)
