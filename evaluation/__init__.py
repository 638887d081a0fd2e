"""From predictions on disk to scores, calibration, tables and pictures; never asks which algorithm made them."""

from bayes_share.evaluation.calibration import Reliability, ece, reliability
from bayes_share.evaluation.detection import Detection, detection, detection_intervals
from bayes_share.evaluation.ood import ood_scores
from bayes_share.evaluation.pictures import reliability_picture
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
    "Detection",
    "Outputs",
    "Predictions",
    "Reliability",
    "Scores",
    "accuracy",
    "brier",
    "detection",
    "detection_intervals",
    "ece",
    "format_table",
    "log_probs",
    "member_nll",
    "nll",
    "ood_scores",
    "read_outputs",
    "read_predictions",
    "reliability",
    "reliability_picture",
    "score",
    "write_predictions",
]
