"""Reading files of predictions of any likelihood."""

from pathlib import Path

from torch import Tensor

from bayes_share.evaluation.number_predictions import NUMBER_LIKELIHOODS, NumberPredictions, read_number_predictions
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.io.arrays import map_arrays
from bayes_share.models.likelihoods import Likelihood


def read_predictions(path: str | Path, likelihood: Likelihood | None = None) -> Predictions | NumberPredictions:
    """Memory-map a file of predictions from a run, `write_predictions`, `write_number_predictions` or another program.

    Arrays are read on access, so they may be larger than the memory. Changes to them are not written to the file.
    Pickled objects in the file are not loaded.

    Args:
        path: an uncompressed ``.npz`` file.
        likelihood: the likelihood of the predictions, if it is a custom one.

    Returns:
        `Predictions` for classes and binary labels, otherwise `NumberPredictions`, according to the array
        ``likelihood`` in the file. A file without this array contains class predictions.

    Raises:
        InputError: if the file is missing or damaged, or does not contain valid predictions.
    """
    if likelihood is not None or are_of_numbers(path):
        return read_number_predictions(path, likelihood)
    return read_class_predictions(path)


def right_answers(path: str | Path) -> Tensor:
    """Return the labels or targets in a file of predictions; see `read_predictions`."""
    found = read_predictions(path)
    return found.targets if isinstance(found, NumberPredictions) else found.labels


def are_of_numbers(path: str | Path) -> bool:
    """Return whether a file contains predictions of numbers or counts. Only its array ``likelihood`` is read.

    Raises:
        InputError: if the file is missing or damaged.
    """
    arrays, _ = map_arrays(path, "an .npz file of predictions", ["likelihood"])
    return str(arrays.get("likelihood")) in NUMBER_LIKELIHOODS
