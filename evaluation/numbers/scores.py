"""How good predicted numbers are: what each example adds to the scores, and the scores with their intervals."""

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
    """The negative log density of each example's targets together, in nats, or log probability of counts.

    The density is per unit of the targets: in units 10 times smaller the NLL of each target is larger by log 10.

    Raises:
        InputError: targets that are not finite, impossible or of another shape; a forecast without a density.
    """
    check_targets(forecast, targets)
    return -forecast.log_prob(targets).double()


def number_terms(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9
) -> dict[str, Float64[Tensor, "example"]]:
    """What each example adds to the scores, in the targets' units; of several outputs the mean over them but for NLL.

    Args:
        forecast: a `Predictive`, or a recalibrated one, which has no ``nll`` and no ``squared_error``.
        targets: what came true.
        coverage: of the central intervals.

    Returns:
        ``nll`` (see `nll`), ``squared_error`` of the mean (absent where one does not exist), ``absolute_error`` of the
        median, which is what minimises it, ``crps`` (see `crps`), ``coverage`` (the share inside), ``width`` and
        ``interval_score``.

    Raises:
        InputError: targets that are not finite, impossible or of another shape; another coverage.
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
    """The scores of predicted numbers, each with its interval of 95 % by the bootstrap over examples.

    Args:
        forecast: a `Predictive`, or a recalibrated one, which has no ``nll`` and no ``rmse``.
        targets: what came true.
        coverage: of the central intervals.
        resamples: how often examples are drawn.
        seed: of the examples drawn, and of the PIT of counts.

    Returns:
        ``nll``, ``rmse`` (of the mean), ``mae`` (of the median), ``crps``, ``coverage``, ``width``,
        ``interval_score`` and ``quantile_calibration_error``: see `number_terms`. The interval of the last one is
        reflected at its value, and at 0, since an absolute difference is larger on a resample than on the examples.
        The NLL is infinite where a target has no density.

    Raises:
        InputError: what `number_terms` refuses, or fewer than 2 resamples.
    """
    terms = number_terms(forecast, targets, coverage)
    return scores_of_terms(terms, pit(forecast, targets, seed), resamples, seed)


def scores_of_terms(
    terms: Mapping[str, Float64[Tensor, "example"]],
    pits: Float[Tensor, "example *output"],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """`number_scores` from what each example adds to them: of `number_terms`, and its PIT values.

    All scores are of the same resamples, which are drawn once.
    """
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
    """Of a mean of squares: quantiles go through the root, the standard error through its slope."""
    root = math.sqrt(squared.value)
    return Interval(root, math.sqrt(squared.low), math.sqrt(squared.high), squared.error / (2 * root) if root else 0.0)


def _reflected(found: Interval) -> Interval:
    """The basic bootstrap interval of a number that is not negative (Davison and Hinkley 1997, section 5.2)."""
    low, high = (max(0.0, 2 * found.value - end) for end in (found.high, found.low))
    return Interval(found.value, low, high, found.error)
