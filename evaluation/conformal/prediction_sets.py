"""Conformal sets of classes from probabilities: LAC and APS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.checks import check_distributions, check_probs
from bayes_share.evaluation.conformal.threshold import Threshold, fit_threshold, seed_for, uniform
from bayes_share.evaluation.predictions import Outputs, Predictions, check_kind

SetMethod = Literal["lac", "aps"]
SET_METHODS: tuple[SetMethod, ...] = get_args(SetMethod)
"""The names of the methods."""

Probs = Float64[Tensor, "example class"]


@dataclass(frozen=True)
class ConformalSets:
    """A fitted threshold that turns probabilities into sets of classes.

    Args:
        method: "lac" or "aps".
        alpha: the allowed miscoverage.
        num_classes: the number of classes.
        threshold: the threshold of the conformity scores.
        num_examples: the number of calibration examples.
        seed: the seed of the random numbers.
    """

    method: SetMethod
    alpha: float
    num_classes: int
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, probs: Float[Tensor, "example class"]) -> Bool[Tensor, "example class"]:
        """Compute the set of each example; the result is deterministic.

        A set is empty if no class of its example is plausible by the standard of the calibration examples: no
        probability reaches the threshold ("lac"), or the randomised score of even the most probable class exceeds it
        ("aps").

        Args:
            probs: probabilities; each row is a distribution.

        Raises:
            InputError: if a row is not a distribution, or the number of classes is another one.
        """
        check_distributions("probabilities", probs)
        if probs.shape[1] != self.num_classes:
            raise InputError(
                f"the sets were calibrated with {self.num_classes} classes, and these probabilities have "
                f"{probs.shape[1]}"
            )
        found = probs.detach().double().cpu()
        seed = seed_for(self.seed, found)
        scores = _SCORES[self.method](found, uniform(seed, "of sets", len(found)))
        return self.threshold.admits(scores, uniform(seed, "ties of sets", *found.shape))

    def of(self, outputs: Outputs) -> Bool[Tensor, "example class"]:
        """Compute the sets from the probabilities of the mixture of draws and members.

        Raises:
            InputError: if the number of classes is another one, or there are several labels: use each of
                ``.problems()``.
        """
        check_kind(outputs, Outputs)
        return self(outputs.log_probs.exp())


def fit_sets(
    method: SetMethod,
    probs: Float[Tensor, "example class"],
    labels: Int64[Tensor, "example"],
    alpha: float = 0.1,
    seed: int = 0,
) -> ConformalSets:
    """Calibrate sets that contain the right class of a new example with a probability of at least 1 − α.

    The probability is over the calibration examples and the new example, which must be exchangeable, and is not
    conditional on a class or an input. With n examples it is at most ``1 − α + 1/(n + 1)``. With fewer than ``1/α − 1``
    examples, every set contains all classes. Not all classes need to occur among the labels, since they share a
    threshold.

    Args:
        method: "lac": all classes with at least a threshold probability (Sadinle, Lei and Wasserman 2019, arXiv
            1609.00451), which gives the smallest sets on average. "aps": the most probable classes up to a threshold on
            their total probability, with randomised scores (Romano, Sesia and Candès 2020, arXiv 2006.02544), whose
            size follows the uncertainty of each example more closely.
        probs: probabilities of examples that were not used for training, selection or fitting; each row is a
            distribution.
        labels: the right classes.
        alpha: the allowed miscoverage, between 0 and 1.
        seed: the seed of the random numbers, which also depend on the data.

    Raises:
        InputError: if the method is unknown, alpha is out of range, a row is not a distribution, or a label is not a
            class.

    >>> sure, unsure = [0.9, 0.08, 0.02], [0.4, 0.35, 0.25]
    >>> probs = torch.tensor([sure, unsure] * 10)
    >>> sets = fit_sets("lac", probs, torch.tensor([0, 1] * 10), alpha=0.2)
    >>> sets(torch.tensor([[0.7, 0.2, 0.1], [0.45, 0.4, 0.15]]))
    tensor([[ True, False, False],
            [ True,  True, False]])
    """
    if method not in SET_METHODS:
        raise unknown("conformal method", method, SET_METHODS)
    check_probs(probs, labels)
    found, labels = probs.detach().double().cpu(), labels.cpu()
    seed = seed_for(seed, found, labels)
    scores = _SCORES[method](found, uniform(seed, "of scores", len(found)))
    of_labels = scores.gather(1, labels[:, None]).squeeze(1)
    threshold = fit_threshold(of_labels, uniform(seed, "ties of scores", len(found)), alpha)
    return ConformalSets(method, alpha, found.shape[1], threshold, len(found), seed)


def fit_sets_of(method: SetMethod, predictions: Predictions, alpha: float = 0.1, seed: int = 0) -> ConformalSets:
    """Call `fit_sets` with the probabilities of the mixture of draws and members.

    Raises:
        InputError: if `fit_sets` rejects the input, examples have several positions, or there are several labels: use
            each of ``.problems()``.
    """
    check_kind(predictions)
    check_exchangeable(predictions)
    return fit_sets(method, predictions.log_probs.exp(), predictions.labels, alpha, seed)


def check_exchangeable(predictions: Predictions) -> None:
    """Raise InputError if examples have several positions, which are not exchangeable."""
    if predictions.has_positions:
        raise InputError(
            "conformal sets require exchangeable examples, and positions of one example are not: use one "
            "position of each example"
        )


def _lac(probs: Probs, draws: Float64[Tensor, "example"]) -> Float64[Tensor, "example class"]:
    """Return the negative probability. 1 − p would lose small probabilities to rounding."""
    return -probs


def _aps(probs: Probs, draws: Float64[Tensor, "example"]) -> Float64[Tensor, "example class"]:
    """Return the probability of all more probable classes plus a random share of its own (Romano et al., eq. 8)."""
    ordered, classes = probs.sort(stable=True, dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.empty_like(probs).scatter_(-1, classes, before + draws[:, None] * ordered)


_SCORES: dict[str, Callable[[Probs, Float64[Tensor, "example"]], Float64[Tensor, "example class"]]] = {
    "lac": _lac,
    "aps": _aps,
}
