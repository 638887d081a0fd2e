"""Named predictions of numbers for a report, their scores, and checks that they can be compared."""

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
"""The nominal coverage of the central intervals in reports."""

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
    """Named predictions of numbers for a report.

    Args:
        name: display name.
        test: predictions for the test examples.
        validation: predictions for validation examples, or None.
        run: the finished run that made the predictions; None if it is not known.
    """

    name: str
    test: NumberPredictions
    validation: NumberPredictions | None = None
    run: RunRecord | None = None

    @property
    def unchosen(self) -> NumberPredictions | None:
        """Validation predictions for the examples that the run did not use for selection; all if there is no run.

        Raises:
            InputError: if the run used all of them, or was trained on them.
        """
        if self.run is not None:
            validation_predictions(self.run.folder)
        if self.run is None or self.validation is None:
            return self.validation
        config = read_run_config(self.run.folder.config)
        return self.validation.at(unchosen(config, len(self.validation.targets)))

    @cached_property
    def terms(self) -> dict[str, Float64[Tensor, "example"]]:
        """The terms of the test examples whose means are the scores; see `number_terms`."""
        return number_terms(self.test.predictive, self.test.targets, COVERAGE)

    @cached_property
    def scores(self) -> dict[str, Interval]:
        """The scores with confidence intervals."""
        return scores_of_terms(self.terms, self.pit)

    @cached_property
    def pit(self) -> Float[Tensor, "example *target"]:
        """The probability integral transform of the test targets."""
        return pit(self.test.predictive, self.test.targets)


def cell(found: Interval) -> Cell:
    """Make a cell of a score and its error; an infinite score has no error."""
    return Cell(found.value, None if math.isnan(found.error) else found.error)


def checked_validation(
    predictions: Mapping[str, NumberPredictions], validation: Mapping[str, object]
) -> dict[str, NumberPredictions]:
    """Check that validation predictions match the test predictions of the same names, and return them.

    Raises:
        InputError: if a name is unknown, or predictions are of classes or have another likelihood.
    """
    if unknown := [name for name in validation if name not in predictions]:
        raise InputError(
            f"validation predictions are given for {listed(unknown)}, but there are only test predictions of "
            f"{listed(list(predictions))}"
        )
    found = {name: one for name, one in validation.items() if isinstance(one, NumberPredictions)}
    if others := [name for name in validation if name not in found]:
        raise InputError(
            f"the validation predictions of {listed(others)} are predictions of classes, and the test predictions "
            "are predictions of numbers"
        )
    for name, one in found.items():
        if one.likelihood.name != predictions[name].likelihood.name:
            raise InputError(
                f"the validation predictions of {printable(name)} have the likelihood {one.likelihood.name}, and "
                f"its test predictions have {predictions[name].likelihood.name}"
            )
    return found


def check_same_targets(predictions: Mapping[str, NumberPredictions]) -> None:
    """Check that predictions have the same targets, so that they can be compared in one table.

    Raises:
        InputError: if the targets differ.
    """
    (one, first), *others = predictions.items()
    for name, other in others:
        if not torch.equal(first.targets.cpu(), other.targets.cpu()):
            raise InputError(
                f"{printable(one)} and {printable(name)} are predictions of different examples (their targets "
                "differ), and cannot be compared in one table"
            )


def number_table(predictions: Mapping[str, NumberPredictions]) -> str:
    """Format a table of scores, with a row for each set of predictions.

    Args:
        predictions: predictions for the same examples, by display name.

    Raises:
        InputError: if the test examples differ.
    """
    check_same_targets(predictions)
    rows: list[dict[str, str | int | float | None]] = [
        {"run": name, **{key: found.value for key, found in NumberResult(name, one).scores.items()}}
        for name, one in predictions.items()
    ]
    keys = [column.key for column in SCORES if any(column.key in row for row in rows)]
    return format_table(["run", *keys], rows)
