"""Likelihoods: what a network's outputs say about the targets."""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Float64, Int
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


def mixture_log_probs(logits: Float[Tensor, "draw member batch class"]) -> Float64[Tensor, "batch class"]:
    """The log of the mean of the probabilities over draws and members, each an equal component of a mixture.

    ``p(y|x) = mean_i softmax(logits_i)_y``, in log space, so that a probability too small for a float keeps its log.
    The mean of the logits would be another model (deep ensembles, arXiv 1612.01474, section 2.4).

    Args:
        logits: of any floating type; one component at a time is in memory in float64.

    >>> sure, unsure = torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    >>> mixture_log_probs(torch.stack([sure, unsure])[None]).exp()
    tensor([[0.2502, 0.7498]], dtype=torch.float64)
    """
    components = logits.flatten(0, 1)
    total = reduce(torch.logaddexp, (component.double().log_softmax(-1) for component in components))
    return total - math.log(len(components))
