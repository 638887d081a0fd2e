"""The expected log predictive density (elpd) on test data, and its differences between runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.positions import sums_by_example
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.evaluation.scores import per_image


@dataclass(frozen=True, eq=False)
class Elpd:
    """The elpd of a test set, as opposed to an estimate by leave-one-out on training data.

    Args:
        elpd: the sum over images, in nats; larger is better.
        error: its standard error; None for one image.
        pointwise: ``[image]``, the log-probability of the label under the mixture.
    """

    elpd: float
    error: float | None
    pointwise: Float64[Tensor, "image"]

    @property
    def mean(self) -> float:
        """The elpd per image, which is the negative NLL; per example if examples have several positions."""
        return self.elpd / len(self.pointwise)


@dataclass(frozen=True)
class ElpdDifference:
    """The difference in elpd between a run and the best run.

    Args:
        name: the name of the run.
        elpd: the elpd of the run.
        difference: its elpd minus that of the best run; 0 for the best run.
        error: standard error of the paired difference over images; None for one image.
    """

    name: str
    elpd: float
    difference: float
    error: float | None


def elpd(predictions: Predictions) -> Elpd:
    """Compute the elpd of a test set: the sum over images of ``log p(label)`` under the mixture of draws and members.

    The standard error is ``√n · sd`` of the terms (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544, eq. 23).

    For several labels, the term of an image is the mean over its labels, so that the mean over images is the negative
    NLL. For several positions, the term of an example is the sum over its positions.

    Args:
        predictions: predictions for images not used in training.

    >>> found = elpd(Predictions(torch.tensor([[[[0.5, 0.5], [0.75, 0.25]]]]).log(), labels=torch.tensor([0, 1])))
    >>> round(found.elpd, 4), round(found.error, 4)
    (-2.0794, 0.6931)
    """
    check_kind(predictions)
    terms = [per_image(problem.log_probs.cpu(), problem.labels.cpu())["nll"] for problem in predictions.problems()]
    pointwise, _ = sums_by_example(-torch.stack(terms).mean(0), predictions.examples)
    return Elpd(pointwise.sum().item(), _error(pointwise), pointwise)


def elpd_differences(runs: Mapping[str, Predictions]) -> list[ElpdDifference]:
    """Sort runs by their test-set elpd, best first, and compute their paired differences from the best run.

    The error of a difference is ``√n · sd`` of the differences per image (arXiv 1507.04544, eq. 24), in which the
    difficulty of an image that affects both runs cancels.

    Args:
        runs: predictions of the same images, by name.

    Raises:
        InputError: if there are no runs, or their labels differ.
    """
    if not runs:
        raise InputError("there are no runs to compare")
    first, *others = runs
    for name in others:
        if not torch.equal(runs[name].labels.cpu(), runs[first].labels.cpu()):
            raise InputError(f"{first} and {name} are predictions for different examples: their labels differ")
    found = {name: elpd(predictions) for name, predictions in runs.items()}
    names = sorted(found, key=lambda name: found[name].elpd, reverse=True)
    best = found[names[0]]
    return [
        ElpdDifference(
            name, found[name].elpd, found[name].elpd - best.elpd, _error(found[name].pointwise - best.pointwise)
        )
        for name in names
    ]


def _error(terms: Float64[Tensor, "image"]) -> float | None:
    return None if len(terms) == 1 else math.sqrt(len(terms)) * terms.std().item()
