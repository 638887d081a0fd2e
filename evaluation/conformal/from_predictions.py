"""Conformal sets and intervals of test predictions, calibrated on other predictions."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.conformal.intervals import fit_quantile_intervals, fit_scaled_intervals
from bayes_share.evaluation.conformal.prediction_sets import SetMethod, fit_sets_of
from bayes_share.evaluation.conformal.threshold import check_alpha
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.predictions import Outputs, Predictions
from bayes_share.models.predictive import Predictive

IntervalMethod = Literal["cqr", "scaled"]
INTERVAL_METHODS: tuple[IntervalMethod, ...] = get_args(IntervalMethod)
"""The names of the methods."""


def conformal_sets(
    calibration: Predictions, test: Outputs, method: SetMethod = "lac", alpha: float = 0.1, seed: int = 0
) -> Bool[Tensor, "example class"]:
    """Compute sets of classes that contain the right class with a probability of at least 1 − α.

    The guarantee holds for any network, if calibration and test examples are exchangeable. The probability is over all
    calibration and test examples together, not conditional on a class or an input. With n calibration examples it is at
    most ``1 − α + 1/(n + 1)``. With fewer than ``1/α − 1`` calibration examples, every set contains all classes.

    Args:
        calibration: predictions on examples that were not used for training, selection or fitting of any kind, such as
            of a temperature.
        test: predictions for the examples that get sets, with the same classes; labels are not used.
        method: "lac", which gives the smallest sets on average, or "aps", whose set sizes follow the uncertainty of
            each example more closely.
        alpha: the allowed miscoverage, between 0 and 1.
        seed: the seed of the random numbers that break ties.

    Returns:
        Whether each class is in the set of each example. A set is empty if no class of its example is plausible by the
        standard of the calibration examples; empty sets count as not covered.

    Raises:
        InputError: if the inputs are not predictions, the method is unknown, alpha is out of range, the classes differ,
            or examples have several labels or positions.

    >>> import torch
    >>> from bayes_share import Predictions, conformal_sets
    >>> sure, unsure = [0.9, 0.08, 0.02], [0.4, 0.35, 0.25]
    >>> calibration = Predictions(torch.tensor([sure, unsure] * 10).log(), torch.tensor([0, 1] * 10))
    >>> test = Predictions(torch.tensor([[0.7, 0.2, 0.1], [0.45, 0.4, 0.15]]).log(), torch.tensor([0, 0]))
    >>> conformal_sets(calibration, test, alpha=0.2)
    tensor([[ True, False, False],
            [ True,  True, False]])
    """
    return fit_sets_of(method, calibration, alpha, seed).of(test)


def conformal_intervals(
    calibration: NumberPredictions,
    test: NumberPredictions | Predictive,
    method: IntervalMethod = "cqr",
    alpha: float = 0.1,
    seed: int = 0,
) -> tuple[Float64[Tensor, "example *target"], Float64[Tensor, "example *target"]]:
    """Compute intervals that contain the target with a probability of at least 1 − α.

    The guarantee is that of `conformal_sets`. If examples have several targets, it holds for each target separately.
    With fewer than ``1/α − 1`` calibration examples, every interval is infinite.

    Args:
        calibration: predictions on examples that were not used for training, selection or fitting of any kind.
        test: predictions for the examples that get intervals, with the same number of targets; targets are not used.
        method: "cqr", the central interval with both ends moved outwards by a constant, or "scaled", the mean ± a
            constant multiple of the predicted standard deviation.
        alpha: the allowed miscoverage, between 0 and 1.
        seed: the seed of the random numbers that break ties, which occur for counts.

    Returns:
        The lower and the upper ends, in the units of the targets. If the lower end is above the upper end, the interval
        is empty.

    Raises:
        InputError: if the inputs are not predictions, the method is unknown, alpha is out of range, the numbers of
            targets differ, or, for "scaled", a standard deviation is 0 or infinite.

    >>> import torch
    >>> from bayes_share import NumberPredictions, conformal_intervals
    >>> calibration = NumberPredictions({"loc": torch.zeros(99), "scale": 0.5}, torch.linspace(-2, 2, 99))
    >>> test = NumberPredictions({"loc": torch.tensor([0.0, 10.0]), "scale": 0.5}, torch.zeros(2))
    >>> lower, upper = conformal_intervals(calibration, test)
    >>> lower, upper
    (tensor([-1.8367,  8.1633], dtype=torch.float64), tensor([ 1.8367, 11.8367], dtype=torch.float64))
    """
    if method not in INTERVAL_METHODS:
        raise unknown("conformal method", method, INTERVAL_METHODS)
    check_alpha(alpha)
    if not isinstance(calibration, NumberPredictions):
        raise InputError(f"expected NumberPredictions(arguments, targets), not {type(calibration).__name__}")
    if not isinstance(test, NumberPredictions | Predictive):
        raise InputError(f"expected NumberPredictions(arguments, targets) or a Predictive, not {type(test).__name__}")
    known, new = calibration.predictive, test if isinstance(test, Predictive) else test.predictive
    if known.shape[1:] != new.shape[1:]:
        raise InputError(
            f"the calibration examples have targets of shape {list(known.shape[1:])}, and the test examples of "
            f"{list(new.shape[1:])}"
        )
    read, fit = _METHODS[method]
    fitted = [
        fit(*of_target, alpha, seed)
        for of_target in zip(*map(_columns, (*read(known, alpha), calibration.targets)), strict=True)
    ]
    ends = [
        torch.stack(intervals(*of_target))
        for intervals, of_target in zip(fitted, zip(*map(_columns, read(new, alpha)), strict=True), strict=True)
    ]
    lower, upper = torch.stack(ends, dim=-1).reshape(2, *new.shape)
    return lower, upper


def _quantiles(predictive: Predictive, alpha: float) -> tuple[Tensor, Tensor]:
    lower, upper = predictive.quantile([alpha / 2, 1 - alpha / 2])
    return lower, upper


def _moments(predictive: Predictive, alpha: float) -> tuple[Tensor, Tensor]:
    return predictive.mean, predictive.stddev


def _columns(values: Float64[Tensor, "example *target"]) -> tuple[Float64[Tensor, "example"], ...]:
    """Split values into one vector for each target of an example."""
    return values.reshape(len(values), -1).unbind(-1)


_METHODS: Mapping[IntervalMethod, tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Any]]] = {
    "cqr": (_quantiles, fit_quantile_intervals),
    "scaled": (_moments, fit_scaled_intervals),
}
