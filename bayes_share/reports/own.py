"""Scores and a report of predictions in memory, from whatever training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from bayes_share.compare import score_table
from bayes_share.conformal import set_tables, sets_at_levels
from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.own_arrays import Array
from bayes_share.evaluation.predictions import Predictions
from bayes_share.files import write_atomically
from bayes_share.outputs import check_output
from bayes_share.reports.build import build_report
from bayes_share.reports.gather import own_results
from bayes_share.reports.number_conformal import LEVELS, conformal_table
from bayes_share.reports.number_report import build_number_report
from bayes_share.reports.number_results import NumberResult, checked_validation, number_table
from bayes_share.reports.page import page
from bayes_share.terminal import listed


def report(
    predictions: Mapping[str, Predictions] | Mapping[str, NumberPredictions],
    path: str | Path,
    *,
    validation: Mapping[str, Predictions] | Mapping[str, NumberPredictions] | None = None,
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
    inputs: Mapping[str, Array | Sequence[object]] | Array | None = None,
) -> Path:
    """Write a report on predictions of one test set: one page, which loads nothing.

    What only a run knows, such as what training took, is left out.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples, and all of classes or all of
            numbers.
        path: the page.
        validation: on examples on which nothing was fitted or chosen, by the same names. Recalibration, and conformal
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
    check_output(Path(path))
    if numbers:
        if humans is not None:
            raise InputError("human labels are of classes, and the predictions are of numbers")
        made = build_number_report(numbers, validation, title, inputs)
    else:
        results = own_results(classes, validation)  # type: ignore[arg-type]  # checked there
        made = build_report(results, title, humans, inputs=inputs)
    write_atomically(Path(path), page(made).encode())
    return Path(path)


def evaluate(
    predictions: Mapping[str, Predictions] | Mapping[str, NumberPredictions],
    validation: Mapping[str, Predictions] | Mapping[str, NumberPredictions] | None = None,
) -> str:
    """The scores of predictions of one test set, as a table to print, and what conformal sets or intervals come to.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples.
        validation: on examples on which nothing was fitted or chosen, by the same names. Conformal sets or intervals
            are calibrated on them, and left out where there are none.

    Raises:
        InputError: no predictions, predictions of other examples, or validation predictions that do not go with them.

    >>> import torch
    >>> print(evaluate({"sure": Predictions(torch.eye(3)[None, None] * 99, torch.arange(3))}).split()[:3])
    ['run', 'accuracy', '[%]']
    """
    classes, numbers = _divided(predictions)
    if numbers:
        held_out = checked_validation(numbers, validation or {})
        results = [NumberResult(name, numbers[name], one) for name, one in held_out.items()]
        return "\n\n".join([number_table(numbers), *([conformal_table(results)] if results else [])])
    of_classes = own_results(classes, validation)  # type: ignore[arg-type]  # checked there
    scores = score_table({result.name: result.test for result in of_classes})
    sets = [
        one
        for result in of_classes
        if result.validation is not None and not result.test.has_positions
        for one in sets_at_levels(result.name, result.validation, result.test, LEVELS)
    ]
    return "\n\n".join([scores, *([set_tables(sets)] if sets else [])])


def _divided(
    predictions: Mapping[str, Predictions] | Mapping[str, NumberPredictions],
) -> tuple[dict[str, Predictions], dict[str, NumberPredictions]]:
    """Predictions of classes, and of numbers; one of the two is empty."""
    if not isinstance(predictions, Mapping) or not predictions:
        raise InputError('predictions are given by name, at least one of them: {"mine": Predictions(logits, labels)}')
    numbers = {name: one for name, one in predictions.items() if isinstance(one, NumberPredictions)}
    classes = {name: one for name, one in predictions.items() if not isinstance(one, NumberPredictions)}
    if numbers and classes:
        raise InputError(
            f"{listed(list(numbers))} are predictions of numbers, and {listed(list(classes))} of classes: make a "
            f"report of each"
        )
    return classes, numbers
