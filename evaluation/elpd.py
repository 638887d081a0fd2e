"""The expected log predictive density on test data, and how much runs differ in it."""

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
    """A test-set elpd; not one by leaving out training data (LOO).

    Args:
        elpd: the sum over images, in nats; larger is better.
        error: its standard error; None for one image.
        pointwise: ``[image]``, the log of the mixture's probability of the label.
    """

    elpd: float
    error: float | None
    pointwise: Float64[Tensor, "image"]

    @property
    def mean(self) -> float:
        """Per image: the negative NLL; per example where these have several positions."""
        return self.elpd / len(self.pointwise)


@dataclass(frozen=True)
class ElpdDifference:
    """How far a run is from the best.

    Args:
        name: of the run.
        elpd: its own.
        difference: its elpd less the best one's; 0 for the best itself.
        error: standard error of the difference, image by image; None for one image.
    """

    name: str
    elpd: float
    difference: float
    error: float | None


def elpd(predictions: Predictions) -> Elpd:
    """The test-set elpd: the sum over images of ``log p(label)``, of the mean over all draws and members.

    The standard error is ``√n · sd`` of the images' terms (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544, eq. 23).

    Of several labels an image's term is the mean over its labels, so that the mean over images is the negative NLL. Of
    several positions an example's term is the sum over them.

    Args:
        predictions: of images that were not trained on.

    >>> found = elpd(Predictions(torch.tensor([[[[0.5, 0.5], [0.75, 0.25]]]]).log(), labels=torch.tensor([0, 1])))
    >>> round(found.elpd, 4), round(found.error, 4)
    (-2.0794, 0.6931)
    """
    check_kind(predictions)
    terms = [per_image(problem.log_probs.cpu(), problem.labels.cpu())["nll"] for problem in predictions.problems()]
    pointwise, _ = sums_by_example(-torch.stack(terms).mean(0), predictions.examples)
    return Elpd(pointwise.sum().item(), _error(pointwise), pointwise)


def elpd_differences(runs: Mapping[str, Predictions]) -> list[ElpdDifference]:
    """The runs by their test-set elpd, the best first, and their paired differences to it.

    The error of a difference is ``√n · sd`` of the images' differences (arXiv 1507.04544, eq. 24): what makes an image
    hard for both runs cancels.

    Args:
        runs: predictions of the same images, by name.

    Raises:
        InputError: no runs, or labels that are not the same.
    """
    if not runs:
        raise InputError("there are no runs to compare")
    first, *others = runs
    for name in others:
        if not torch.equal(runs[name].labels.cpu(), runs[first].labels.cpu()):
            raise InputError(f"{first} and {name} have different examples: their labels differ")
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
