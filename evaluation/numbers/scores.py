"""Scores of forecasts of numbers: the terms of each example, and the scores with bootstrap intervals."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor

from bayes_share.evaluation.bootstrap_intervals import percentile_interval, resampled_means
from bayes_share.evaluation.numbers.central_intervals import central_interval, score_of
from bayes_share.evaluation.numbers.crps import crps
from bayes_share.evaluation.numbers.forecast import Forecast, by_example, check_targets
from bayes_share.evaluation.numbers.pit import calibration_error_of, pit, shares_below
from bayes_share.evaluation.seed_statistics import Interval
from bayes_share.models.predictive import Predictive

_NAMES = {"squared_error": "rmse", "absolute_error": "mae"}


def nll(forecast: Forecast, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
    """Compute the negative joint log density of the targets of each example, in nats; the log-probability for counts.

    The density is per unit of the targets: in units 10 times smaller, the NLL of each target is larger by log 10.

    Raises:
        InputError: if targets are not finite, impossible or have another shape, or the forecast has no density.
    """
    check_targets(forecast, targets)
    return -forecast.log_prob(targets).double()


def number_terms(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> dict[str, Float64[Tensor, "example"]]:
    """Compute the terms of each example whose means are the scores, in the units of the targets.

    For several outputs, they are means over the outputs, except for the NLL, which is joint.

    Args:
        forecast: a `Predictive`, or a recalibrated forecast, which has no ``nll`` and no ``squared_error``.
        targets: the observed targets.
        coverage: the nominal coverage of the central intervals.

    Returns:
        ``nll`` (see `nll`), ``squared_error`` of the mean (missing if a mean does not exist), ``absolute_error`` of the
        median, which minimises it, ``crps`` (see `crps`), ``coverage`` (the share inside the interval), ``width`` and
        ``interval_score``.

    Raises:
        InputError: if targets are not finite, impossible or have another shape, or the coverage is out of range.
    """
    numbers = check_targets(forecast, targets)
    (median,) = forecast.quantile([0.5])
    low, high = central_interval(forecast, coverage)
    found = {}
    if isinstance(forecast, Predictive):
        found["nll"] = nll(forecast, targets)
        if bool(forecast.mean.isfinite().all()):
            found["squared_error"] = by_example((numbers - forecast.mean).square())
    return found | {
        "absolute_error": by_example((numbers - median).abs()),
        "crps": by_example(crps(forecast, targets)),
        "coverage": by_example(((low <= numbers) & (numbers <= high)).double()),
        "width": by_example(high - low),
        "interval_score": by_example(score_of(low, high, numbers, coverage)),
    }


def number_scores(
    forecast: Forecast,
    targets: Num[Tensor, "example *output"],
    coverage: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute the scores of forecasts of numbers, with 95 % bootstrap intervals over examples.

    Args:
        forecast: a `Predictive`, or a recalibrated forecast, which has no ``nll`` and no ``rmse``.
        targets: the observed targets.
        coverage: the nominal coverage of the central intervals.
        resamples: the number of resamples.
        seed: the seed of the resamples and of the PIT of counts.

    Returns:
        ``nll``, ``rmse`` (of the mean), ``mae`` (of the median), ``crps``, ``coverage``, ``width``,
        ``interval_score`` and ``quantile_calibration_error``; see `number_terms`. The last one has a basic bootstrap
        interval, truncated at 0, because it is biased upwards on resamples. The NLL is infinite if a target has zero
        density.

    Raises:
        InputError: if `number_terms` rejects the input, or there are fewer than 2 resamples.
    """
    terms = number_terms(forecast, targets, coverage)
    return scores_of_terms(terms, pit(forecast, targets, seed), resamples, seed)


def scores_of_terms(
    terms: Mapping[str, Float64[Tensor, "example"]],
    pits: Float[Tensor, "example *output"],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute `number_scores` from the results of `number_terms` and `pit`, with common resamples for all scores."""
    below = shares_below(pits).cpu()
    columns = torch.cat([torch.stack([values.cpu() for values in terms.values()], dim=1), below], dim=1)
    resampled = resampled_means(columns, resamples, seed)
    found = {}
    for index, (name, values) in enumerate(terms.items()):
        interval = percentile_interval(values.mean().item(), resampled[:, index])
        found[_NAMES.get(name, name)] = _root(interval) if name == "squared_error" else interval
    errors = calibration_error_of(resampled[:, len(terms) :])
    calibration = percentile_interval(calibration_error_of(below.mean(0)).item(), errors)
    return found | {"quantile_calibration_error": _reflected(calibration)}


def _root(squared: Interval) -> Interval:
    """Transform a mean of squares to its root: the ends by the root, the standard error by the delta method."""
    root = math.sqrt(squared.value)
    error = squared.error / (2 * root) if root else squared.error
    return Interval(root, math.sqrt(squared.low), math.sqrt(squared.high), error)


def _reflected(found: Interval) -> Interval:
    """Convert to the basic bootstrap interval of a non-negative value (Davison and Hinkley 1997, section 5.2)."""
    low, high = (max(2 * found.value - end, 0.0) for end in (found.high, found.low))  # NaN stays
    return Interval(found.value, low, high, found.error)
