"""Conformal prediction: sets and intervals with a finite-sample coverage guarantee."""

from bayes_share.evaluation.conformal.coverage import (
    Group,
    IntervalCoverage,
    SetCoverage,
    interval_coverage,
    set_coverage,
)
from bayes_share.evaluation.conformal.from_predictions import INTERVAL_METHODS, conformal_intervals, conformal_sets
from bayes_share.evaluation.conformal.intervals import (
    QuantileIntervals,
    ScaledIntervals,
    fit_quantile_intervals,
    fit_scaled_intervals,
)
from bayes_share.evaluation.conformal.prediction_sets import SET_METHODS, ConformalSets, fit_sets, fit_sets_of
from bayes_share.evaluation.conformal.temperature_split import Halves, halves
from bayes_share.evaluation.conformal.threshold import Threshold, fit_threshold

__all__ = [
    "INTERVAL_METHODS",
    "SET_METHODS",
    "ConformalSets",
    "Group",
    "Halves",
    "IntervalCoverage",
    "QuantileIntervals",
    "ScaledIntervals",
    "SetCoverage",
    "Threshold",
    "conformal_intervals",
    "conformal_sets",
    "fit_quantile_intervals",
    "fit_scaled_intervals",
    "fit_sets",
    "fit_sets_of",
    "fit_threshold",
    "halves",
    "interval_coverage",
    "set_coverage",
]
