"""`report` and `evaluate`: a report on, and the scores of, predictions in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayes_share.analysis.comparison import score_table
from bayes_share.analysis.conformal import set_tables, sets_at_levels
from bayes_share.errors import InputError
from bayes_share.evaluation.array_conversion import Array
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.predictions import Predictions
from bayes_share.io.files import write_atomically
from bayes_share.io.terminal import listed, printable
from bayes_share.reports.build import build_report
from bayes_share.reports.gather import own_results
from bayes_share.reports.html_page import html_page
from bayes_share.reports.number_conformal import LEVELS, conformal_table
from bayes_share.reports.number_report import build_number_report
from bayes_share.reports.number_results import NumberResult, checked_validation, number_table
from bayes_share.runs.output_paths import check_output

_Given = Predictions | NumberPredictions | Mapping[str, Predictions] | Mapping[str, NumberPredictions]
_NAME = "predictions"  # the name of predictions given without a name


def report(
    predictions: _Given,
    path: str | Path,
    *,
    validation: _Given | None = None,
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
    inputs: Mapping[str, Array | Sequence[object]] | Array | None = None,
) -> Path:
    """Write a report on predictions for one test set, as a self-contained HTML page.

    Information that only a run folder has, such as training time and configuration, is not included.

    Args:
        predictions: predictions for the test examples, by display name; all for the same examples, and either all of
            classes or all of numbers. A single set of predictions needs no name.
        path: the path of the page.
        validation: predictions on examples not used for training or selection, by the same names; for a single set of
            predictions, the name can be left out. Recalibration maps and conformal sets or intervals are fitted to
            them. Without them, these sections are missing.
        title: title of the page.
        humans: the distribution of human labels for each test image, or None.
        inputs: inputs of the test examples, shown for the least expected examples: numbers or texts for each example by
            name, such as ``{"age": ages, "city": cities}``, a table with such columns, or an array
            ``[example, input]``. Not shown if examples have several targets, labels or positions.

    Returns:
        The path of the page.

    Raises:
        InputError: if there are no predictions, the predictions are for different examples, or the path is not
            writable.
        RunError: if the page cannot be written.

    >>> import tempfile
    >>> import torch
    >>> logits, labels = torch.randn(3, 50, 4), torch.arange(50) % 4
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report({"mine": Predictions(logits, labels)}, f"{folder}/report.html").name
    'report.html'
    """
    classes, numbers = _divided(predictions)
    held_out = _by_name(validation, predictions)
    check_output(Path(path))
    if numbers:
        if humans is not None:
            raise InputError("human labels require predictions of classes, and these are predictions of numbers")
        made = build_number_report(numbers, held_out, title, inputs)
    else:
        results = own_results(classes, held_out)
        made = build_report(results, title, humans, inputs=inputs)
    write_atomically(Path(path), html_page(made).encode())
    return Path(path)


def evaluate(
    predictions: _Given,
    validation: _Given | None = None,
) -> str:
    """Format the scores of predictions for one test set as a table, followed by conformal sets or intervals.

    Args:
        predictions: predictions for the test examples, by display name; all for the same examples. A single set of
            predictions needs no name.
        validation: predictions on examples not used for training or selection; see `report`. Conformal sets or
            intervals are calibrated on them. Without them, only the scores are shown.

    Returns:
        The text to print.

    Raises:
        InputError: if there are no predictions, the predictions are for different examples, or the validation
            predictions do not match them.

    >>> import torch
    >>> print(evaluate({"sure": Predictions(torch.eye(3)[None, None] * 99, torch.arange(3))}).split()[:3])
    ['run', 'accuracy', '[%]']
    """
    classes, numbers = _divided(predictions)
    held_out = _by_name(validation, predictions)
    if numbers:
        of_numbers = checked_validation(numbers, held_out)
        results = [NumberResult(name, numbers[name], one) for name, one in of_numbers.items()]
        return "\n\n".join([number_table(numbers), *([conformal_table(results)] if results else [])])
    of_classes = own_results(classes, held_out)
    scores = score_table({result.name: result.test for result in of_classes})
    sets = [
        one
        for result in of_classes
        if result.validation is not None and not result.test.has_positions
        for one in sets_at_levels(result.name, result.validation, result.test, LEVELS)
    ]
    return "\n\n".join([scores, *([set_tables(sets)] if sets else [])])


def _divided(given: _Given) -> tuple[dict[str, Predictions], dict[str, NumberPredictions]]:
    """Return predictions of classes and predictions of numbers, by name. One of the two is empty."""
    predictions = {_NAME: given} if isinstance(given, Predictions | NumberPredictions) else given
    if not isinstance(predictions, Mapping) or not predictions:
        raise InputError(
            "predictions must be Predictions(logits, labels), NumberPredictions, or a non-empty dict of these by name, "
            f"not {type(predictions).__name__}"
        )
    numbers = {name: one for name, one in predictions.items() if isinstance(one, NumberPredictions)}
    classes = {name: one for name, one in predictions.items() if not isinstance(one, NumberPredictions)}
    if numbers and classes:
        raise InputError(
            f"{listed(list(numbers))} are predictions of numbers, and {listed(list(classes))} of classes: make a "
            "separate report of each kind"
        )
    return classes, numbers


def _by_name(validation: object, given: _Given) -> Mapping[str, Any]:
    """Return validation predictions by the names of the test predictions."""
    if validation is None or isinstance(validation, Mapping):
        return validation or {}
    names = list(given) if isinstance(given, Mapping) else [_NAME]
    if not isinstance(validation, Predictions | NumberPredictions) or len(names) > 1:
        wanted = ", ".join(f'"{printable(name)}": ...' for name in names[:3])
        raise InputError(
            f"validation must be a dict with the same names, {{{wanted}}}, not {type(validation).__name__}"
        )
    return {names[0]: validation}
