"""Scores, calibration, tables and figures computed from saved predictions, independently of the algorithm."""

from typing import Any

from bayes_share.errors import no_attribute
from bayes_share.evaluation.arviz_data import to_arviz, write_arviz
from bayes_share.evaluation.binary import two_class_logits
from bayes_share.evaluation.bootstrap_intervals import bootstrap, bootstrap_mean, paired_differences, score_intervals
from bayes_share.evaluation.calibration import (
    Reliability,
    adaptive_ece,
    average_calibration_error,
    classwise_ece,
    ece,
    mce,
    reliability,
)
from bayes_share.evaluation.calibration_estimates import ece_interval, squared_calibration_error
from bayes_share.evaluation.detection import Detection, detection, detection_intervals
from bayes_share.evaluation.diagnostics import Convergence, Loo, function_space_convergence, loo
from bayes_share.evaluation.diversity import Diversity, diversity
from bayes_share.evaluation.elpd import Elpd, ElpdDifference, elpd, elpd_differences
from bayes_share.evaluation.forest_plot import factor_forest
from bayes_share.evaluation.human_labels import HumanScores, human_scores, read_human_labels
from bayes_share.evaluation.log_probabilities import log_probs
from bayes_share.evaluation.number_predictions import NumberPredictions, write_number_predictions
from bayes_share.evaluation.ood import ood_scores
from bayes_share.evaluation.pictures import reliability_picture
from bayes_share.evaluation.posthoc import CALIBRATIONS, Calibration, calibrate, fit_calibration
from bayes_share.evaluation.predictions import Outputs, Predictions
from bayes_share.evaluation.predictions_file import read_outputs, write_draws, write_predictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.evaluation.scores import (
    Scores,
    accuracy,
    brier,
    member_nll,
    nll,
    per_image,
    score,
    top_k_accuracy,
)
from bayes_share.evaluation.seed_statistics import Interval
from bayes_share.evaluation.selection import select
from bayes_share.evaluation.selective import RiskCoverage, risk_coverage
from bayes_share.evaluation.table import format_table
from bayes_share.evaluation.uncertainty import Uncertainty, uncertainty

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "Convergence",
    "Detection",
    "Diversity",
    "Elpd",
    "ElpdDifference",
    "HumanScores",
    "Interval",
    "Loo",
    "NumberPredictions",
    "Outputs",
    "Predictions",
    "Reliability",
    "RiskCoverage",
    "Scores",
    "Uncertainty",
    "accuracy",
    "adaptive_ece",
    "average_calibration_error",
    "bootstrap",
    "bootstrap_mean",
    "brier",
    "calibrate",
    "classwise_ece",
    "detection",
    "detection_intervals",
    "diversity",
    "ece",
    "ece_interval",
    "elpd",
    "elpd_differences",
    "factor_forest",
    "fit_calibration",
    "format_table",
    "function_space_convergence",
    "human_scores",
    "log_probs",
    "loo",
    "mce",
    "member_nll",
    "nll",
    "ood_scores",
    "paired_differences",
    "per_image",
    "read_human_labels",
    "read_outputs",
    "read_predictions",
    "reliability",
    "reliability_picture",
    "risk_coverage",
    "score",
    "score_intervals",
    "select",
    "squared_calibration_error",
    "to_arviz",
    "top_k_accuracy",
    "two_class_logits",
    "uncertainty",
    "write_arviz",
    "write_draws",
    "write_number_predictions",
    "write_predictions",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
