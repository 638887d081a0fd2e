"""Mixtures of classifiers: the mean of the probabilities of draws and members, each an equal component."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_AT_A_TIME = 2**18  # logits


def mixture_log_probs(logits: Float[Tensor, "draw member batch class"]) -> Float64[Tensor, "batch class"]:
    """The log of the mean of the probabilities over draws and members, each an equal component of a mixture.

    ``p(y|x) = mean_i softmax(logits_i)_y``, in log space, so that a probability too small for a float keeps its log.
    The mean of the logits would be another model (deep ensembles, arXiv 1612.01474, section 2.4).

    Args:
        logits: of any floating type; a few images at a time are in memory in float64.

    >>> sure, unsure = torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    >>> mixture_log_probs(torch.stack([sure, unsure])[None]).exp()
    tensor([[0.2502, 0.7498]], dtype=torch.float64)
    """
    num_draws, num_members, num_images, num_classes = logits.shape
    found = torch.empty(num_images, num_classes, dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        found[images] = part.flatten(0, 1).double().log_softmax(-1).logsumexp(0)
    return found - math.log(num_draws * num_members)


def image_parts(
    logits: Float[Tensor, "draw member batch class"],
) -> Iterator[tuple[Float[Tensor, "draw member part class"], slice]]:
    """The logits of a few images at a time; of these, arrays in float64 are small.

    What is kept of a part belongs into an array that was there before: a small one that is made between large ones,
    and stays, takes their place in memory, which then grows with every part.

    Args:
        logits: also ones that are larger than the memory, and mapped from a file.

    Yields:
        Views, in order, each of as many images as have about 250,000 logits and of at least one; and which they are.
    """
    draws, members, num_images, classes = logits.shape
    size = max(1, _AT_A_TIME // (draws * members * classes))
    for first in range(0, num_images, size):
        images = slice(first, first + size)
        yield logits[:, :, images], images
