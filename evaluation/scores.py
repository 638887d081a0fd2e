"""How good predicted probabilities are: accuracy and two proper scores, each the mean over images."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bayes_share.evaluation.calibration import ece
from bayes_share.evaluation.checks import check_logits, check_probs
from bayes_share.evaluation.predictions import Predictions, log_probs


def accuracy(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The share of images whose most probable class is the right one; among equals the first class counts.

    Args:
        probs: each row sums to 1.
        labels: the right classes.

    Raises:
        InputError: what `check_probs` refuses, NaN among it; says where.

    >>> import torch
    >>> accuracy(torch.tensor([[0.7, 0.3], [0.6, 0.4]]), torch.tensor([0, 1]))
    0.5
    """
    check_probs(probs, labels)
    return (probs.argmax(-1) == labels).double().mean().item()


def nll(log_probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The mean negative log-likelihood of the right classes, in nats.

    Args:
        log_probs: the logs of probabilities; each row of probabilities sums to 1.
        labels: the right classes.

    Raises:
        InputError: what `check_probs` refuses, NaN among it; says where.

    >>> import torch
    >>> round(nll(torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log(), torch.tensor([0, 1])), 6)  # log(8) / 2
    1.039721
    """
    log_probs = log_probs.double()
    check_probs(log_probs.exp(), labels)
    return F.nll_loss(log_probs, labels).item()


def brier(probs: Float[Tensor, "image class"], labels: Int64[Tensor, "image"]) -> float:
    """The Brier score: the squared distance to the one-hot label, summed over the classes; 0 is best, 2 is worst.

    Brier 1950, "Verification of forecasts expressed in terms of probability", eq. 2. Some divide it by the number of
    classes; this one does not.

    Args:
        probs: each row sums to 1.
        labels: the right classes.

    Raises:
        InputError: what `check_probs` refuses, NaN among it; says where.

    >>> import torch
    >>> brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))  # (0.5 + 2) / 2
    1.25
    """
    check_probs(probs, labels)
    errors = probs.double() - F.one_hot(labels, probs.shape[-1])
    return errors.square().sum(-1).mean().item()


def member_nll(logits: Float[Tensor, "draw member image class"], labels: Int64[Tensor, "image"]) -> float:
    """The mean of the NLLs that each member of each draw has on its own.

    Never below the NLL of their mixture (Jensen); the difference is what mixing them brings.

    Args:
        logits: of all draws and members.
        labels: the right classes.

    Raises:
        InputError: wrong axes or labels, or a logit that is not finite.

    >>> import torch
    >>> round(member_nll(torch.tensor([[[[0.0, 0.0]], [[0.0, 3.0]]]]).log_softmax(-1), torch.tensor([1])), 6)
    0.370867
    """
    check_logits(logits)
    components = logits.flatten(0, 1)
    return sum(nll(component.double().log_softmax(-1), labels) for component in components) / len(components)


@dataclass(frozen=True)
class Scores:
    """The scores of one file of predictions.

    Args:
        accuracy: see `accuracy`, 0 to 1.
        nll: see `nll`, of the mixture, in nats.
        brier: see `brier`, 0 to 2.
        ece: see `bayes_share.evaluation.calibration.ece`, 0 to 1.
        member_nll: see `member_nll`, in nats.
        num_images: images.
        num_draws: draws.
        num_members: members of each draw.
    """

    accuracy: float
    nll: float
    brier: float
    ece: float
    member_nll: float
    num_images: int
    num_draws: int
    num_members: int


def score(predictions: Predictions, bins: int = 15) -> Scores:
    """All scores of predictions, of the mean of the probabilities of all draws and members.

    Args:
        predictions: logits and labels.
        bins: of the ECE.

    Raises:
        InputError: no bins.

    >>> import torch
    >>> logits = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()[None, None]
    >>> scores = score(Predictions(logits, labels=torch.tensor([0, 1])))
    >>> scores.accuracy, round(scores.nll, 4), round(scores.brier, 4), round(scores.ece, 4), scores.num_images
    (0.5, 1.0397, 0.8125, 0.625, 2)
    """
    logits, labels = predictions.logits, predictions.labels
    mixture = log_probs(logits)
    probs = mixture.exp()
    num_draws, num_members, num_images, _ = logits.shape
    return Scores(
        accuracy=accuracy(probs, labels),
        nll=nll(mixture, labels),
        brier=brier(probs, labels),
        ece=ece(probs, labels, bins),
        member_nll=member_nll(logits, labels),
        num_images=num_images,
        num_draws=num_draws,
        num_members=num_members,
    )
