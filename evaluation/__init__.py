"""From predictions on disk to scores, calibration, tables and pictures; never asks which algorithm made them."""

from bayes_share.evaluation.arviz_data import to_arviz, write_arviz
from bayes_share.evaluation.calibration import Reliability, ece, reliability
from bayes_share.evaluation.diagnostics import Convergence, Loo, function_space_convergence, loo
from bayes_share.evaluation.elpd import Elpd, ElpdDifference, elpd, elpd_differences
from bayes_share.evaluation.forest import factor_forest
from bayes_share.evaluation.pictures import reliability_picture
from bayes_share.evaluation.posthoc import CALIBRATIONS, Calibration, calibrate, fit_calibration
from bayes_share.evaluation.predictions import (
    Outputs,
    Predictions,
    log_probs,
    read_outputs,
    read_predictions,
    write_predictions,
)
from bayes_share.evaluation.scores import Scores, accuracy, brier, member_nll, nll, score
from bayes_share.evaluation.table import format_table

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "Convergence",
    "Elpd",
    "ElpdDifference",
    "Loo",
    "Outputs",
    "Predictions",
    "Reliability",
    "Scores",
    "accuracy",
    "brier",
    "calibrate",
    "ece",
    "elpd",
    "elpd_differences",
    "factor_forest",
    "fit_calibration",
    "format_table",
    "function_space_convergence",
    "log_probs",
    "loo",
    "member_nll",
    "nll",
    "read_outputs",
    "read_predictions",
    "reliability",
    "reliability_picture",
    "score",
    "to_arviz",
    "write_arviz",
    "write_predictions",
]
