"""The results of one run of a study, and formatting of tables for all studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.io.csv_file import write_table
from bayes_share.runs.run_folder import RunFolder, read_history, read_summary
from bayes_share.study.definition import Trial

AnyTrial = TypeVar("AnyTrial", bound=Trial)

SHOWN: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy [%]", 100, 2),
    "error": ("error [%]", 100, 2),
    "nll": ("NLL [nat]", 1, 4),
    "brier": ("Brier", 1, 4),
    "ece": ("ECE", 1, 4),
    "squared_calibration_error": ("squared CE", 1, 5),
    "seconds": ("time [s]", 1, 1),
}
"""The title, unit factor and number of decimals of each score."""

SCORES = ("accuracy", "nll", "brier", "ece", "squared_calibration_error")
"""The scores of a run's predictions."""

COMPARED = ("nll", "brier", "squared_calibration_error")
"""The scores to compare, in addition to accuracy or error. Not ECE, whose differences favour the more accurate run."""

NOTE = "* Student's 95 % interval of this difference excludes 0; about 1 in 20 null differences is starred."
"""The meaning of the stars in tables of differences."""


@dataclass(frozen=True)
class Result(Generic[AnyTrial]):
    """The results of one finished run.

    Args:
        trial: the trial of the run.
        scores: scores on the test images by name, and the seconds of training.
        history: metrics of each epoch.
        parameters: number of stored parameters of all networks of the run; shared parameters count once.
    """

    trial: AnyTrial
    scores: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    parameters: int


def read_result(trial: AnyTrial, folder: RunFolder) -> Result[AnyTrial]:
    """Score a finished run and read its history.

    Raises:
        InputError: if a file is missing or damaged.
    """
    scores = score(read_class_predictions(folder.predictions("test")))
    history, parameters = read_history(folder), int(read_summary(folder)["parameters"])
    named = {name: float(getattr(scores, name)) for name in SCORES}
    return Result(
        trial, {**named, "error": 1 - named["accuracy"], "seconds": history[-1]["seconds"]}, history, parameters
    )


def cells(values: Mapping[str, Estimate], signed: bool) -> dict[str, Cell]:
    """Format estimates as the cells of a table.

    Args:
        values: estimates by score.
        signed: whether they are differences, which have a sign, and a star if clearly different from 0.
    """
    found: dict[str, Cell] = {}
    for name, value in values.items():
        title, factor, decimals = SHOWN[name]
        text = f"{factor * value.mean:{'+' if signed else ''}.{decimals}f}"
        if value.error is not None:
            text += f" ± {factor * value.error:.{decimals}f}"
        found[title] = text + (" *" if signed and value.is_clear() else "")
    return {**found, "seeds": _count(values)}


def numbers(values: Mapping[str, Estimate]) -> dict[str, float | int | None]:
    """Return means and standard errors as numbers, for a file."""
    found: dict[str, float | int | None] = {}
    for name, value in values.items():
        found |= {name: value.mean, f"{name}_error": value.error}
    return {**found, "seeds": _count(values)}


def table(rows: Sequence[Mapping[str, Cell]], markdown: bool) -> str:
    """Format all columns of the rows, in the order of the first row."""
    return format_table(list(rows[0]), rows, markdown)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with equal columns to a CSV file.

    Raises:
        RunError: if the file cannot be written.
    """
    columns = list(rows[0]) if rows else []
    write_table(path, [columns, *([row[name] for name in columns] for row in rows)] if rows else [])


def over_seeds(count: int) -> str:
    """Return what error bars show, for a title."""
    return f"mean ± standard error over {count} seeds" if count > 1 else "one seed"


def _count(values: Mapping[str, Estimate]) -> int:
    return max(value.count for value in values.values())
