"""Scores, recalibration and figures for predictions of numbers: functions of a predictive distribution and targets."""

from bayes_share.evaluation.numbers.central_intervals import covered, interval_score, width
from bayes_share.evaluation.numbers.crps import crps
from bayes_share.evaluation.numbers.forecast import Forecast
from bayes_share.evaluation.numbers.pit import pit, quantile_calibration_error
from bayes_share.evaluation.numbers.recalibration import (
    Recalibrated,
    fit_pit_map,
    fit_variance_scaling,
)
from bayes_share.evaluation.numbers.scores import nll, number_scores, number_terms
from bayes_share.evaluation.numbers.selective import ErrorCoverage, error_coverage

__all__ = [
    "ErrorCoverage",
    "Forecast",
    "Recalibrated",
    "covered",
    "crps",
    "error_coverage",
    "fit_pit_map",
    "fit_variance_scaling",
    "interval_score",
    "nll",
    "number_scores",
    "number_terms",
    "pit",
    "quantile_calibration_error",
    "width",
]
