"""Scores and a report of predictions in memory, from whatever training."""

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
_NAME = "predictions"  # of those that are given without one


def report(
    predictions: _Given,
    path: str | Path,
    *,
    validation: _Given | None = None,
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
    inputs: Mapping[str, Array | Sequence[object]] | Array | None = None,
) -> Path:
    """Write a report on predictions of one test set: one page, which loads nothing.

    What only a run knows, such as what training took, is left out.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples, and all of classes or all of
            numbers. A single one may be given without a name.
        path: the page.
        validation: on examples on which nothing was fitted or chosen, by the same names; without a name where there
            is a single one of the predictions. Recalibration, and conformal
            sets or intervals, are fitted to them, and left out where there are none.
        title: of the page.
        humans: the distribution of human labels for each test image, where it is known.
        inputs: what the test examples are, to be shown beside those that were least expected: by name, numbers or texts
            for each example, such as ``{"age": ages, "city": cities}``, a table with such columns, or an array
            ``[example, input]``. Examples with several targets, labels or positions are not shown.

    Returns:
        The path of the page.

    Raises:
        InputError: what cannot be used: no predictions, predictions of other images, or a path that cannot be written.
        RunError: the page cannot be written.

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
    """The scores of predictions of one test set, as a table to print, and what conformal sets or intervals come to.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples. A single one may be given
            without a name.
        validation: on examples on which nothing was fitted or chosen, as of `report`. Conformal sets or intervals are
            calibrated on them, and left out where there are none.

    Raises:
        InputError: no predictions, predictions of other examples, or validation predictions that do not go with them.

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
    """Predictions of classes, and of numbers, by name; one of the two is empty."""
    predictions = {_NAME: given} if isinstance(given, Predictions | NumberPredictions) else given
    if not isinstance(predictions, Mapping) or not predictions:
        raise InputError(
            "predictions must be a non-empty dict of names to predictions, such as "
            '{"mine": Predictions(logits, labels)}'
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
    """Validation predictions by the names of those that they go with."""
    if validation is None or isinstance(validation, Mapping):
        return validation or {}
    names = list(given) if isinstance(given, Mapping) else [_NAME]
    if not isinstance(validation, Predictions | NumberPredictions) or len(names) > 1:
        wanted = ", ".join(f'"{printable(name)}": ...' for name in names[:3])
        raise InputError(
            f"validation must be a dict with the same names, {{{wanted}}}, not {type(validation).__name__}"
        )
    return {names[0]: validation}
