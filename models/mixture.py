"""Mixtures of classifiers: the mean of the class probabilities over draws and members."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.errors import InputError

_AT_A_TIME = 2**18  # logits that are converted to float64 at a time


def mixture_log_probs(logits: Float[Tensor, "draw member batch class"]) -> Float64[Tensor, "batch class"]:
    """Compute the log of the mean class probability over draws and members, all with equal weight.

    ``p(y|x) = mean_i softmax(logits_i)_y``, computed in log space to avoid underflow. Averaging the logits instead
    would define a different model (deep ensembles, arXiv 1612.01474, section 2.4).

    Args:
        logits: logits of any floating dtype; converted to float64 a few images at a time.

    >>> confident, uncertain = torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    >>> mixture_log_probs(torch.stack([confident, uncertain])[None]).exp()
    tensor([[0.2502, 0.7498]], dtype=torch.float64)
    """
    num_draws, num_members, num_images, num_classes = logits.shape
    log_sums = torch.empty(num_images, num_classes, dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        log_sums[images] = part.flatten(0, 1).double().log_softmax(-1).logsumexp(0)
    return log_sums - math.log(num_draws * num_members)


def best_members(log_probs: Float[Tensor, "draw member image"], count: int) -> list[int]:
    """Select members greedily so that their mixture has the lowest NLL.

    Each step adds the member that gives the lowest NLL of the mixture of all selected members; ties go to the first
    member (Caruana et al. 2004, "Ensemble selection from libraries of models", without replacement).

    Args:
        log_probs: the log probability of each target under each member of each draw.
        count: the number of members to select.

    Returns:
        The members' indices, in the order of selection.

    Raises:
        InputError: as `check_count`.

    >>> best_members(torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.1, 0.8]]]).log(), 2)
    [0, 1]
    """
    check_count(count, log_probs.shape[1])
    members = log_probs.double().logsumexp(0)  # not divided by the number of draws, which is the same for all members
    mixture = torch.full_like(members[0], -math.inf)
    chosen: list[int] = []
    for _ in range(count):
        with_one_more = torch.logaddexp(mixture, members)
        log_lik = with_one_more.mean(-1).tolist()
        best = max((member for member in range(len(members)) if member not in chosen), key=log_lik.__getitem__)
        mixture = with_one_more[best]
        chosen.append(best)
    return chosen


def check_count(count: int, members: int) -> None:
    """Raise InputError unless `count` of the `members` members can be selected."""
    if members == 1:
        raise InputError("selecting members requires an ensemble: a single network has draws but no members")
    if type(count) is not int or not 1 <= count <= members:
        raise InputError(f"from 1 to {members} members can be kept, not {count!r}")


def image_parts(
    logits: Float[Tensor, "draw member batch class"],
) -> Iterator[tuple[Float[Tensor, "draw member part class"], slice]]:
    """Iterate over the logits a few images at a time, so that intermediate float64 arrays stay small.

    Write results into a preallocated array. Small results that are allocated between the large intermediate arrays
    fragment the memory, which then grows with every part.

    Args:
        logits: the logits; they may be memory-mapped and larger than the memory.

    Yields:
        Views in order, each of about 250,000 logits and at least one image, with the slice of their images.
    """
    draws, members, num_images, classes = logits.shape
    size = max(1, _AT_A_TIME // (draws * members * classes))
    for first in range(0, num_images, size):
        images = slice(first, first + size)
        yield logits[:, :, images], images
