"""Conformal sets of temperature-scaled probabilities, with temperature and threshold fitted to different examples."""

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
    """Validation predictions split into two disjoint halves.

    Args:
        temperature: temperature scaling fitted to one half; None if the half has too few examples or only one class.
        held_apart: the other half; all validation predictions if there are too few to split.
    """

    temperature: Calibration | None
    held_apart: Predictions

    def sets(
        self, method: SetMethod, test: Predictions, alpha: float = 0.1, seed: int = 0
    ) -> Bool[Tensor, "example class"]:
        """Compute the sets of test examples, with the threshold fitted to `held_apart`.

        Args:
            method: see `fit_sets`.
            test: predictions with the same classes; labels are not used.
            alpha: see `fit_sets`.
            seed: see `fit_sets`.

        Raises:
            InputError: if `fit_sets` rejects the input, or the test predictions have other classes.
        """
        return fit_sets_of(method, self.calibration, alpha, seed).of(self.scaled(test))

    @cached_property
    def calibration(self) -> Predictions:
        """The predictions that thresholds are fitted to: `held_apart`, scaled by the temperature."""
        return self.scaled(self.held_apart)

    def scaled(self, predictions: Predictions) -> Predictions:
        """Scale predictions by the temperature, if there is one."""
        return predictions if self.temperature is None else self.temperature(predictions)


def halves(validation: Predictions, seed: int = 0) -> Halves:
    """Split validation predictions at random, and fit a temperature to one half.

    Args:
        validation: predictions, with a single label, on examples that were not used for selection or fitting, such as
            early stopping.
        seed: the seed of the split.

    Raises:
        InputError: if the input is not a `Predictions`, or examples have several positions.
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
    except InputError:  # all examples have the same class
        return Halves(None, held_apart)
