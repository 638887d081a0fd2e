"""Conformal sets of classes: LAC and APS, from probabilities alone."""

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
"""The methods by name."""

Probs = Float64[Tensor, "example class"]


@dataclass(frozen=True)
class ConformalSets:
    """A fitted threshold, to be called on probabilities of new examples.

    Args:
        method: "lac" or "aps".
        alpha: the miscoverage that is allowed.
        num_classes: of the probabilities.
        threshold: of the scores.
        num_examples: that it was fitted to.
        seed: of the random numbers.
    """

    method: SetMethod
    alpha: float
    num_classes: int
    threshold: Threshold
    num_examples: int
    seed: int

    def __call__(self, probs: Float[Tensor, "example class"]) -> Bool[Tensor, "example class"]:
        """The classes that are in each example's set.

        A set may be empty, which calls an example unlike all others. The same probabilities get the same sets.

        Args:
            probs: each row a distribution.

        Raises:
            InputError: no distributions, or another number of classes.
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
        """The sets of predictions' examples, by the probabilities of their mixture.

        Raises:
            InputError: another number of classes, or several labels: take each of ``.problems()``.
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
    """Calibrate sets that hold the right class of one more example with a probability of 1 − α or more.

    The probability is over the examples here and the one more, all exchangeable; it is not of each class or each
    input. With n examples it is at most ``1 − α + 1/(n + 1)``. With fewer than ``1/α − 1`` every set is all classes.
    Classes may be missing among the labels: all have the same threshold.

    Args:
        method: "lac": the classes of at least some probability (Sadinle, Lei and Wasserman 2019, arXiv 1609.00451),
            the smallest sets on average. "aps": the most probable classes up to some total, with randomised scores
            (Romano, Sesia and Candès 2020, arXiv 2006.02544), whose size follows the doubt more closely.
        probs: of examples on which nothing was trained, chosen or fitted; each row a distribution.
        labels: the right classes.
        alpha: the miscoverage that is allowed, between 0 and 1.
        seed: of the random numbers, which depend on the data too.

    Raises:
        InputError: an unknown method, another alpha, no distributions, or labels outside the classes.

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
    """`fit_sets` by the probabilities of the mixture of predictions' draws and members.

    Raises:
        InputError: what `fit_sets` refuses, several positions of an example, or several labels: take each of
            ``.problems()``.
    """
    check_kind(predictions)
    check_exchangeable(predictions)
    return fit_sets(method, predictions.log_probs.exp(), predictions.labels, alpha, seed)


def check_exchangeable(predictions: Predictions) -> None:
    """Raise an InputError where examples have several positions, which are not exchangeable."""
    if predictions.has_positions:
        raise InputError(
            "conformal sets require exchangeable examples, and positions of one example are not: use one "
            "position of each example"
        )


def _lac(probs: Probs, draws: Float64[Tensor, "example"]) -> Float64[Tensor, "example class"]:
    """The negative probability: 1 − p would round small ones away."""
    return -probs


def _aps(probs: Probs, draws: Float64[Tensor, "example"]) -> Float64[Tensor, "example class"]:
    """The probability of all more probable classes, and a random part of the class's own (Romano et al., eq. 8)."""
    ordered, classes = probs.sort(stable=True, dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.empty_like(probs).scatter_(-1, classes, before + draws[:, None] * ordered)


_SCORES: dict[str, Callable[[Probs, Float64[Tensor, "example"]], Float64[Tensor, "example class"]]] = {
    "lac": _lac,
    "aps": _aps,
}
