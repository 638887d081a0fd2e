"""Post-hoc calibration of predictions by a map fitted on validation data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.calibration_maps import (
    Labels,
    LogProbs,
    Map,
    fit_among_seen,
    fit_beta,
    fit_histogram,
    fit_isotonic,
    fit_temperature,
    fit_vector,
)
from bayes_share.evaluation.predictions import Kind, LikelihoodName, Outputs, Predictions, check_kind

CalibrationMethod = Literal["temperature", "vector", "beta", "histogram", "isotonic"]
CALIBRATIONS: tuple[str, ...] = get_args(CalibrationMethod)
"""The names of the methods."""

Pooling = Literal["before", "after"]
"""Whether probabilities are averaged before the map, which is applied to the mixture, or after it."""

_LEAST_IMAGES = 20

_FITS: dict[str, Callable[[LogProbs, Labels], Map]] = {
    "temperature": fit_temperature,
    "vector": partial(fit_among_seen, fit_vector),
    "beta": partial(fit_among_seen, fit_beta),
    "histogram": partial(fit_among_seen, fit_histogram),
    "isotonic": partial(fit_among_seen, fit_isotonic),
}


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted calibration map for predictions.

    Args:
        method: the calibration method.
        pooling: "before" if the map is applied to the mixture, "after" if it is applied to each component.
        num_classes: the number of classes, or of labels for a Bernoulli likelihood.
        map: a map of log-probabilities ``[row, class]``, or of log-odds ``[row, label]`` for a Bernoulli likelihood.
        likelihood: the likelihood of the predictions.
    """

    method: CalibrationMethod
    pooling: Pooling
    num_classes: int
    map: Map
    likelihood: LikelihoodName = "categorical"

    def __call__(self, predictions: Kind) -> Kind:
        """Calibrate predictions. The logits of the result are log-probabilities.

        Args:
            predictions: outputs or predictions with the classes that the map was fitted to.

        Returns:
            Predictions without features, with logits ``[1, 1, image, class]`` if the mixture was calibrated, otherwise
            ``[draw, member, image, class]``. A probability of 0, possible for "histogram" and "isotonic", becomes
            1e-38.

        Raises:
            InputError: if the input is not an `Outputs` or `Predictions`, or has another likelihood or number of
                classes.
        """
        check_kind(predictions, Outputs)
        _check_alike("the calibration was fitted to", self.num_classes, self.likelihood, predictions)
        rows = _rows(predictions, self.pooling)
        components = (1, 1) if self.pooling == "before" else predictions.logits.shape[:2]
        logits = self.map(rows).reshape(*components, -1, self.num_classes)
        return replace(predictions, logits=logits.float(), features=None)


@dataclass(frozen=True, eq=False)
class EachLabel:
    """A map of log-odds ``[row, label]`` that applies a separate two-class map to each label.

    Args:
        maps: one two-class map for each label.
    """

    maps: Sequence[Map]

    def __call__(self, log_odds: Tensor) -> Tensor:
        """Return calibrated log-odds."""
        pairs = zip(self.maps, log_odds.unbind(-1), strict=True)
        calibrated = [of_label(_two_classes(column)) for of_label, column in pairs]
        return torch.stack([logs[:, 1] - logs[:, 0] for logs in calibrated], dim=-1)


