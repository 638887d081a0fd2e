"""Scores and a report of predictions in memory, from whatever training."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from bayes_share.compare import score_table
from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.predictions import Predictions
from bayes_share.files import write_atomically
from bayes_share.outputs import check_output
from bayes_share.reports.build import build_report
from bayes_share.reports.gather import own_results
from bayes_share.reports.number_report import build_number_report
from bayes_share.reports.number_results import number_table
from bayes_share.reports.page import page
from bayes_share.terminal import listed


def report(
    predictions: Mapping[str, Predictions] | Mapping[str, NumberPredictions],
    path: str | Path,
    *,
    validation: Mapping[str, Predictions] | Mapping[str, NumberPredictions] | None = None,
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
) -> Path:
    """Write a report on predictions of one test set: one page, which loads nothing.

    What only a run knows, such as what training took, is left out.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples, and all of classes or all of
            numbers.
        path: the page.
        validation: on examples on which nothing was fitted or chosen, by the same names. Recalibration and conformal
            sets are fitted to them, and left out where there are none.
        title: of the page.
        humans: the distribution of human labels for each test image, where it is known.

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
        made = build_number_report(numbers, validation, title)
    else:
        made = build_report(own_results(classes, validation), title, humans)  # type: ignore[arg-type]  # checked there
    write_atomically(Path(path), page(made).encode())
    return Path(path)


def evaluate(predictions: Mapping[str, Predictions] | Mapping[str, NumberPredictions]) -> str:
    """The scores of predictions of one test set, as a table to print.

    Args:
        predictions: on the test examples, by the name to show; all of the same examples.

    Raises:
        InputError: no predictions, or predictions of other examples.

    >>> import torch
    >>> print(evaluate({"sure": Predictions(torch.eye(3)[None, None] * 99, torch.arange(3))}).split()[:3])
    ['run', 'accuracy', '[%]']
    """
    classes, numbers = _divided(predictions)
    if numbers:
        return number_table(numbers)
    return score_table({result.name: result.test for result in own_results(classes)})


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
