"""Sentences on the best run: clear leads, leads that may be by chance, and exact ties."""

import math

import pytest
import torch

from bayes_share.reports.document import Column
from bayes_share.reports.ranking import ranking

NLL = Column("nll", "NLL", ".2f", better="lower")
ACCURACY = Column("accuracy", "accuracy [%]", ".1f", 100, better="higher")
NAMES = ("a", "b", "c", "d")


def said(column: Column, *terms: list[float], in_units: bool = True) -> str:
    values = [torch.tensor(of_run, dtype=torch.float64) for of_run in terms]
    means = [float(of_run.mean()) for of_run in values]
    found = ranking(column, means, values)
    return found.sentence(column, NAMES, means[found.best], in_units)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (said(NLL, [1.0, 1.2, 1.1], [2.0, 2.2, 2.1]), "a has the lowest NLL, 1.10, ahead of b by 1.00 ± 0.00."),
        (
            said(NLL, [3.0, 3.0, 3.0], [1.0, 5.0, 2.9]),
            "b has the lowest NLL, 2.97, but the difference from a, 0.03 ± 1.16, is not significant.",
        ),
        (
            said(NLL, [3.0, 3.0], [1.0, 4.9], in_units=False),
            "b has the lowest NLL, 2.95, but the difference from a is not significant.",
        ),
        (said(NLL, [2.0, 2.2], [1.0, 1.2], in_units=False), "b has the lowest NLL, 1.10."),
        (
            said(ACCURACY, [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]),
            "a, c and d have the highest accuracy, 50.0 %.",
        ),
        (
            said(NLL, [math.inf, 1.0], [math.inf, 1.0]),
            "a and b have the lowest NLL, inf.",
        ),
    ],
    ids=["clear", "by-chance", "other-units", "clear-in-other-units", "three-way-tie", "infinite"],
)
def test_the_sentence_says_whether_the_lead_is_significant(sentence: str, expected: str) -> None:
    assert sentence == expected
