"""Files of predictions of any likelihood."""

from pathlib import Path

from torch import Tensor

from bayes_share.evaluation.number_predictions import NUMBER_LIKELIHOODS, NumberPredictions, read_number_predictions
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.io.arrays import map_arrays
from bayes_share.models.likelihoods import Likelihood


def read_predictions(path: str | Path, likelihood: Likelihood | None = None) -> Predictions | NumberPredictions:
    """Map predictions into memory that a run, `write_predictions`, `write_number_predictions` or you have written.

    Large arrays stay in the file, and are read as they are looked at: they may be larger than the memory. What is
    written into them does not reach the file. Nothing in the file is executed.

    Args:
        path: an ``.npz`` file, without compression.
        likelihood: of one's own, where the predictions are of one.

    Returns:
        `Predictions` of classes and labels, and `NumberPredictions` of all else, as the file's array ``likelihood``
        says; a file without it holds classes.

    Raises:
        InputError: a missing or damaged file, or one that does not hold predictions; names the file and the offender.
    """
    if likelihood is not None or are_of_numbers(path):
        return read_number_predictions(path, likelihood)
    return read_class_predictions(path)


def right_answers(path: str | Path) -> Tensor:
    """The labels or targets in a file of predictions; see `read_predictions`."""
    found = read_predictions(path)
    return found.targets if isinstance(found, NumberPredictions) else found.labels


def are_of_numbers(path: str | Path) -> bool:
    """Whether a file holds predictions of numbers or counts; nothing else in it is looked at.

    Raises:
        InputError: a missing or damaged file.
    """
    arrays, _ = map_arrays(path, "an .npz file of predictions", ["likelihood"])
    return str(arrays.get("likelihood")) in NUMBER_LIKELIHOODS
