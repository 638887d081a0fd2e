"""How unsure predictions are, and of what: of the label, or of the model."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.evaluation.binary import mean_over_labels
from bayes_share.evaluation.checks import check_logits
from bayes_share.evaluation.predictions import Outputs
from bayes_share.models.mixture import image_parts


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Measures of each image's uncertainty; larger is less sure.

    Args:
        entropy: ``[image]``, of the mixture, in nats: all uncertainty, at most the log of the number of classes.
        expected_entropy: ``[image]``, the mean of the components' entropies: what each draw and member is unsure of by
            itself, as where the classes overlap (aleatoric).
        mutual_information: ``[image]``, the difference: how much the components contradict each other (epistemic).
        variation_ratio: ``[image]``, the share of components that do not vote for the class with the most votes.
    """

    entropy: Float64[Tensor, "image"]
    expected_entropy: Float64[Tensor, "image"]
    mutual_information: Float64[Tensor, "image"]
    variation_ratio: Float64[Tensor, "image"]


def uncertainty(outputs: Outputs | Float[Tensor, "draw member image class"]) -> Uncertainty:
    """Divide each image's uncertainty into what the components share and what they disagree on.

    ``H[mean_i p_i] = mean_i H[p_i] + I``, where every member of every draw is a component of its own (Depeweg et al.
    2018, arXiv 1710.07283, eq. 3; I is BALD's, arXiv 1112.5745). The variation ratio is of Freeman 1965, by votes.

    Args:
        outputs: predictions, where each label of a Bernoulli likelihood is a problem of two classes, and the measures
            are means over the labels; or the logits of classes, of any floating type (of one binary output:
            `two_class_logits`). A few images at a time are in memory in float64.

    Raises:
        InputError: wrong axes, a single class, or a logit that is not finite.

    Two members, each sure of another class:

    >>> found = uncertainty(torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]]))
    >>> torch.stack([found.entropy, found.expected_entropy, found.mutual_information, found.variation_ratio]).T
    tensor([[0.6931, 0.0000, 0.6931, 0.5000]], dtype=torch.float64)
    """
    if isinstance(outputs, Outputs):
        return mean_over_labels(_of_logits(problem.logits) for problem in outputs.problems())
    check_logits(outputs)
    return _of_logits(outputs.detach())


def _of_logits(logits: Float[Tensor, "draw member image class"]) -> Uncertainty:
    entropy, expected_entropy, ratio = torch.empty(3, logits.shape[2], dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        components = part.flatten(0, 1).double().log_softmax(-1)
        entropy[images] = _entropy(components.logsumexp(0) - math.log(len(components)))
        expected_entropy[images] = _entropy(components).mean(0)
        votes = components.argmax(-1)
        ratio[images] = 1 - (votes == votes.mode(0).values).double().mean(0)
    # Jensen's inequality says that it is not negative, but rounding does not know.
    information = (entropy - expected_entropy).clamp(min=0)
    return Uncertainty(entropy, expected_entropy, information, ratio)


def _entropy(log_probs: Float64[Tensor, "... class"]) -> Float64[Tensor, "..."]:
    return (log_probs.exp() * -log_probs).sum(-1)
