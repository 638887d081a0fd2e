"""Pairwise differences between the predictions of members: disagreement and KL divergence."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.models.mixture import image_parts


def opinions(logits: Float[Tensor, "draw member image class"]) -> Float64[Tensor, "member image class"]:
    """Compute each member's log-probabilities, from the mean of the probabilities over its draws."""
    return logits.double().log_softmax(-1).logsumexp(0) - math.log(len(logits))


def differences(
    log_probs: Float64[Tensor, "member image class"],
) -> tuple[Float64[Tensor, "member member"], Float64[Tensor, "member member"]]:
    """For each pair of members, count the images with different predicted classes, and sum ``KL(p_i ‖ p_j)``.

    Args:
        log_probs: the members' log-probabilities (`opinions`), for a few images at a time.

    Returns:
        Sums over images. The row index is the first argument of KL.
    """
    labels, rows = log_probs.argmax(-1), log_probs.flatten(1)
    cross = rows.exp() @ rows.T
    return (labels[:, None] != labels).sum(-1).double(), cross.diag()[:, None] - cross


def mean_of_pairs(matrix: Float[Tensor, "member member"]) -> float:
    """Compute the mean over all ordered pairs of different members."""
    count = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()).item() / (count * (count - 1))


def mean_differences(logits: Float[Tensor, "draw member image class"]) -> tuple[float, float]:
    """Compute the members' disagreement and KL divergence, averaged over images and pairs of members.

    Args:
        logits: the logits of at least two members; converted to float64 a few images at a time.

    Returns:
        The fraction of images on which two members predict different classes, and ``KL(p_i ‖ p_j)`` in nats.

    >>> mean_differences(torch.tensor([[[[50.0, 0.0], [50.0, 0.0]], [[0.0, 50.0], [50.0, 0.0]]]]))
    (0.5, 25.0)
    """
    disagreement, kl = torch.zeros(2, logits.shape[1], logits.shape[1], dtype=torch.float64)
    for part, _ in image_parts(logits):
        part_disagreement, part_kl = differences(opinions(part).cpu())
        disagreement += part_disagreement
        kl += part_kl
    images = logits.shape[2]
    # The mean KL can only be negative by rounding error.
    return mean_of_pairs(disagreement) / images, max(0.0, mean_of_pairs(kl) / images)
