"""Predictive uncertainty and its decomposition into aleatoric and epistemic parts."""

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
    """Measures of uncertainty for each image; larger is more uncertain.

    Args:
        entropy: ``[image]``, the entropy of the mixture, in nats: the total uncertainty, at most the log of the number
            of classes.
        expected_entropy: ``[image]``, the mean entropy of the components, in nats: the aleatoric part, for example
            from overlapping classes.
        mutual_information: ``[image]``, the difference of the two, in nats: the epistemic part, the disagreement
            between components.
        variation_ratio: ``[image]``, the share of components that do not predict the most frequently predicted class.
    """

    entropy: Float64[Tensor, "image"]
    expected_entropy: Float64[Tensor, "image"]
    mutual_information: Float64[Tensor, "image"]
    variation_ratio: Float64[Tensor, "image"]


def uncertainty(outputs: Outputs | Float[Tensor, "draw member image class"]) -> Uncertainty:
    """Decompose the predictive uncertainty of each image.

    ``H[mean_i p_i] = mean_i H[p_i] + I``, where each member of each draw is a component (Depeweg et al. 2018, arXiv
    1710.07283, eq. 3; I is the score of BALD, arXiv 1112.5745). The variation ratio is that of Freeman 1965.

    Args:
        outputs: outputs or predictions; for a Bernoulli likelihood, each label is a two-class problem, and the measures
            are averaged over the labels. Or class logits of any floating type; for a single binary output, use
            `two_class_logits`. They are converted to float64 a few images at a time.

    Raises:
        InputError: if the axes are wrong, there is a single class, or a logit is not finite.

    Two members that are certain of different classes:

    >>> found = uncertainty(torch.tensor([[[[1000.0, 0.0]], [[0.0, 1000.0]]]]))
    >>> torch.stack([found.entropy, found.expected_entropy, found.mutual_information, found.variation_ratio]).T
    tensor([[0.6931, 0.0000, 0.6931, 0.5000]], dtype=torch.float64)
    """
    if isinstance(outputs, Outputs):
        return mean_over_labels(_of_class_logits(problem.logits) for problem in outputs.problems())
    check_logits(outputs)
    return _of_class_logits(outputs.detach())


def _of_class_logits(logits: Float[Tensor, "draw member image class"]) -> Uncertainty:
    entropy, expected_entropy, ratio = torch.empty(3, logits.shape[2], dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        components = part.flatten(0, 1).double().log_softmax(-1)
        entropy[images] = _entropy(components.logsumexp(0) - math.log(len(components)))
        expected_entropy[images] = _entropy(components).mean(0)
        votes = components.argmax(-1)
        ratio[images] = 1 - (votes == votes.mode(0).values).double().mean(0)
    # Non-negative by Jensen's inequality, up to rounding.
    information = (entropy - expected_entropy).clamp(min=0)
    return Uncertainty(entropy, expected_entropy, information, ratio)


def _entropy(log_probs: Float64[Tensor, "... class"]) -> Float64[Tensor, "..."]:
    return (log_probs.exp() * -log_probs).sum(-1)
