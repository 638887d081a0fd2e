"""How far every two members differ in what they predict."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.models.mixture import image_parts


def opinions(logits: Float[Tensor, "draw member image class"]) -> Float64[Tensor, "member image class"]:
    """The log-probabilities of each member: the mean over its draws."""
    return logits.double().log_softmax(-1).logsumexp(0) - math.log(len(logits))


def differences(
    found: Float64[Tensor, "member image class"],
) -> tuple[Float64[Tensor, "member member"], Float64[Tensor, "member member"]]:
    """Of every two members, on how many images they vote for different classes, and the sum of ``KL(p_i ‖ p_j)``.

    Args:
        found: their opinions, on a few images at a time.

    Returns:
        Sums over images; the row is the first argument of KL.
    """
    votes, rows = found.argmax(-1), found.flatten(1)
    crossed = rows.exp() @ rows.T
    return (votes[:, None] != votes).sum(-1).double(), crossed.diag()[:, None] - crossed


def mean_of_pairs(matrix: Float[Tensor, "member member"]) -> float:
    """The mean over all pairs of two members."""
    count = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()).item() / (count * (count - 1))


def mean_differences(logits: Float[Tensor, "draw member image class"]) -> tuple[float, float]:
    """The disagreement and the KL of two members, the means over images and pairs.

    Args:
        logits: of two members or more; a few images at a time are in memory in float64.

    Returns:
        The part of the images on which two vote for different classes, and ``KL(p_i ‖ p_j)`` in nats.

    >>> mean_differences(torch.tensor([[[[50.0, 0.0], [50.0, 0.0]], [[0.0, 50.0], [50.0, 0.0]]]]))
    (0.5, 25.0)
    """
    apart, kl = torch.zeros(2, logits.shape[1], logits.shape[1], dtype=torch.float64)
    for part, _ in image_parts(logits):
        more_apart, more_kl = differences(opinions(part).cpu())
        apart += more_apart
        kl += more_kl
    images = logits.shape[2]
    return mean_of_pairs(apart) / images, max(0.0, mean_of_pairs(kl) / images)  # below 0 by rounding alone
