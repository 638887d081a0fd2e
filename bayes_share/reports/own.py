"""Scores and a report of predictions in memory, from whatever training."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from bayes_share.compare import score_table
from bayes_share.errors import InputError
from bayes_share.evaluation.predictions import Predictions
from bayes_share.files import write_atomically
from bayes_share.outputs import check_output
from bayes_share.reports.build import build_report
from bayes_share.reports.gather import own_results
from bayes_share.reports.page import page
from bayes_share.reports.results import Result


def report(
    predictions: Mapping[str, Predictions],
    path: str | Path,
    *,
    validation: Mapping[str, Predictions] | None = None,
    title: str = "Calibration report",
    humans: Float[Tensor, "image class"] | None = None,
) -> Path:
    """Write a report on predictions of one test set: one page, which loads nothing.

    What only a run knows, such as what training took, is left out.

    Args:
        predictions: on the test images, by the name to show; all of the same images.
        path: the page.
        validation: on validation images, by the same names; where there are none, post-hoc calibration is left out.
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
    results = _results(predictions, validation)
    check_output(Path(path))
    write_atomically(Path(path), page(build_report(results, title, humans)).encode())
    return Path(path)


def evaluate(predictions: Mapping[str, Predictions]) -> str:
    """The scores of predictions of one test set, as a table to print.

    Args:
        predictions: on the test images, by the name to show; all of the same images.

    Raises:
        InputError: no predictions, or predictions of other images.

    >>> import torch
    >>> print(evaluate({"sure": Predictions(torch.eye(3)[None, None] * 99, torch.arange(3))}).split()[:3])
    ['run', 'accuracy', 'nll']
    """
    return score_table({result.name: result.test for result in _results(predictions, None)})


def _results(predictions: Mapping[str, Predictions], validation: Mapping[str, Predictions] | None) -> list[Result]:
    if not isinstance(predictions, Mapping) or not predictions:
        raise InputError('predictions are given by name, at least one of them: {"mine": Predictions(logits, labels)}')
    return own_results(predictions, validation)
