"""Predictions of numbers as a report is about them: with a name, their scores, and checks that they go together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.numbers.pit import pit
from bayes_share.evaluation.numbers.scores import number_terms, scores_of_terms
from bayes_share.evaluation.seed_statistics import Interval
from bayes_share.evaluation.table import format_table
from bayes_share.io.terminal import listed, printable
from bayes_share.reports.document import Cell, Column
from bayes_share.reports.run_record import RunRecord
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.run_folder import validation_predictions
from bayes_share.runs.validation_images import unchosen

COVERAGE = 0.9
"""Of the central intervals."""

SCORES = (
    Column(
        "nll", "NLL [nat]", better="lower", about="mean negative log density; densities are per unit of the targets"
    ),
    Column("rmse", "RMSE", ".4g", better="lower", about="root mean squared error of the mean"),
    Column("mae", "MAE", ".4g", better="lower", about="mean absolute error of the median"),
    Column("crps", "CRPS", ".4g", better="lower", about="continuous ranked probability score"),
    Column("coverage", "coverage [%]", ".1f", 100, about=f"targets inside central {COVERAGE:.0%} intervals"),
    Column("width", "width", ".4g", about="mean width of these intervals; at the right coverage, smaller is better"),
    Column(
        "interval_score",
        "interval score",
        ".4g",
        better="lower",
        about="interval score: combines the width of these intervals with a penalty for misses",
    ),
    Column(
        "quantile_calibration_error",
        "quantile CE",
        about="mean gap between quantile levels and observed frequencies; biased upwards",
    ),
)


@dataclass(frozen=True, eq=False)
class NumberResult:
    """Predictions of numbers that a report is about.

    Args:
        name: to show.
        test: predictions on the test examples.
        validation: predictions on validation examples, where there are any.
        run: the finished run that they are of; None where they are of none that is known.
    """

    name: str
    test: NumberPredictions
    validation: NumberPredictions | None = None
    run: RunRecord | None = None

    @property
    def unchosen(self) -> NumberPredictions | None:
        """Validation predictions on which nothing was chosen: where no run is known, all of them.

        Raises:
            InputError: the run chose on all of them, or was trained on them.
        """
        if self.run is not None:
            validation_predictions(self.run.folder)
        if self.run is None or self.validation is None:
            return self.validation
        config = read_run_config(self.run.folder.config)
        return self.validation.at(unchosen(config, len(self.validation.targets)))

    @cached_property
    def terms(self) -> dict[str, Float64[Tensor, "example"]]:
        """What each test example adds to the scores."""
        return number_terms(self.test.predictive, self.test.targets, COVERAGE)

    @cached_property
    def scores(self) -> dict[str, Interval]:
        """The scores, with their intervals."""
        return scores_of_terms(self.terms, self.pit)

    @cached_property
    def pit(self) -> Float[Tensor, "example *target"]:
        """The probability integral transform of the test targets."""
        return pit(self.test.predictive, self.test.targets)


def cell(found: Interval) -> Cell:
    """A score with its error, which an infinite one does not have."""
    return Cell(found.value, None if math.isnan(found.error) else found.error)


def checked_validation(
    predictions: Mapping[str, NumberPredictions], validation: Mapping[str, object]
) -> dict[str, NumberPredictions]:
    """Validation predictions that go with test predictions of the same names.

    Raises:
        InputError: predictions for none of the names, of classes, or of another likelihood.
    """
    if unknown := [name for name in validation if name not in predictions]:
        raise InputError(
            f"validation predictions are given for {listed(unknown)}, but there are only test predictions of "
            f"{listed(list(predictions))}"
        )
    found = {name: one for name, one in validation.items() if isinstance(one, NumberPredictions)}
    if others := [name for name in validation if name not in found]:
        raise InputError(
            f"the validation predictions of {listed(others)} are of classes, and the test predictions of numbers"
        )
    for name, one in found.items():
        if one.likelihood.name != predictions[name].likelihood.name:
            raise InputError(
                f"the validation predictions of {printable(name)} have the likelihood {one.likelihood.name}, and "
                f"its test predictions {predictions[name].likelihood.name}"
            )
    return found


def check_same_targets(predictions: Mapping[str, NumberPredictions]) -> None:
    """See whether predictions can stand in one table.

    Raises:
        InputError: some are of other targets than the first.
    """
    (one, first), *others = predictions.items()
    for name, other in others:
        if not torch.equal(first.targets.cpu(), other.targets.cpu()):
            raise InputError(
                f"{printable(one)} and {printable(name)} are predictions of different examples (their targets "
                "differ), and cannot be compared in one table"
            )


def number_table(predictions: Mapping[str, NumberPredictions]) -> str:
    """The scores of predictions of the same examples, a line for each.

    Args:
        predictions: by the name to show.

    Raises:
        InputError: predictions of other examples.
    """
    check_same_targets(predictions)
    rows: list[dict[str, str | int | float | None]] = [
        {"run": name, **{key: found.value for key, found in NumberResult(name, one).scores.items()}}
        for name, one in predictions.items()
    ]
    keys = [column.key for column in SCORES if any(column.key in row for row in rows)]
    return format_table(["run", *keys], rows)
