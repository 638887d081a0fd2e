"""Mixtures of classifiers: the mean of the probabilities of draws and members, each an equal component."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError

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


def best_members(log_probs: Float[Tensor, "draw member image"], count: int) -> list[int]:
    """The members whose mixture gives what was observed the highest probability, chosen one by one.

    Each step adds the member, of those not chosen yet, with which the mixture of all chosen has the lowest NLL; of
    equal ones the first (Caruana et al. 2004, "Ensemble selection from libraries of models", without replacement).

    Args:
        log_probs: of what was observed, under each member of each draw.
        count: how many members are chosen, at most all.

    Returns:
        Their numbers, in the order in which they were chosen.

    Raises:
        InputError: what `check_count` says.

    >>> best_members(torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.1, 0.8]]]).log(), 2)
    [0, 2]
    """
    check_count(count, log_probs.shape[1])
    each = log_probs.double().logsumexp(0)  # times the number of draws, which all have
    mixture = torch.full_like(each[0], -math.inf)
    chosen: list[int] = []
    for _ in range(count):
        with_one_more = torch.logaddexp(mixture, each)
        log_lik = with_one_more.mean(-1).tolist()
        best = max((member for member in range(len(each)) if member not in chosen), key=log_lik.__getitem__)
        mixture = with_one_more[best]
        chosen.append(best)
    return chosen


def check_count(count: int, members: int) -> None:
    """Raise an InputError where so many members cannot be chosen of those that there are."""
    if members == 1:
        raise InputError("there is one network: members are kept of an ensemble, and draws are no members")
    if type(count) is not int or not 1 <= count <= members:
        raise InputError(f"from 1 to {members} members can be kept, not {count!r}")


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
