"""Post-hoc calibration: predictions made honest by a map that is fitted on validation data."""

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
"""The methods by name."""

Pooling = Literal["before", "after"]
"""Where probabilities are averaged: before the map, which sees the mixture, or after it, which sees each component."""

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
    """A fitted map, to be called on predictions.

    Args:
        method: how it was fitted.
        pooling: what it is applied to.
        num_classes: of the predictions, or labels where their likelihood is Bernoulli.
        map: from log-probabilities ``[row, class]`` to calibrated ones; of a Bernoulli likelihood from log-odds
            ``[row, label]`` to calibrated ones.
        likelihood: of the predictions.
    """

    method: CalibrationMethod
    pooling: Pooling
    num_classes: int
    map: Map
    likelihood: LikelihoodName = "categorical"

    def __call__(self, predictions: Kind) -> Kind:
        """Calibrated predictions, whose logits are the logs of probabilities.

        Args:
            predictions: of any images, with labels or without, with the classes that the map was fitted to.

        Returns:
            Logits ``[1, 1, image, class]`` where the mixture was calibrated, else ``[draw, member, image, class]``;
            without features. A probability of 0, which a histogram or isotonic regression may give, becomes 1e-38.

        Raises:
            InputError: something else than predictions, another number of classes or another likelihood.
        """
        check_kind(predictions, Outputs)
        _check_alike("the calibration was fitted to", self.num_classes, self.likelihood, predictions)
        rows = _rows(predictions, self.pooling)
        components = (1, 1) if self.pooling == "before" else predictions.logits.shape[:2]
        logits = self.map(rows).reshape(*components, -1, self.num_classes)
        return replace(predictions, logits=logits.float(), features=None)


@dataclass(frozen=True, eq=False)
class EachLabel:
    """A map of its own for each label, as a map of log-odds ``[row, label]``.

    Args:
        maps: of two classes, one for each label.
    """

    maps: Sequence[Map]

    def __call__(self, log_odds: Tensor) -> Tensor:
        """Calibrated log-odds."""
        pairs = zip(self.maps, log_odds.unbind(-1), strict=True)
        calibrated = [of_label(_two_classes(column)) for of_label, column in pairs]
        return torch.stack([logs[:, 1] - logs[:, 0] for logs in calibrated], dim=-1)


def fit_calibration(method: CalibrationMethod, validation: Predictions, pooling: Pooling = "before") -> Calibration:
    """Fit a map to validation predictions, by the NLL or by counting.

    Of a Bernoulli likelihood each label has a map of its own, fitted to its two classes. All maps but "temperature" are
    fitted to the classes that occur; the others keep their probability.

    Args:
        method: "temperature" (one number), "vector" (two for each class), "beta" (three for each class against the
            rest), "histogram" or "isotonic" (each class against the rest).
        validation: what the map is fitted to; never what it is judged by.
        pooling: "before": the mixture of all draws and members is calibrated. "after": each component is, and then they
            are averaged, which leaves their mixture less confident than calibrated (Rahaman and Thiery 2021, arXiv
            2007.08792). All components have one map, fitted to all of them together: draws of a posterior are
            exchangeable, so that number 3 has no map of its own, and members have the same expected errors.

    Raises:
        InputError: an unknown method or pooling; fewer than 20 images, or of one class only, for any label.
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
    """Test predictions, calibrated by a map that is fitted to validation predictions.

    Args:
        method: see `fit_calibration`.
        validation: what the map is fitted to.
        test: what it is applied to, with labels or without; they are not looked at.
        pooling: see `fit_calibration`.

    Returns:
        As of `Calibration`.

    Raises:
        InputError: what `fit_calibration` refuses, or validation and test predictions of different classes.

    A classifier of which each logit is three times what it should be:

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
    _check_alike("the validation predictions are of", outputs, validation.likelihood, test)
    return fit_calibration(method, validation, pooling)(test)


def _check_alike(what: str, outputs: int, likelihood: str, predictions: Outputs) -> None:
    found = predictions.logits.shape[-1]
    if (found, predictions.likelihood) != (outputs, likelihood):
        units = {"categorical": "classes", "bernoulli": "binary labels"}
        raise InputError(
            f"{what} {outputs} {units[likelihood]}, and these predictions have {found} {units[predictions.likelihood]}"
        )


def _rows(predictions: Outputs, pooling: Pooling) -> Tensor:
    """What a map sees, of the mixture, or of each component in turn.

    Log-probabilities ``[row, class]``, or of a Bernoulli likelihood log-odds ``[row, label]``.
    """
    if pooling == "before":
        return predictions.mixture_logits.cpu()
    components = predictions.logits.cpu().double().flatten(0, 2)
    return components.log_softmax(-1) if predictions.likelihood == "categorical" else components


def _two_classes(log_odds: Tensor) -> Tensor:
    """The log-probabilities ``[row, 2]`` of the classes 0 and 1."""
    return torch.nn.functional.logsigmoid(torch.stack([-log_odds, log_odds], dim=-1))
