"""Sets of temperature-scaled probabilities, whose temperature and threshold are of different validation examples."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.conformal.prediction_sets import SetMethod, check_exchangeable, fit_sets_of
from bayes_share.evaluation.posthoc import Calibration, fit_calibration
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.tensors.seeding import generator

_LEAST_FOR_TEMPERATURE = 20


@dataclass(frozen=True, eq=False)
class Halves:
    """Validation predictions in two parts with nothing in common.

    Args:
        temperature: fitted on one of them; None where that would have too few examples, or of one class only.
        held_apart: the other, which the temperature has not seen; all of them where they are too few for both.
    """

    temperature: Calibration | None
    held_apart: Predictions

    def sets(
        self, method: SetMethod, test: Predictions, alpha: float = 0.1, seed: int = 0
    ) -> Bool[Tensor, "example class"]:
        """The sets of test examples, calibrated on the part that was held apart.

        Args:
            method: see `fit_sets`.
            test: of the same classes; their labels are not looked at.
            alpha: see `fit_sets`.
            seed: see `fit_sets`.

        Raises:
            InputError: what `fit_sets` refuses, or test predictions of other classes.
        """
        return fit_sets_of(method, self.calibration, alpha, seed).of(self.scaled(test))

    @cached_property
    def calibration(self) -> Predictions:
        """What thresholds are fitted to: the part that was held apart, scaled by the temperature."""
        return self.scaled(self.held_apart)

    def scaled(self, predictions: Predictions) -> Predictions:
        """Predictions scaled by the temperature, where there is one."""
        return predictions if self.temperature is None else self.temperature(predictions)


def halves(validation: Predictions, seed: int = 0) -> Halves:
    """Divide validation predictions at random, and fit a temperature on one half.

    Args:
        validation: of examples on which nothing was chosen or fitted, such as the epoch at which training stopped; not
            of several labels.
        seed: of the division.

    Raises:
        InputError: no predictions, or examples with several positions.
    """
    check_kind(validation)
    check_exchangeable(validation)
    count = len(validation.labels)
    if count < 2 * _LEAST_FOR_TEMPERATURE:
        return Halves(None, validation)
    order = torch.randperm(count, generator=generator(seed, "halves of validation"))
    for_temperature, held_apart = (validation.at(part.sort().values) for part in order.chunk(2))
    try:
        return Halves(fit_calibration("temperature", for_temperature), held_apart)
    except InputError:  # all are of one class
        return Halves(None, held_apart)
