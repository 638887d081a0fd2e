"""The common step of split conformal methods: a threshold fitted to the scores of calibration examples."""

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
    """The threshold of a conformity score.

    A score equal to the threshold is admitted if its tie-breaker, a uniform random number, is at most that of the
    threshold.

    Args:
        score: the threshold; infinite if there are too few calibration examples to exclude anything.
        tie: the tie-breaker of the threshold, from 0 to 1.
    """

    score: float
    tie: float

    def admits(self, scores: Float64[Tensor, "..."], ties: Float64[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return which scores are admitted."""
        return (scores < self.score) | ((scores == self.score) & (ties <= self.tie))


def fit_threshold(scores: Float64[Tensor, "example"], ties: Float64[Tensor, "example"], alpha: float) -> Threshold:
    """Return the ``⌈(n + 1)(1 − α)⌉``-th smallest of n scores, or infinity if this rank is larger than n.

    The score of a new exchangeable example exceeds the threshold with a probability of at most α and at least
    α − 1/(n + 1) (Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173, theorem 2.2). Ties are broken at random, so that
    both bounds hold for any distribution of scores.

    Args:
        scores: scores of n examples not used for fitting or selection; larger is less plausible.
        ties: a uniform random number for each score.
        alpha: the allowed miscoverage, between 0 and 1.

    Raises:
        InputError: if alpha is out of range, there are no scores, or a score is NaN.

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
    """Return the rank of the threshold among n scores, ``⌈(n + 1)(1 − α)⌉``; n + 1 means that there is none.

    Args:
        alpha: the allowed miscoverage.
        count: the number of scores, n.

    >>> rank_of(0.1, 99), rank_of(0.05, 10)
    (90, 11)
    """
    # Exact arithmetic: (n + 1)(1 − α) in floating point can be slightly above an integer.
    return count + 1 - int(Fraction(str(float(alpha))) * (count + 1))


def check_alpha(alpha: float) -> None:
    """Raise InputError if a miscoverage is not between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha, the miscoverage, must be between 0 and 1, and is {alpha}")


def seed_for(seed: int, *values: Tensor) -> int:
    """Derive a seed from a seed and the values of tensors.

    Coverage is an average over the random numbers, so different data must get different random numbers.
    """
    digest = blake2b(digest_size=8)
    for each in values:
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())
    return seed_from(seed, "conformal", digest.hexdigest())


def uniform(seed: int, what: str, *shape: int) -> Float64[Tensor, "..."]:
    """Draw uniform random numbers from 0 to 1 for a named purpose."""
    return torch.rand(*shape, dtype=torch.float64, generator=generator(seed, what))
