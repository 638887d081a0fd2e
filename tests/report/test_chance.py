"""The report says if a run is not more accurate than always predicting the most frequent class."""

import pytest
import torch

from bayes_share.evaluation.predictions import Predictions
from bayes_share.reports.build import build_report
from bayes_share.reports.results import Result

LABELS = torch.tensor([0] * 60 + [1] * 40)


def result(num_right: int, labels: torch.Tensor = LABELS) -> Result:
    """Return predictions of the first class, apart from `num_right` examples of the second."""
    logits = torch.zeros(1, 1, len(labels), 2)
    logits[..., 0] = 1
    logits[..., len(labels) - num_right :, 1] = 2
    return Result("a", Predictions(logits, labels))


@pytest.mark.parametrize(
    ("run", "is_said"),
    [
        (result(0), True),
        (result(3), True),  # three of 100 examples may be chance
        (result(20), False),
        (result(0, LABELS[55:65]), False),  # too few examples to tell
        (result(0, LABELS[:30]), False),  # a single class
    ],
)
def test_accuracies_near_that_of_the_most_frequent_class_are_reported(run: Result, is_said: bool) -> None:
    (overview, *_) = build_report([run], "title").sections
    said = [line for line in overview.lead if "the most frequent class, 60.0%" in line]
    assert bool(said) is is_said
    assert len([line for line in overview.lead if "most frequent class" in line]) == is_said