def fit_calibration(method: CalibrationMethod, validation: Predictions, pooling: Pooling = "before") -> Calibration:
    """Fit a calibration map to validation predictions.

    For a Bernoulli likelihood, a separate two-class map is fitted for each label. All maps except "temperature" are
    fitted to the classes that occur in the validation data; the other classes keep their probability.

    Args:
        method: "temperature" (one parameter), "vector" (two parameters per class), "beta" (three parameters per class
            against the rest), "histogram" or "isotonic" (each class against the rest).
        validation: predictions on data not used for evaluation.
        pooling: "before" calibrates the mixture of all draws and members. "after" calibrates each component and then
            averages them, which leaves the mixture underconfident (Rahaman and Thiery 2021, arXiv 2007.08792). A single
            map is fitted to all components together, because posterior draws are exchangeable and members have equal
            expected errors.

    Raises:
        InputError: if the method or pooling is unknown, or if a label has fewer than 20 images or only one class.
    """
    if method not in CALIBRATIONS:
        raise unknown("calibration", method, CALIBRATIONS)
    if pooling not in get_args(Pooling):
        raise unknown("pooling", pooling, get_args(Pooling))
    check_kind(validation)
    labels = validation.labels
    if len(labels) < _LEAST_IMAGES:
        raise InputError(f"calibration requires at least {_LEAST_IMAGES} validation examples, not {len(labels)}")
    rows = _rows(validation, pooling)
    repeats, columns = len(rows) // len(labels), rows.shape[-1]
    fitted: Map
    if validation.likelihood == "categorical":
        fitted = _fit(method, rows, labels, repeats)
    else:
        of_labels = labels.reshape(-1, columns).unbind(-1)
        pairs = zip(rows.unbind(-1), of_labels, strict=True)
        fitted = EachLabel([_fit(method, _two_classes(column), own, repeats) for column, own in pairs])
    return Calibration(method, pooling, columns, fitted, validation.likelihood)


def _fit(method: str, rows: Tensor, labels: Tensor, repeats: int) -> Map:
    if bool((labels == labels[0]).all()):
        raise InputError(
            f"calibration requires validation examples of at least two classes: all have class {labels[0]}"
        )
    return _FITS[method](rows, labels.cpu().repeat(repeats))


def calibrate(method: CalibrationMethod, validation: Predictions, test: Kind, pooling: Pooling = "before") -> Kind:
    """Fit a calibration map to validation predictions, and apply it to test predictions.

    Args:
        method: see `fit_calibration`.
        validation: predictions to fit the map to.
        test: predictions to calibrate; labels are not used.
        pooling: see `fit_calibration`.

    Returns:
        Calibrated predictions; see `Calibration`.

    Raises:
        InputError: if `fit_calibration` rejects the input, or validation and test predictions have different classes.

    A classifier whose logits are three times too large:

    >>> import torch
    >>> from bayes_share.evaluation.scores import score
    >>> honest = torch.tensor([[0.8, 0.2]]).log().expand(500, 2)
    >>> predictions = Predictions(3 * honest[None, None], labels=(torch.arange(500) % 5 == 0).long())
    >>> calibrated = calibrate("temperature", predictions, predictions)
    >>> [round(score(found).nll, 4) for found in (predictions, calibrated)]
    [0.8473, 0.5004]
    """
    check_kind(validation)
    check_kind(test, Outputs)
    outputs = validation.logits.shape[-1]
    _check_alike("the validation predictions have", outputs, validation.likelihood, test)
    return fit_calibration(method, validation, pooling)(test)


def _check_alike(what: str, outputs: int, likelihood: str, predictions: Outputs) -> None:
    found = predictions.logits.shape[-1]
    if (found, predictions.likelihood) != (outputs, likelihood):
        units = {"categorical": "classes", "bernoulli": "binary labels"}
        raise InputError(
            f"{what} {outputs} {units[likelihood]}, and these predictions have {found} {units[predictions.likelihood]}"
        )


def _rows(predictions: Outputs, pooling: Pooling) -> Tensor:
    """Return the inputs of a map, for the mixture or for all components one after the other.

    They are log-probabilities ``[row, class]``, or log-odds ``[row, label]`` for a Bernoulli likelihood.
    """
    if pooling == "before":
        return predictions.mixture_logits.cpu()
    components = predictions.logits.cpu().double().flatten(0, 2)
    return components.log_softmax(-1) if predictions.likelihood == "categorical" else components


def _two_classes(log_odds: Tensor) -> Tensor:
    """Convert log-odds to log-probabilities ``[row, 2]`` of the classes 0 and 1."""
    return torch.nn.functional.logsigmoid(torch.stack([-log_odds, log_odds], dim=-1))
