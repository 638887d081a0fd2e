"""The probability integral transform: where targets fall in what was predicted for them."""

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets
from bayes_share.tensors.seeding import generator

_LEVELS = tuple(level / 20 for level in range(1, 20))


def pit(forecast: Forecast, targets: Num[Tensor, "example *output"], seed: int = 0) -> Float[Tensor, "example *output"]:
    """``F(y)`` of each target, which is uniform between 0 and 1 where the forecast is calibrated (Dawid 1984).

    Of counts it is drawn uniformly between ``F(y − 1)`` and ``F(y)``, which makes it uniform too (Czado, Gneiting and
    Held 2009, "Predictive model assessment for count data").

    Args:
        forecast: with a ``cdf``.
        targets: what came true.
        seed: of the draws for counts.

    Raises:
        InputError: targets that are not finite or of another shape.
    """
    targets = check_targets(forecast, targets)
    upper = forecast.cdf(targets).double()
    if not forecast.is_discrete:
        return upper
    lower = forecast.cdf_below(targets).double()
    draws = torch.rand(targets.shape, generator=generator(seed, "pit"), dtype=torch.float64)
    return lower + draws.to(upper.device) * (upper - lower)


def quantile_calibration_error(values: Float[Tensor, "*target"], levels: tuple[float, ...] = _LEVELS) -> float:
    """The mean over levels of ``|share of targets at or below that quantile − level|``, 0 to 1.

    After Kuleshov, Fenner and Ermon 2018 (arXiv 1807.00263), who square the differences. It is not 0 of a
    calibrated forecast with finitely many targets.

    Args:
        values: of `pit`: a target is below the quantile of a level where its PIT is below the level.
        levels: 0.05 to 0.95 by default.

    Raises:
        InputError: no values.

    >>> round(quantile_calibration_error(torch.full((10,), 0.5)), 4)  # every target is the median
    0.2632
    """
    if not values.numel():
        raise InputError("there are no PIT values")
    return calibration_error_of(shares_below(values.flatten(), levels).mean(0), levels).item()


def shares_below(
    values: Float[Tensor, "example *output"], levels: tuple[float, ...] = _LEVELS
) -> Float64[Tensor, "example level"]:
    """The share of each example's PIT values that is at or below each level."""
    grid = torch.tensor(levels, dtype=torch.float64, device=values.device)
    return (values.double().reshape(len(values), -1, 1) <= grid).double().mean(1)


def calibration_error_of(
    shares: Float64[Tensor, "*sample level"], levels: tuple[float, ...] = _LEVELS
) -> Float64[Tensor, "*sample"]:
    """The quantile calibration error of the shares of targets at or below each level."""
    return (shares - torch.tensor(levels, dtype=torch.float64, device=shares.device)).abs().mean(-1)
