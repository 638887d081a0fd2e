"""Log-probabilities from logits: of the mixture of draws and members, and of each component."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from bayes_share.evaluation.checks import check_labels, check_logits
from bayes_share.models.mixture import image_parts, mixture_log_probs


def log_probs(logits: Float[Tensor, "draw member image class"]) -> Float64[Tensor, "image class"]:
    """Compute the log of the mean probability over all draws and members.

    The draws and members are a mixture: ``p(y|x) = mean_i softmax(logits_i)_y``, computed in float64 and in log space
    to avoid underflow. Averaging the logits instead would give a different model, a product of experts (deep ensembles,
    arXiv 1612.01474, section 2.4; BatchEnsemble, arXiv 2002.06715, section 3.1).

    Args:
        logits: logits of any floating type. They are converted to float64 a few images at a time.

    Raises:
        InputError: if the axes are wrong, or a logit is not finite.

    Two members, of which one is certain of class 0 and one is undecided:

    >>> log_probs(torch.tensor([[[[100.0, 0.0]], [[0.0, 0.0]]]])).exp()
    tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    check_logits(logits)
    return mixture_log_probs(logits)


def label_log_probs(
    logits: Float[Tensor, "draw member image class"], labels: Int64[Tensor, "image"]
) -> Float64[Tensor, "draw member image"]:
    """Compute the log-probability of the label of each image under each component, in float64 and in nats.

    Args:
        logits: logits of any floating type. They are converted to float64 a few images at a time.
        labels: the right classes.

    Raises:
        InputError: if the axes or labels are wrong, or a logit is not finite.

    >>> label_log_probs(torch.tensor([[[[0.0, 0.0]], [[0.0, 3.0]]]]), torch.tensor([1]))
    tensor([[[-0.6931],
             [-0.0486]]], dtype=torch.float64)
    """
    check_logits(logits)
    check_labels(labels, *logits.shape[-2:])
    labels = labels.to(logits.device)
    found = torch.empty(*logits.shape[:-1], dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        chosen = labels[images].expand(part.shape[:-1])[..., None]
        found[:, :, images] = part.double().log_softmax(-1).gather(-1, chosen).squeeze(-1)
    return found
