"""The probability integral transform (PIT) of targets under their forecasts."""

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets
from bayes_share.tensors.seeding import generator

_LEVELS = tuple(level / 20 for level in range(1, 20))


def pit(forecast: Forecast, targets: Num[Tensor, "example *output"], seed: int = 0) -> Float[Tensor, "example *output"]:
    """Compute ``F(y)`` of each target. It is uniform on [0, 1] if the forecast is calibrated (Dawid 1984).

    For counts it is drawn uniformly between ``F(y − 1)`` and ``F(y)``, which has the same property (Czado, Gneiting and
    Held 2009, "Predictive model assessment for count data").

    Args:
        forecast: the predictive distributions.
        targets: the observed targets.
        seed: the seed of the randomisation for counts.

    Raises:
        InputError: if targets are not finite or have another shape.
    """
    targets = check_targets(forecast, targets)
    upper = forecast.cdf(targets).double()
    if not forecast.is_discrete:
        return upper
    lower = forecast.cdf_below(targets).double()
    draws = torch.rand(targets.shape, generator=generator(seed, "pit"), dtype=torch.float64)
    return lower + draws.to(upper.device) * (upper - lower)


def quantile_calibration_error(values: Float[Tensor, "*target"], levels: tuple[float, ...] = _LEVELS) -> float:
    """Compute the mean over levels of ``|share of targets at or below the quantile − level|``, 0 to 1.

    It follows Kuleshov, Fenner and Ermon 2018 (arXiv 1807.00263), who square the differences. It is biased upwards, so
    it is not 0 for a calibrated forecast with finitely many targets.

    Args:
        values: PIT values from `pit`. A target is at or below the quantile of a level if its PIT is at most the level.
        levels: the levels; 0.05, 0.1, ..., 0.95 by default.

    Raises:
        InputError: if there are no values.

    >>> round(quantile_calibration_error(torch.full((10,), 0.5)), 4)  # every target is the median
    0.2632
    """
    if not values.numel():
        raise InputError("there are no PIT values")
    return calibration_error_of(shares_below(values.flatten(), levels).mean(0), levels).item()


def shares_below(
    values: Float[Tensor, "example *output"], levels: tuple[float, ...] = _LEVELS
) -> Float64[Tensor, "example level"]:
    """Compute the share of the PIT values of each example at or below each level."""
    grid = torch.tensor(levels, dtype=torch.float64, device=values.device)
    return (values.double().reshape(len(values), -1, 1) <= grid).double().mean(1)


def calibration_error_of(
    shares: Float64[Tensor, "*sample level"], levels: tuple[float, ...] = _LEVELS
) -> Float64[Tensor, "*sample"]:
    """Compute the quantile calibration error from the shares of targets at or below each level."""
    return (shares - torch.tensor(levels, dtype=torch.float64, device=shares.device)).abs().mean(-1)
