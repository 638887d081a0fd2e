"""Scores of predicted probabilities: accuracy, NLL and Brier score, averaged over images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.binary import mean_over_labels
from bayes_share.evaluation.calibration import adaptive_ece, classwise_ece, reliability
from bayes_share.evaluation.calibration_estimates import squared_calibration_error
from bayes_share.evaluation.checks import check_probs
from bayes_share.evaluation.log_probabilities import label_log_probs
from bayes_share.evaluation.predictions import Predictions, check_kind


def accuracy(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The share of images whose most probable class is right; ties are resolved in favour of the first class.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.

    Raises:
        InputError: if `check_probs` rejects the input, for example because of NaN.

    >>> accuracy(torch.tensor([[0.7, 0.3], [0.6, 0.4]]), torch.tensor([0, 1]))
    0.5
    """
    check_probs(probs, labels)
    return _right(probs, labels).mean().item()


def top_k_accuracy(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"], k: int = 5) -> float:
    """The share of images whose right class is among the k most probable ones; ties favour the first classes.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        k: from 1, for which the result is `accuracy`, to the number of classes, for which it is 1.

    Raises:
        InputError: if k is out of range, or `check_probs` rejects the input, for example because of NaN.

    >>> top_k_accuracy(torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]), torch.tensor([1, 2]), k=2)
    0.5
    """
    check_probs(probs, labels)
    num_classes = probs.shape[-1]
    if not 1 <= k <= num_classes:
        raise InputError(f"k of the top-k accuracy must be from 1 to {num_classes}, the number of classes, and is {k}")
    chosen = probs.gather(-1, labels[:, None])
    is_before = torch.arange(num_classes, device=probs.device) < labels[:, None]
    rank = (probs > chosen).sum(-1) + ((probs == chosen) & is_before).sum(-1)
    return (rank < k).double().mean().item()


def nll(log_probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The mean negative log-likelihood of the right classes, in nats.

    Args:
        log_probs: log-probabilities; each row of probabilities sums to 1.
        labels: the right classes.

    Raises:
        InputError: if `check_probs` rejects the probabilities, for example because of NaN.

    >>> round(nll(torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log(), torch.tensor([0, 1])), 6)  # log(8) / 2
    1.039721
    """
    log_probs = log_probs.double()
    check_probs(log_probs.exp(), labels)
    return -_chosen(log_probs, labels).mean().item()


def brier(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The Brier score: the squared distance to the one-hot label, summed over classes; 0 is best, 2 is worst.

    Brier 1950, "Verification of forecasts expressed in terms of probability", eq. 2. Unlike some definitions, it is not
    divided by the number of classes.

    Args:
        probs: probabilities; each row sums to 1.
        labels: the right classes.

    Raises:
        InputError: if `check_probs` rejects the input, for example because of NaN.

    >>> brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))  # (0.5 + 2) / 2
    1.25
    """
    check_probs(probs, labels)
    return _squared_distance(probs, labels).mean().item()


def per_image(
    log_probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]
) -> dict[str, Float64[Tensor, "image"]]:
    """Compute ``accuracy`` (0 or 1), ``nll`` and ``brier`` of each image; their means are the scores.

    Args:
        log_probs: log-probabilities; each row of probabilities sums to 1.
        labels: the right classes.

    Raises:
        InputError: if `check_probs` rejects the probabilities, for example because of NaN.

    >>> per_image(torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log(), torch.tensor([0, 0]))["brier"]
    tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    log_probs = log_probs.double()
    probs = log_probs.exp()
    check_probs(probs, labels)
    return {
        "accuracy": _right(probs, labels),
        "nll": -_chosen(log_probs, labels),
        "brier": _squared_distance(probs, labels),
    }


def _right(probs: Tensor, labels: Tensor) -> Float64[Tensor, "image"]:
    return (probs.argmax(-1) == labels).double()


def _chosen(values: Tensor, labels: Tensor) -> Float64[Tensor, "image"]:
    return values.gather(-1, labels[:, None]).squeeze(-1).double()


def _squared_distance(probs: Tensor, labels: Tensor) -> Float64[Tensor, "image"]:
    """Compute ``Σ_c (p_c − 1[c = y])²`` without allocating one-hot labels."""
    probs = probs.double()
    chosen = _chosen(probs, labels)
    return probs.square().sum(-1) - chosen.square() + (1 - chosen).square()


def member_nll(logits: Float[Tensor, "draw member image class"], labels: Int64[Tensor, "image"]) -> float:
    """The NLL of each member of each draw, averaged over all of them.

    By Jensen's inequality it is at least the NLL of the mixture; the difference is the gain from averaging.

    Args:
        logits: logits of all draws and members.
        labels: the right classes.

    Raises:
        InputError: if the axes or labels are wrong, or a logit is not finite.

    >>> round(member_nll(torch.tensor([[[[0.0, 0.0]], [[0.0, 3.0]]]]).log_softmax(-1), torch.tensor([1])), 6)
    0.370867
    """
    return -label_log_probs(logits, labels).mean().item()


@dataclass(frozen=True)
class Scores:
    """The scores of predictions.

    Args:
        accuracy: see `accuracy`, 0 to 1.
        nll: see `nll`, for the mixture, in nats.
        brier: see `brier`, 0 to 2.
        ece: see `bayes_share.evaluation.calibration.ece`, 0 to 1.
        member_nll: see `member_nll`, in nats.
        top5_accuracy: see `top_k_accuracy`, 0 to 1; None for 5 or fewer classes.
        mce: see `bayes_share.evaluation.calibration.mce`, 0 to 1.
        average_calibration_error: see `bayes_share.evaluation.calibration.average_calibration_error`, 0 to 1.
        classwise_ece: see `bayes_share.evaluation.calibration.classwise_ece`, 0 to 1.
        adaptive_ece: see `bayes_share.evaluation.calibration.adaptive_ece`, 0 to 1.
        squared_calibration_error: see `bayes_share.evaluation.calibration_estimates.squared_calibration_error`;
            can be negative by chance. Unlike the errors above it is unbiased, so runs are compared by it.
        num_images: the number of images, or of positions.
        num_draws: the number of draws.
        num_members: the number of members of each draw.
    """

    accuracy: float
    nll: float
    brier: float
    ece: float
    member_nll: float
    top5_accuracy: float | None
    mce: float
    average_calibration_error: float
    classwise_ece: float
    adaptive_ece: float
    squared_calibration_error: float
    num_images: int
    num_draws: int
    num_members: int


def score(predictions: Predictions, bins: int = 15) -> Scores:
    """Compute all scores of the mixture of draws and members.

    For a Bernoulli likelihood, each label is scored as a two-class problem, and each score is the mean over labels.

    Args:
        predictions: logits and labels.
        bins: the number of bins of the calibration errors.

    Raises:
        InputError: if `bins` is less than 1, or the input is not a `Predictions`.

    >>> logits = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()[None, None]
    >>> scores = score(Predictions(logits, labels=torch.tensor([0, 1])))
    >>> scores.accuracy, round(scores.nll, 4), round(scores.brier, 4), round(scores.ece, 4), scores.num_images
    (0.5, 1.0397, 0.8125, 0.625, 2)
    """
    check_kind(predictions)
    return mean_over_labels(_score(problem, bins) for problem in predictions.problems())


def _score(predictions: Predictions, bins: int) -> Scores:
    logits, labels = predictions.logits, predictions.labels
    mixture = predictions.log_probs
    probs = mixture.exp()
    num_draws, num_members, num_images, num_classes = logits.shape
    calibration = reliability(probs, labels, bins)
    return Scores(
        accuracy=accuracy(probs, labels),
        nll=nll(mixture, labels),
        brier=brier(probs, labels),
        ece=calibration.ece,
        member_nll=member_nll(logits, labels),
        top5_accuracy=top_k_accuracy(probs, labels) if num_classes > 5 else None,
        mce=calibration.mce,
        average_calibration_error=calibration.average_calibration_error,
        classwise_ece=classwise_ece(probs, labels, bins),
        adaptive_ece=adaptive_ece(probs, labels, bins),
        squared_calibration_error=squared_calibration_error(probs, labels, bins, predictions.examples),
        num_images=num_images,
        num_draws=num_draws,
        num_members=num_members,
    )
