"""Likelihoods: what a network's outputs say about the targets."""

from dataclasses import dataclass

import math
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Categorical:
    """One of several classes, with the softmax of the outputs as their probabilities."""

    def log_lik(
        self, logits: Float[Tensor, "member batch class"], labels: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """The log probability of each label under each member, in nats and at least in float32."""
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return -torch.nn.functional.cross_entropy(precise.movedim(-1, 1), labels, reduction="none")

    def correct(
        self, logits: Float[Tensor, "member batch class"], labels: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member batch"]:
        """1 where the most probable class is the label, else 0."""
        return (logits.argmax(-1) == labels).float()


def mixture_log_probs(logits: Float[Tensor, "draw member batch class"]) -> Float[Tensor, "batch class"]:
    """The log of the mean of the probabilities over draws and members, each an equal component of a mixture.

    Computed in log space and in float64. Means of logits would be another model's prediction.

    >>> sure, unsure = torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    >>> mixture_log_probs(torch.stack([sure, unsure])[None]).exp()
    tensor([[0.2502, 0.7498]], dtype=torch.float64)
    """
    log_probs = logits.double().log_softmax(-1).flatten(0, 1)
    return log_probs.logsumexp(0) - math.log(log_probs.shape[0])
