"""The one step that split conformal methods share: a threshold for scores that examples set aside have."""

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_values
from bayes_share.tensors.seeding import generator, seed_from


@dataclass(frozen=True)
class Threshold:
    """What a score must not exceed.

    A target whose score equals the threshold is let in where its tie-breaker, a uniform random number, is not above
    the threshold's own.

    Args:
        score: the threshold; infinite where there are too few examples to exclude anything.
        tie: from 0 to 1.
    """

    score: float
    tie: float

    def admits(self, scores: Float64[Tensor, "..."], ties: Float64[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Which scores do not exceed it, with ties broken."""
        return (scores < self.score) | ((scores == self.score) & (ties <= self.tie))


def fit_threshold(scores: Float64[Tensor, "example"], ties: Float64[Tensor, "example"], alpha: float) -> Threshold:
    """The ``⌈(n + 1)(1 − α)⌉``-th smallest of n scores; infinity where there are not so many.

    The score of one more exchangeable example exceeds it with a probability of at most α, and of at least α − 1/(n + 1)
    (Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173, theorem 2.2). Ties are broken at random, so that both bounds
    hold for scores of any distribution.

    Args:
        scores: of n examples on which nothing was fitted or chosen; larger is worse.
        ties: a uniform random number for each.
        alpha: the miscoverage that is allowed, between 0 and 1.

    Raises:
        InputError: another alpha, no scores, or NaN among them.

    >>> scores = torch.arange(19.0).double()
    >>> [fit_threshold(scores, torch.zeros(19).double(), alpha).score for alpha in (0.5, 0.05, 0.04)]
    [9.0, 18.0, inf]
    """
    check_alpha(alpha)
    check_values("scores", scores)
    rank = rank_of(alpha, len(scores))
    if rank > len(scores):
        return Threshold(torch.inf, 1.0)
    by_tie = ties.argsort()
    chosen = by_tie[scores[by_tie].argsort(stable=True)][rank - 1]
    return Threshold(scores[chosen].item(), ties[chosen].item())


def rank_of(alpha: float, count: int) -> int:
    """Which of so many scores, from the smallest, is the threshold: ``⌈(n + 1)(1 − α)⌉``; n + 1 where none is.

    Args:
        alpha: the miscoverage that is allowed.
        count: how many scores there are.

    >>> rank_of(0.1, 99), rank_of(0.05, 10)
    (90, 11)
    """
    # Exact: (n + 1)(1 − α) in floating point may be a little above the whole number that it is.
    return count + 1 - int(Fraction(str(float(alpha))) * (count + 1))


def check_alpha(alpha: float) -> None:
    """Raise an InputError where a miscoverage is not between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha, the miscoverage, must be between 0 and 1, and is {alpha}")


def seed_for(seed: int, *values: Tensor) -> int:
    """A seed that depends on the numbers in some tensors too: the same for the same data, and fresh for other data.

    With one seed for all data, the same random numbers would meet every data set, and coverage, which is an average
    over them, would be off.
    """
    digest = blake2b(digest_size=8)
    for each in values:
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())
    return seed_from(seed, "conformal", digest.hexdigest())


def uniform(seed: int, what: str, *shape: int) -> Float64[Tensor, "..."]:
    """Uniform random numbers of a purpose, from 0 to 1."""
    return torch.rand(*shape, dtype=torch.float64, generator=generator(seed, what))
